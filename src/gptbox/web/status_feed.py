"""The status as a stream of changes: one look at the disk serves all who watch."""

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
    """Looks only while somebody watches. A slow watcher misses states in between, and never holds the others."""

    def __init__(
        self, read: Callable[[], dict[str, Any]], poll_s: float = 0.5, ping_s: float = 15.0, max_watchers: int = 256
    ) -> None:
        """`read` gives the present status and may block."""
        self._read = read
        self.poll_s = poll_s
        self.ping_s = ping_s
        self.max_watchers = max_watchers
        self.watchers = 0
        self._seen: dict[str, Any] | None = None
        self._event = b""
        self._version = 0
        self._changed = asyncio.Event()
        self._watched = asyncio.Event()
        self._closed = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the status; on exit every stream ends."""
        self._closed = False
        task = asyncio.create_task(self._follow())
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
        self._announce()

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _follow(self) -> None:
        while True:
            await self._watched.wait()
            try:
                await self._look()
            except Exception as error:
                log.error("reading the status failed: %s", type(error).__name__)
            await asyncio.sleep(self.poll_s)

    async def _look(self) -> None:
        status = await to_thread.run_sync(self._read)
        self._event = server_sent_event(status, "status")
        # The uptime changes always: it alone is no news.
        seen = {**status, "server": {**status["server"], "uptime_s": None}}
        if seen != self._seen:
            self._seen = seen
            self._version += 1
            self._announce()

    def subscribe(self) -> None:
        """Take a watcher's place.

        Raises EngineError where too many watch already.
        """
        if self.watchers >= self.max_watchers:
            raise EngineError("Too many pages follow the status. Try again in a moment.")
        self.watchers += 1
        self._watched.set()

    def unsubscribe(self) -> None:
        """Give the place back."""
        self.watchers -= 1
        if not self.watchers:
            self._watched.clear()

    async def events(self) -> AsyncIterator[bytes]:
        """For a watcher: the status at once, then each change; and a comment every `ping_s`, lest a proxy hang up."""
        await self._look()
        sent = -1
        ping_at = time.monotonic() + self.ping_s
        while not self._closed:
            changed = self._changed
            if sent != self._version:
                sent = self._version
                yield self._event
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(ping_at - time.monotonic()):
                    await changed.wait()
            if time.monotonic() >= ping_at:
                ping_at += self.ping_s
                yield b": ping\n\n"
