"""/v1/models: the values that `model` can have in a request."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gptbox.errors import ModelFolderError, ModelNotFoundError
from gptbox.models.folder import load_config
from gptbox.models.runs import RunFolder, find_snapshot, list_runs
from gptbox.web.model_cache import SnapshotKey, snapshot_key
from gptbox.web.service import get_service


@lru_cache(maxsize=1024)
def _context_length(key: SnapshotKey) -> int:
    """In tokens, from a snapshot's config.json. Cached: snapshots never change.

    Raises ModelFolderError.
    """
    return load_config(key[0]).context_length


def _model_object(name: str, snapshot: Path) -> dict[str, Any]:
    """OpenAI's model object with two fields of vLLM's: `root` is the snapshot that the name refers to now,
    `max_model_len` its context length, or None if it is damaged.

    Raises ModelFolderError if the snapshot is gone.
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
    """The run's own name, which refers to its best snapshot, and its snapshots, newest first."""
    found = []
    for name in ("best", *(path.name for path in reversed(run.snapshots()))):
        try:
            found.append(_model_object(run.name if name == "best" else f"{run.name}@{name}", run.resolve(name)))
        except ModelFolderError:
            continue  # nothing published yet, or just deleted
    return found


def list_models(models: Path) -> list[dict[str, Any]]:
    """Every run and snapshot."""
    return [model for run in list_runs(models) for model in _run_models(run)]


def find_model(models: Path, name: str) -> dict[str, Any]:
    """The model object of `name`, which may also be RUN@best or RUN@latest.

    Raises ModelNotFoundError.
    """
    try:
        return _model_object(name, find_snapshot(models, name))
    except ModelFolderError:
        raise ModelNotFoundError(f"The model {name[:100]!r} does not exist. GET /v1/models lists all models.") from None


async def models(request: Request) -> Response:
    data = await to_thread.run_sync(list_models, get_service(request).settings.models)
    return JSONResponse({"object": "list", "data": data})


async def model(request: Request) -> Response:
    name: str = request.path_params["model"]
    return JSONResponse(await to_thread.run_sync(find_model, get_service(request).settings.models, name))
