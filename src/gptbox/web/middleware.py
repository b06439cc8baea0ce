"""ASGI middleware, outermost first: request id and log, default headers, errors, cross-site requests, API key."""

import hmac
import logging
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptbox.errors import AccessDeniedError, CrossSiteError
from gptbox.web.endpoint import Endpoint
from gptbox.web.errors import error_response, log_unexpected_error

REQUEST_ID_HEADER = "X-Request-ID"

request_log = logging.getLogger("gptbox.requests")

_VALID_REQUEST_ID = re.compile(r"[\w.@:-]{1,64}", re.ASCII)
_CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that left before the response. It appears in the log only."""
_MAX_LOGGED_PATH = 200
"""In characters."""


class RequestIdMiddleware:
    """Gives each request an id and logs it, without prompts or query strings.

    The id is the proxy's `X-Request-ID` if that is valid, else a new one. It is stored in `scope["request_id"]` and
    sent in the response's header. Endpoints add fields to the log record through `scope["log_fields"]`.
    """

    def __init__(self, app: ASGIApp, endpoints: Sequence[Endpoint]) -> None:
        self.app = app
        self._visits = {endpoint.path for endpoint in endpoints if endpoint.log == "visits"}
        self._never_logged = tuple(endpoint.path for endpoint in endpoints if endpoint.log == "never")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        scope["request_id"] = given if _VALID_REQUEST_ID.fullmatch(given) else secrets.token_hex(12)
        scope["log_fields"] = {}
        start, status = time.monotonic(), _CLIENT_CLOSED_REQUEST

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = scope["request_id"]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            if self._is_logged(scope, status):
                _log_request(scope, status, round(1000 * (time.monotonic() - start), 1))

    def _is_logged(self, scope: Scope, status: int) -> bool:
        """Whether the request is a view of the page, a generation or a failure; see `Endpoint.log`."""
        if scope["path"].startswith(self._never_logged):
            return False
        return scope["path"] in self._visits or bool(scope["log_fields"]) or status >= 400


def _log_request(scope: Scope, status: int, ms: float) -> None:
    fields: dict[str, Any] = {
        "request_id": scope["request_id"],
        "client": scope["client"][0] if scope.get("client") else None,
        "method": scope["method"],
        # Escaped, because a path may contain line breaks and terminal control characters.
        "path": quote(scope["path"])[:_MAX_LOGGED_PATH],
        "status": status,
        "ms": ms,
        **scope["log_fields"],
    }
    parts = [f"{fields['client'] or '-'} {fields['method']} {fields['path']} {status}"]
    if "completion_tokens" in fields:
        parts.append(f"{fields['completion_tokens']:,} tokens")
    request_log.info(" · ".join([*parts, f"{ms:,.0f} ms", scope["request_id"]]), extra=fields)


class DefaultHeadersMiddleware:
    """Disables content sniffing, and caching unless the response sets `Cache-Control`.

    The proxy adds the headers of a public server.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, send_with_headers)


class UnexpectedErrorMiddleware:
    """Turns any unhandled exception into a 500 response and a log entry without the exception's message."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        response_started = False

        async def send_and_note_start(message: Message) -> None:
            nonlocal response_started
            response_started = response_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, send_and_note_start)
        except ClientDisconnect:
            pass  # there is no client left to answer
        except Exception as error:
            log_unexpected_error(error)
            if not response_started:
                await error_response(Request(scope), error)(scope, receive, send)


_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_same_host(origin: str, host: str) -> bool:
    """Whether an `Origin` and a `Host` header name the same host and port."""
    try:
        origin_url, host_url = urlsplit(origin), urlsplit(f"//{host}")
        origin_port, host_port = origin_url.port, host_url.port
    except ValueError:
        return False
    if origin_url.scheme not in _DEFAULT_PORTS or not origin_url.hostname or origin_url.hostname != host_url.hostname:
        return False
    # Browsers omit default ports. Behind a proxy that terminates TLS, the origin's is 443 and the host's may be 80.
    both_default = origin_port in (None, _DEFAULT_PORTS[origin_url.scheme]) and host_port in (
        None, *_DEFAULT_PORTS.values(),
    )  # fmt: skip
    return origin_port == host_port or both_default


class CrossSiteMiddleware:
    """Refuses requests with unsafe methods (RFC 9110, 9.2.1) that a page of another site makes a browser send.

    Otherwise any page could generate texts here through its visitors' browsers, even on a server only they can reach.
    Browsers send `Origin` with every POST, and `Sec-Fetch-Site` to https and localhost only. Programs send neither.
    Raises CrossSiteError.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in _SAFE_METHODS:
            headers = Headers(scope=scope)
            origin, host = headers.get("origin"), headers.get("host", "")
            if origin is not None and not is_same_host(origin, host):
                raise CrossSiteError(
                    f"This request comes from a page of {origin[:100]!r}, and this server is {host[:100]!r}: pages of "
                    "other sites may not send requests here. A proxy in front must pass on the Host header."
                )
            if headers.get("sec-fetch-site") == "cross-site":
                raise CrossSiteError("This request comes from a page of another site, which may not send it.")
        await self.app(scope, receive, send)


class ApiKeyMiddleware:
    """Requires `Authorization: Bearer <key>` if a key is set.

    Raises AccessDeniedError.
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self.app = app
        self.key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.key is not None:
            # Starlette decodes headers as latin-1; encoding them again restores the client's bytes.
            scheme, _, given = Headers(scope=scope).get("authorization", "").encode("latin-1").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self.key):
                raise AccessDeniedError("The API key is missing or wrong: send it as 'Authorization: Bearer KEY'.")
        await self.app(scope, receive, send)
