"""The lock: exclusive for holders, harmless for readers, and never on a deleted file."""

import fcntl
import threading
from pathlib import Path
from typing import Any

import pytest

from gptbox.system import file_lock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "letters" / ".lock"


def test_one_holder_at_a_time(path: Path) -> None:
    with file_lock.acquire(path), pytest.raises(BlockingIOError):
        file_lock.acquire(path)
    with file_lock.acquire(path):
        assert file_lock.is_held(path) is True
    assert file_lock.is_held(path) is False


def test_without_a_file_the_answer_is_unknown(path: Path) -> None:
    assert file_lock.is_held(path) is None
    path.parent.mkdir()
    assert file_lock.is_held(path) is None
    assert list(path.parent.iterdir()) == []


def test_acquire_waits_for_a_reader(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with path.open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        threading.Timer(0.2, fcntl.flock, (reader, fcntl.LOCK_UN)).start()
        with file_lock.acquire(path):
            pass


def test_readers_do_not_see_each_other(path: Path) -> None:
    with file_lock.acquire(path):
        pass
    with path.open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        assert file_lock.is_held(path) is False


def test_reading_needs_no_write_permission(path: Path) -> None:
    with file_lock.acquire(path):
        path.chmod(0o444)
        assert file_lock.is_held(path) is True


def test_a_lock_on_a_deleted_file_is_acquired_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is deleted between opening the file and locking it."""
    flock, gone = fcntl.flock, path.parent.with_name(".gone")

    def late_flock(file: Any, operation: int) -> None:
        if not gone.exists():
            path.parent.rename(gone)
        flock(file, operation)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", late_flock)
        lock = file_lock.acquire(path)
    with lock:
        assert file_lock.is_held(path) is True
