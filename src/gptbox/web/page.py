"""The page: the files in `static/`, always asked for again but sent again only when they changed."""

import os
from pathlib import Path, PurePath

from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(__file__).with_name("static")

# Not left to the machine's own table: browsers refuse modules of a wrong type, the more so with nosniff.
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}


class PageFiles(StaticFiles):
    """Content types of our own, and `Cache-Control: no-cache` beside the ETag."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        kind = _TYPES.get(PurePath(full_path).suffix)
        if kind is not None and response.status_code != 304:
            text = kind.startswith("text/") or kind.endswith(("json", "xml"))
            response.headers["Content-Type"] = f"{kind}; charset=utf-8" if text else kind
        return response


files = PageFiles(directory=FOLDER)


async def page(request: Request) -> Response:
    return await files.get_response("index.html", request.scope)
