"""The page and its files, where no proxy serves them first.

Browsers keep a file below its fingerprint (gptbox.web.page.assets) for good. They revalidate the page, and files at any
other address: a page of another version, still open or served by an older proxy, goes on to work as far as it can.
"""

import os
from pathlib import Path, PurePath

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

from gptbox.web.page.assets import INDEX, Assets, split_fingerprint

STATIC_FOLDER = Path(__file__).parents[1] / "static"

# Not the system's mimetypes, which differ: browsers refuse modules with a wrong type, above all with nosniff.
# apache/httpd.conf has the same types.
MEDIA_TYPES = {
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
IMMUTABLE = "public, max-age=31536000, immutable"


class StaticPageFiles(StaticFiles):
    """The page's files with fixed media types, below any fingerprint or none."""

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder)
        self.assets = Assets(folder)

    async def get_response(self, path: str, scope: Scope) -> Response:
        fingerprint, path = split_fingerprint(path)
        if path == INDEX:  # its references would be wrong here
            raise HTTPException(404)
        response = await super().get_response(path, scope)
        is_current = fingerprint is not None and fingerprint == self.assets.page().fingerprint
        response.headers["Cache-Control"] = IMMUTABLE if is_current else "no-cache"
        return response

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        media_type = MEDIA_TYPES.get(PurePath(full_path).suffix)
        if media_type is not None and response.status_code != 304:
            is_text = media_type.startswith("text/") or media_type.endswith(("json", "xml"))
            response.headers["Content-Type"] = f"{media_type}; charset=utf-8" if is_text else media_type
        return response


files = StaticPageFiles(STATIC_FOLDER)


async def page(request: Request) -> Response:
    """index.html, with the addresses of the files as they are now."""
    current = files.assets.page()
    headers = Headers({"Cache-Control": "no-cache", "ETag": current.etag})
    if files.is_not_modified(headers, request.headers):
        return NotModifiedResponse(headers)
    return Response(current.index, headers=headers, media_type="text/html")
