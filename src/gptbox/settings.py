"""The settings, read once from environment variables at the start of a command.

`.env.example` lists the same names with the same defaults; a test compares the two.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from gptbox.errors import SettingError
from gptbox.system.cpus import available_cpus
from gptbox.system.logs import FORMATS


def _positive_int(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _non_negative_int(text: str) -> int:
    if (value := int(text)) < 0:
        raise ValueError
    return value


def _one_of(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError
        return text

    return parse


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


HUB_ADDRESS = re.compile(
    r"hf:(?://datasets/)?(?P<path>([A-Za-z0-9][\w.-]*/)?(?P<name>[A-Za-z0-9][\w.-]*))(:(?P<configuration>[^\s?#/]+))?"
    r"(\?(?P<query>(split|text|size)=[^\s?#&=]+(&(split|text|size)=[^\s?#&=]+)*))?(#sha256=[0-9A-Fa-f]{64})?",
    re.ASCII,
)
"""The address of a text on the Hugging Face Hub."""
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_size(text: str) -> int:
    """Bytes in a size such as 500KB, 100mb or 1.5GB. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,6}(\.\d{1,6})?)(KB|MB|GB)", text.upper(), re.ASCII)
    size = round(float(match[1]) * _UNITS[match[3]]) if match else 0
    if size == 0:
        raise ValueError(f"not a size: {text!r}")
    return size


def _text_url(text: str) -> str:
    if not text.isprintable():
        raise ValueError
    if match := HUB_ADDRESS.fullmatch(text):
        query = parse_qsl(match["query"] or "")
        if len(dict(query)) < len(query) or not all(value.isprintable() for _, value in query):
            raise ValueError
        if "size" in dict(query):
            parse_size(dict(query)["size"])
        return text
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError
    if parts.fragment and not re.fullmatch("sha256=[0-9A-Fa-f]{64}", parts.fragment):
        raise ValueError
    return text


def name_from_url(url: str) -> str:
    """What the text at an address is called: a valid name of a run, from the name of its file, without its endings.

    A dataset on the Hugging Face Hub is called by its name and configuration.
    """
    if match := HUB_ADDRESS.fullmatch(url):
        name = "-".join(filter(None, (match["name"], match["configuration"])))
    else:
        name = unquote(re.split("[?#]", url)[0]).rstrip("/").rpartition("/")[2]
        name = re.sub(r"(\.(txt|md|jsonl|gz|zip|utf-?8))+$", "", name, flags=re.IGNORECASE)
    return re.sub("[^A-Za-z0-9._-]+", "-", name)[:64].strip("._-") or "download"


# environment variable: (field, parser, description of a valid value)
_VARIABLES: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "GPTBOX_MODELS": ("models", Path, "a folder"),
    "GPTBOX_DATA": ("data", Path, "a folder"),
    "DATASET": ("dataset", str, "a dataset's name"),
    "DATASET_URL": (
        "dataset_url",
        _text_url,
        "an http or https address, or hf:OWNER/NAME[:CONFIGURATION][?split=SPLIT&text=COLUMN&size=500MB] (either may "
        "end in #sha256= and 64 hexadecimal digits)",
    ),
    "TOKENIZER": ("tokenizer", str, "a tokenizer's name"),
    "INIT": ("init", str, "a run's name or the path of a model folder"),
    "TRAIN_MINUTES": ("train_minutes", _positive_float, "a number of minutes above 0, such as 5 or 0.5"),
    "TRAIN_CLOCK": ("train_clock", _one_of("wall", "cpu"), "wall or cpu"),
    "PRESET": ("preset", str, "default or lesson"),
    "RUN": ("run", str, "a run's name"),
    "THREADS": ("threads", _positive_int, "a whole number of threads, 1 or more"),
    "API_KEY": ("api_key", str, "any text"),
    "MAX_QUEUE": ("max_queue", _non_negative_int, "a whole number, 0 or more"),
    "MAX_TOKENS": ("max_tokens", _positive_int, "a whole number, 1 or more"),
    "QUANTIZE": ("quantize", _one_of("none", "int8"), "none or int8"),
    "SNAPSHOTS_KEPT": ("snapshots_kept", _positive_int, "a whole number, 1 or more"),
    "DOWNLOADS": ("downloads", _one_of("on", "off"), "on or off"),
    "LOG_FORMAT": ("log_format", _one_of(*FORMATS), "text or json"),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    models: Path = Path("models")
    """Folder of the runs and their published snapshots."""
    data: Path = Path("data")
    """Folder of the user's own texts: one folder per dataset."""
    dataset: str = "shakespeare_char"
    """Dataset to train on if the command names none."""
    dataset_url: str | None = None
    """Address of the text to train on, which `dataset` then only names; None for the dataset of that name."""
    tokenizer: str = "auto"
    """Tokenizer of a new run: a name in `gptbox.tokenizers.TOKENIZERS`, or `auto` for the one that suits the text."""
    init: str | None = None
    """Run or model folder whose weights a new run begins with; None for random weights."""
    train_minutes: float | None = None
    """Training time in minutes; None takes the preset's (5 minutes for `default`)."""
    train_clock: str = "wall"
    """Clock of the training time: `wall`, or `cpu`, the processor time of the training process."""
    preset: str = "default"
    """Training recipe: `default` or `lesson`."""
    run: str | None = None
    """Name of the run; None takes the dataset's."""
    threads: int = 0
    """Number of compute threads; 0 means one per CPU available to this process."""
    api_key: str | None = None
    """If set, /v1/, /tokenize, /detokenize, /api/scores, /api/copied and /api/models/ require it as a bearer token."""
    max_queue: int = 64
    """Maximum number of texts that wait for generation; a client above its share of all places gets status 429."""
    max_tokens: int = 2048
    """Largest `max_tokens` that a request may ask for."""
    quantize: str = "none"
    """Weights of the engine: `none` (32 bits) or `int8` (a quarter of the memory, slightly less exact)."""
    snapshots_kept: int = 30
    """Snapshots kept per run, within 1 GiB; the best and the latest are always kept."""
    downloads: str = "on"
    """Whether visitors may download models: `on` or `off`."""
    log_format: str = "text"
    """Format of the logs: `text`, for people, or `json`, one object per line."""

    def __post_init__(self) -> None:
        if self.threads == 0:
            object.__setattr__(self, "threads", available_cpus())

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, options: Mapping[str, tuple[str, str]] | None = None
    ) -> Self:
        """Read the settings. An unset or empty variable means its default, and DATASET the name in DATASET_URL.

        `options` maps variables to the command-line options (name, value) that override them. Raises SettingError,
        which names the variable or option, its value and a description of a valid one.
        """
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for variable, (field, parse, expected) in _VARIABLES.items():
            option, text = (options or {}).get(variable, ("", environment.get(variable, "").strip()))
            if not text and not option:
                continue
            try:
                values[field] = parse(text)
            except ValueError:
                source = f"{option} {text}" if option else f"{variable}={text!r}"
                raise SettingError(f"{source} is not {expected}.") from None
        if "dataset_url" in values:
            values.setdefault("dataset", name_from_url(values["dataset_url"]))
        return cls(**values)


assert {field for field, _, _ in _VARIABLES.values()} == {field.name for field in fields(Settings)}
