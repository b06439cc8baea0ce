"""`gptbox train`: prepare, train and publish a run."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from gptbox.cli.common import check_training_can_start, report_error
from gptbox.cli.options import Dataset, Init, Minutes, Preset, RunName, Tokenizer, configure_logs_and_read_settings
from gptbox.errors import GptboxError
from gptbox.settings import Settings, name_from_url

_IMPORTED_AT = time.monotonic()


def train(
    dataset: Dataset = None,
    run: RunName = None,
    tokenizer: Tokenizer = None,
    init: Init = None,
    minutes: Minutes = None,
    steps: Annotated[int | None, typer.Option(help="Number of steps, instead of minutes.")] = None,
    target_loss: Annotated[
        float | None, typer.Option(help="Stop at this validation loss, instead of after minutes.")
    ] = None,
    preset: Preset = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of the weights and batches.")] = None,
    n_layer: Annotated[
        int | None,
        typer.Option(help="Transformer blocks. This and the following options override the automatic choice."),
    ] = None,
    n_head: Annotated[int | None, typer.Option(help="Attention heads.")] = None,
    n_embd: Annotated[int | None, typer.Option(help="Embedding dimension, the width of the model.")] = None,
    context_length: Annotated[
        int | None, typer.Option(help="Maximum number of tokens that the model attends to.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Sequences per step.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Micro-batches per step, to save memory.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout probability in training.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Decoupled weight decay.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="The optimizer; an unknown name lists them all.", metavar="NAME")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
) -> None:
    """Prepare a text if necessary, train on it and publish snapshots. Resumes an interrupted run.

    Model, batches and schedule are chosen for the machine, the text and the time, unless a preset or option sets them.
    """
    # Set before torch is imported, so that a stop during the import also exits cleanly.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    changes = {
        "seed": seed,
        "n_layer": n_layer,
        "n_head": n_head,
        "n_embd": n_embd,
        "context_length": context_length,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "dropout": dropout,
        "weight_decay": weight_decay,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
    }
    try:
        _train(dataset, run, tokenizer, init, minutes, steps, target_loss, preset, changes)
    except GptboxError as error:
        from gptbox.train.failure import exit_code

        report_error(error)
        sys.exit(exit_code(error))


def _train(
    dataset: str | None,
    run: str | None,
    tokenizer: str | None,
    init: str | None,
    minutes: float | None,
    steps: int | None,
    target_loss: float | None,
    preset: str | None,
    changes: dict[str, Any],
) -> None:
    from gptbox.train import failure

    try:
        settings = configure_logs_and_read_settings(
            sys.stdout, TRAIN_MINUTES=minutes, PRESET=preset, TOKENIZER=tokenizer, INIT=init
        )
        folder = check_training_can_start(settings, dataset, run, preset=preset, tokenizer=tokenizer, init=init)
    except GptboxError as error:
        models = Path(os.environ.get("GPTBOX_MODELS") or Settings.models)
        url = os.environ.get("DATASET_URL")
        default = name_from_url(url) if url else Settings.dataset
        name = run or os.environ.get("RUN") or dataset or os.environ.get("DATASET") or default
        failure.tell_before_the_run(models, name, error)
        raise
    # How long OpenMP's threads spin at a barrier before they sleep. With torch's default, a step of two threads takes
    # twenty times as long beside other busy threads. OpenMP reads the variable when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    from gptbox.train import session
    from gptbox.train.reporter import make_reporter

    # $TRAIN_MINUTES only applies if no option limits the training otherwise.
    limited_otherwise = steps is not None or target_loss is not None
    options = session.TrainOptions(
        dataset_url=settings.dataset_url,
        tokenizer=settings.tokenizer,
        preset=settings.preset,
        init=settings.init,
        clock="cpu" if settings.train_clock == "cpu" else "wall",
        minutes=minutes if limited_otherwise else settings.train_minutes,
        steps=steps,
        target_loss=target_loss,
        changes=changes,
    )
    with make_reporter() as reporter:
        session.train(
            folder,
            dataset or settings.dataset,
            settings.data,
            options,
            reporter=reporter,
            threads=settings.threads,
            snapshots_kept=settings.snapshots_kept,
            started=_process_start_time(),
        )


def _process_start_time() -> float:
    """When this process started, by time.monotonic(), so that the start of Python and all imports count."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return min(_IMPORTED_AT, time.monotonic() - age)
    except (OSError, ValueError, AttributeError):  # no such file or clock, as on macOS
        return _IMPORTED_AT
