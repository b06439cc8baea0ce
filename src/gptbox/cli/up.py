"""`gptbox up`: train and serve together."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gptbox.cli.common import check_training_can_start
from gptbox.cli.options import (
    Dataset,
    Host,
    Init,
    Minutes,
    Port,
    Preset,
    RunName,
    Tokenizer,
    configure_logs_and_read_settings,
)


def up(
    dataset: Dataset = None,
    run: RunName = None,
    tokenizer: Tokenizer = None,
    init: Init = None,
    minutes: Minutes = None,
    preset: Preset = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
) -> None:
    """Prepare, train and serve together. Ctrl-C ends both; the next `up` resumes."""
    from gptbox.train.failure import UNDER_UP
    from gptbox.web.server import serve as serve_web

    settings = configure_logs_and_read_settings(
        sys.stderr, TRAIN_MINUTES=minutes, PRESET=preset, TOKENIZER=tokenizer, INIT=init
    )
    check_training_can_start(settings, dataset, run, preset=preset, tokenizer=tokenizer, init=init)
    options = {"--run": run, "--tokenizer": tokenizer, "--init": init, "--minutes": minutes, "--preset": preset}
    arguments = [text for name, value in options.items() if value is not None for text in (name, str(value))]
    command = [sys.executable, "-m", "gptbox", "train", dataset or settings.dataset, *arguments]
    serve_web(settings, host, port, beside=_training_process(command, os.environ | UNDER_UP))


@contextmanager
def _training_process(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """Run the training process within the block; it writes to the same terminal."""
    process = subprocess.Popen(command, env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
