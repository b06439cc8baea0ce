"""How a start that cannot go on ends: its one line, its exit code, and what the page is told; real processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gptbox.run_folder import RunFolder, Status
from gptbox.train.failure import remove_failed_starts

TEXT = "".join(f"{n} green bottles hanging on the wall, and if {n % 7} should fall\n" for n in range(400))
HUGE = ("--n-layer", "48", "--n-embd", "8192", "--n-head", "64", "--steps", "10")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "data" / "bottles").mkdir(parents=True)
    (tmp_path / "data" / "bottles" / "text.txt").write_text(TEXT)
    (tmp_path / "data" / "latin").mkdir()
    (tmp_path / "data" / "latin" / "text.txt").write_bytes("déjà vu ".encode("latin-1") * 500)
    return tmp_path


def train(home: Path, *arguments: str, supervisor: str = "", **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "gptbox", "train", *arguments],
        cwd=home, env=os.environ | {"THREADS": "1", "GPTBOX_SUPERVISOR": supervisor} | settings,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def status_of(home: Path, run: str = "bottles") -> Status:
    status = RunFolder(home / "models", run).status()
    assert status is not None
    return status


FAILURES = [
    (("bottles",), {"TRAIN_MINUTES": "soon"}, 2, "TRAIN_MINUTES='soon'"),
    (("bottles",), {"PRESET": "foo"}, 2, "PRESET 'foo' is not one of default, lesson"),
    (("nowhere",), {}, 2, "There is no dataset 'nowhere'"),
    (("latin",), {}, 2, "UTF-8"),
    (("bottles", "--n-embd", "100", "--n-head", "3"), {}, 2, "which 3 heads do not divide"),
    (("bottles", *HUGE), {}, 1, "Take a smaller model"),
]


@pytest.mark.parametrize(("arguments", "settings", "code", "said"), FAILURES)
def test_on_the_command_line(
    home: Path, arguments: tuple[str, ...], settings: dict[str, str], code: int, said: str
) -> None:
    done = train(home, *arguments, **settings)
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert said in line
    assert "reaches a loss" not in done.stdout, "nothing is promised that is refused"
    if code == 2:
        assert not (home / "models").exists() or not list((home / "models").iterdir()), "nothing is left behind"
    else:
        assert status_of(home).phase == "failed"


@pytest.mark.parametrize(("arguments", "settings", "code", "said"), FAILURES)
def test_under_compose_the_page_is_told_and_nothing_is_restarted(
    home: Path, arguments: tuple[str, ...], settings: dict[str, str], code: int, said: str
) -> None:
    done = train(home, *arguments, supervisor="compose", **settings)
    assert done.returncode == 0
    assert said in done.stderr
    status = status_of(home, arguments[0])
    assert (status.phase, said in status.message) == ("failed", True)
    # The next start takes away what is left of one that did not get far.
    assert train(home, "bottles", "--preset", "lesson", "--steps", "2", "--run", "good").returncode == 0
    kept = {"good", *(("bottles",) if code == 1 else ())}
    assert {path.name for path in (home / "models").iterdir()} == kept


def test_a_run_s_name_that_cannot_be_is_told_under_one_that_can(home: Path) -> None:
    assert train(home, "bottles", supervisor="compose", RUN="../../etc").returncode == 0
    assert "'../../etc' cannot name a run" in status_of(home, "etc").message


def test_a_finished_run_is_finished_again_once_the_setting_is_mended(home: Path) -> None:
    lesson = ("bottles", "--preset", "lesson", "--steps", "2")
    assert train(home, *lesson).returncode == 0
    best = status_of(home).best_snapshot
    assert train(home, *lesson, supervisor="compose", THREADS="none").returncode == 0
    failed = status_of(home)
    assert (failed.phase, failed.best_snapshot) == ("failed", best)
    assert "THREADS='none'" in failed.message
    assert train(home, *lesson, supervisor="compose").returncode == 0
    assert (status_of(home).phase, status_of(home).step) == ("finished", 2)


def test_a_damaged_checkpoint_is_not_tried_three_times(home: Path) -> None:
    lesson = ("bottles", "--preset", "lesson", "--steps", "2")
    assert train(home, *lesson).returncode == 0
    for path in (home / "models" / "bottles" / "checkpoint").iterdir():
        path.write_bytes(b"damaged")
    longer = (*lesson[:-1], "4")
    refused = train(home, *longer)
    assert refused.returncode == 1
    assert "RUN=NAME" in refused.stderr, "advice that can be followed under Compose, too"
    assert "gptbox delete bottles" in refused.stderr
    assert status_of(home).phase == "finished", "the run is what it was"
    assert train(home, *longer, supervisor="compose").returncode == 0
    assert status_of(home).phase == "failed"
    assert "is damaged" in status_of(home).message


def test_only_what_never_got_far_is_removed(tmp_path: Path) -> None:
    for name, phase in (("failed", "failed"), ("preparing", "preparing"), ("trained", "failed")):
        RunFolder(tmp_path, name).write_status(Status(run=name, phase=phase))  # type: ignore[arg-type]
    (tmp_path / "trained" / "snapshots").mkdir()
    remove_failed_starts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["preparing", "trained"]


def test_a_loss_is_expected_only_of_a_plan_that_was_measured(home: Path) -> None:
    promise = "On Tiny Shakespeare this reaches"
    changed = train(home, "bottles", "--minutes", "0.15", "--n-layer", "1")
    few = train(home, "bottles", "--steps", "3", "--run", "few")
    assert (changed.returncode, few.returncode) == (0, 0), changed.stderr + few.stderr
    assert promise not in changed.stdout + few.stdout


def test_the_first_start_compiles_before_its_minutes_count(home: Path) -> None:
    """With compiling in its budget, this run once finished after 0 steps."""
    kernels = home / "kernels"
    kernels.mkdir()
    done = train(home, "bottles", "--minutes", "0.15", GPTBOX_KERNELS=str(kernels))
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    compiling = next(i for i, line in enumerate(said) if line.startswith("Compiling the training kernels"))
    assert compiling < next(i for i, line in enumerate(said) if line.startswith("Plan: "))
    status = status_of(home)
    assert status.step > 50
    assert status.elapsed_s <= 9.5
    again = train(home, "bottles", "--minutes", "0.2", GPTBOX_KERNELS=str(kernels))
    assert "Compiling" not in again.stdout
    shutil.rmtree(kernels)
