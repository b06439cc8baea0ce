"""The status as a stream of server-sent events; one poll serves all subscribers."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from anyio import to_thread

from gptbox.errors import EngineError
from gptbox.web.streaming import server_sent_event

log = logging.getLogger(__name__)


class StatusFeed:
    """Polls only while there are subscribers. A slow subscriber misses intermediate states and delays nobody else."""

    def __init__(
        self,
        read_status: Callable[[], dict[str, Any]],
        poll_s: float = 0.5,
        ping_s: float = 15.0,
        max_subscribers: int = 256,
    ) -> None:
        """`read_status` returns the current status and may block."""
        self._read_status = read_status
        self.poll_s = poll_s
        self.ping_s = ping_s
        self.max_subscribers = max_subscribers
        self.subscribers = 0
        self._last_status: dict[str, Any] | None = None
        self._event = b""
        self._version = 0
        self._changed = asyncio.Event()
        self._has_subscribers = asyncio.Event()
        self._closed = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Poll the status; on exit every stream ends."""
        self._closed = False
        task = asyncio.create_task(self._poll_forever())
        try:
            yield
        finally:
            self.close()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _poll_forever(self) -> None:
        while True:
            await self._has_subscribers.wait()
            try:
                await self._poll()
            except Exception as error:
                log.error("reading the status failed: %s", type(error).__name__)
            await asyncio.sleep(self.poll_s)

    async def _poll(self) -> None:
        status = await to_thread.run_sync(self._read_status)
        self._event = server_sent_event(status, "status")
        # The uptime always changes, so it is not compared.
        comparable = {**status, "server": {**status["server"], "uptime_s": None}}
        if comparable != self._last_status:
            self._last_status = comparable
            self._version += 1
            self._notify()

    def subscribe(self) -> None:
        """Count a new subscriber.

        Raises EngineError if there are too many.
        """
        if self.subscribers >= self.max_subscribers:
            raise EngineError("Too many pages follow the status. Try again in a moment.")
        self.subscribers += 1
        self._has_subscribers.set()

    def unsubscribe(self) -> None:
        """Undo one `subscribe`."""
        self.subscribers -= 1
        if not self.subscribers:
            self._has_subscribers.clear()

    async def events(self) -> AsyncIterator[bytes]:
        """The current status, then each change; a comment every `ping_s`, so that no proxy closes an idle stream."""
        await self._poll()
        sent_version = -1
        next_ping = time.monotonic() + self.ping_s
        while not self._closed:
            changed = self._changed
            if sent_version != self._version:
                sent_version = self._version
                yield self._event
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(next_ping - time.monotonic()):
                    await changed.wait()
            if time.monotonic() >= next_ping:
                next_ping += self.ping_s
                yield b": ping\n\n"
