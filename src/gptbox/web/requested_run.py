"""The run that a request's `run` parameter names."""

from pathlib import Path

from gptbox.errors import RunNotFoundError
from gptbox.models.runs import RunFolder, find_run, newest_run


def requested_run(models: Path, name: str | None) -> RunFolder | None:
    """The run called `name`; without a name the newest, None if there is no run yet.

    Raises RunNotFoundError if there is no run of that name.
    """
    if name is None:
        return newest_run(models)
    try:
        return find_run(models, name)
    except RunNotFoundError:  # its message names the models folder
        raise RunNotFoundError(f"There is no run {name[:100]!r}.") from None
