"""From a dataset's name to a trained run: what `gptbox train` does, once its options are understood."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from gptbox.atomic import remove_temporaries
from gptbox.datasets.prepared import PreparedDataset, prepare
from gptbox.datasets.progress import Lines
from gptbox.errors import DiskFullError, DivergedError, GptboxError, RunError
from gptbox.run_folder import Phase, RunFolder, Status
from gptbox.train import precompile, preflight, recipe
from gptbox.train.checkpoint import Checkpoint
from gptbox.train.config import TrainConfig, with_changes
from gptbox.train.progress import Reporter, duration
from gptbox.train.shards import Shards
from gptbox.train.trainer import Trainer
from gptbox.train.world import World

NICENESS = 10
"""Training gives way to whoever serves visitors on the same cores."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What somebody asked for; None is not said."""

    preset: str = "default"
    minutes: float | None = None
    steps: int | None = None
    target_loss: float | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    """Of TrainConfig's fields; these win over whatever is chosen."""


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
    request: Request,
    *,
    reporter: Reporter,
    threads: int,
    snapshots_kept: int,
    started: float,
) -> Status:
    """Prepare the dataset, unless it is, and train the run to its end, or until a signal.

    Whatever ends it is told in status.json. Raises GptboxError.
    """
    # Forwards only: who started this with a higher value wants it so.
    os.nice(max(0, NICENESS - os.nice(0)))
    world = World.from_environment()
    torch.set_flush_denormal(True)
    # A GPU takes a batch whole.
    shards = Shards(1 if world.device.type == "cuda" else max(1, threads // world.local_size))
    try:
        # The leader alone holds the run; the others only read what it has written.
        with lock(run) if world.leads else nullcontext():
            before = run.status()
            try:
                if world.leads:
                    prepared = _prepare(run, dataset, data, before, reporter)
                world.announce([0.0])
                if not world.leads:
                    prepared = PreparedDataset.load(run.dataset)
                plan = _plan(run, prepared, request, shards, world, reporter, started)
                if world.leads and not Checkpoint(run.checkpoint).exists():
                    _check(run, prepared, plan, shards, snapshots_kept, reporter)
                trainer = Trainer(
                    run, prepared, plan.config, reporter=reporter, shards=shards, world=world,
                    snapshots_kept=snapshots_kept, started=started,
                )  # fmt: skip
                with stop_on_signals(trainer):
                    return trainer.train()
            except BaseException as error:
                if world.leads:
                    _tell(run, before, error)
                raise
    finally:
        shards.close()
        world.close()


def _prepare(run: RunFolder, dataset: str, data: Path, before: Status | None, reporter: Reporter) -> PreparedDataset:
    for folder in (run.path, run.path / "snapshots", run.checkpoint):
        remove_temporaries(folder)
    if before is None or before.phase != "finished":
        status = before or Status(run=run.name, phase="preparing")
        run.write_status(replace(status, phase="preparing", message=f"Preparing the text of {dataset}."))
    prepared = prepare(dataset, run, data, Lines(reporter.say))
    for line in prepared.report():
        reporter.say(line)
    return prepared


def _plan(
    run: RunFolder,
    prepared: PreparedDataset,
    request: Request,
    shards: Shards,
    world: World,
    reporter: Reporter,
    started: float,
) -> recipe.Plan:
    """What to do: as the preset says, as the run began, or as machine, time and text suggest."""
    limits: dict[str, Any] = {name: getattr(request, name) for name in ("minutes", "steps", "target_loss")}
    config, expected = recipe.preset(request.preset), None
    if config is None:
        begun = _begun(run)
        if begun is not None and begun.preset == "default":
            config = begun
            if request.target_loss is not None:
                config = replace(config, horizon_minutes=recipe.seconds_for(request.target_loss) / 60)
        else:
            if not precompile.is_done():
                reporter.say("Compiling what training runs on this machine: about ten seconds, once.")
                precompile.compile_all()
            speed = recipe.GPU_SPEED if world.device.type == "cuda" else recipe.measure_speed(shards)
            speed = world.announce([speed])[0] * world.size
            minutes = request.minutes or recipe.MINUTES
            seconds = max(1.0, minutes * 60 - (time.monotonic() - started)) * speed
            if request.minutes is None and request.target_loss is not None:
                seconds = recipe.seconds_for(request.target_loss)
            elif request.minutes is None and request.steps is not None:
                seconds = recipe.MINUTES * 60  # so many steps are to be the same on every machine
            chosen = recipe.choose(seconds, prepared.train_tokens, prepared.val_tokens)
            config, expected = replace(chosen.config, horizon_minutes=seconds / speed / 60), chosen.expected_loss
    return recipe.Plan(with_changes(config, **limits, **request.changes), expected)


def _begun(run: RunFolder) -> TrainConfig | None:
    """How the run was begun; None for a new one."""
    checkpoint = Checkpoint(run.checkpoint)
    if not checkpoint.exists():
        return None
    identity = checkpoint.read()[0]["identity"]
    names = {f.name for f in fields(TrainConfig)}
    return TrainConfig(**{name: value for name, value in identity.items() if name in names}, minutes=recipe.MINUTES)


def _check(
    run: RunFolder,
    prepared: PreparedDataset,
    plan: recipe.Plan,
    shards: Shards,
    snapshots_kept: int,
    reporter: Reporter,
) -> None:
    """Say what a new run is going to do, and whether it fits.

    Raises DoesNotFitError.
    """
    config = plan.config
    prepared.require_context(config.context_length)
    model = config.model(prepared.vocab_size)
    needed = preflight.needs(config, model, shards.count, snapshots_kept)
    ends = {
        "minutes": config.minutes and f"for {duration(config.minutes * 60)}",
        "steps": config.steps and f"for {config.steps:,} steps",
        "target_loss": config.target_loss and f"to a validation loss of {config.target_loss:g}",
    }
    reporter.say(
        f"Plan: {config.n_layer} layers {config.n_embd} wide, context {config.context_length}, {config.optimizer}, "
        f"{' or '.join(end for end in ends.values() if end)}; about {needed.memory / preflight.MB:,.0f} MB of memory "
        f"and up to {needed.disk / preflight.MB:,.0f} MB of disk."
    )
    if plan.expected_loss is not None:
        reporter.say(f"On Tiny Shakespeare this reaches a loss of about {plan.expected_loss:.2f}; texts differ.")
    preflight.require(needed, run.path)


def _tell(run: RunFolder, before: Status | None, error: BaseException) -> None:
    """Leave in status.json why training ended early."""
    trained = isinstance(error, (DivergedError, DiskFullError))
    if isinstance(error, RunError) and not trained and before is not None:
        status = before  # refused before anything changed: the run is what it was
    else:
        phase: Phase = "stopped" if isinstance(error, (SystemExit, KeyboardInterrupt)) else "failed"
        message = str(error) if isinstance(error, GptboxError) else f"{type(error).__name__}: {error}"
        if phase == "stopped":
            message = "Stopped; the next start goes on from here."
        status = replace(run.status() or Status(run=run.name, phase=phase), phase=phase, message=message)
    with suppress(OSError):  # a full disk keeps no status either; what there is stays
        run.write_status(status)
