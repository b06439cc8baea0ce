"""Error messages for when there is no model to serve, from the training status and the state of the files."""

from pathlib import Path

from gptbox.errors import NoModelYetError
from gptbox.models.runs import RunFolder, Status, inaccessible_paths, newest_run


def _progress(run: RunFolder, status: Status | None) -> str:
    """How far a run without snapshots is, as the end of a sentence."""
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


def no_model_error(models: Path, run: RunFolder | None = None) -> NoModelYetError:
    """The error that tells a client how far a run is, by default the newest."""
    run = run or newest_run(models)
    if inaccessible_paths(models) if run is None else run.inaccessible_paths():
        whose = "the models folder" if run is None else f"the run {run.name!r}"
        return NoModelYetError(
            f"There is no model to serve: the server has no permission to read all of {whose}. Its log names the "
            "paths; give the user that it runs as permission to read them."
        )
    if run is None:
        return NoModelYetError("There is no model yet: no training has been started.")
    return NoModelYetError(f"There is no model yet: {_progress(run, run.checked_status())}")


def models_damaged_message(run: RunFolder) -> str:
    """The message for a run that has snapshots, none of which can be loaded."""
    status, count = run.checked_status(), len(run.snapshots())
    snapshots = "The only snapshot" if count == 1 else f"All {count} snapshots"
    if status is not None and status.phase in ("preparing", "training"):
        advice = "Training goes on, and its next snapshot will be served."
    else:
        advice = (
            f"Restore the run's folder from a backup, or train again after: gptbox delete {run.name}. "
            "The server's log names the files."
        )
    return f"{snapshots} of the run {run.name!r} cannot be loaded: the files are damaged or not readable. {advice}"
