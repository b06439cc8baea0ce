"""A run of `gptbox train`, from the dataset's name to the trained model, once its options are parsed."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch

from gptbox.datasets import find_dataset
from gptbox.datasets.prepared import PreparedDataset, prepare
from gptbox.datasets.progress import ProgressLines
from gptbox.errors import DatasetError, DiskFullError, DivergedError, GptboxError, SettingError
from gptbox.models.folder import ModelFolder
from gptbox.models.runs import RunFolder, Status
from gptbox.system.atomic import remove_temporaries
from gptbox.tokenizers import AUTO, Tokenizer
from gptbox.tokenizers.bpe import BPETokenizer
from gptbox.train import failure, initial_model, optim, precompile, preflight, recipe
from gptbox.train.budget import Timestamp
from gptbox.train.checkpoint import Checkpoint
from gptbox.train.config import TrainConfig, preset, with_changes
from gptbox.train.data_parallel import DataParallel
from gptbox.train.distributed import Distributed
from gptbox.train.reporter import Reporter, duration
from gptbox.train.trainer import Trainer

NICENESS = 10
"""Niceness of training: the server on the same cores has priority."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The user's options; None if not given."""

    dataset_url: str | None = None
    """Address to download the dataset's text from; None takes the dataset of that name."""
    tokenizer: str = AUTO
    """A name in TOKENIZERS, or AUTO."""
    preset: str = "default"
    init: str | None = None
    """Run or model folder whose weights a new run begins with."""
    clock: Literal["wall", "cpu"] = "wall"
    """What the minutes count; see TrainConfig."""
    minutes: float | None = None
    steps: int | None = None
    target_loss: float | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    """Values for `with_changes`; they override the preset and the recipe."""


