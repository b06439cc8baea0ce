"""The Starlette application, its routes and its middleware."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.staticfiles import StaticFiles

from gptbox.errors import GptboxError
from gptbox.settings import Settings
from gptbox.web.endpoints import ENDPOINTS
from gptbox.web.errors import handle_error
from gptbox.web.metrics import MetricsMiddleware
from gptbox.web.middleware import (
    ApiKeyMiddleware,
    CrossSiteMiddleware,
    DefaultHeadersMiddleware,
    RequestIdMiddleware,
    UnexpectedErrorMiddleware,
)
from gptbox.web.service import Service


def _routes(api_key: str | None) -> list[BaseRoute]:
    """The routes of ENDPOINTS.

    Where all endpoints below a first segment require the key, they are mounted at it, so that unknown paths below it
    require the key, too.
    """
    open_segments = {endpoint.first_segment for endpoint in ENDPOINTS if not endpoint.requires_key}
    key = [Middleware(ApiKeyMiddleware, key=api_key)]
    routes: list[BaseRoute] = []
    mounted: dict[str, list[BaseRoute]] = {}
    for endpoint in ENDPOINTS:
        path, handler, methods = endpoint.path, endpoint.handler, [endpoint.method]
        prefix = f"/{endpoint.first_segment}"
        if isinstance(handler, StaticFiles):
            routes.append(Mount(path, handler))
        elif not endpoint.requires_key:
            routes.append(Route(path, handler, methods=methods))
        elif path == prefix or endpoint.first_segment in open_segments:
            routes.append(Route(path, handler, methods=methods, middleware=key))
        else:
            mounted.setdefault(prefix, []).append(Route(path.removeprefix(prefix), handler, methods=methods))
    for prefix, below in mounted.items():
        routes.append(Mount(prefix, Router(below, redirect_slashes=False), middleware=key))
    return routes


def create_app(settings: Settings) -> Starlette:
    """The application. Its engine and its live model run for the application's lifespan."""
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = Starlette(
        routes=_routes(settings.api_key),
        middleware=[
            Middleware(RequestIdMiddleware, endpoints=ENDPOINTS),
            Middleware(MetricsMiddleware, metrics=service.metrics, endpoints=ENDPOINTS),
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
    app.state.endpoints = ENDPOINTS
    return app
