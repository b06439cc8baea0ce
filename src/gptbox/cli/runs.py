"""`gptbox runs` and `gptbox delete`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gptbox.cli.options import read_settings
from gptbox.errors import SettingError

if TYPE_CHECKING:
    from gptbox.models.runs import RunFolder, Status


def runs() -> None:
    """List the runs: phase, step, loss, size, time of the last change, and which one is served."""
    from datetime import datetime

    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Column, Table

    from gptbox.models.runs import newest_published_run, run_folders

    settings = read_settings()
    folders, served = run_folders(settings.models), newest_published_run(settings.models)
    if not folders:
        print(f"There is no run in {settings.models} yet; begin one with: gptbox train")
        return
    figures = (Column(name, justify="right") for name in ("step", "best loss", "size"))
    table = Table("run", "phase", *figures, "written", "", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for run in folders:
        status, written = run.checked_status(), run.written_at()
        table.add_row(
            run.name,
            _phase(run, status),
            f"{status.step:,}" if status else "-",
            _best_loss(status),
            decimal(run.size()),
            f"{datetime.fromtimestamp(written):%Y-%m-%d %H:%M}" if written else "-",
            "served" if served and run.name == served.name else "",
        )
    # Pipes and files take lines of any length.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def _phase(run: "RunFolder", status: "Status | None") -> str:
    if run.inaccessible_paths():
        return "not readable"
    if status is not None:
        return status.phase
    return "prepared" if run.dataset.is_dir() else "-"


def _best_loss(status: "Status | None") -> str:
    """The exact loss of a finished run, or of a run without estimates; else an estimate."""
    if status is None or status.best_val_loss is None:
        return "-"
    exact = status.phase == "finished" or status.val_loss_estimate is None
    return f"{status.best_val_loss:.4f}" if exact else f"about {status.best_val_loss:.2f}"


def delete(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of the run; gptbox runs lists them.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a run for good: its prepared text, checkpoints, snapshots and history. Asks first."""
    from rich.filesize import decimal

    from gptbox.errors import RunError
    from gptbox.models.runs import find_run_folder

    settings = read_settings()
    folder = find_run_folder(settings.models, run)
    if folder.has_trainer():
        raise RunError(
            f"The run {run!r} is being trained. Stop training first, with Ctrl-C or docker compose stop train."
        )
    size, count = decimal(folder.size()), len(folder.snapshots())
    if not yes:
        if not sys.stdin.isatty():
            raise SettingError("Deleting asks first, and there is no terminal to ask on; --yes deletes without asking.")
        loss = _best_loss(folder.checked_status())
        best = "" if loss == "-" else f", the best with a loss of {loss}"
        snapshots = f"{count} snapshot{'' if count == 1 else 's'}{best}" if count else "no snapshot"
        if not typer.confirm(f"Delete {folder.path} for good ({size}, {snapshots})?"):
            print("Nothing was deleted.")
            raise typer.Exit(1)
    folder.delete()
    print(f"Deleted {folder.path} ({size}).")
