"""/api/models/RUN@SNAPSHOT.zip: a model folder as one ZIP file, which is written while it is sent."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from anyio import to_thread
from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from zipstream import ZipStream

from gptbox.errors import DownloadsOffError, ModelNotFoundError, QueueFullError
from gptbox.web.service import get_service
from gptbox.web.streaming import LiveResponse

MAX_DOWNLOADS = 16
"""Downloads at once, each of which keeps its files open and a thread of the proxy busy."""
CHUNK_BYTES = 256 * 1024


class ModelArchive:
    """A snapshot's folder as a ZIP file, stored without compression: weights do not compress.

    All files are open from the beginning, so that the snapshot may be deleted meanwhile. `close` must be called.
    """

    def __init__(self, snapshot: Path) -> None:
        """Opens the files. Raises ModelNotFoundError if the folder is gone."""
        self.name = f"{snapshot.parent.parent.name}-{snapshot.name}"
        self._files = ExitStack()
        self._zip = ZipStream(sized=True)
        try:
            folder = os.open(snapshot, os.O_RDONLY | os.O_DIRECTORY)
            self._files.callback(os.close, folder)
            for name in sorted(os.listdir(folder)):  # noqa: PTH208  (a path may lead to another folder by now)
                file = os.open(name, os.O_RDONLY, dir_fd=folder)
                self._files.callback(os.close, file)
                info = os.fstat(file)
                if stat.S_ISREG(info.st_mode):
                    self._zip.add(_chunks(file), f"{self.name}/{name}", size=info.st_size)
            # A snapshot is renamed before it is deleted: under its own name it was complete until now.
            if not os.path.samestat(os.fstat(folder), snapshot.stat()):
                raise FileNotFoundError
        except FileNotFoundError:
            self.close()
            raise ModelNotFoundError(f"The snapshot {snapshot.name!r} has just been deleted. Choose another.") from None
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Bytes of the ZIP file."""
        return len(self._zip)

    def __iter__(self) -> Iterator[bytes]:
        """The ZIP file in pieces of at most CHUNK_BYTES, once."""
        return iter(self._zip)

    def close(self) -> None:
        """Close the files."""
        self._files.close()


def _chunks(file: int) -> Iterator[bytes]:
    """The content of an open file, from its descriptor."""
    while chunk := os.read(file, CHUNK_BYTES):
        yield chunk


async def model_archive(request: Request) -> Response:
    service = get_service(request)
    if service.settings.downloads == "off":
        raise DownloadsOffError("This server offers no models for download: it was started with DOWNLOADS=off.")
    snapshot = await to_thread.run_sync(service.live_model.find_snapshot, request.path_params["model"])
    if service.num_downloads >= MAX_DOWNLOADS:
        raise QueueFullError(f"{MAX_DOWNLOADS} downloads are running already; try again in a few seconds.")
    service.num_downloads += 1
    try:
        archive = await to_thread.run_sync(ModelArchive, snapshot)
    except BaseException:
        service.num_downloads -= 1
        raise
    request.scope["log_fields"] |= {"download_bytes": archive.size}

    def finish() -> None:
        service.num_downloads -= 1
        archive.close()

    headers = {
        "Content-Length": str(archive.size),
        "Content-Disposition": f'attachment; filename="{archive.name}.zip"',
    }
    return LiveResponse(iterate_in_threadpool(archive), "application/zip", finish, headers)
