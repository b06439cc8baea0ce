"""Failed starts: what status.json keeps of them, and how the process ends.

Whoever watches the page cannot see a terminal. So under Compose, and beside `gptbox up`'s page, a start that cannot go
on leaves its reason in a run's status, even where the run is not there yet.
"""

import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gptbox.errors import DatasetError, DownloadError, GptboxError, RunBusyError, RunError, SettingError
from gptbox.run_folder import RunFolder, Status, list_runs

_SUPERVISOR = "GPTBOX_SUPERVISOR"
"""Who started this process: `compose` (docker-compose.yml) or `up` (`gptbox up`); nobody where it is not set."""
UNDER_UP = {_SUPERVISOR: "up"}
"""The environment of a trainer that `gptbox up` starts."""


def is_watched() -> bool:
    """Whether a page rather than a terminal shows how this process fares."""
    return os.environ.get(_SUPERVISOR) in ("compose", "up")


def exit_code(error: GptboxError) -> int:
    """2 for a wrong setting or dataset, 1 for a run that failed.

    Under Compose 0 for what the next start cannot mend either, so that `on-failure` does not repeat it.
    """
    if os.environ.get(_SUPERVISOR) == "compose" and not isinstance(error, (DownloadError, RunBusyError)):
        return 0
    return 2 if isinstance(error, (SettingError, DatasetError)) else 1


def tell_before_the_run(models: Path, name: str, error: GptboxError) -> None:
    """Let the page say why a start failed before its run could be touched. `name` need not be a possible run's name."""
    if not is_watched():
        return
    run = RunFolder(models, re.sub(r"[^A-Za-z0-9._-]", "-", name)[:64].lstrip("._-") or "run")
    status = run.status() or Status(run=run.name, phase="failed")
    with suppress(OSError):
        run.write_status(replace(status, phase="failed", message=str(error)))


def remove_failed_starts(models: Path) -> None:
    """Delete the folders of runs that failed before they had so much as a prepared text."""
    for run in list_runs(models):
        status = run.status()
        kept = (run.dataset, run.checkpoint, run.path / "snapshots")
        if status is not None and status.phase == "failed" and not any(path.exists() for path in kept):
            with suppress(RunError):  # another trainer is just beginning it anew
                run.delete()
