"""The folder of a run: the reader gets what the trainer wrote, despite crashes and incomplete lines."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gptbox.errors import ModelNotFoundError, NoModelYetError, RunError, SettingError
from gptbox.models.runs import (
    RunFolder,
    Status,
    find_run,
    find_run_folder,
    find_snapshot,
    list_runs,
    newest_published_run,
    newest_run,
)
from gptbox.system import file_lock


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path, "letters")


def publish(run: RunFolder, *steps: int) -> None:
    for step in steps:
        run.snapshot(step).mkdir(parents=True)


class TestNames:
    @pytest.mark.parametrize("name", ["letters", "7", "a.b-c_d", "x" * 64])
    def test_a_valid_name_is_the_name_of_the_folder(self, tmp_path: Path, name: str) -> None:
        assert RunFolder(tmp_path, name).path == tmp_path / name
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "name", ["", ".", "..", "../x", "a/b", ".hidden", "-x", "a b", "x" * 65, "a\n", "é", "a@b"]
    )
    def test_other_names_are_rejected(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(SettingError, match="cannot name a run"):
            RunFolder(tmp_path, name)


class TestStatus:
    def test_a_written_status_is_read(self, run: RunFolder) -> None:
        written = run.write_status(Status(run="letters", phase="training", message="Es läuft", step=7, val_loss=1.5))
        assert run.status() == written
        assert written.updated_at.endswith("+00:00")
        assert sorted(path.name for path in run.path.iterdir()) == ["status.json"]

    def test_the_last_status_counts(self, run: RunFolder) -> None:
        run.write_status(Status(run="letters", phase="training", step=1))
        run.write_status(Status(run="letters", phase="finished", step=2))
        status = run.status()
        assert status is not None
        assert (status.phase, status.step) == ("finished", 2)

    def test_there_is_none_before_the_first_write(self, run: RunFolder) -> None:
        assert run.status() is None

    @pytest.mark.parametrize("content", [b"", b'{"run": "letters", "pha', b"[]", b"null", b"{}", b"\xff"])
    def test_an_unreadable_status_is_none(self, run: RunFolder, content: bytes) -> None:
        run.path.mkdir()
        (run.path / "status.json").write_bytes(content)
        assert run.status() is None

    def test_fields_of_later_versions_are_ignored(self, run: RunFolder) -> None:
        written = run.write_status(Status(run="letters", phase="training"))
        content = json.loads((run.path / "status.json").read_text())
        (run.path / "status.json").write_text(json.dumps(content | {"mood": "good"}))
        assert run.status() == written

    def test_a_loss_of_nan_is_never_written(self, run: RunFolder) -> None:
        good = run.write_status(Status(run="letters", phase="training", train_loss=1.0))
        with pytest.raises(ValueError, match="JSON compliant"):
            run.write_status(Status(run="letters", phase="training", train_loss=float("nan")))
        assert run.status() == good


TRAINER = """
import sys, time
from pathlib import Path
from gptbox.models.runs import RunFolder, Status
run = RunFolder(Path(sys.argv[1]), "letters")
with run.lock():
    run.write_status(Status(run="letters", phase=sys.argv[2], step=1234))
    print("held", flush=True)
    time.sleep(60)
