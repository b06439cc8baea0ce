"""Training and server state: /api/status, the event stream /api/events, and the probes /healthz and /readyz."""

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from gptbox.web.service import get_service
from gptbox.web.streaming import LiveResponse


async def status(request: Request) -> Response:
    return JSONResponse(await to_thread.run_sync(get_service(request).status, request.query_params.get("run")))


async def events(request: Request) -> Response:
    feed = get_service(request).feed
    feed.subscribe()
    return LiveResponse(feed.events(), on_close=feed.unsubscribe)


async def healthz(request: Request) -> Response:
    """Liveness: the process responds."""
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    """Readiness: a model is loaded.

    Raises NoModelYetError, or EngineError while the engine is being compiled.
    """
    await get_service(request).live_model.resolve()
    return PlainTextResponse("ready\n")
