"""Steps that several commands share."""

import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gptbox.errors import GptboxError, SettingError
from gptbox.settings import Settings
from gptbox.system import logs

if TYPE_CHECKING:
    from gptbox.models.runs import RunFolder

log = logging.getLogger(__name__)


def report_error(error: GptboxError) -> None:
    """Log the error as JSON, or print it on standard error."""
    if logs.is_json():
        log.error("%s", error)
    else:
        print(f"gptbox: {error}", file=sys.stderr)


def run_folder(settings: Settings, dataset: str | None, run: str | None) -> "RunFolder":
    """The folder of the run to train: --run, else $RUN, else the dataset's name."""
    from gptbox.models.runs import RunFolder

    return RunFolder(settings.models, run or settings.run or dataset or settings.dataset)


def check_tokenizer(settings: Settings, option: str | None) -> None:
    """Raises SettingError for an unknown tokenizer; `option` is the value of --tokenizer, if given."""
    from gptbox.tokenizers import check_tokenizer_name

    check_tokenizer_name(settings.tokenizer, "TOKENIZER" if option is None else "--tokenizer")


def check_training_can_start(
    settings: Settings,
    dataset: str | None,
    run: str | None,
    *,
    preset: str | None,
    tokenizer: str | None,
    init: str | None,
) -> "RunFolder":
    """The folder of the run to train.

    `preset`, `tokenizer` and `init` are the values of these options, if given. Raises SettingError or DatasetError for
    mistakes that can be found before anything is written.
    """
    from gptbox.datasets import find_dataset
    from gptbox.train.config import preset as find_preset
    from gptbox.train.initial_model import find_initial_model

    find_preset(settings.preset, "PRESET" if preset is None else "--preset")
    check_tokenizer(settings, tokenizer)
    folder = run_folder(settings, dataset, run)
    if not folder.dataset.exists():
        find_dataset(dataset or settings.dataset, settings.data, settings.dataset_url, settings.models)
    if settings.init is not None and not folder.checkpoint.exists():
        find_initial_model(settings.models, settings.init, "INIT" if init is None else "--init")
    if find_spec("torch") is None:
        raise SettingError("Training needs torch, which is not installed: pip install 'gptbox[train]'.")
    return folder


def find_model(settings: Settings, reference: str | None) -> Path:
    """The snapshot folder of `RUN` or `RUN@SNAPSHOT`; None means the best snapshot of the newest published run.

    Raises ModelNotFoundError or NoModelYetError.
    """
    from gptbox.errors import NoModelYetError
    from gptbox.models.runs import find_snapshot, newest_published_run

    if reference is not None:
        return find_snapshot(settings.models, reference)
    run = newest_published_run(settings.models)
    if run is None:
        raise NoModelYetError(f"There is no model in {settings.models} yet; train one with: gptbox train")
    return run.resolve("best")


def load_engine() -> None:
    """Load the compiled engine; compile it with a message if necessary."""
    from gptbox.engine import native

    if not native.load(compile_too=False):
        print("Compiling the engine for this processor, once: about half a minute ...", file=sys.stderr, flush=True)
        native.load()
