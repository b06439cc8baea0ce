"""`gptbox train`: its log as text and as JSON, its tokenizers and its initial models."""

import json
import math
import re
from pathlib import Path

from tests.cli.process import gptbox


def test_training_logs_its_progress_and_the_time_left(trained: Path) -> None:
    done = gptbox(trained, "train", "bottles", "--preset", "lesson", "--steps", "100")
    assert done.returncode == 0
    assert "is complete" in done.stdout
    log = gptbox(trained, "train", "bottles", "--run", "other", "--preset", "lesson", "--steps", "100").stdout
    assert "Training a gpt2 with" in log
    assert "left · published step-000100" in log
    assert "Finished after 100 steps" in log


def test_training_logs_only_json_on_request(home: Path) -> None:
    steps = ("--preset", "lesson", "--steps", "60")
    done = gptbox(home, "train", "bottles", "--run", "in-json", *steps, LOG_FORMAT="json")
    assert done.returncode == 0
    assert done.stderr == ""
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    assert all({"time", "level", "message"} <= set(entry) for entry in entries)
    assert {entry["level"] for entry in entries} == {"info"}
    (published,) = (entry for entry in entries if "published step-000060" in entry["message"])
    assert (published["run"], published["step"], published["steps"]) == ("in-json", 60, 60)
    assert published["tokens"] == 60 * 12 * 64
    assert 0 < published["val_loss_estimate"] < 5
    assert 0 < published["train_loss"] < 5
    assert published["tokens_per_s"] > 0
    assert published["eta_s"] == 0
    assert published["elapsed_s"] > 0
    assert entries[-1]["message"].startswith("Finished after 60 steps")


def test_a_model_of_bytes_is_trained_and_continues_any_text(home: Path, tmp_path: Path) -> None:
    models = {"GPTBOX_MODELS": str(tmp_path)}
    steps = ("--preset", "lesson", "--steps", "100")
    done = gptbox(home, "train", "bottles", *steps, TOKENIZER="byte", **models)
    assert done.returncode == 0, done.stderr
    assert "vocabulary: 256 bytes" in done.stdout
    start, length = "caf\u00e9 \U0001f40e", ("--num-samples", "1", "--max-tokens", "9")
    sampled = gptbox(home, "sample", "--start", start, *length, **models)
    assert sampled.returncode == 0, sampled.stderr
    assert "does not know" not in sampled.stderr
    assert start in sampled.stdout
    measured = gptbox(home, "eval", "bottles", **models).stdout
    nats, bits = (float(re.search(rf"{name} ([0-9.]+)", measured)[1]) for name in ("val_loss", "val_bpb"))
    assert abs(bits - nats / math.log(2)) < 1e-3  # a token is a byte


def test_a_run_keeps_its_tokenizer(trained: Path) -> None:
    done = gptbox(trained, "train", "bottles", "--preset", "lesson", "--steps", "100", "--tokenizer", "byte")
    assert done.returncode == 1
    assert "The run 'bottles' was prepared with the tokenizer char, not with byte." in done.stderr
    assert done.stderr.count("\n") == 1
    again = gptbox(trained, "train", "bottles", "--preset", "lesson", "--steps", "100", "--tokenizer", "auto")
    assert again.returncode == 0
    assert "is complete" in again.stdout


def test_a_run_begins_with_the_model_of_another_and_resumes_without_it(trained: Path, tmp_path: Path) -> None:
    """The shape is the first model's, a gpt2; the rest is the recipe's."""
    models = {"GPTBOX_MODELS": str(tmp_path)}
    first = trained / "models" / "bottles" / "best"
    done = gptbox(trained, "train", "bottles", "--run", "second", "--steps", "20", INIT=str(first), **models)
    assert done.returncode == 0, done.stderr
    assert f"Starting from the weights in {first.resolve()}." in done.stdout
    assert "Plan: 4 layers 128 wide, context 64, muon, for 20 steps" in done.stdout
    longer = gptbox(trained, "train", "bottles", "--run", "second", "--steps", "40", **models)
    assert longer.returncode == 0, longer.stderr
    assert "Starting from" not in longer.stdout
    assert "Going on from step 20" in longer.stdout
    refused = gptbox(trained, "train", "bottles", "--run", "second", "--steps", "60", "--init", "second", **models)
    assert refused.returncode == 1
    assert f"init was '{first}' and is now 'second'" in refused.stderr


def test_the_tokenizer_is_that_of_the_initial_model(home: Path, tmp_path: Path) -> None:
    models = {"GPTBOX_MODELS": str(tmp_path)}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "text.txt").write_text("Ünder the bridge\n" * 500)
    lesson = ("--preset", "lesson", "--steps", "10")
    assert gptbox(home, "train", "bottles", *lesson, TOKENIZER="byte", **models).returncode == 0
    init = (*lesson, "--init", "bottles", "--optimizer", "muon")
    done = gptbox(home, "train", "other", *init, GPTBOX_DATA=str(tmp_path), **models)
    assert done.returncode == 0, done.stderr
    assert "vocabulary: 256 bytes" in done.stdout
    refused = gptbox(home, "train", "bottles", "--run", "chars", *init, "--tokenizer", "char", **models)
    assert refused.returncode == 2
    assert "256 tokens (tokenizer byte" in refused.stderr
    assert "tokens (tokenizer char" in refused.stderr
    assert not (tmp_path / "chars").exists()


def test_bpe_of_the_initial_model_is_taken_as_it_is(home: Path, tmp_path: Path) -> None:
    """Trained on another text, it would have other tokens, which the weights do not know."""
    models = {"GPTBOX_MODELS": str(tmp_path)}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "text.txt").write_text("Ünder the bridge\n" * 500)
    lesson = ("--preset", "lesson", "--steps", "10")
    first = gptbox(home, "train", "bottles", *lesson, TOKENIZER="bpe", **models)
    assert first.returncode == 0, first.stderr
    for run, option in (("auto", "auto"), ("named", "bpe")):
        options = (*lesson, "--run", run, "--init", "bottles", "--tokenizer", option)
        done = gptbox(home, "train", "other", *options, GPTBOX_DATA=str(tmp_path), **models)
        assert done.returncode == 0, done.stderr
        tokenizers = [(tmp_path / each / "best" / "tokenizer.json").read_bytes() for each in ("bottles", run)]
        assert tokenizers[0] == tokenizers[1]
