"""The Starlette application and its routes. A new endpoint is a handler in its own file and a route here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount, Route, Router

from gptbox.errors import GptboxError
from gptbox.settings import Settings
from gptbox.web.api.chat import chat
from gptbox.web.api.completions import completions
from gptbox.web.api.models import model, models
from gptbox.web.api.openapi import openapi
from gptbox.web.api.tokenization import detokenize, tokenize
from gptbox.web.errors import handle_error
from gptbox.web.metrics import MetricsMiddleware, metrics
from gptbox.web.middleware import (
    ApiKeyMiddleware,
    CrossSiteMiddleware,
    DefaultHeadersMiddleware,
    RequestIdMiddleware,
    UnexpectedErrorMiddleware,
)
from gptbox.web.page.cgi_sample import cgi_sample
from gptbox.web.page.files import files, page
from gptbox.web.page.history import history
from gptbox.web.page.status import events, healthz, readyz, status
from gptbox.web.service import Service


def create_app(settings: Settings) -> Starlette:
    """The application. Its engine and its live model run for the application's lifespan."""
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
    api_key = [Middleware(ApiKeyMiddleware, key=settings.api_key)]
    app = Starlette(
        routes=[
            Route("/", page),
            Mount("/static", files),
            Mount("/v1", v1, middleware=api_key),
            Route("/tokenize", tokenize, methods=["POST"], middleware=api_key),
            Route("/detokenize", detokenize, methods=["POST"], middleware=api_key),
            Route("/api/status", status),
            Route("/api/history", history),
            Route("/api/events", events),
            Route("/cgi-bin/test", cgi_sample),
            Route("/health", healthz),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/openapi.json", openapi),
        ],
        middleware=[
            Middleware(RequestIdMiddleware),
            Middleware(MetricsMiddleware, metrics=service.metrics),
            Middleware(DefaultHeadersMiddleware),
            Middleware(UnexpectedErrorMiddleware),
            Middleware(CrossSiteMiddleware),
        ],
        exception_handlers={GptboxError: handle_error, HTTPException: handle_error},
        lifespan=lifespan,
    )
    # Behind a proxy, redirects from a path with a trailing slash would name the wrong host and path.
    app.router.redirect_slashes = False
    app.state.service = service
    return app
