"""Saying why there is no model to serve, from what training says of itself and what lies on the disk."""

from pathlib import Path

from gptbox.errors import NoModelYetError
from gptbox.run_folder import RunFolder, Status, newest_run, unreadable


def _sentence(run: RunFolder, status: Status | None) -> str:
    if status is None:
        return f"the run {run.name!r} has not published one."
    message = f": {status.message}" if status.message else "."
    match status.phase:
        case "preparing":
            return f"the text of {run.name!r} is being prepared. Try again in a minute."
        case "training":
            of = f" of {status.steps}" if status.steps else ""
            return f"{run.name!r} is being trained and is at step {status.step}{of}. Try again in a minute."
        case "failed":
            return f"training of {run.name!r} failed{message}"
        case _:
            return f"training of {run.name!r} ended before it published one{message}"


def no_model_yet(models: Path, run: RunFolder | None = None) -> NoModelYetError:
    """The error that tells a client how far the run is, or the newest run."""
    run = run or newest_run(models)
    if unreadable(models) if run is None else run.unreadable():
        whose = "the models folder" if run is None else f"the run {run.name!r}"
        return NoModelYetError(
            f"There is no model to serve: the server may not read all of {whose}. Its log names the paths; give the "
            "user it runs as the right to read them."
        )
    if run is None:
        return NoModelYetError("There is no model yet: no training has been started.")
    return NoModelYetError(f"There is no model yet: {_sentence(run, run.checked_status())}")


def models_damaged(run: RunFolder) -> str:
    """What to say where a run has snapshots, and none of them can be loaded."""
    status, count = run.checked_status(), len(run.snapshots())
    how_many = "The only snapshot" if count == 1 else f"All {count} snapshots"
    if status is not None and status.phase in ("preparing", "training"):
        advice = "Training goes on, and its next snapshot will be served."
    else:
        advice = (
            f"Restore the run's folder from a backup, or train again after: gptbox delete {run.name}. "
            "The server's log names the files."
        )
    return f"{how_many} of the run {run.name!r} cannot be loaded: the files are damaged, or may not be read. {advice}"
