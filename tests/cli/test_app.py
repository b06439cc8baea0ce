"""All commands, as real processes: errors are one line; there are a version and a help."""

import json
from pathlib import Path

import pytest
from tests.cli.process import gptbox


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("train", "nowhere"), {}, "nowhere"),
        (("train", "bottles", "--run", "../up"), {}, "'../up' cannot name a run"),
        (("train", "bottles", "--minutes", "0"), {}, "--minutes 0.0 is not a number of minutes above 0"),
        (("train", "bottles", "--minutes", "-1"), {}, "--minutes -1.0 is not a number of minutes above 0"),
        (("train", "bottles", "--preset", "huge"), {}, "--preset 'huge' is not one of default, lesson"),
        (("train", "bottles", "--tokenizer", "words"), {}, "--tokenizer 'words' is not one of auto, char, byte"),
        (("train", "bottles", "--run", "new", "--init", "nobody"), {}, "--init 'nobody' is not a model folder"),
        (("train", "bottles"), {"RUN": "new", "INIT": "bottles@step-9"}, "INIT 'bottles@step-9' is not a model folder"),
        (("up", "bottles"), {"RUN": "new", "INIT": "nobody"}, "INIT 'nobody' is not a model folder"),
        (("train", "bottles", "--run", "new", "--init", "bottles", "--n-layer", "2"), {}, "n_layer 2, n_head 4"),
        (("train", "bottles", "--run", "new", "--optimizer", "adam"), {}, "'adam' is not one of adamw, muon"),
        (("prepare", "bottles", "--tokenizer", "words"), {}, "--tokenizer 'words' is not one of auto, char, byte"),
        (("prepare", "bottles"), {"TOKENIZER": "byte"}, "was prepared with the tokenizer char, not with byte"),
        (("train", "bottles"), {"TRAIN_CLOCK": "sun"}, "TRAIN_CLOCK='sun' is not wall or cpu"),
        (("train", "bottles"), {"RUN": "../up"}, "'../up' cannot name a run"),
        (("train", "bottles", "--run", "new", "--n-embd", "100", "--n-head", "3"), {}, "which 3 heads do not divide"),
        (("up", "nowhere"), {}, "There is no dataset 'nowhere'"),
        (("up", "bottles"), {"PRESET": "foo"}, "PRESET 'foo' is not one of default, lesson"),
        (("up", "bottles"), {"TOKENIZER": "words"}, "TOKENIZER 'words' is not one of auto, char, byte"),
        (("up", "bottles", "--minutes", "-1"), {}, "--minutes -1.0 is not a number of minutes above 0"),
        (("train", "bottles"), {"TRAIN_MINUTES": "soon"}, "TRAIN_MINUTES='soon' is not a number of minutes"),
        (("train", "bottles"), {"THREADS": "0"}, "THREADS='0'"),
        (("train", "bottles"), {"PRESET": "huge"}, "PRESET 'huge' is not one of default, lesson"),
        (("train", "bottles"), {"LOG_FORMAT": "xml"}, "LOG_FORMAT='xml' is not text or json"),
        (("up", "bottles"), {"LOG_FORMAT": "xml"}, "LOG_FORMAT='xml' is not text or json"),
        (("serve",), {"LOG_FORMAT": "xml"}, "LOG_FORMAT='xml' is not text or json"),
        (("serve",), {"MAX_QUEUE": "-1"}, "MAX_QUEUE='-1'"),
        (("sample", "--model", "nobody"), {}, "There is no run 'nobody'"),
        (("sample", "--model", "bottles@step-000001"), {}, "no snapshot 'step-000001'"),
        (("sample",), {"GPTBOX_MODELS": "empty"}, "train one with: gptbox train"),
        (("sample", "--start", "FILE:none.txt"), {}, "none.txt"),
        (("eval", "nobody"), {}, "There is no run 'nobody'"),
    ],
)
def test_an_error_is_one_line_that_names_the_cause(
    trained: Path, arguments: tuple[str, ...], settings: dict[str, str], said: str
) -> None:
    before = sorted((trained / "models").iterdir())
    done = gptbox(trained, *arguments, **settings)
    assert done.returncode == 2
    assert done.stderr.startswith("gptbox: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted((trained / "models").iterdir()) == before, "nothing is left behind"


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("train", "nowhere"), {}, "nowhere"),
        (("train", "bottles"), {"THREADS": "0"}, "THREADS='0'"),
        (("serve",), {"MAX_QUEUE": "-1"}, "MAX_QUEUE='-1'"),
        (("up", "bottles"), {"PRESET": "foo"}, "PRESET 'foo' is not one of default, lesson"),
    ],
)
def test_an_error_is_one_line_of_json_if_the_log_is_json(
    trained: Path, arguments: tuple[str, ...], settings: dict[str, str], said: str
) -> None:
    done = gptbox(trained, *arguments, LOG_FORMAT="json", **settings)
    assert done.returncode == 2
    entry = json.loads(done.stdout + done.stderr)
    assert entry["level"] == "error"
    assert said in entry["message"]


def test_version_and_help() -> None:
    home = Path.cwd()
    assert gptbox(home, "--version").stdout.startswith("gptbox ")
    output = gptbox(home, "--help").stdout
    assert all(verb in output for verb in ("prepare", "train", "sample", "eval", "runs", "delete", "serve", "up"))
