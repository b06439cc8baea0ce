"""/metrics, for Prometheus: how many, how fast, how good."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptbox import __version__
from gptbox.web.generation import Generation

if TYPE_CHECKING:
    from gptbox.web.service import Service

_FIRST_TOKEN_S = (0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TOKEN_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
_ADDRESSES = {
    "/", "/v1/completions", "/v1/chat/completions", "/v1/models", "/api/status", "/api/history", "/api/events",
    "/cgi-bin/test", "/openapi.json", "/tokenize", "/detokenize",
}  # fmt: skip
"""Told apart; everything else is one, or any visitor could fill the memory with names."""


class Metrics:
    """One a service; nothing is global."""

    def __init__(self, service: "Service") -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            "gptbox_requests", "Replies, by address and status.", ["path", "status"], registry=self._registry
        )
        self._prompt_tokens = Counter("gptbox_prompt_tokens", "Tokens of prompts.", registry=self._registry)
        self._first_token = Histogram(
            "gptbox_time_to_first_token_seconds", "From the request to its first token, the queue included.",
            buckets=_FIRST_TOKEN_S, registry=self._registry,
        )  # fmt: skip
        self._per_token = Histogram(
            "gptbox_time_per_token_seconds", "Between the tokens of a text, the mean of each request.",
            buckets=_TOKEN_S, registry=self._registry,
        )  # fmt: skip
        self._registry.register(_Live(service))
        ProcessCollector(registry=self._registry)

    def answered(self, path: str, status: int) -> None:
        self._requests.labels(path if path in _ADDRESSES else "other", status).inc()

    def written(self, generation: Generation) -> None:
        """A generation that has ended, or whose client has left."""
        self._prompt_tokens.inc(generation.prompt_tokens)
        if generation.first_token_s is not None:
            self._first_token.observe(generation.first_token_s)
        if generation.per_token_s is not None:
            self._per_token.observe(generation.per_token_s)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Live(Collector):
    """What is asked of the service at the moment of reading."""

    def __init__(self, service: "Service") -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        scheduler, live = self._service.scheduler, self._service.models.current
        for name, says, value in (
            ("gptbox_active_sequences", "Texts that are being written.", scheduler.active),
            ("gptbox_queued_sequences", "Texts that wait for a place.", scheduler.queued),
            ("gptbox_loaded_models", "Snapshots in memory.", self._service.models.loaded),
        ):
            yield GaugeMetricFamily(name, says, value)
        for name, says, count in (
            ("gptbox_generated_tokens", "Tokens written.", scheduler.tokens),
            ("gptbox_steps", "Steps of the engine; tokens over steps are the mean batch size.", scheduler.steps),
        ):
            yield CounterMetricFamily(name, says, count)
        info = GaugeMetricFamily(
            "gptbox_info", "The version, and the model that is served.", labels=["version", "model"]
        )
        info.add_metric([__version__, "" if live is None else live.name], 1)
        yield info
        if live is not None and live.loss is not None:
            loss = GaugeMetricFamily("gptbox_model_loss", "The served model's validation loss.", labels=["model"])
            loss.add_metric([live.name], live.loss)
            yield loss


class CountRequests:
    """Counts every reply."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path: str = scope["path"]

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.answered(path, message["status"])
            await send(message)

        await self.app(scope, receive, sending)


async def metrics(request: Request) -> Response:
    found: Metrics = request.app.state.service.metrics
    return Response(found.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
