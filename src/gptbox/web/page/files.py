"""The page and its files in `static/`. Browsers revalidate them every time and download them only after a change."""

import os
from pathlib import Path, PurePath

from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC_FOLDER = Path(__file__).parents[1] / "static"

# Not the system's mimetypes, which differ: browsers refuse modules with a wrong type, above all with nosniff.
_MEDIA_TYPES = {
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


class StaticPageFiles(StaticFiles):
    """Static files with fixed media types, and `Cache-Control: no-cache` beside the ETag."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        media_type = _MEDIA_TYPES.get(PurePath(full_path).suffix)
        if media_type is not None and response.status_code != 304:
            is_text = media_type.startswith("text/") or media_type.endswith(("json", "xml"))
            response.headers["Content-Type"] = f"{media_type}; charset=utf-8" if is_text else media_type
        return response


files = StaticPageFiles(directory=STATIC_FOLDER)


async def page(request: Request) -> Response:
    return await files.get_response("index.html", request.scope)
