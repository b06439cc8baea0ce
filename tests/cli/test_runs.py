"""`gptbox runs` and `gptbox delete`."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.process import gptbox

from gptbox.models.runs import RunFolder, Status


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A folder with five runs in models/, one in each state."""
    models = tmp_path / "models"
    states: list[tuple[str, Status | None, int, int]] = [
        ("bottles", Status(run="bottles", phase="finished", step=2957, val_loss_estimate=1.41, best_val_loss=1.40123),
         3, 300),
        ("broken", Status(run="broken", phase="failed", message="Too short."), 0, 400),
        ("interrupted", Status(run="interrupted", phase="training", step=80, val_loss_estimate=2.5, best_val_loss=2.46),
         1, 200),
        ("of-before", Status(run="of-before", phase="stopped", step=5000, val_loss=1.5, best_val_loss=1.4967), 2, 100),
        ("prepared", None, 0, 0),
    ]  # fmt: skip
    for name, status, snapshots, time_ in states:
        run = RunFolder(models, name)
        run.dataset.mkdir(parents=True)
        for step in range(snapshots):
            run.snapshot(step).mkdir(parents=True)
            (run.snapshot(step) / "model.safetensors").write_bytes(bytes(1_000_000))
        if status is not None:
            with run.lock():
                run.write_status(status)
            os.utime(run.path / "status.json", (time_, time_))
        if snapshots:
            os.utime(run.path / "snapshots", (time_, time_))
    return tmp_path


def test_runs_are_listed_in_columns(full: Path) -> None:
    done = gptbox(full, "runs", TZ="UTC")
    assert done.returncode == 0, done.stderr
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert [line.split()[0] for line in lines] == ["run", "bottles", "broken", "interrupted", "of-before", "prepared"]
    assert lines[0].split() == ["run", "phase", "step", "best", "loss", "size", "written"]
    assert lines[1].split() == ["bottles", "finished", "2,957", "1.4012", "3.0", "MB", "1970-01-01", "00:05", "served"]
    assert lines[3].split()[1:5] == ["stopped", "80", "about", "2.46"], "its trainer is gone"
    assert lines[4].split()[1:4] == ["stopped", "5,000", "1.4967"]
    assert lines[5].split() == ["prepared", "prepared", "-", "-", "0", "bytes", "-"]
    assert not any("served" in line for line in lines[2:])
    # Each column starts or ends at the same position in every line, and there is no colour in a pipe.
    phases = ("phase", "finished", "failed", "stopped", "stopped", "prepared")
    assert len({line.rindex(phase) for line, phase in zip(lines, phases, strict=True)}) == 1
    losses = {0: "best loss", 1: "1.4012", 3: "about 2.46", 4: "1.4967"}
    assert len({lines[i].index(loss) + len(loss) for i, loss in losses.items()}) == 1
    assert "\x1b" not in done.stdout


def test_a_run_is_training_while_its_trainer_holds_the_lock(full: Path) -> None:
    with RunFolder(full / "models", "interrupted").lock():
        assert "\ninterrupted  training" in gptbox(full, "runs").stdout


def test_without_runs_the_output_says_how_to_begin(tmp_path: Path) -> None:
    done = gptbox(tmp_path, "runs")
    assert done.returncode == 0
    assert done.stdout == "There is no run in models yet; begin one with: gptbox train\n"


@pytest.mark.parametrize("name", ["bottles", "broken", "prepared"])
def test_delete_deletes_one_run(full: Path, name: str) -> None:
    done = gptbox(full, "delete", name, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Deleted models/{name} (")
    left = sorted(path.name for path in (full / "models").iterdir())
    assert left == sorted({"bottles", "broken", "interrupted", "of-before", "prepared"} - {name})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bottles",), "no terminal to ask on; --yes deletes without asking"),
        (("nobody", "--yes"), "There is no run 'nobody' in models (there: bottles, broken, interrupted, "),
        (("../models", "--yes"), "There is no run '../models'"),
        (("interrupted", "--yes"), "The run 'interrupted' is being trained. Stop training first"),
    ],
)
def test_delete_refuses_with_one_line(full: Path, arguments: tuple[str, ...], said: str) -> None:
    with RunFolder(full / "models", "interrupted").lock():
        done = subprocess.run(
            [sys.executable, "-m", "gptbox", "delete", *arguments], cwd=full, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("gptbox: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert len(list((full / "models").iterdir())) == 5


@pytest.mark.parametrize(("answer", "deleted"), [("y", True), ("n", False), ("", False)])
def test_delete_asks_on_a_terminal_and_names_what_will_be_lost(full: Path, answer: str, deleted: bool) -> None:
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "gptbox", "delete", "bottles"], cwd=full, stdin=theirs, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            os.write(ours, f"{answer}\n".encode())
            output, _ = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    asked = "Delete models/bottles for good (3.0 MB, 3 snapshots, the best with a loss of 1.4012)? [y/N]: "
    assert output.startswith(asked)
    assert ("Nothing was deleted." in output) == (not deleted)
    assert process.returncode == (0 if deleted else 1)
    assert (full / "models" / "bottles").exists() == (not deleted)
