"""From a dataset's name to a trained run: what `gptbox train` does, once its options are understood."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch

from gptbox.atomic import remove_temporaries
from gptbox.datasets.prepared import PreparedDataset, prepare
from gptbox.datasets.progress import Lines
from gptbox.errors import DatasetError, DiskFullError, DivergedError, GptboxError, SettingError
from gptbox.run_folder import RunFolder, Status
from gptbox.train import failure, precompile, preflight, recipe
from gptbox.train.budget import Instant
from gptbox.train.checkpoint import Checkpoint
from gptbox.train.config import TrainConfig, preset, with_changes
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
    clock: Literal["wall", "cpu"] = "wall"
    """What the minutes count; see TrainConfig."""
    minutes: float | None = None
    steps: int | None = None
    target_loss: float | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    """Of TrainConfig's fields; these win over whatever is chosen."""


@contextmanager
def stop_on_signals(trainer: Trainer) -> Iterator[list[int]]:
    """Let SIGTERM (docker stop) and SIGINT (Ctrl-C) end the training as `stop()` does; yields those that came."""
    came: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        came.append(number)
        trainer.stop()

    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, stop) for number in signals]
    try:
        yield came
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

    Whatever ends it is told in status.json. Raises GptboxError; SystemExit with 128 and its number after a signal, so
    that whoever restarts failed processes lets the run go on.
    """
    # Forwards only: who started this with a higher value wants it so.
    os.nice(max(0, NICENESS - os.nice(0)))
    world = World.from_environment()
    torch.set_flush_denormal(True)
    # A GPU takes a batch whole.
    shards = Shards(1 if world.device.type == "cuda" else max(1, threads // world.local_size))
    begun = Instant(started, 0.0)
    try:
        if world.leads:
            failure.remove_failed_starts(run.path.parent)
        is_new = not run.path.exists()
        # The leader alone holds the run; the others only read what it has written.
        with run.lock() if world.leads else nullcontext():
            before = run.status()
            try:
                if world.leads:
                    prepared = _prepare(run, dataset, data, before, reporter)
                    begun = _compile(run, world, reporter, begun)
                world.announce([0.0])
                if not world.leads:
                    prepared = PreparedDataset.load(run.dataset)
                plan = _plan(run, prepared, request, shards, world, begun)
                if world.leads and not Checkpoint(run.checkpoint).exists():
                    _check(run, prepared, plan, shards, snapshots_kept, reporter)
                trainer = Trainer(
                    run, prepared, plan.config, reporter=reporter, shards=shards, world=world,
                    snapshots_kept=snapshots_kept, started=begun,
                )  # fmt: skip
                with stop_on_signals(trainer) as signals:
                    status = trainer.train()
                if signals and status.phase == "stopped":
                    sys.exit(128 + signals[-1])
                return status
            except BaseException as error:
                if world.leads:
                    _tell(run, None if is_new else before, error)
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


def _compile(run: RunFolder, world: World, reporter: Reporter, begun: Instant) -> Instant:
    """Compile the kernels of training where that has not been done; the time that it took does not count."""
    if world.device.type != "cpu" or precompile.is_done():
        return begun
    before = Instant.now()
    message = "Compiling the training kernels for this processor: about ten seconds, once. The minutes count after it."
    reporter.say(message)
    if (status := run.status()) is not None and status.phase == "preparing":
        run.write_status(replace(status, message=message))
    precompile.compile_all()
    return begun.later(Instant.now(), than=before)


def _plan(
    run: RunFolder, prepared: PreparedDataset, request: Request, shards: Shards, world: World, started: Instant
) -> recipe.Plan:
    """What to do: as the preset says, as the run began, or as machine, time and text suggest."""
    limits: dict[str, Any] = {name: getattr(request, name) for name in ("minutes", "steps", "target_loss")}
    config, expected = preset(request.preset), None
    if config is None:
        begun = _begun(run)
        if begun is not None and begun.preset == "default":
            config = begun
            if request.target_loss is not None:
                config = replace(config, horizon_minutes=recipe.seconds_for(request.target_loss) / 60)
        else:
            chosen, speed = _choose(prepared, request, shards, world, started)
            config = replace(chosen.config, horizon_minutes=chosen.seconds / speed / 60)
            if request.steps is None and request.target_loss is None:
                expected = chosen.expected_loss
    planned = with_changes(config, **limits, **request.changes, clock=request.clock)
    if expected is not None and planned.fixed() != config.fixed() | {"seed": planned.seed}:
        expected = None  # nobody has measured this one
    return recipe.Plan(planned, expected)


def _choose(
    prepared: PreparedDataset, request: Request, shards: Shards, world: World, started: Instant
) -> tuple[recipe.Choice, float]:
    """What suits the budget, and how fast this machine is, as a multiple of the recipes' reference."""

    def cpu_time() -> float:
        return time.process_time() / shards.threads

    by_cpu = request.clock == "cpu"
    if world.device.type == "cuda":
        speed = recipe.GPU_SPEED
    else:
        speed = recipe.measure_speed(shards, cpu_time if by_cpu else time.perf_counter)
    speed = world.announce([speed])[0] * world.size
    spent = (time.process_time() - started.cpu) / shards.threads if by_cpu else time.monotonic() - started.wall
    seconds = max(1.0, (request.minutes or recipe.MINUTES) * 60 - spent) * speed
    if request.minutes is None and request.target_loss is not None:
        seconds = recipe.seconds_for(request.target_loss)
    elif request.minutes is None and request.steps is not None:
        seconds = recipe.MINUTES * 60  # so many steps are to be the same on every machine
    return recipe.choose(seconds, prepared.train_tokens, prepared.val_tokens), speed


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
    preflight.require(needed, run.path)
    if plan.expected_loss is not None:
        reporter.say(f"On Tiny Shakespeare this reaches a loss of about {plan.expected_loss:.2f}; texts differ.")


def _tell(run: RunFolder, before: Status | None, error: BaseException) -> None:
    """Leave in status.json why training ended early.

    `before` is what it was before this start; None for a new run, of which nothing is left where no page would show it.
    """
    watched = failure.is_watched()
    status = run.status() or Status(run=run.name, phase="failed")
    refused = isinstance(error, GptboxError) and not isinstance(error, (DivergedError, DiskFullError))
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        if status.phase in ("preparing", "training"):
            status = replace(status, phase="stopped", message="Stopped; the next start goes on from here.")
    elif refused and before is not None and not watched:
        status = before  # nothing has changed: the run is what it was
    else:
        message = str(error) if isinstance(error, GptboxError) else f"{type(error).__name__}: {error}"
        status = replace(before if refused and before is not None else status, phase="failed", message=message)
    with suppress(OSError):  # a full disk keeps no status either; what there is stays
        if before is None and isinstance(error, (SettingError, DatasetError)):
            shutil.rmtree(run.path)
            if not watched:
                return
        run.write_status(status)
