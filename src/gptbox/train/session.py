"""From a dataset's name to a trained run: what `gptbox train` does, once its options are understood."""

import fcntl
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from gptbox.atomic import remove_temporaries
from gptbox.datasets.prepared import prepare
from gptbox.errors import DivergedError, GptboxError, RunError
from gptbox.run_folder import Phase, RunFolder, Status
from gptbox.train.config import TrainConfig
from gptbox.train.progress import Reporter
from gptbox.train.trainer import Trainer


@contextmanager
def lock(run: RunFolder) -> Iterator[None]:
    """Hold the run for one trainer; the kernel lets go of it however the process ends.

    Raises RunError where another process holds it.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    with (run.path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"Another trainer is at work on the run {run.name!r}; wait for it, or give --run.") from None
        yield


@contextmanager
def stop_on_signals(trainer: Trainer) -> Iterator[None]:
    """Let SIGTERM (docker stop) and SIGINT (Ctrl-C) end the training as `stop()` does."""
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: trainer.stop()) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def train(
    run: RunFolder,
    dataset: str,
    data: Path,
    config: TrainConfig,
    *,
    reporter: Reporter,
    threads: int,
    snapshots_kept: int,
    started: float,
) -> Status:
    """Prepare the dataset, unless it is, and train the run to its end, or until a signal.

    Whatever ends it is told in status.json. Raises GptboxError.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    with lock(run):
        for folder in (run.path, run.path / "snapshots", run.checkpoint):
            remove_temporaries(folder)
        before = run.status()
        if before is None or before.phase != "finished":
            status = before or Status(run=run.name, phase="preparing")
            run.write_status(replace(status, phase="preparing", message=f"Preparing the text of {dataset}."))
        try:
            prepared = prepare(dataset, run, data)
            for line in prepared.report():
                reporter.say(line)
            trainer = Trainer(run, prepared, config, reporter=reporter, snapshots_kept=snapshots_kept, started=started)
            with stop_on_signals(trainer):
                return trainer.train()
        except BaseException as error:
            _tell(run, before, error)
            raise


def _tell(run: RunFolder, before: Status | None, error: BaseException) -> None:
    """Leave in status.json why training ended early."""
    if isinstance(error, RunError) and not isinstance(error, DivergedError) and before is not None:
        run.write_status(before)  # refused before anything changed: the run is what it was
        return
    phase: Phase = "stopped" if isinstance(error, (SystemExit, KeyboardInterrupt)) else "failed"
    message = str(error) if isinstance(error, GptboxError) else f"{type(error).__name__}: {error}"
    if phase == "stopped":
        message = "Stopped; the next start goes on from here."
    run.write_status(replace(run.status() or Status(run=run.name, phase=phase), phase=phase, message=message))
