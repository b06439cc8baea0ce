"""The optional API key of the endpoints for programs: /v1, /tokenize and /detokenize."""

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gptbox.errors import AccessDeniedError


class RequireKey:
    """Asks for `Authorization: Bearer <key>` where a key is set.

    Raises AccessDeniedError.
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self.app = app
        self.key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.key is not None:
            # Starlette reads header bytes as latin-1; this brings the client's own bytes back.
            scheme, _, given = Headers(scope=scope).get("authorization", "").encode("latin-1").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self.key):
                raise AccessDeniedError("The API key is missing or wrong: send it as 'Authorization: Bearer KEY'.")
        await self.app(scope, receive, send)
