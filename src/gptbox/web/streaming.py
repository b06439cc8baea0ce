"""Streaming responses, and work that is cancelled when its client disconnects."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gptbox.web.json import compact_json

T = TypeVar("T")


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled if the client disconnects.

    The request body must have been read before. Raises ClientDisconnect.
    """
    tasks = asyncio.create_task(work), asyncio.create_task(_wait_for_disconnect(receive))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def server_sent_event(data: Mapping[str, Any], event: str | None = None) -> bytes:
    """One server-sent event with JSON data, of type `event` if given."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {compact_json(data)}\n\n".encode()


class LiveResponse(Response):
    """Sends each chunk as soon as it is produced, and asks for the next one only when the send buffer has room.

    The headers are sent with the first chunk: an exception before it becomes an ordinary error response. Starlette's
    StreamingResponse sends them at once.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        media_type: str = "text/event-stream",
        on_close: Callable[[], None] = lambda: None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`on_close` is called once, however the response ends. `headers` are added."""
        self.chunks = chunks
        self.on_close = on_close
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        # nginx buffers streams unless X-Accel-Buffering is "no".
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        try:
            if scope["method"] == "HEAD" or not await while_connected(receive, self._send_chunks(start, send)):
                await send(start)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.on_close()

    async def _send_chunks(self, start: Message, send: Send) -> bool:
        """Send the headers and all chunks; False if there was no chunk, and nothing was sent."""
        started = False
        async for chunk in self.chunks:
            if not started:
                await send(start)
            started = True
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        return started
