"""The run that a request's `run` parameter names."""

from pathlib import Path

from gptbox.errors import ModelNotFoundError
from gptbox.models.runs import RunFolder, list_runs, newest_run


def requested_run(models: Path, name: str | None) -> RunFolder | None:
    """The run called `name`; without a name the newest, None if there is no run yet.

    Raises ModelNotFoundError if there is no run of that name.
    """
    if name is None:
        return newest_run(models)
    for run in list_runs(models):
        if run.name == name:
            return run
    raise ModelNotFoundError(f"There is no run {name[:100]!r}.")
