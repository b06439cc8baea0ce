"""An id for each request, shared with the proxy, and a line in the log for each, without a word of what was asked."""

import json
import logging
import re
import secrets
import time
from datetime import UTC, datetime

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-ID"

log = logging.getLogger("gptbox.requests")

_GOOD = re.compile(r"[\w.@:-]{1,64}", re.ASCII)
_QUIET = ("/health", "/readyz", "/metrics", "/static/")
"""Asked for by machines, many times a minute."""


class RequestId:
    """The proxy's id where it sends one, or a new one: in the scope, in the reply's header, and in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get(HEADER, "")
        scope["request_id"] = given if _GOOD.fullmatch(given) else secrets.token_hex(12)
        facts = scope["facts"] = {}
        began, status = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = scope["request_id"]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            if not scope["path"].startswith(_QUIET):
                entry = {
                    "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    "request_id": scope["request_id"],
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "ms": round(1000 * (time.monotonic() - began), 1),
                    **facts,
                }
                log.info("%s", json.dumps(entry))
