"""`gptbox train`: its log, as text and as JSON."""

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
