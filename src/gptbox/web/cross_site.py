"""Requests that a page of another site makes a browser send are refused.

Any page can make its visitors' browsers post to this server, even to one that only they can reach, and so spend the
engine's time. Browsers say where a POST comes from: `Origin` always, `Sec-Fetch-Site` only to https and localhost.
Programs send neither.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gptbox.errors import CrossSiteError

_SAFE = ("GET", "HEAD", "OPTIONS")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_same_host(origin: str, host: str) -> bool:
    """Whether the headers `Origin` and `Host` name the same host and port."""
    try:
        theirs, ours = urlsplit(origin), urlsplit(f"//{host}")
        their_port, our_port = theirs.port, ours.port
    except ValueError:
        return False
    if theirs.scheme not in _DEFAULT_PORTS or not theirs.hostname or theirs.hostname != ours.hostname:
        return False
    # Default ports are left out; a proxy that ends TLS makes https's default of http's.
    at_default = their_port in (None, _DEFAULT_PORTS[theirs.scheme]) and our_port in (None, *_DEFAULT_PORTS.values())
    return their_port == our_port or at_default


class RefuseCrossSite:
    """Refuses unsafe methods (RFC 9110) from pages of other sites.

    Raises CrossSiteError.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in _SAFE:
            headers = Headers(scope=scope)
            origin, host = headers.get("origin"), headers.get("host", "")
            if origin is not None and not is_same_host(origin, host):
                raise CrossSiteError(
                    f"This request comes from a page of {origin[:100]!r}, and this server is {host[:100]!r}: pages of "
                    "other sites may not ask for texts. A proxy in front has to pass the Host header on."
                )
            if headers.get("sec-fetch-site") == "cross-site":
                raise CrossSiteError("This request comes from a page of another site, which may not ask for texts.")
        await self.app(scope, receive, send)
