"""Saying why there is no model yet, from what training says of itself."""

from pathlib import Path

from gptbox.errors import NoModelYetError
from gptbox.run_folder import RunFolder, Status, newest_run


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
    if run is None:
        return NoModelYetError("There is no model yet: no training has been started.")
    return NoModelYetError(f"There is no model yet: {_sentence(run, run.status())}")
