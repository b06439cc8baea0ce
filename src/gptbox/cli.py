"""The command line: options in, calls out. Nothing heavy is imported before it is known what is wanted."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from gptbox import __version__, logs
from gptbox.errors import GptboxError, SettingError
from gptbox.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gptbox.run_folder import RunFolder, Status
    from gptbox.tokenizers import Tokenizer

log = logging.getLogger(__name__)

STARTED = time.monotonic()
TEXTS_AT_ONCE = 32
"""That `sample` writes together."""

app = typer.Typer(
    name="gptbox",
    help="Train your own GPT on your own text and serve it from your own box.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Dataset = Annotated[
    str | None,
    typer.Argument(help="shakespeare_char, plays, or the name of a folder of .txt files in data/. Default: $DATASET."),
]
RunName = Annotated[str | None, typer.Option("--run", help="The run's name. Default: $RUN, or the dataset's.")]
Minutes = Annotated[
    float | None, typer.Option(help="How long, from the start of the command; 0.5 is 30 s. Default: $TRAIN_MINUTES.")
]
Preset = Annotated[str | None, typer.Option(help="default, or lesson (nanoGPT's small CPU run). Default: $PRESET.")]
Quantize = Annotated[
    str | None, typer.Option(help="int8 keeps weights in 8 bits, none in 32. Default: $QUANTIZE.", metavar="none|int8")
]
Port = Annotated[int, typer.Option(min=0, max=65535)]


_OPTIONS = {"TRAIN_MINUTES": "--minutes", "PRESET": "--preset", "QUANTIZE": "--quantize"}
"""The settings that are options, too."""


def _settings(**changes: Any) -> Settings:
    given = {name: (_OPTIONS[name], str(value)) for name, value in changes.items() if value is not None}
    return Settings.from_environment(options=given)


def _logged_settings(stream: TextIO, **changes: Any) -> Settings:
    """The settings of a command that logs: to `stream`, and in LOG_FORMAT what is wrong with the settings, too."""
    logs.configure(os.environ.get("LOG_FORMAT", "").strip(), stream)
    return _settings(**changes)


def _run_folder(settings: Settings, dataset: str | None, run: str | None) -> Any:
    from gptbox.run_folder import RunFolder

    return RunFolder(settings.models, run or settings.run or dataset or settings.dataset)


def _checked_start(settings: Settings, dataset: str | None, run: str | None, preset: str | None) -> Any:
    """The run folder of a training that can start.

    Raises SettingError or DatasetError for what is wrong before anything is written.
    """
    from gptbox.datasets import find_dataset
    from gptbox.train.config import preset as find_preset

    find_preset(settings.preset, "PRESET" if preset is None else "--preset")
    folder = _run_folder(settings, dataset, run)
    if not folder.dataset.exists():
        find_dataset(dataset or settings.dataset, settings.data)
    _need_torch()
    return folder


def _need_torch() -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise SettingError("Training needs torch, which is not installed: pip install 'gptbox[train]'.")


@app.command()
def prepare(dataset: Dataset = None, run: RunName = None) -> None:
    """Turn a text into token ids, split into training and validation."""
    from gptbox.datasets.prepared import prepare as prepare_dataset
    from gptbox.datasets.progress import shown

    settings = _settings()
    folder = _run_folder(settings, dataset, run)
    with shown() as watch:
        prepared = prepare_dataset(dataset or settings.dataset, folder, settings.data, watch)
    for line in prepared.report():
        print(line)
    print(f"Prepared in {prepared.folder}.")


@app.command()
def train(
    dataset: Dataset = None,
    run: RunName = None,
    minutes: Minutes = None,
    steps: Annotated[int | None, typer.Option(help="How many steps, instead of minutes.")] = None,
    target_loss: Annotated[
        float | None, typer.Option(help="Stop once the validation loss is this low, instead of minutes.")
    ] = None,
    preset: Preset = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of the weights and batches.")] = None,
    n_layer: Annotated[
        int | None, typer.Option(help="Blocks of the model; it and what follows win over any choice.")
    ] = None,
    n_head: Annotated[int | None, typer.Option(help="Attention heads.")] = None,
    n_embd: Annotated[int | None, typer.Option(help="Width of the model.")] = None,
    context_length: Annotated[int | None, typer.Option(help="Tokens that the model sees at once.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Sequences a step.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Pieces a batch is computed in, to save memory.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Share of activations dropped in training.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Decoupled weight decay.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
) -> None:
    """Prepare a text if need be, train on it, and publish snapshots. Goes on where it was interrupted.

    Model, batches and schedule are chosen for the machine, the text and the time, unless a preset or an option says.
    """
    # Before torch is there, a stop already means an orderly end.
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
        "learning_rate": learning_rate,
    }
    try:
        _train(dataset, run, minutes, steps, target_loss, preset, changes)
    except GptboxError as error:
        from gptbox.train.failure import exit_code

        _complain(error)
        sys.exit(exit_code(error))


def _train(
    dataset: str | None,
    run: str | None,
    minutes: float | None,
    steps: int | None,
    target_loss: float | None,
    preset: str | None,
    changes: dict[str, Any],
) -> None:
    from gptbox.train import failure

    try:
        settings = _logged_settings(sys.stdout, TRAIN_MINUTES=minutes, PRESET=preset)
        folder = _checked_start(settings, dataset, run, preset)
    except GptboxError as error:
        models = Path(os.environ.get("GPTBOX_MODELS") or Settings.models)
        name = run or os.environ.get("RUN") or dataset or os.environ.get("DATASET") or Settings.dataset
        failure.tell_before_the_run(models, name, error)
        raise
    # How long OpenMP's threads spin before they sleep, where they wait for one another: torch's own default makes two
    # threads beside other busy ones take twenty times as long a step. Read by the library when torch loads it.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    from gptbox.train import session
    from gptbox.train.progress import make_reporter

    # $TRAIN_MINUTES is how long to train where nothing else was said.
    otherwise = steps is not None or target_loss is not None
    request = session.Request(
        preset=settings.preset,
        clock="cpu" if settings.train_clock == "cpu" else "wall",
        minutes=minutes if otherwise else settings.train_minutes,
        steps=steps,
        target_loss=target_loss,
        changes=changes,
    )
    with make_reporter() as reporter:
        session.train(
            folder,
            dataset or settings.dataset,
            settings.data,
            request,
            reporter=reporter,
            threads=settings.threads,
            snapshots_kept=settings.snapshots_kept,
            started=_process_started(),
        )


def _process_started() -> float:
    """When this process began, by time.monotonic(): Python's own start and all imports have taken their time too."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return min(STARTED, time.monotonic() - age)
    except (OSError, ValueError, AttributeError):  # no such file or clock, as on macOS
        return STARTED


