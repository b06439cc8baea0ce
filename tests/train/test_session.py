"""`gptbox train` as a process: signals, kills, and what its status says afterwards."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.commands import status_of, train

from gptbox.datasets.prepared import PreparedDataset, prepare
from gptbox.errors import DiskFullError, RunError
from gptbox.models import folder as model_folder
from gptbox.models.runs import RunFolder, Status
from gptbox.train import session
from gptbox.train.budget import Timestamp
from gptbox.train.data_parallel import DataParallel
from gptbox.train.distributed import Distributed
from gptbox.train.reporter import LogReporter


def command(tmp_path: Path, *options: str) -> tuple[list[str], dict[str, str]]:
    settings = {"GPTBOX_MODELS": str(tmp_path / "models"), "GPTBOX_DATA": str(tmp_path / "data"), "THREADS": "1"}
    return [sys.executable, "-m", "gptbox", "train", "bottles", "--preset", "lesson", *options], os.environ | settings


def start(tmp_path: Path, *options: str) -> "subprocess.Popen[str]":
    arguments, environment = command(tmp_path, *options)
    return subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def wait_for(condition: Callable[[], Any], process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 300  # compiling takes minutes beside other work
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def step_of(run: RunFolder) -> int:
    status = run.status()
    return 0 if status is None else status.step


def test_sigterm_saves_and_exits_143_within_10_s(tmp_path: Path, data: Path) -> None:
    run = RunFolder(tmp_path / "models", "bottles")
    process = start(tmp_path, "--steps", "100000")
    wait_for(lambda: step_of(run) > 20, process)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    output, _ = process.communicate(timeout=15)
    assert process.returncode == 143, output
    assert time.monotonic() - began < 10
    status = run.status()
    assert status is not None
    assert status.phase == "stopped"
    assert torch.load(run.checkpoint / "state.pt", weights_only=True)["progress"]["step"] == status.step


def test_sigterm_before_training_exits_143(tmp_path: Path, data: Path) -> None:
    process = start(tmp_path, "--steps", "100000")
    run = RunFolder(tmp_path / "models", "bottles")
    wait_for(lambda: run.status() is not None, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=15)
    assert process.returncode == 143, output
    status = run.status()
    assert status is not None
    assert status.phase == "stopped"


def test_kill_9_loses_no_published_snapshot(tmp_path: Path, data: Path) -> None:
    run = RunFolder(tmp_path / "models", "bottles")
    process = start(tmp_path, "--steps", "300")
    wait_for(run.snapshots, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    for path in run.snapshots():
        model_folder.load(path)
    (run.path / "snapshots" / ".step-000275.0123abcd.tmp").mkdir()  # left by a kill during writing
    arguments, environment = command(tmp_path, "--steps", "300")
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Going on from step 250" in done.stdout
    assert [path.name for path in (run.path / "snapshots").iterdir() if path.name.startswith(".")] == []
    rows = run.read_rows("metrics")
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows}), "no step has two rows"
    assert json.loads((run.path / "status.json").read_text())["phase"] == "finished"


def test_two_trainers_on_one_run_are_refused(tmp_path: Path, data: Path) -> None:
    run = RunFolder(tmp_path / "models", "bottles")
    with run.lock():
        arguments, environment = command(tmp_path, "--steps", "10")
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "gptbox: Another trainer is at work on the run 'bottles'; wait for it, or train under another name (--run).\n"
    )  # and no traceback


def test_the_health_of_the_text_is_in_the_log_and_the_status(home: Path) -> None:
    done = train(home, "bottles", "--steps", "3")
    assert done.returncode == 0, done.stderr
    lines = PreparedDataset.load(home / "models" / "bottles" / "dataset").health_lines()
    assert any(line.startswith("Outlook: too small to learn more than by heart") for line in lines)
    assert status_of(home).dataset_health == lines
    before, _, _ = done.stdout.partition("Plan: ")
    assert all(line[1:] in before for line in lines[2:])


def test_a_loss_is_promised_only_for_a_measured_plan(home: Path) -> None:
    promise = "Expect a loss"
    changed = train(home, "bottles", "--minutes", "0.15", "--n-layer", "1")
    few = train(home, "bottles", "--steps", "3", "--run", "few")
    assert (changed.returncode, few.returncode) == (0, 0), changed.stderr + few.stderr
    assert promise not in changed.stdout + few.stdout


class Sentences(LogReporter):
    """Keeps what training says."""

    def __init__(self) -> None:
        super().__init__()
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)


@pytest.mark.parametrize(
    ("tokenizer", "unit", "text"),
    [
        ("char", "character", "Tiny Shakespeare"),
        ("byte", "byte", "Tiny Shakespeare"),
        ("bpe", "token", "Shakespeare's complete plays"),
        ("gpt2", "token", "Shakespeare's complete plays"),
    ],
)
def test_the_expected_loss_is_in_the_unit_of_the_tokenizer(
    tmp_path: Path, tokenizer: str, unit: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine, three minutes are fewer than any that were measured with GPT-2's tokens.
    monkeypatch.setattr(session.recipe, "measure_speed", lambda *_: 1.0)
    (tmp_path / "data" / "long").mkdir(parents=True)
    bottles = "".join(f"{i} bottles of beer\n" for i in range(300_000))  # long, or dropout changes the recipe
    (tmp_path / "data" / "long" / "a.txt").write_text(bottles)
    run = RunFolder(tmp_path / "models", "long")
    prepared = prepare("long", run, tmp_path / "data", tokenizer=tokenizer)
    reporter, pool = Sentences(), DataParallel(1)
    try:
        plan = session._plan(
            run, prepared, session.TrainOptions(minutes=3.0), None, pool, Distributed.from_environment(),
            Timestamp.now(),
        )  # fmt: skip
        session._check_plan(run, prepared, plan, pool, 2, reporter)
    finally:
        pool.close()
    assert plan.config.model.vocab_size == prepared.vocab_size
    said = re.fullmatch(
        rf"Expect a loss of about (\S+) per {unit}, or (\S+) bits per byte, as on {text}; texts differ\.",
        reporter.sentences[-1],
    )
    assert said is not None, reporter.sentences
    loss, bits_per_byte = map(float, said.groups())
    assert prepared.bits_per_byte(loss) == pytest.approx(bits_per_byte, rel=0.03)
    assert 1.5 < bits_per_byte < 4


def test_a_run_that_trained_and_could_not_be_saved_has_failed(tmp_path: Path) -> None:
    """Unlike a refused run, whose status does not change."""
    run = RunFolder(tmp_path, "bottles")
    before = run.write_status(Status(run="bottles", phase="stopped", message="Stopped at step 20."))
    session._write_failure(run, before, RunError("begun otherwise"))
    assert (run.status() or before).phase == "stopped"
    session._write_failure(run, before, DiskFullError("The disk is full."))
    now = run.status()
    assert now is not None
    assert (now.phase, now.message) == ("failed", "The disk is full.")
