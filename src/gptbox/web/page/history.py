"""/api/history: a run's metrics and samples, for the page's loss chart, and whether copied words can be found."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from gptbox.models.runs import RunFolder
from gptbox.web.json import compact_json, replace_non_finite
from gptbox.web.requested_run import requested_run
from gptbox.web.service import get_service
from gptbox.web.text_index import TextIndex

MAX_METRICS = 1000
MAX_SAMPLES = 200


def _evenly_spaced(indices: list[int], count: int) -> set[int]:
    """`count` of the indices, evenly spaced; from two on, the first and the last are included."""
    if count >= len(indices):
        return set(indices)
    return {indices[round(i * (len(indices) - 1) / max(1, count - 1))] for i in range(count)}


def downsample(rows: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """At most `limit` rows: first, last, those with a validation loss, and evenly spaced others."""
    if len(rows) <= limit:
        return rows
    losses = ("val_loss", "val_loss_estimate")
    kept = {0, len(rows) - 1} | {i for i, row in enumerate(rows) if any(row.get(name) is not None for name in losses)}
    if len(kept) > limit:
        kept = _evenly_spaced(sorted(kept), limit)
    else:
        kept |= _evenly_spaced([i for i in range(len(rows)) if i not in kept], limit - len(kept))
    return [rows[i] for i in sorted(kept)]


@lru_cache(maxsize=8)
def _history_json(models: Path, name: str, has_index: bool, version: tuple[object, ...]) -> bytes:
    """Cached by the files' `version`: all open pages ask again as a run grows, and a long run has many rows."""
    run = RunFolder(models, name)
    metrics = downsample(run.read_rows("metrics"), MAX_METRICS)
    samples = downsample(run.read_rows("samples"), MAX_SAMPLES)
    return compact_json(
        {
            "run": name,
            "has_index": has_index,
            "metrics": replace_non_finite(metrics),
            "samples": replace_non_finite(samples),
        }
    ).encode()


def read_history(models: Path, name: str | None, text_index: TextIndex) -> bytes:
    """The history of a run, by default of the newest, as JSON.

    Raises ModelNotFoundError if there is no run of that name.
    """
    run = requested_run(models, name)
    if run is None:
        return compact_json({"run": None, "has_index": False, "metrics": [], "samples": []}).encode()
    version = (run.rows_version("metrics"), run.rows_version("samples"))
    return _history_json(models, run.name, text_index.exists(run), version)


async def history(request: Request) -> Response:
    service = get_service(request)
    name = request.query_params.get("run")
    content = await to_thread.run_sync(read_history, service.settings.models, name, service.text_index)
    return Response(content, media_type="application/json")
