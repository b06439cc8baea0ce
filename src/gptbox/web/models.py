"""/v1/models: what a completion's `model` can be."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gptbox.errors import ModelFolderError, ModelNotFoundError
from gptbox.model_folder import load_config
from gptbox.run_folder import RunFolder, find_snapshot, list_runs
from gptbox.web.model_cache import SnapshotKey, snapshot_key
from gptbox.web.service import service_of


@lru_cache(maxsize=1024)
def _context_length(key: SnapshotKey) -> int:
    """Read from a snapshot's config.json, once: snapshots never change.

    Raises ModelFolderError.
    """
    return load_config(key[0]).context_length


def _model(name: str, snapshot: Path) -> dict[str, Any]:
    """OpenAI's model object with two of vLLM's fields: `root` is the snapshot that the name means now, `max_model_len`
    its context length, or None where it is damaged.

    Raises ModelFolderError where the snapshot is gone.
    """
    key = snapshot_key(snapshot)
    try:
        context_length = _context_length(key)
    except ModelFolderError:
        context_length = None
    return {
        "id": name,
        "object": "model",
        "created": key[2] // 10**9,
        "owned_by": "gptbox",
        "root": f"{snapshot.parent.parent.name}@{snapshot.name}",
        "max_model_len": context_length,
    }


def _run_models(run: RunFolder) -> list[dict[str, Any]]:
    """The run itself, which is its best snapshot, and each of its snapshots, newest first."""
    found = []
    for name in ("best", *(path.name for path in reversed(run.snapshots()))):
        try:
            found.append(_model(run.name if name == "best" else f"{run.name}@{name}", run.resolve(name)))
        except ModelFolderError:
            continue  # nothing published yet, or removed a moment ago
    return found


def list_models(models: Path) -> list[dict[str, Any]]:
    """Every run and snapshot."""
    return [model for run in list_runs(models) for model in _run_models(run)]


def find_model(models: Path, name: str) -> dict[str, Any]:
    """One of them, by any of its names.

    Raises ModelNotFoundError.
    """
    try:
        return _model(name, find_snapshot(models, name))
    except ModelFolderError:
        raise ModelNotFoundError(f"The model {name[:100]!r} does not exist. GET /v1/models lists all.") from None


async def models(request: Request) -> Response:
    data = await to_thread.run_sync(list_models, service_of(request).settings.models)
    return JSONResponse({"object": "list", "data": data})


async def model(request: Request) -> Response:
    name: str = request.path_params["name"]
    return JSONResponse(await to_thread.run_sync(find_model, service_of(request).settings.models, name))
