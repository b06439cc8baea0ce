"""How a start that fails ends: its message, its exit code and its status; with real processes."""

from pathlib import Path

import pytest
from tests.train.commands import status_of, train

from gptbox.errors import DownloadError
from gptbox.models.runs import RunFolder, Status
from gptbox.train.failure import exit_code, remove_failed_starts

HUGE = ("--n-layer", "48", "--n-embd", "8192", "--n-head", "64", "--steps", "10")


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
    assert "Expect a loss" not in done.stdout, "no loss is promised for a refused run"
    if code == 2:
        assert not (home / "models").exists() or not list((home / "models").iterdir()), "nothing is left behind"
    else:
        assert status_of(home).phase == "failed"


@pytest.mark.parametrize(("arguments", "settings", "code", "said"), FAILURES)
def test_under_compose_the_status_has_the_message_and_nothing_is_restarted(
    home: Path, arguments: tuple[str, ...], settings: dict[str, str], code: int, said: str
) -> None:
    done = train(home, *arguments, supervisor="compose", **settings)
    assert done.returncode == 0
    assert said in done.stderr
    status = status_of(home, arguments[0])
    assert (status.phase, said in status.message) == ("failed", True)
    # The next start removes a failed start that has no prepared text.
    assert train(home, "bottles", "--preset", "lesson", "--steps", "2", "--run", "good").returncode == 0
    kept = {"good", *(("bottles",) if code == 1 else ())}
    assert {path.name for path in (home / "models").iterdir()} == kept


def test_a_download_that_may_succeed_later_is_repeated_under_compose(home: Path) -> None:
    done = train(home, supervisor="compose", DATASET_URL="http://127.0.0.1:9/texts/fox.txt")
    assert done.returncode == 2
    status = status_of(home, "fox")
    assert status.phase == "failed"
    assert status.message == (
        "The text fox could not be downloaded from http://127.0.0.1:9/texts/fox.txt: Connection refused."
    )


def test_a_download_that_cannot_succeed_is_not_repeated_under_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTBOX_SUPERVISOR", "compose")
    assert exit_code(DownloadError("404", is_permanent=True)) == 0
    assert exit_code(DownloadError("503")) == 2


def test_an_invalid_run_name_is_reported_under_a_valid_one(home: Path) -> None:
    assert train(home, "bottles", supervisor="compose", RUN="../../etc").returncode == 0
    assert "'../../etc' cannot name a run" in status_of(home, "etc").message


def test_a_finished_run_is_finished_again_once_the_setting_is_fixed(home: Path) -> None:
    lesson = ("bottles", "--preset", "lesson", "--steps", "2")
    assert train(home, *lesson).returncode == 0
    best = status_of(home).best_snapshot
    assert train(home, *lesson, supervisor="compose", THREADS="none").returncode == 0
    failed = status_of(home)
    assert (failed.phase, failed.best_snapshot) == ("failed", best)
    assert "THREADS='none'" in failed.message
    assert train(home, *lesson, supervisor="compose").returncode == 0
    assert (status_of(home).phase, status_of(home).step) == ("finished", 2)


def test_a_damaged_checkpoint_is_not_retried_under_compose(home: Path) -> None:
    lesson = ("bottles", "--preset", "lesson", "--steps", "2")
    assert train(home, *lesson).returncode == 0
    for path in (home / "models" / "bottles" / "checkpoint").iterdir():
        path.write_bytes(b"damaged")
    longer = (*lesson[:-1], "4")
    refused = train(home, *longer)
    assert refused.returncode == 1
    assert "RUN=NAME" in refused.stderr, "advice that also works under Compose"
    assert "gptbox delete bottles" in refused.stderr
    assert status_of(home).phase == "finished", "the run is unchanged"
    assert train(home, *longer, supervisor="compose").returncode == 0
    assert status_of(home).phase == "failed"
    assert "is damaged" in status_of(home).message


def test_only_failed_starts_without_a_prepared_text_are_removed(tmp_path: Path) -> None:
    for name, phase in (("failed", "failed"), ("preparing", "preparing"), ("trained", "failed")):
        RunFolder(tmp_path, name).write_status(Status(run=name, phase=phase))  # type: ignore[arg-type]
    (tmp_path / "trained" / "snapshots").mkdir()
    remove_failed_starts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["preparing", "trained"]