"""
"""The lock and the status of a trainer."""


def trainer(run: RunFolder, phase: str) -> "subprocess.Popen[str]":
    """A process that holds the lock of the run and has written its status."""
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(run.path.parent), phase], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


class TestLock:
    def test_one_trainer_at_a_time(self, run: RunFolder) -> None:
        with run.lock(), pytest.raises(RunError, match="Another trainer is at work on the run 'letters'"):
            run.lock().__enter__()
        with run.lock():
            assert run.has_trainer() is True
        assert run.has_trainer() is False

    def test_before_the_first_trainer_the_answer_is_unknown(self, run: RunFolder) -> None:
        assert run.has_trainer() is None
        run.path.mkdir()
        assert run.has_trainer() is None
        assert list(run.path.iterdir()) == []

    @pytest.mark.parametrize("phase", ["preparing", "training"])
    def test_a_status_is_valid_until_its_trainer_is_killed(self, run: RunFolder, phase: str) -> None:
        process = trainer(run, phase)
        written = run.status()
        assert run.checked_status() == written
        process.kill()
        process.communicate()
        checked = run.checked_status()
        assert written is not None
        assert checked is not None
        assert written.phase == phase
        assert (checked.phase, checked.step, checked.updated_at) == ("stopped", 1234, written.updated_at)
        assert checked.message.startswith("Training ended unexpectedly ")
        assert ("at step 1,234" in checked.message) == (phase == "training")
        assert run.status() == written, "the file is unchanged"

    @pytest.mark.parametrize("phase", ["finished", "stopped", "failed"])
    def test_the_last_status_of_a_trainer_stays_valid(self, run: RunFolder, phase: Any) -> None:
        with run.lock():
            written = run.write_status(Status(run="letters", phase=phase, message="So it ended."))
        assert run.checked_status() == written

    def test_without_a_lock_the_status_is_valid(self, run: RunFolder) -> None:
        written = run.write_status(Status(run="letters", phase="training"))
        assert run.checked_status() == written

    def test_a_trainer_that_ends_during_the_check_does_not_count_as_killed(
        self, run: RunFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with run.lock():
            run.write_status(Status(run="letters", phase="training"))

        def is_held(path: Path) -> bool:
            run.write_status(Status(run="letters", phase="finished"))
            return False

        monkeypatch.setattr(file_lock, "is_held", is_held)
        checked = run.checked_status()
        assert checked is not None
        assert checked.phase == "finished"


class TestRows:
    def test_rows_are_read_in_order(self, run: RunFolder) -> None:
        rows: list[dict[str, Any]] = [{"step": 1, "val_loss": None}, {"step": 2, "text": 'line\nbreak "quoted" 🐎'}]
        for row in rows:
            run.append("samples", row)
        assert run.read_rows("samples") == rows
        assert run.read_rows("metrics") == []

    @pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\n"])
    def test_no_character_of_a_text_ends_a_row(self, run: RunFolder, character: str) -> None:
        row: dict[str, Any] = {"step": 1, "text": f"before{character}after"}
        run.append("samples", row)
        assert run.read_rows("samples") == [row]

    @pytest.mark.parametrize("cut", [1, 5, 11])
    def test_an_incomplete_last_line_is_skipped(self, run: RunFolder, cut: int) -> None:
        run.append("metrics", {"step": 1})
        run.append("metrics", {"step": 2})
        file = run.path / "metrics.jsonl"
        file.write_bytes(file.read_bytes()[:-cut])
        assert run.read_rows("metrics") == ([{"step": 1}, {"step": 2}] if cut == 1 else [{"step": 1}])

    def test_an_incomplete_character_affects_only_its_line(self, run: RunFolder) -> None:
        run.append("samples", {"step": 1, "text": "é"})
        with (run.path / "samples.jsonl").open("ab") as file:
            file.write('{"step": 2, "text": "é'.encode()[:-1])
        assert run.read_rows("samples") == [{"step": 1, "text": "é"}]

    def test_lines_that_are_no_rows_are_skipped(self, run: RunFolder) -> None:
        run.append("metrics", {"step": 1})
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write("\n17\nnull\n[1]\nrubbish\n\0\0\0\n")
        run.append("metrics", {"step": 2})
        assert run.read_rows("metrics") == [{"step": 1}, {"step": 2}]

    def test_truncating_drops_later_rows_and_the_incomplete_line(self, run: RunFolder) -> None:
        for step in (0, 10, 20, 30):
            run.append("metrics", {"step": step})
            run.append("samples", {"step": step, "text": f"{step} \u2028"})
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 4')
        run.truncate_rows(20)
        run.append("metrics", {"step": 30, "again": True})
        assert run.read_rows("metrics") == [{"step": 0}, {"step": 10}, {"step": 20}, {"step": 30, "again": True}]
        assert [row["text"] for row in run.read_rows("samples")] == ["0 \u2028", "10 \u2028", "20 \u2028"]

    def test_truncating_a_missing_file_creates_nothing(self, run: RunFolder) -> None:
        run.truncate_rows(0)
        assert not run.path.exists()

    def test_a_value_that_json_lacks_leaves_the_file_unchanged(self, run: RunFolder) -> None:
        run.append("metrics", {"step": 1})
        with pytest.raises(ValueError, match="JSON compliant"):
            run.append("metrics", {"step": 2, "train_loss": float("inf")})
        assert run.read_rows("metrics") == [{"step": 1}]


class TestSnapshots:
    def test_only_snapshots_are_listed_ordered_by_step(self, run: RunFolder) -> None:
        assert run.snapshots() == []
        publish(run, 1000, 250, 2_000_000, 0)
        for other in (".step-000500.ab12.tmp", "step-12", "step-000250-old", "notes"):
            (run.path / "snapshots" / other).mkdir()
        assert [path.name for path in run.snapshots()] == ["step-000000", "step-000250", "step-001000", "step-2000000"]

    def test_links_are_relative_and_replaced(self, run: RunFolder) -> None:
        publish(run, 250, 500)
        for step in (250, 500):
            run.update_link("best", run.snapshot(step))
            assert (run.path / "best").readlink() == Path(f"snapshots/step-{step:06d}")
            assert run.resolve("best") == run.snapshot(step)
        assert sorted(path.name for path in run.path.iterdir()) == ["best", "snapshots"]

    def test_links_survive_a_moved_volume(self, run: RunFolder, tmp_path: Path) -> None:
        publish(run, 250)
        run.update_link("latest", run.snapshot(250))
        (tmp_path / "letters").rename(tmp_path / "moved")
        moved = RunFolder(tmp_path, "moved")
        assert (moved.path / "latest").resolve() == moved.snapshot(250)
        assert moved.resolve("latest") == moved.snapshot(250)

    @pytest.mark.parametrize("target", [None, "snapshots/step-009999", "../../etc", "snapshots/notes"])
    def test_without_a_valid_link_the_last_snapshot_counts(self, run: RunFolder, target: str | None) -> None:
        publish(run, 250, 500)
        if target:
            (run.path / "best").symlink_to(target)
        assert run.resolve() == run.snapshot(500)

    def test_only_snapshots_are_found_by_name(self, run: RunFolder) -> None:
        with pytest.raises(NoModelYetError, match="letters"):
            run.resolve("step-000250")
        publish(run, 250)
        assert run.resolve("step-000250") == run.snapshot(250)
        for wrong in ("step-000500", "250", "../../letters/snapshots/step-000250", "", "/"):
            with pytest.raises(ModelNotFoundError, match="no snapshot"):
                run.resolve(wrong)

    @pytest.mark.parametrize(
        ("wanted", "nearest"), [("step-000001", 250), ("step-000374", 250), ("step-000600", 500), ("step-9999999", 500)]
    )
    def test_the_nearest_snapshot_to_a_missing_one_is_named(self, run: RunFolder, wanted: str, nearest: int) -> None:
        publish(run, 250, 500)
        with pytest.raises(
            ModelNotFoundError, match=f"'{wanted}'; the nearest one that is kept is 'step-000{nearest}'"
        ):
            run.resolve(wanted)

    @pytest.mark.parametrize("wanted", ["step-" + "9" * 5000, "step-\u0661\u0661\u0661\u0661\u0661\u0661", "x" * 5000])
    def test_a_name_that_is_no_snapshots_has_none_nearest_to_it(self, run: RunFolder, wanted: str) -> None:
        publish(run, 250)
        with pytest.raises(ModelNotFoundError, match=r"^[^;]{1,160}\.$"):
            run.resolve(wanted)


class TestRuns:
    def test_a_run_has_a_status_or_snapshots(self, tmp_path: Path) -> None:
        RunFolder(tmp_path, "b").write_status(Status(run="b", phase="preparing"))
        publish(RunFolder(tmp_path, "a"), 1)
        (tmp_path / "c" / "dataset").mkdir(parents=True)
        (tmp_path / ".d" / "snapshots").mkdir(parents=True)
        (tmp_path / "e").write_text("a file")
        assert [run.name for run in list_runs(tmp_path)] == ["a", "b"]
        assert list_runs(tmp_path / "nowhere") == []

    def test_the_error_for_a_missing_run_lists_the_existing_ones(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFoundError, match=r"no run 'x'.*there: none yet"):
            find_run(tmp_path, "x")
        publish(RunFolder(tmp_path, "a"), 1)
        publish(RunFolder(tmp_path, "b"), 1)
        with pytest.raises(ModelNotFoundError, match=r"no run '\.\./a'.*there: a, b"):
            find_run(tmp_path, "../a")
        assert find_run(tmp_path, "b").name == "b"

    def test_a_reference_names_run_and_snapshot(self, tmp_path: Path) -> None:
        run = RunFolder(tmp_path, "letters")
        run.write_status(Status(run="letters", phase="training"))
        with pytest.raises(NoModelYetError):
            find_snapshot(tmp_path, "letters")
        publish(run, 250, 500)
        run.update_link("best", run.snapshot(250))
        run.update_link("latest", run.snapshot(500))
        found = {which: find_snapshot(tmp_path, f"letters{which}").name for which in ("", "@best", "@latest")}
        assert found == {"": "step-000250", "@best": "step-000250", "@latest": "step-000500"}
        assert find_snapshot(tmp_path, "letters@step-000500") == run.snapshot(500)
        with pytest.raises(ModelNotFoundError, match="step-000750"):
            find_snapshot(tmp_path, "letters@step-000750")

    def test_a_run_without_a_model_does_not_change_what_is_served(self, tmp_path: Path) -> None:
        """Another run's snapshot may be newer than those of the newest run, whose training went on after its best."""
        assert newest_published_run(tmp_path) is None
        for name, status_age, snapshots_age in (("failed", 0, None), ("served", 10, 500), ("other", 100, 100)):
            run = RunFolder(tmp_path, name)
            run.write_status(Status(run=name, phase="failed" if name == "failed" else "finished"))
            os.utime(run.path / "status.json", (10_000 - status_age, 10_000 - status_age))
            if snapshots_age is not None:
                publish(run, 1)
                for path in (run.snapshot(1), run.path / "snapshots"):
                    os.utime(path, (10_000 - snapshots_age, 10_000 - snapshots_age))
        newest, published = newest_run(tmp_path), newest_published_run(tmp_path)
        assert newest is not None
        assert published is not None
        assert (newest.name, published.name) == ("failed", "served")

    def test_a_deleted_run_leaves_nothing_behind(self, run: RunFolder, tmp_path: Path) -> None:
        run.write_status(Status(run="letters", phase="finished"))
        publish(run, 250)
        (run.snapshot(250) / "model.safetensors").write_bytes(b"x" * 1000)
        assert run.size() > 1000
        run.delete()
        assert list(tmp_path.iterdir()) == []

    def test_a_run_in_training_is_not_deleted(self, run: RunFolder) -> None:
        with run.lock():
            written = run.write_status(Status(run="letters", phase="training"))
            with pytest.raises(RunError, match="letters"):
                run.delete()
        assert run.status() == written

    def test_no_reader_sees_a_partly_deleted_run(
        self, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(run, 250)
        seen = []

        def rmtree(path: Path) -> None:
            seen.append(list_runs(tmp_path))
            raise OSError(5, "Input/output error")

        monkeypatch.setattr("gptbox.models.runs.shutil.rmtree", rmtree)
        with pytest.raises(RunError, match="could not be deleted: Input/output error"):
            run.delete()
        assert seen == [[]]

    def test_a_folder_that_was_only_prepared_is_found(self, tmp_path: Path) -> None:
        (tmp_path / "prepared" / "dataset").mkdir(parents=True)
        assert find_run_folder(tmp_path, "prepared").name == "prepared"
        with pytest.raises(ModelNotFoundError, match=r"no run 'x'.*there: prepared"):
            find_run_folder(tmp_path, "x")

    def test_the_newest_run_is_the_one_written_to_last(self, tmp_path: Path) -> None:
        assert newest_run(tmp_path) is None
        for age, name in enumerate(("a", "c", "b")):
            RunFolder(tmp_path, name).write_status(Status(run=name, phase="finished"))
            os.utime(tmp_path / name / "status.json", (1000 - age, 1000 - age))
        newest = newest_run(tmp_path)
        assert newest is not None
        assert newest.name == "a"
        publish(RunFolder(tmp_path, "b"), 1)
        newest = newest_run(tmp_path)
        assert newest is not None
        assert newest.name == "b"
