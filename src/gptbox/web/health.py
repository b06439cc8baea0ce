"""/healthz, /health and /readyz: is the process alive, and can it write?"""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gptbox.web.service import service_of


async def healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    """Raises NoModelYetError, or EngineError while the engine is being compiled."""
    await service_of(request).models.resolve()
    return PlainTextResponse("ready\n")
