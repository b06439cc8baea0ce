"""Settings from the environment: defaults, and one line that names an invalid value."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from gptbox.errors import SettingError
from gptbox.models.runs import RunFolder
from gptbox.settings import _VARIABLES, Settings, parse_size
from gptbox.system.cpus import available_cpus


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.models == Path("models")
    assert settings.data == Path("data")
    assert settings.dataset == "shakespeare_char"
    assert settings.tokenizer == "auto"
    assert settings.init is None
    assert settings.train_minutes is None
    assert settings.preset == "default"
    assert settings.threads == available_cpus()
    assert settings.api_key is None
    assert (settings.max_queue, settings.max_tokens, settings.snapshots_kept) == (64, 2048, 30)


def test_every_variable_is_read() -> None:
    environment = {
        "GPTBOX_MODELS": "/models",
        "GPTBOX_DATA": "/data",
        "DATASET": "letters",
        "DATASET_URL": "https://example.org/a.txt",
        "TOKENIZER": "byte",
        "INIT": "first",
        "TRAIN_MINUTES": "0.5",
        "TRAIN_CLOCK": "cpu",
        "RUN": "mine",
        "PRESET": "lesson",
        "THREADS": "3",
        "API_KEY": "secret",
        "MAX_QUEUE": "0",
        "MAX_TOKENS": "7",
        "QUANTIZE": "int8",
        "SNAPSHOTS_KEPT": "1",
        "DOWNLOADS": "off",
        "LOG_FORMAT": "json",
    }
    assert set(environment) == set(_VARIABLES)
    assert Settings.from_environment(environment) == Settings(
        models=Path("/models"),
        data=Path("/data"),
        dataset="letters",
        dataset_url="https://example.org/a.txt",
        tokenizer="byte",
        init="first",
        train_minutes=0.5,
        train_clock="cpu",
        run="mine",
        preset="lesson",
        threads=3,
        api_key="secret",
        max_queue=0,
        quantize="int8",
        max_tokens=7,
        snapshots_kept=1,
        downloads="off",
        log_format="json",
    )


@pytest.mark.parametrize("variable", list(_VARIABLES))
@pytest.mark.parametrize("nothing", ["", "  "])
def test_an_empty_variable_means_its_default(variable: str, nothing: str) -> None:
    # Compose passes `VARIABLE=${VARIABLE:-}` as an empty string.
    assert Settings.from_environment({variable: nothing}) == Settings()


def test_white_space_around_a_value_is_stripped() -> None:
    assert Settings.from_environment({"THREADS": " 2\r\n", "DATASET": " letters "}) == Settings(
        threads=2, dataset="letters"
    )


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/texts/letters.txt", "letters"),
        ("https://example.org/Letters.JSONL.gz?download=1#sha256=" + 64 * "0", "Letters"),
        ("https://www.gutenberg.org/ebooks/100.txt.utf-8", "100"),
        ("http://example.org/v1.2%20m%C3%A4rchen.zip", "v1.2-m-rchen"),
        ("http://example.org/..txt", "download"),
        ("http://example.org/%2e%2e%2f%2e%2e%2fetc.md", "etc"),
        ("http://example.org/" + "a" * 100, "a" * 64),
        ("hf:roneneldan/TinyStories", "TinyStories"),
        ("hf:openwebtext", "openwebtext"),
        ("hf://datasets/Salesforce/wikitext:wikitext-2-raw-v1?split=test", "wikitext-wikitext-2-raw-v1"),
        ("hf:me/v1.txt?text=content&size=1.5gb&split=train#sha256=" + 64 * "0", "v1.txt"),
    ],
)
def test_a_text_from_an_address_is_named_after_its_file(url: str, name: str) -> None:
    settings = Settings.from_environment({"DATASET_URL": url})
    assert (settings.dataset, settings.dataset_url) == (name, url)
    RunFolder(Path("models"), name)
    assert Settings.from_environment({"DATASET_URL": url, "DATASET": "mine"}).dataset == "mine"


@pytest.mark.parametrize(
    ("text", "size"), [("500KB", 500_000), ("1.5gb", 1_500_000_000), ("0.57Kb", 570), ("000001MB", 1_000_000)]
)
def test_a_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "MB", "5 MB", "-5MB", "1e3MB", "5TB", "0.0001KB", "1234567KB", "\u0665MB"])
def test_a_wrong_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


def test_other_variables_are_ignored() -> None:
    assert Settings.from_environment({"PATH": "/bin", "threads": "7"}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TRAIN_MINUTES", "five"),
        ("TRAIN_MINUTES", "0"),
        ("TRAIN_MINUTES", "-1"),
        ("TRAIN_MINUTES", "nan"),
        ("TRAIN_MINUTES", "inf"),
        ("TRAIN_MINUTES", "1e999"),
        ("DATASET_URL", "letters.txt"),
        ("DATASET_URL", "file:///etc/passwd"),
        ("DATASET_URL", "ftp://example.org/a.txt"),
        ("DATASET_URL", "https:///a.txt"),
        ("DATASET_URL", "https://[bad/a.txt"),
        ("DATASET_URL", "https://example.org/a.txt#sha256=abc"),
        ("DATASET_URL", "https://example.org/a.txt#top"),
        ("DATASET_URL", "hf:"),
        ("DATASET_URL", "hf:a/b/c"),
        ("DATASET_URL", "hf:../etc"),
        ("DATASET_URL", "hf:me/foxes?column=text"),
        ("DATASET_URL", "hf:me/foxes?split=a&split=b"),
        ("DATASET_URL", "hf:me/foxes?size=1000"),
        ("DATASET_URL", "hf:me/foxes?size=0MB"),
        ("DATASET_URL", "hf:me/foxes?split=trainsize=5MB"),
        ("DATASET_URL", "hf:me/foxes?"),
        ("DATASET_URL", "hf:me/foxes?split=train&"),
        ("DATASET_URL", "hf:me/foxes?&split=train"),
        ("DATASET_URL", "hf:me/foxes:x\x1b[31m"),
        ("DATASET_URL", "hf:me/foxes?text=x\x1b[31m"),
        ("DATASET_URL", "hf:me/foxes?text=%1b"),
        ("DATASET_URL", "hf:me/foxes?text=%0A"),
        ("DATASET_URL", "hf:me/foxes#sha256=abc"),
        ("THREADS", "0"),
        ("THREADS", "-2"),
        ("THREADS", "1.5"),
        ("THREADS", "all"),
        ("MAX_QUEUE", "-1"),
        ("MAX_QUEUE", "many"),
        ("MAX_TOKENS", "0"),
        ("MAX_TOKENS", "9" * 5000),
        ("SNAPSHOTS_KEPT", "0"),
        ("DOWNLOADS", "yes"),
        ("LOG_FORMAT", "JSON"),
        ("TRAIN_CLOCK", "sun"),
    ],
)
def test_the_error_names_the_variable_and_the_invalid_value(variable: str, value: str) -> None:
    with pytest.raises(SettingError) as error:
        Settings.from_environment({variable: value})
    message = str(error.value)
    assert message.startswith(f"{variable}={value!r} is not ")
    assert "\n" not in message


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASET", "letters")
    assert Settings.from_environment().dataset == "letters"
    monkeypatch.delenv("DATASET")
    assert Settings.from_environment().dataset == "shakespeare_char"


def test_every_setting_is_in_the_example_file() -> None:
    example = (Path(__file__).parents[1] / ".env.example").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^#? ?([A-Z_]+)=(\S*)", example, re.MULTILINE))
    defaults = {field.name: field.default for field in fields(Settings)}
    for variable, (field, parse, _) in _VARIABLES.items():
        assert variable in listed, variable
        if listed[variable] and field not in ("train_minutes", "threads", "models", "data"):
            assert parse(listed[variable]) == defaults[field], variable
