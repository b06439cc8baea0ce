"""/metrics for Prometheus: request counts, latencies, engine load and the served model."""

from collections.abc import Iterator, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptbox import __version__
from gptbox.engine.scheduler import Scheduler
from gptbox.web.endpoint import Endpoint
from gptbox.web.generation import Generation
from gptbox.web.live_model import LiveModel

_TIME_TO_FIRST_TOKEN_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TIME_PER_TOKEN_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
_OTHER_PATHS = "other"
"""The label of paths without one of their own: clients could create any number of time series otherwise."""


class Metrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self, scheduler: Scheduler, live_model: LiveModel) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            "gptbox_requests", "Responses, by path and status.", ["path", "status"], registry=self._registry
        )
        self._prompt_tokens = Counter("gptbox_prompt_tokens", "Prompt tokens.", registry=self._registry)
        self._time_to_first_token = Histogram(
            "gptbox_time_to_first_token_seconds", "From the request to its first token, including time in the queue.",
            buckets=_TIME_TO_FIRST_TOKEN_BUCKETS, registry=self._registry,
        )  # fmt: skip
        self._time_per_token = Histogram(
            "gptbox_time_per_token_seconds", "Between the tokens of a text, averaged per request.",
            buckets=_TIME_PER_TOKEN_BUCKETS, registry=self._registry,
        )  # fmt: skip
        self._registry.register(_StateCollector(scheduler, live_model))
        ProcessCollector(registry=self._registry)

    def record_response(self, path_label: str, status: int) -> None:
        self._requests.labels(path_label, status).inc()

    def record_generation(self, generation: Generation) -> None:
        """Record a generation that has ended, for whatever reason."""
        self._prompt_tokens.inc(generation.prompt_tokens)
        if generation.time_to_first_token_s is not None:
            self._time_to_first_token.observe(generation.time_to_first_token_s)
        if generation.time_per_token_s is not None:
            self._time_per_token.observe(generation.time_per_token_s)

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _StateCollector(Collector):
    """Metrics read from the scheduler and the live model at each scrape."""

    def __init__(self, scheduler: Scheduler, live_model: LiveModel) -> None:
        self._scheduler = scheduler
        self._live_model = live_model

    def collect(self) -> Iterator[Metric]:
        scheduler, model = self._scheduler, self._live_model.current
        for name, documentation, value in (
            ("gptbox_active_sequences", "Texts being generated.", scheduler.active),
            ("gptbox_queued_sequences", "Texts waiting in the queue.", scheduler.queued),
            ("gptbox_loaded_models", "Snapshots in memory.", self._live_model.num_loaded),
        ):
            yield GaugeMetricFamily(name, documentation, value)
        for name, documentation, count in (
            ("gptbox_generated_tokens", "Generated tokens.", scheduler.tokens),
            ("gptbox_steps", "Steps of the engine; tokens / steps is the mean batch size.", scheduler.steps),
        ):
            yield CounterMetricFamily(name, documentation, count)
        info = GaugeMetricFamily("gptbox_info", "The version and the served model.", labels=["version", "model"])
        info.add_metric([__version__, "" if model is None else model.name], 1)
        yield info
        if model is not None and model.loss is not None:
            loss = GaugeMetricFamily("gptbox_model_loss", "The served model's validation loss.", labels=["model"])
            loss.add_metric([model.name], model.loss)
            yield loss


class MetricsMiddleware:
    """Counts responses by path and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics, endpoints: Sequence[Endpoint]) -> None:
        self.app = app
        self.metrics = metrics
        self._labels = {endpoint.path for endpoint in endpoints if endpoint.has_metric_label}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        label = scope["path"] if scope["path"] in self._labels else _OTHER_PATHS

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.record_response(label, message["status"])
            await send(message)

        await self.app(scope, receive, send_and_count)


async def metrics(request: Request) -> Response:
    registry: Metrics = request.app.state.service.metrics
    return Response(registry.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})
