""".env.example, the settings and Compose: the same names with the same defaults."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from gptbox.settings import _VARIABLES, Settings
from gptbox.train import recipe

ROOT = Path(__file__).parent.parent
COMPOSE_ONLY = {"PORT": "80"}


@pytest.fixture
def example() -> dict[str, str]:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    lines = re.findall(r"^# ([A-Z_]+)=(.*)$", text, re.MULTILINE)
    assert len(lines) == len(dict(lines)), "a setting is listed twice"
    return dict(lines)


@pytest.fixture
def compose() -> dict[str, str]:
    """The environment variables in docker-compose.yml: variable -> default."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert len(re.findall(r"\$", text)) == len(re.findall(r"\$\{[A-Z_]+:-[^}]*\}", text))
    return dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", text))


@pytest.fixture
def hub() -> dict[str, str]:
    """What the library `datasets` reads, as docker-compose.hf.yml passes it: variable -> default."""
    text = (ROOT / "docker-compose.hf.yml").read_text(encoding="utf-8")
    passed = re.findall(r"^ +([A-Z_]+): \$\{([A-Z_]+):-([^}]*)\}$", text, re.MULTILINE)
    assert len(passed) == text.count("$") == text.count("${")
    assert all(name == variable for name, variable, _ in passed)
    return {variable: default for _, variable, default in passed}


def test_it_lists_exactly_the_settings(example: dict[str, str], hub: dict[str, str]) -> None:
    assert set(example) == set(_VARIABLES) | set(COMPOSE_ONLY) | set(hub)


def test_the_hub_s_values_are_the_defaults(example: dict[str, str], hub: dict[str, str]) -> None:
    assert hub == {name: example[name] for name in ("HF_TOKEN", "HF_ENDPOINT")}


def test_copying_it_sets_nothing() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


def test_the_values_are_the_defaults(example: dict[str, str]) -> None:
    settings = Settings.from_environment(example)
    assert settings == replace(Settings(), train_minutes=5.0)
    assert Settings().train_minutes is None
    assert recipe.MINUTES == 5.0


def test_compose_passes_every_setting_except_the_folders(
    compose: dict[str, str], hub: dict[str, str], example: dict[str, str]
) -> None:
    assert set(compose) == set(example) - set(hub) - {"GPTBOX_MODELS", "GPTBOX_DATA"}


def test_compose_leaves_defaults_to_gptbox(compose: dict[str, str], example: dict[str, str]) -> None:
    assert {name: default for name, default in compose.items() if default} == COMPOSE_ONLY
    assert example["PORT"] == COMPOSE_ONLY["PORT"]
