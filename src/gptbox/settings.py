"""The settings, read from environment variables once, at the start of a command.

`.env.example` lists the same names with the same defaults (a test holds the two together).
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from gptbox.cpus import available_cpus
from gptbox.errors import SettingError
from gptbox.logs import FORMATS


def _positive_int(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _natural_int(text: str) -> int:
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


# environment variable: (field, parser, what a good value looks like)
_VARIABLES: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "GPTBOX_MODELS": ("models", Path, "a folder"),
    "GPTBOX_DATA": ("data", Path, "a folder"),
    "DATASET": ("dataset", str, "a dataset's name"),
    "TRAIN_MINUTES": ("train_minutes", _positive_float, "a number of minutes above 0, such as 5 or 0.5"),
    "TRAIN_CLOCK": ("train_clock", _one_of("wall", "cpu"), "wall or cpu"),
    "PRESET": ("preset", str, "default or lesson"),
    "RUN": ("run", str, "a run's name"),
    "THREADS": ("threads", _positive_int, "a whole number of threads, 1 or more"),
    "API_KEY": ("api_key", str, "any text"),
    "MAX_QUEUE": ("max_queue", _natural_int, "a whole number, 0 or more"),
    "MAX_TOKENS": ("max_tokens", _positive_int, "a whole number, 1 or more"),
    "QUANTIZE": ("quantize", _one_of("none", "int8"), "none or int8"),
    "SNAPSHOTS_KEPT": ("snapshots_kept", _positive_int, "a whole number, 1 or more"),
    "LOG_FORMAT": ("log_format", _one_of(*FORMATS), "text or json"),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    models: Path = Path("models")
    """Where runs and their published snapshots are kept."""
    data: Path = Path("data")
    """Where your own texts are: one folder a dataset."""
    dataset: str = "shakespeare_char"
    """What to train on when no dataset is named."""
    train_minutes: float | None = None
    """How long to train, in minutes; None leaves it to the preset (5 minutes for `default`)."""
    train_clock: str = "wall"
    """What the minutes count: `wall`, the time that passes, or `cpu`, the processor time that training gets."""
    preset: str = "default"
    """Which training recipe: `default` or `lesson`."""
    run: str | None = None
    """The name of the run; None takes the dataset's."""
    threads: int = 0
    """Threads to compute with; 0 means as many as this process has CPUs."""
    api_key: str | None = None
    """When set, the /v1 endpoints ask for `Authorization: Bearer <key>`."""
    max_queue: int = 64
    """Texts that may wait for a free place; who has more than a share of all places is then refused with 429."""
    max_tokens: int = 2048
    """The most tokens that one request may ask for."""
    quantize: str = "none"
    """How weights are kept while serving: `none` (32 bits) or `int8` (a quarter of the memory, a little less exact)."""
    snapshots_kept: int = 30
    """Snapshots kept of each run, and 1 GiB at most; the best and the latest are always among them."""
    log_format: str = "text"
    """How train and web log: `text`, for people, or `json`, an object a line."""

    def __post_init__(self) -> None:
        if self.threads == 0:
            object.__setattr__(self, "threads", available_cpus())

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, options: Mapping[str, tuple[str, str]] | None = None
    ) -> Self:
        """Read the settings; an unset or empty variable means its default.

        `options` maps variables to options of the command line, (name, value), which win over them. Raises SettingError
        naming the variable or the option, its value and what it should look like.
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
        return cls(**values)


assert {field for field, _, _ in _VARIABLES.values()} == {field.name for field in fields(Settings)}
