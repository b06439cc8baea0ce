"""An id for each request, shared with the proxy, and each visit's line in the log, without a word of what was asked."""

import logging
import re
import secrets
import time
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-ID"

log = logging.getLogger("gptbox.requests")

_GOOD = re.compile(r"[\w.@:-]{1,64}", re.ASCII)
_QUIET = ("/health", "/readyz", "/metrics", "/static/", "/api/events")
"""Asked for by machines, or by a page that has its line already. apache/httpd.conf has the same ones."""
_CLIENT_LEFT = 499
"""In the log alone, as nginx calls it: nobody was left to answer."""
_LONGEST_PATH = 200


class RequestId:
    """The proxy's id where it sends one, or a new one: in the scope, in the reply's header, and in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get(HEADER, "")
        scope["request_id"] = given if _GOOD.fullmatch(given) else secrets.token_hex(12)
        scope["facts"] = {}
        began, status = time.monotonic(), _CLIENT_LEFT

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = scope["request_id"]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            if _is_visit(scope, status):
                _log(scope, status, round(1000 * (time.monotonic() - began), 1))


def _is_visit(scope: Scope, status: int) -> bool:
    """A view of the page, a text that was written, or a failure. What the page fetches beside that is no visit."""
    if scope["path"].startswith(_QUIET):
        return False
    return scope["path"] == "/" or bool(scope["facts"]) or status >= 400


def _log(scope: Scope, status: int, ms: float) -> None:
    facts: dict[str, Any] = {
        "request_id": scope["request_id"],
        "client": scope["client"][0] if scope.get("client") else None,
        "method": scope["method"],
        # Escaped: a path may hold line breaks and a terminal's control characters.
        "path": quote(scope["path"])[:_LONGEST_PATH],
        "status": status,
        "ms": ms,
        **scope["facts"],
    }
    parts = [f"{facts['client'] or '-'} {facts['method']} {facts['path']} {status}"]
    if "completion_tokens" in facts:
        parts.append(f"{facts['completion_tokens']:,} tokens")
    log.info(" · ".join([*parts, f"{ms:,.0f} ms", scope["request_id"]]), extra=facts)