@contextmanager
def stop_on_signals(trainer: Trainer) -> Iterator[list[int]]:
    """Call `trainer.stop()` on SIGTERM (docker stop) and SIGINT (Ctrl-C); yields the list of signals received."""
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        trainer.stop()

    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, stop) for number in signals]
    try:
        yield received
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def train(
    run: RunFolder,
    dataset: str,
    data: Path,
    options: TrainOptions,
    *,
    reporter: Reporter,
    threads: int,
    snapshots_kept: int,
    started: float,
) -> Status:
    """Prepare the dataset if necessary, and train the run to its end or until a signal.

    Writes the outcome, a failure included, to status.json. `started` is when the command began, by time.monotonic().
    Raises GptboxError; after a signal SystemExit with 128 plus its number, so that a supervisor restarts the run.
    """
    # Raise the niceness, but keep a higher one that the user chose.
    os.nice(max(0, NICENESS - os.nice(0)))
    distributed = Distributed.from_environment()
    torch.set_flush_denormal(True)
    # On a GPU, one worker computes the whole batch.
    data_parallel = DataParallel(1 if distributed.device.type == "cuda" else max(1, threads // distributed.local_size))
    start = Timestamp(started, 0.0)
    try:
        if distributed.is_main:
            failure.remove_failed_starts(run.path.parent)
        is_new = not run.path.exists()
        # Only the main process locks the run; the others read what it has written.
        with run.lock() if distributed.is_main else nullcontext():
            before = run.status()
            try:
                optim.check_optimizer_name(options.changes.get("optimizer"))
                initial = _initial_model(run, options)
                if distributed.is_main:
                    _begin_preparing(run, dataset, before)
                    start = _fetch(run, dataset, data, options, reporter, start)
                    tokenizer = _tokenizer(run, options, initial)
                    prepared = _prepare(run, dataset, data, tokenizer, options.dataset_url, reporter)
                    start = _compile(run, distributed, reporter, start)
                distributed.broadcast([0.0])  # a barrier: the dataset is prepared
                if not distributed.is_main:
                    prepared = PreparedDataset.load(run.dataset)
                plan = _plan(run, prepared, options, initial, data_parallel, distributed, start)
                if distributed.is_main and not Checkpoint(run.checkpoint).exists():
                    if initial is not None:
                        reporter.say(f"Starting from the weights in {initial.path}.")
                    _check_plan(run, prepared, plan, data_parallel, snapshots_kept, reporter)
                trainer = Trainer(
                    run, prepared, plan.config, reporter=reporter, data_parallel=data_parallel,
                    initial_weights=None if initial is None else initial.weights, distributed=distributed,
                    snapshots_kept=snapshots_kept, started=start,
                )  # fmt: skip
                with stop_on_signals(trainer) as signals:
                    status = trainer.train()
                if signals and status.phase == "stopped":
                    sys.exit(128 + signals[-1])
                return status
            except BaseException as error:
                if distributed.is_main:
                    _write_failure(run, None if is_new else before, error)
                raise
    finally:
        data_parallel.close()
        distributed.close()


def _initial_model(run: RunFolder, options: TrainOptions) -> ModelFolder | None:
    """The model that a new run begins with; None for random weights, and for a run that has a checkpoint."""
    if options.init is None or Checkpoint(run.checkpoint).exists():
        return None
    return initial_model.load_initial_model(run.path.parent, options.init)


def _tokenizer(run: RunFolder, options: TrainOptions, initial: ModelFolder | None) -> str | Tokenizer:
    """The tokenizer to prepare the text with; AUTO means that of the initial model while no text is prepared.

    An initial model's BPE is taken as it is, because it encodes any text, and one trained on this text would differ.
    """
    if initial is None or run.dataset.exists() or options.tokenizer not in (AUTO, initial.tokenizer.name):
        return options.tokenizer
    return initial.tokenizer if isinstance(initial.tokenizer, BPETokenizer) else initial.tokenizer.name


def _begin_preparing(run: RunFolder, dataset: str, before: Status | None) -> None:
    for folder in (run.path, run.dataset, run.path / "snapshots", run.checkpoint):
        remove_temporaries(folder)
    if before is None or before.phase != "finished":
        status = before or Status(run=run.name, phase="preparing")
        run.write_status(replace(status, phase="preparing", message=f"Preparing the text of {dataset}."))


def _fetch(
    run: RunFolder, dataset: str, data: Path, options: TrainOptions, reporter: Reporter, start: Timestamp
) -> Timestamp:
    """Download the text if that is needed; returns `start` moved so that this time does not count."""
    if run.dataset.exists():
        return start
    begin = Timestamp.now()
    find_dataset(dataset, data, options.dataset_url, run.path.parent).fetch(data, ProgressLines(reporter.say))
    return start.excluding(begin, Timestamp.now())


def _prepare(
    run: RunFolder, dataset: str, data: Path, tokenizer: str | Tokenizer, url: str | None, reporter: Reporter
) -> PreparedDataset:
    prepared = prepare(dataset, run, data, ProgressLines(reporter.say), tokenizer, url)
    now = run.status()
    if now is not None and now.phase == "preparing":
        run.write_status(replace(now, dataset_source=prepared.source, dataset_health=prepared.health_lines()))
    for line in prepared.describe():
        reporter.say(line)
    return prepared


def _compile(run: RunFolder, distributed: Distributed, reporter: Reporter, start: Timestamp) -> Timestamp:
    """Compile the training kernels if necessary; returns `start` moved so that this time does not count."""
    if distributed.device.type != "cpu" or precompile.is_done():
        return start
    begin = Timestamp.now()
    message = "Compiling the training kernels for this processor: about ten seconds, once. The minutes count after it."
    reporter.say(message)
    if (status := run.status()) is not None and status.phase == "preparing":
        run.write_status(replace(status, message=message))
    precompile.compile_all()
    return start.excluding(begin, Timestamp.now())


def _plan(
    run: RunFolder,
    prepared: PreparedDataset,
    options: TrainOptions,
    initial: ModelFolder | None,
    data_parallel: DataParallel,
    distributed: Distributed,
    start: Timestamp,
) -> recipe.TrainPlan:
    """The plan of the run: from the preset, from its checkpoint, or from a recipe for machine, time and text.

    The shape of the model is that of the initial model, if there is one. Raises SettingError if that does not fit.
    """
    limits: dict[str, Any] = {name: getattr(options, name) for name in ("minutes", "steps", "target_loss")}
    config, expected_loss = preset(options.preset), None
    stored = _stored_config(run, prepared.vocab_size)
    if initial is not None:
        initial_model.check_vocabulary(initial, prepared)
    if config is None:
        if stored is not None and stored.preset == "default":
            config = stored
            if options.target_loss is not None:
                config = replace(config, horizon_minutes=_seconds_to_reach(options.target_loss, prepared) / 60)
        else:
            chosen, speed = _choose_config(prepared, options, data_parallel, distributed, start)
            config = replace(chosen.config, horizon_minutes=chosen.budget_s / speed / 60)
            if initial is not None:
                config = initial_model.with_shape_of(config, initial.config)
            elif options.steps is None and options.target_loss is None:
                expected_loss = chosen.expected_loss
    config = config.with_vocab_size(prepared.vocab_size)
    init = options.init or (stored.init if stored is not None else None)
    changes = optim.with_default_rates(config, options.changes)
    planned = with_changes(config, **limits, **changes, clock=options.clock, init=init)
    if initial is not None:
        initial_model.check_shape(planned.model, initial)
    if expected_loss is not None and planned.fixed() != config.fixed() | {"seed": planned.seed}:
        expected_loss = None  # measured for another configuration
    return recipe.TrainPlan(planned, expected_loss)


def _choose_config(
    prepared: PreparedDataset,
    options: TrainOptions,
    data_parallel: DataParallel,
    distributed: Distributed,
    start: Timestamp,
) -> tuple[recipe.ChosenConfig, float]:
    """The configuration for the budget, and this machine's speed relative to the recipes' reference machine."""

    def cpu_time() -> float:
        return time.process_time() / data_parallel.threads

    by_cpu = options.clock == "cpu"
    if distributed.device.type == "cuda":
        speed = recipe.GPU_SPEED
    else:
        speed = recipe.measure_speed(data_parallel, cpu_time if by_cpu else time.perf_counter)
    speed = distributed.broadcast([speed])[0] * distributed.size
    spent_s = (time.process_time() - start.cpu_s) / data_parallel.threads if by_cpu else time.monotonic() - start.wall_s
    budget_s = max(1.0, (options.minutes or recipe.MINUTES) * 60 - spent_s) * speed
    if options.minutes is None and options.target_loss is not None:
        budget_s = _seconds_to_reach(options.target_loss, prepared)
    elif options.minutes is None and options.steps is not None:
        budget_s = recipe.MINUTES * 60  # steps must give the same model on every machine
    return recipe.choose_config(budget_s, prepared.train_tokens, prepared.val_tokens, prepared.tokenizer), speed


def _seconds_to_reach(loss: float, prepared: PreparedDataset) -> float:
    """Reference seconds to reach a loss in nats per token."""
    return recipe.measured_losses(prepared.tokenizer).seconds_to_reach(loss / prepared.letters_per_token)


def _stored_config(run: RunFolder, vocab_size: int) -> TrainConfig | None:
    """The configuration in the run's checkpoint; None for a new run."""
    checkpoint = Checkpoint(run.checkpoint)
    if not checkpoint.exists():
        return None
    return TrainConfig.from_fixed(checkpoint.read()[0]["identity"], vocab_size, recipe.MINUTES)


def _check_plan(
    run: RunFolder,
    prepared: PreparedDataset,
    plan: recipe.TrainPlan,
    data_parallel: DataParallel,
    snapshots_kept: int,
    reporter: Reporter,
) -> None:
    """Report the plan of a new run, and check that it fits this machine.

    Raises DoesNotFitError, or DatasetError if the text is too short for the context.
    """
    config = plan.config
    prepared.require_context(config.model.context_length)
    required = preflight.estimate_requirements(config, data_parallel.num_workers, snapshots_kept)
    limits = {
        "minutes": config.minutes and f"for {duration(config.minutes * 60)}",
        "steps": config.steps and f"for {config.steps:,} steps",
        "target_loss": config.target_loss and f"to a validation loss of {config.target_loss:g}",
    }
    reporter.say(
        f"Plan: {config.model.n_layer} layers {config.model.n_embd} wide, context {config.model.context_length}, "
        f"{config.optimizer}, {' or '.join(limit for limit in limits.values() if limit)}; about "
        f"{required.memory / preflight.MB:,.0f} MB of memory and up to {required.disk / preflight.MB:,.0f} MB of disk."
    )
    preflight.check_requirements(required, run.path)
    if (expected := plan.expected_loss) is not None:
        loss = expected.nats_per_letter * prepared.letters_per_token
        reporter.say(
            f"Expect a loss of about {loss:.2f} per {prepared.tokenizer.unit}, or {prepared.bits_per_byte(loss):.2f} "
            f"bits per byte, as on {expected.text}; texts differ."
        )


def _write_failure(run: RunFolder, before: Status | None, error: BaseException) -> None:
    """Write to status.json why training ended early.

    `before` is the run's status before this start, None for a new run. A new run refused for a setting or its dataset
    is deleted; its status remains only if a page is there to show it.
    """
    supervised = failure.is_supervised()
    status = run.status() or Status(run=run.name, phase="failed")
    refused = isinstance(error, GptboxError) and not isinstance(error, (DivergedError, DiskFullError))
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        if status.phase in ("preparing", "training"):
            status = replace(status, phase="stopped", message="Stopped; the next start goes on from here.")
    elif refused and before is not None and not supervised:
        status = before  # the run itself has not changed
    else:
        message = str(error) if isinstance(error, GptboxError) else f"{type(error).__name__}: {error}"
        status = replace(before if refused and before is not None else status, phase="failed", message=message)
    with suppress(OSError):  # on a full disk, the status that is there stays
        if before is None and isinstance(error, (SettingError, DatasetError)):
            shutil.rmtree(run.path)
            if not supervised:
                return
        run.write_status(status)
