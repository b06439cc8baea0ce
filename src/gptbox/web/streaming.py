"""Replies that are written piece by piece, and work that ends when its client goes away."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

T = TypeVar("T")


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away.

    Raises ClientDisconnect in that case. The request's body must have been read before.
    """
    tasks = asyncio.create_task(work), asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def compact_json(data: Any) -> str:
    """In one line of plain ASCII: some clients take other line separators in the data for the end of a line."""
    return json.dumps(data, allow_nan=False, separators=(",", ":"))


def server_sent_event(data: Mapping[str, Any], event: str | None = None) -> bytes:
    """One event."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {compact_json(data)}\n\n".encode()


class LiveResponse(Response):
    """Sends each chunk as it comes. The next one is asked for only when the client has taken most of the last.

    The headers go with the first chunk: an exception before it is answered as anywhere else.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        media_type: str = "text/event-stream",
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_close` is called once, however the reply ends."""
        self.chunks = chunks
        self.on_close = on_close
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        # nginx and its kin hold streams back unless they are told not to.
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        try:
            if scope["method"] == "HEAD" or not await while_connected(receive, self._send(start, send)):
                await send(start)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.on_close()

    async def _send(self, start: Message, send: Send) -> bool:
        """Whether there was any chunk."""
        begun = False
        async for chunk in self.chunks:
            if not begun:
                await send(start)
            begun = True
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        return begun
