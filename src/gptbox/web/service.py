"""The state that endpoints share: settings, engine, live model, metrics and status feed."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from anyio import to_thread
from starlette.requests import Request

from gptbox import __version__
from gptbox.engine.fingerprint import system_fingerprint
from gptbox.engine.scheduler import Scheduler
from gptbox.errors import EngineError
from gptbox.settings import Settings
from gptbox.web.generation import Generation, TextJob
from gptbox.web.json import replace_non_finite
from gptbox.web.live_model import LiveModel
from gptbox.web.metrics import Metrics
from gptbox.web.model_cache import LoadedModel
from gptbox.web.page.status_feed import StatusFeed
from gptbox.web.requested_run import requested_run
from gptbox.web.text_index import TextIndex


class Service:
    """One per application, in `app.state.service`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.scheduler = Scheduler(settings.threads, max_queue=settings.max_queue)
        self.live_model = LiveModel(settings.models, quantize=settings.quantize == "int8")
        self.metrics = Metrics(self.scheduler, self.live_model)
        self.feed = StatusFeed(self.status)
        self.num_downloads = 0
        """Downloads of models that are running."""
        self.text_index = TextIndex()
        self._started_at = time.monotonic()
        self._generations: set[Generation] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start engine, live model and status feed on entry, and stop them on exit."""
        self._started_at = time.monotonic()
        self.scheduler.start()
        await to_thread.run_sync(self.live_model.start)
        try:
            async with self.feed.running():
                yield
        finally:
            self.abort_generations()
            await to_thread.run_sync(self.live_model.stop)
            await to_thread.run_sync(self.scheduler.stop)

    def generate(
        self,
        model: LoadedModel,
        jobs: Sequence[TextJob],
        stop: Sequence[str] = (),
        eager: bool = True,
        client: str = "",
    ) -> Generation:
        """Start generating texts; for arguments and exceptions see Generation.

        The caller must call `finish` however the response ends.
        """
        generation = Generation(self.scheduler, model, jobs, stop, eager, client)
        self._generations.add(generation)
        return generation

    def finish(self, generation: Generation) -> None:
        """Release a generation's places in the engine and record its metrics."""
        generation.close()
        self._generations.discard(generation)
        self.metrics.record_generation(generation)

    def abort_generations(self) -> None:
        """End all running generations with an error for their clients."""
        for generation in self._generations:
            generation.abort(EngineError("The server is stopping. Try again in a moment."))

    def status(self, name: str | None = None) -> dict[str, Any]:
        """The response of /api/status, with the training of a run, by default of the newest. Reads files.

        Raises ModelNotFoundError if there is no run of that name.
        """
        run = requested_run(self.settings.models, name)
        training = None if run is None else run.checked_status()
        model = self.live_model.current
        return {
            "training": None if training is None else replace_non_finite(asdict(training)),
            "server": {
                "ready": model is not None,
                "model": None if model is None else model.name,
                "token_unit": None if model is None else model.tokenizer.unit,
                "problem": self.live_model.problem,
                "active": self.scheduler.active,
                "queued": self.scheduler.queued,
                "tokens_per_s": round(self.scheduler.tokens_per_s, 1),
                "uptime_s": round(time.monotonic() - self._started_at, 1),
                "version": __version__,
                "system_fingerprint": system_fingerprint(self.live_model.cache.quantize),
                "auth": self.settings.api_key is not None,
                "max_tokens": self.settings.max_tokens,
                "downloads": self.settings.downloads == "on",
            },
        }


def get_service(request: Request) -> Service:
    """The service of the application that handles this request."""
    service: Service = request.app.state.service
    return service
