"""/api/history: a run's losses and samples, for its curve."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from gptbox.errors import ModelNotFoundError
from gptbox.run_folder import RunFolder, list_runs, newest_run
from gptbox.web.finite import finite
from gptbox.web.service import service_of
from gptbox.web.streaming import compact_json

MAX_METRICS = 1000
MAX_SAMPLES = 200


def _evenly(places: list[int], count: int) -> set[int]:
    """`count` of the places, evenly spread; the first and the last are among them from two on."""
    if count >= len(places):
        return set(places)
    return {places[round(i * (len(places) - 1) / max(1, count - 1))] for i in range(count)}


def thin(rows: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """At most `limit` rows: the first, the last, those with a validation loss, and an even choice of the others."""
    if len(rows) <= limit:
        return rows
    losses = ("val_loss", "val_loss_estimate")
    kept = {0, len(rows) - 1} | {i for i, row in enumerate(rows) if any(row.get(name) is not None for name in losses)}
    if len(kept) > limit:
        kept = _evenly(sorted(kept), limit)
    else:
        kept |= _evenly([i for i in range(len(rows)) if i not in kept], limit - len(kept))
    return [rows[i] for i in sorted(kept)]


@lru_cache(maxsize=8)
def _as_json(models: Path, name: str, version: tuple[object, ...]) -> bytes:
    """`version` is that of the files: every page asks again while a run grows, and a long one's rows are many."""
    run = RunFolder(models, name)
    metrics = thin(run.rows("metrics"), MAX_METRICS)
    samples = thin(run.rows("samples"), MAX_SAMPLES)
    return compact_json({"run": name, "metrics": finite(metrics), "samples": finite(samples)}).encode()


def read_history(models: Path, name: str | None) -> bytes:
    """The history of a run, or of the newest, as JSON.

    Raises ModelNotFoundError where there is no run of that name.
    """
    if name is None:
        run = newest_run(models)
        if run is None:
            return compact_json({"run": None, "metrics": [], "samples": []}).encode()
    else:
        run = next((run for run in list_runs(models) if run.name == name), None)
        if run is None:
            raise ModelNotFoundError(f"There is no run {name[:100]!r}.")
    return _as_json(models, run.name, (run.version("metrics"), run.version("samples")))


async def history(request: Request) -> Response:
    models = service_of(request).settings.models
    content = await to_thread.run_sync(read_history, models, request.query_params.get("run"))
    return Response(content, media_type="application/json")
