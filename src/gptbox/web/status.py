"""/api/status and /api/events: how training and the server are, once and as it changes."""

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gptbox.web.service import service_of
from gptbox.web.streaming import LiveResponse


async def status(request: Request) -> Response:
    return JSONResponse(await to_thread.run_sync(service_of(request).status))


async def events(request: Request) -> Response:
    feed = service_of(request).feed
    feed.subscribe()
    return LiveResponse(feed.events(), on_close=feed.unsubscribe)