@app.command()
def sample(
    start: Annotated[str, typer.Option(help="The text to continue; FILE:prompt.txt reads it from a file.")] = "\n",
    num_samples: Annotated[int, typer.Option(min=1, help="How many texts.")] = 10,
    seed: Annotated[int, typer.Option(help="The first text's seed; each further text adds one.")] = 1337,
    max_tokens: Annotated[int, typer.Option(min=0, help="Tokens a text.")] = 500,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the most probable token.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Keep the k most probable tokens; 0 keeps all.")] = 200,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Keep the most probable ones up to this sum.")] = 1.0,
    model: Annotated[
        str | None, typer.Option(help="RUN, RUN@latest or RUN@step-000250. Default: the newest run's best.")
    ] = None,
    quantize: Quantize = None,
) -> None:
    """Write texts with a trained model, as they come."""
    from gptbox.engine.batch import generate
    from gptbox.engine.gpt import GPT
    from gptbox.engine.sampling import SamplingParams
    from gptbox.engine.team import Team
    from gptbox.model_folder import load
    from gptbox.tokenizers import shown

    settings = _settings(QUANTIZE=quantize)
    if start.startswith("FILE:"):
        try:
            start = Path(start[5:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError(f"--start {start!r} cannot be read: {error}.") from None
    folder = load(_find_model(settings, model))
    print(f"number of parameters: {folder.parameters / 1e6:.2f}M")
    for typed, known in folder.tokenizer.unknown(start).items():
        print(f"The model does not know {shown(typed)} and reads {shown(known)} instead.", file=sys.stderr)
    prompt = folder.tokenizer.encode(start or "\n")
    gpt, team = GPT(folder.config, folder.weights, settings.quantize == "int8"), Team(settings.threads)
    _load_engine()
    for first in range(0, num_samples, TEXTS_AT_ONCE):
        seeds = range(seed + first, seed + min(first + TEXTS_AT_ONCE, num_samples))
        rules = [
            SamplingParams(max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=each)
            for each in seeds
        ]
        _print_in_turn(
            folder.tokenizer, prompt, generate(gpt, [prompt] * len(rules), rules, team), len(rules), max_tokens
        )


def _print_in_turn(
    tokenizer: "Tokenizer", prompt: "NDArray[np.integer]", news: Iterator[list[list[int]]], count: int, length: int
) -> None:
    """Texts that are written together, one after the other, the first one while it comes."""
    waiting: list[list[int]] = [[] for _ in range(count)]
    left = [length] * count
    printed = 0
    decoder = tokenizer.stream_decoder()
    print(tokenizer.decode(prompt), end="", flush=True)
    while printed < count:
        if left[printed] > len(waiting[printed]):
            for text, new in zip(waiting, next(news), strict=True):
                text.extend(new)
        left[printed] -= len(waiting[printed])
        print(decoder.push(waiting[printed]), end="", flush=True)
        waiting[printed].clear()
        if left[printed] == 0:
            print(f"{decoder.flush()}\n---------------")
            printed, decoder = printed + 1, tokenizer.stream_decoder()
            if printed < count:
                print(tokenizer.decode(prompt), end="", flush=True)


@app.command(name="eval")
def evaluate(
    model: Annotated[str, typer.Argument(metavar="RUN[@SNAPSHOT]", help="RUN means its best snapshot.")],
    window: Annotated[
        int | None, typer.Option(min=1, help="Tokens a window. Default, and at most: the model's context.")
    ] = None,
    quantize: Quantize = None,
) -> None:
    """Measure a model's exact validation loss on its run's own text."""
    from gptbox.datasets.prepared import PreparedDataset
    from gptbox.engine.evaluate import evaluate as measure
    from gptbox.engine.gpt import GPT
    from gptbox.model_folder import load
    from gptbox.run_folder import find_run

    settings = _settings(QUANTIZE=quantize)
    path = _find_model(settings, model)
    data = PreparedDataset.load(find_run(settings.models, model.partition("@")[0]).dataset)
    folder = load(path)
    window = min(window or folder.config.context_length, folder.config.context_length)
    _load_engine()
    loss = measure(GPT(folder.config, folder.weights, settings.quantize == "int8"), data.val, window)
    bits = data.bits_per_byte(loss)
    print(f"{path.name}: val_loss {loss:.4f} nats a token, val_bpb {bits:.4f} (windows of {window} tokens)")


def _load_engine() -> None:
    from gptbox.engine import native

    if not native.load(compile_too=False):
        print("Compiling the engine for this processor, once: about half a minute ...", file=sys.stderr, flush=True)
        native.load()


def _find_model(settings: Settings, model: str | None) -> Path:
    from gptbox.errors import NoModelYetError
    from gptbox.run_folder import find_snapshot, newest_published_run

    if model is not None:
        return find_snapshot(settings.models, model)
    run = newest_published_run(settings.models)
    if run is None:
        raise NoModelYetError(f"There is no model in {settings.models} yet; train one with: gptbox train")
    return run.resolve("best")


@app.command()
def runs() -> None:
    """List the runs: how far each is, its loss, its size, when it was last written to, and which one is served."""
    from datetime import datetime

    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Column, Table

    from gptbox.run_folder import newest_published_run, run_folders

    settings = _settings()
    found, served = run_folders(settings.models), newest_published_run(settings.models)
    if not found:
        print(f"There is no run in {settings.models} yet; begin one with: gptbox train")
        return
    figures = (Column(name, justify="right") for name in ("step", "best loss", "size"))
    table = Table("run", "phase", *figures, "written", "", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for run in found:
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
    # A log, a pipe and a file take lines of any length.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def _phase(run: "RunFolder", status: "Status | None") -> str:
    if run.unreadable():
        return "may not be read"
    if status is not None:
        return status.phase
    return "prepared" if run.dataset.is_dir() else "-"


def _best_loss(status: "Status | None") -> str:
    """The exact loss of a finished run, and of any run that has no estimates; else an estimate."""
    if status is None or status.best_val_loss is None:
        return "-"
    exact = status.phase == "finished" or status.val_loss_estimate is None
    return f"{status.best_val_loss:.4f}" if exact else f"about {status.best_val_loss:.2f}"


@app.command()
def delete(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Its name; gptbox runs lists them.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a run for good: its prepared text, checkpoints, snapshots and history. Asks first."""
    from rich.filesize import decimal

    from gptbox.errors import RunError
    from gptbox.run_folder import find_run_folder

    settings = _settings()
    folder = find_run_folder(settings.models, run)
    if folder.has_trainer():
        raise RunError(f"The run {run!r} is being trained. Stop that first, with Ctrl-C or docker compose stop train.")
    size, count = decimal(folder.size()), len(folder.snapshots())
    if not yes:
        if not sys.stdin.isatty():
            raise SettingError("Deleting asks first, and there is no terminal to ask on; --yes deletes without asking.")
        loss = _best_loss(folder.checked_status())
        best = "" if loss == "-" else f", the best with a loss of {loss}"
        what = f"{count} snapshot{'' if count == 1 else 's'}{best}" if count else "no snapshot"
        if not typer.confirm(f"Delete {folder.path} for good ({size}, {what})?"):
            print("Nothing was deleted.")
            raise typer.Exit(1)
    folder.delete()
    print(f"Deleted {folder.path} ({size}).")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Port = 8000,
    quantize: Quantize = None,
) -> None:
    """Serve the page and the API, from the first second; models are taken up as they appear."""
    from gptbox.web.server import serve as serve_web

    serve_web(_logged_settings(sys.stderr, QUANTIZE=quantize), host, port)


@app.command()
def up(
    dataset: Dataset = None,
    run: RunName = None,
    minutes: Minutes = None,
    preset: Preset = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Port = 8000,
) -> None:
    """Prepare, train and serve together. Ctrl-C ends both; the next `up` goes on from there."""
    from gptbox.train.failure import UNDER_UP
    from gptbox.web.server import serve as serve_web

    settings = _logged_settings(sys.stderr, TRAIN_MINUTES=minutes, PRESET=preset)
    _checked_start(settings, dataset, run, preset)
    options = {"--run": run, "--minutes": minutes, "--preset": preset}
    given = [text for name, value in options.items() if value is not None for text in (name, str(value))]
    command = [sys.executable, "-m", "gptbox", "train", dataset or settings.dataset, *given]
    serve_web(settings, host, port, beside=_trainer(command, os.environ | UNDER_UP))


@contextmanager
def _trainer(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """A training process, from the beginning to the end; it writes to the same terminal."""
    process = subprocess.Popen(command, env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _version(wanted: bool) -> None:
    if wanted:
        print(f"gptbox {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def _complain(error: GptboxError) -> None:
    if logs.is_json():
        log.error("%s", error)
    else:
        print(f"gptbox: {error}", file=sys.stderr)


def main() -> None:
    """Run the command line; what a person can put right is told in one line, without a traceback."""
    try:
        app()
    except GptboxError as error:
        _complain(error)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
