"""Failed starts: their record in status.json, and the process's exit code.

The page shows a run's status, not the terminal. So under Compose and `gptbox up`, a start that fails writes its reason
into the run's status, even if the run does not exist yet.
"""

import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gptbox.errors import DatasetError, DownloadError, GptboxError, RunBusyError, RunError, SettingError
from gptbox.models.runs import RunFolder, Status, list_runs

_SUPERVISOR = "GPTBOX_SUPERVISOR"
"""Variable that names what started this process: `compose` (docker-compose.yml) or `up` (`gptbox up`); else unset."""
UNDER_UP = {_SUPERVISOR: "up"}
"""Added to the environment of a trainer that `gptbox up` starts."""


def is_supervised() -> bool:
    """Whether this process runs under Compose or `gptbox up`, so that its errors belong on the page."""
    return os.environ.get(_SUPERVISOR) in ("compose", "up")


def exit_code(error: GptboxError) -> int:
    """2 for a wrong setting or dataset, 1 for a run that failed.

    Under Compose, 0 for errors that a restart cannot fix, so that the policy `on-failure` does not restart.
    """
    may_pass = isinstance(error, RunBusyError) or (isinstance(error, DownloadError) and not error.is_permanent)
    if os.environ.get(_SUPERVISOR) == "compose" and not may_pass:
        return 0
    return 2 if isinstance(error, (SettingError, DatasetError)) else 1


def tell_before_the_run(models: Path, name: str, error: GptboxError) -> None:
    """Write to status.json why a supervised start failed before opening its run; `name` may be an invalid run name."""
    if not is_supervised():
        return
    run = RunFolder(models, re.sub(r"[^A-Za-z0-9._-]", "-", name)[:64].lstrip("._-") or "run")
    status = run.status() or Status(run=run.name, phase="failed")
    with suppress(OSError):
        run.write_status(replace(status, phase="failed", message=str(error)))


def remove_failed_starts(models: Path) -> None:
    """Delete the folders of runs that failed before their text was prepared."""
    for run in list_runs(models):
        status = run.status()
        contents = (run.dataset, run.checkpoint, run.path / "snapshots")
        if status is not None and status.phase == "failed" and not any(path.exists() for path in contents):
            with suppress(RunError):  # another trainer holds it and is starting it anew
                run.delete()
