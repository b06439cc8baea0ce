"""What the endpoints share: the settings, the engine, the live model and the feed of status changes."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from anyio import to_thread
from starlette.requests import Request

from gptbox import __version__
from gptbox.engine.scheduler import Scheduler
from gptbox.errors import EngineError
from gptbox.run_folder import newest_run
from gptbox.settings import Settings
from gptbox.web.finite import finite
from gptbox.web.generation import Generation, Prompt
from gptbox.web.live_model import LiveModel
from gptbox.web.metrics import Metrics
from gptbox.web.model_cache import LoadedModel
from gptbox.web.status_feed import StatusFeed


class Service:
    """One a process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.scheduler = Scheduler(settings.threads, max_queue=settings.max_queue)
        self.models = LiveModel(settings.models, quantize=settings.quantize == "int8")
        self.metrics = Metrics(self)
        self.feed = StatusFeed(self.status)
        self._started = time.monotonic()
        self._generations: set[Generation] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything started on entry, and stopped on exit."""
        self._started = time.monotonic()
        self.scheduler.start()
        await to_thread.run_sync(self.models.start)
        try:
            async with self.feed.running():
                yield
        finally:
            self.abort_generations()
            await to_thread.run_sync(self.models.stop)
            await to_thread.run_sync(self.scheduler.stop)

    def generate(
        self,
        model: LoadedModel,
        prompts: Sequence[Prompt],
        stop: Sequence[str] = (),
        eager: bool = True,
        client: str = "",
    ) -> Generation:
        """Begin to write texts; see Generation. Hand it to `finish` however the reply ends."""
        generation = Generation(self.scheduler, model, prompts, stop, eager, client)
        self._generations.add(generation)
        return generation

    def finish(self, generation: Generation) -> None:
        """Free what a generation holds."""
        generation.close()
        self._generations.discard(generation)
        self.metrics.written(generation)

    def abort_generations(self) -> None:
        """End the texts that are still being written, telling their readers why."""
        for generation in self._generations:
            generation.abort(EngineError("The server is stopping. Try again in a moment."))

    def status(self) -> dict[str, Any]:
        """The object of /api/status; reads from the disk."""
        run = newest_run(self.settings.models)
        training = None if run is None else run.checked_status()
        live = self.models.current
        return {
            "training": None if training is None else finite(asdict(training)),
            "server": {
                "ready": live is not None,
                "model": None if live is None else live.name,
                "problem": self.models.problem,
                "active": self.scheduler.active,
                "queued": self.scheduler.queued,
                "tokens_per_s": round(self.scheduler.tokens_per_s, 1),
                "uptime_s": round(time.monotonic() - self._started, 1),
                "version": __version__,
                "auth": self.settings.api_key is not None,
                "max_tokens": self.settings.max_tokens,
            },
        }


def service_of(request: Request) -> Service:
    """The service that an endpoint belongs to."""
    service: Service = request.app.state.service
    return service
