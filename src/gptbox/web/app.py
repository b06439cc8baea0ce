"""The application: the table of addresses. A new endpoint is a handler in its own file and a line here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount, Route, Router

from gptbox.errors import GptboxError
from gptbox.settings import Settings
from gptbox.web.auth import RequireKey
from gptbox.web.chat import chat
from gptbox.web.completions import completions
from gptbox.web.cross_site import RefuseCrossSite
from gptbox.web.errors import ErrorBoundary, handle_error
from gptbox.web.headers import DefaultHeaders
from gptbox.web.health import healthz, readyz
from gptbox.web.history import history
from gptbox.web.lesson import lesson
from gptbox.web.metrics import CountRequests, metrics
from gptbox.web.models import model, models
from gptbox.web.openapi import openapi
from gptbox.web.page import files, page
from gptbox.web.request_id import RequestId
from gptbox.web.service import Service
from gptbox.web.status import events, status
from gptbox.web.tokenization import detokenize, tokenize


def create_app(settings: Settings) -> Starlette:
    """The whole server side; its engine and its live model run from the application's start to its end."""
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with service.running():
            yield

    v1 = Router(
        [
            Route("/completions", completions, methods=["POST"]),
            Route("/chat/completions", chat, methods=["POST"]),
            Route("/models", models),
            Route("/models/{name:path}", model),
        ],
        redirect_slashes=False,
    )
    locked = [Middleware(RequireKey, key=settings.api_key)]
    app = Starlette(
        routes=[
            Route("/", page),
            Mount("/static", files),
            Mount("/v1", v1, middleware=locked),
            Route("/tokenize", tokenize, methods=["POST"], middleware=locked),
            Route("/detokenize", detokenize, methods=["POST"], middleware=locked),
            Route("/api/status", status),
            Route("/api/history", history),
            Route("/api/events", events),
            Route("/cgi-bin/test", lesson),
            Route("/health", healthz),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/openapi.json", openapi),
        ],
        middleware=[
            Middleware(RequestId),
            Middleware(CountRequests, metrics=service.metrics),
            Middleware(DefaultHeaders),
            Middleware(ErrorBoundary),
            Middleware(RefuseCrossSite),
        ],
        exception_handlers={GptboxError: handle_error, HTTPException: handle_error},
        lifespan=lifespan,
    )
    # A redirect to the address without its last slash would name a host and path that only a proxy knows.
    app.router.redirect_slashes = False
    app.state.service = service
    return app
