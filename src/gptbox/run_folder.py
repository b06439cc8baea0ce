"""A run's folder in the volume: train writes it, web reads it.

<run>/dataset/  status.json  metrics.jsonl  samples.jsonl  checkpoint/  snapshots/step-000250/  best  latest  .lock
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from gptbox import run_lock
from gptbox.atomic import atomic_file, replace_symlink, temporary_beside, write_json
from gptbox.errors import ModelNotFoundError, NoModelYetError, RunBusyError, RunError, SettingError

Phase = Literal["preparing", "training", "finished", "stopped", "failed"]

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SNAPSHOT_NAME = re.compile(r"step-\d{6,}")


def begin_anew(run: str) -> str:
    """What to do where a run cannot go on: the end of an error message."""
    return f"Train under another name (--run NAME, or RUN=NAME), or begin anew after: gptbox delete {run}"


def utc_now() -> str:
    """The present moment as ISO 8601 in UTC, whole milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, kw_only=True)
class Status:
    """The content of `status.json`; None is what is not known yet."""

    run: str
    phase: Phase
    message: str = ""
    """One plain sentence for people."""
    step: int = 0
    steps: int | None = None
    """How many steps the run will have: exact when asked for in steps, an estimate when asked for in minutes."""
    tokens: int = 0
    elapsed_s: float = 0.0
    """Seconds of training, interruptions not counted."""
    eta_s: float | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    """Exact, over the whole validation split, of the latest snapshot; None where it was only estimated."""
    val_loss_estimate: float | None = None
    """Of the latest snapshot, over a small fixed part of the validation split."""
    best_val_loss: float | None = None
    """Of the best snapshot: estimated while the run goes on, exact once it has finished."""
    tokens_per_s: float | None = None
    parameters: int | None = None
    architecture: str | None = None
    device: str | None = None
    dataset_source: str | None = None
    latest_snapshot: str | None = None
    best_snapshot: str | None = None
    updated_at: str = ""

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in content.items() if name in known})


def _without_a_word(status: Status) -> str:
    preparing = status.phase == "preparing"
    when = "while it got ready" if preparing else f"at step {status.step:,}"
    then = "Start it again with" if preparing else "It goes on from its last checkpoint with"
    return (
        f"Training ended without a word {when}: its process was killed, perhaps for lack of memory or by a power cut. "
        f"{then} docker compose up -d, or gptbox train."
    )


class RunFolder:
    """One run below the models folder. Nothing is created before something is written."""

    def __init__(self, models: Path, name: str) -> None:
        """Raises SettingError where `name` cannot be a run's name."""
        if not _RUN_NAME.fullmatch(name):
            raise SettingError(
                f"{name!r} cannot name a run: up to 64 letters, digits, dots, dashes and underscores, "
                "the first a letter or digit."
            )
        self.name = name
        self.path = models / name

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def dataset(self) -> Path:
        return self.path / "dataset"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    # the trainer

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for one trainer; the kernel releases it however the process ends.

        Raises RunBusyError where another process holds it.
        """
        try:
            file = run_lock.acquire(self.path / ".lock")
        except BlockingIOError:
            raise RunBusyError(
                f"Another trainer is at work on the run {self.name!r}; wait for it, or train under another name "
                "(--run)."
            ) from None
        with file:
            yield

    def has_trainer(self) -> bool | None:
        """Whether a trainer is at work; None where the lock does not tell."""
        return run_lock.is_held(self.path / ".lock")

    # status

    def write_status(self, status: Status) -> Status:
        """Replace status.json atomically; returns the status with its time stamp."""
        self.path.mkdir(parents=True, exist_ok=True)
        status = replace(status, updated_at=utc_now())
        write_json(self.path / "status.json", asdict(status))
        return status

    def status(self) -> Status | None:
        """The last status written; None where there is none that can be read."""
        try:
            return Status.from_json(json.loads((self.path / "status.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def checked_status(self) -> Status | None:
        """The last status, but `stopped` where its trainer is gone: a process that was killed writes no status."""
        status = self.status()
        while status is not None and status.phase in ("preparing", "training") and self.has_trainer() is False:
            again = self.status()
            if again == status:
                return replace(status, phase="stopped", message=_without_a_word(status), eta_s=None)
            status = again  # the trainer ended, or began, between the two looks
        return status

    # metrics.jsonl and samples.jsonl

    def append(self, name: Literal["metrics", "samples"], row: dict[str, Any]) -> None:
        """Append one row; a row is one line, so that a reader never sees half of it but at the very end."""
        self.path.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
        with (self.path / f"{name}.jsonl").open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(size)  # a full disk: no half of a row for the next one to be glued to
                raise

    def version(self, name: Literal["metrics", "samples"]) -> tuple[int, int, int] | None:
        """What changes when rows do; None where there are none."""
        try:
            file = (self.path / f"{name}.jsonl").stat()
        except OSError:
            return None
        return file.st_ino, file.st_mtime_ns, file.st_size

    def rows(self, name: Literal["metrics", "samples"]) -> list[dict[str, Any]]:
        """All rows that can be read; a last line that is still being written, or was cut by a crash, is left out."""
        try:
            text = (self.path / f"{name}.jsonl").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        rows = []
        for line in text.split("\n"):  # not splitlines: JSON leaves U+2028 and its like in a row as they are
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
        return rows

    def truncate_rows(self, step: int) -> None:
        """Drop the rows after `step`: a resumed run writes them again."""
        names: tuple[Literal["metrics", "samples"], ...] = ("metrics", "samples")
        for name in names:
            file = self.path / f"{name}.jsonl"
            if not file.exists():
                continue
            kept = [row for row in self.rows(name) if row.get("step", 0) <= step]
            with atomic_file(file) as temporary:
                lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
                temporary.write_text("".join(lines), encoding="utf-8")

    # snapshots

    def snapshot(self, step: int) -> Path:
        """Where the snapshot of a step is, or would be."""
        return self.path / "snapshots" / f"step-{step:06d}"

    def snapshots(self) -> list[Path]:
        """The published snapshots, in the order of their steps."""
        try:
            names = os.listdir(self.path / "snapshots")  # noqa: PTH208  (only names are needed)
        except OSError:
            return []
        steps = sorted((int(name[5:]), name) for name in names if _SNAPSHOT_NAME.fullmatch(name))
        return [self.path / "snapshots" / name for _, name in steps]

    def point(self, link: Literal["best", "latest"], snapshot: Path) -> None:
        """Let `best` or `latest` point at a published snapshot."""
        replace_symlink(self.path / link, f"snapshots/{snapshot.name}")

    def resolve(self, which: str = "best") -> Path:
        """The folder of `best`, `latest` or `step-000250`; `best` falls back to the last where no link is there.

        Raises NoModelYetError where nothing has been published, ModelNotFoundError where it is not this snapshot.
        """
        snapshots = self.snapshots()
        if which in ("best", "latest"):
            try:
                target = self.path / "snapshots" / (self.path / which).readlink().name
            except OSError:
                target = None
            if target is not None and target in snapshots:
                return target
            if snapshots:
                return snapshots[-1]
        elif (wanted := self.path / "snapshots" / which) in snapshots:
            return wanted
        if not snapshots:
            raise NoModelYetError(f"The run {self.name!r} has not published a model yet.")
        raise ModelNotFoundError(f"The run {self.name!r} has no snapshot {which!r}.")

    # the whole folder

    def written_at(self) -> float:
        """When the status or a snapshot was last written, in seconds since 1970; 0 where there is neither."""
        return max(_modified(self.path / "status.json"), self.published_at())

    def published_at(self) -> float:
        """When a snapshot was last published, in seconds since 1970; 0 where there is none."""
        return _modified(self.path / "snapshots")

    def size(self) -> int:
        """Bytes of all files."""
        size = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                with suppress(OSError):
                    size += (Path(folder) / name).lstat().st_size
        return size

    def unreadable(self) -> list[Path]:
        """The parts of the run that are there, but that this process has no right to read."""
        names = ("status.json", "metrics.jsonl", "samples.jsonl", "snapshots")
        return [path for path in (self.path, *(self.path / name for name in names)) if _is_forbidden(path)]

    def delete(self) -> None:
        """Delete the run and everything in it. No reader ever sees half of it.

        Raises RunBusyError where a trainer is at work, RunError where the folder cannot be deleted.
        """
        hidden = temporary_beside(self.path)
        try:
            with self.lock():
                self.path.rename(hidden)
                shutil.rmtree(hidden)
        except OSError as error:
            left = hidden if hidden.exists() else self.path
            raise RunError(
                f"{left} could not be deleted: {error.strerror}. In the containers it takes: "
                f"docker compose run --rm train gptbox delete {self.name}"
            ) from None


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_forbidden(path: Path) -> bool:
    needed = os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK  # noqa: PTH112  (Path.is_dir may raise)
    return os.access(path, os.F_OK) and not os.access(path, needed)


def run_folders(models: Path) -> list[RunFolder]:
    """Every folder that can be a run's, in the order of their names, whatever it holds."""
    try:
        names = sorted(os.listdir(models))  # noqa: PTH208
    except OSError:
        return []
    runs = [RunFolder(models, name) for name in names if _RUN_NAME.fullmatch(name)]
    return [run for run in runs if os.path.isdir(run.path)]  # noqa: PTH112


def list_runs(models: Path) -> list[RunFolder]:
    """Every run that has a status or snapshots, in the order of their names; not those that may not be read."""

    def is_run(run: RunFolder) -> bool:
        status = run.path / "status.json"
        if os.access(status, os.F_OK):
            return os.access(status, os.R_OK)
        return os.access(run.path / "snapshots", os.R_OK | os.X_OK)

    return [run for run in run_folders(models) if is_run(run)]


def unreadable(models: Path) -> list[Path]:
    """What of the models folder this process has no right to read."""
    if _is_forbidden(models):
        return [models]
    return [path for run in run_folders(models) for path in run.unreadable()]


def find_run(models: Path, name: str) -> RunFolder:
    """The run of that name.

    Raises ModelNotFoundError, naming the runs there are.
    """
    return _find(models, name, list_runs(models))


def find_run_folder(models: Path, name: str) -> RunFolder:
    """The same for any folder that can be a run's: one that was only prepared, or that failed at once.

    Raises ModelNotFoundError.
    """
    return _find(models, name, run_folders(models))


def _find(models: Path, name: str, runs: list[RunFolder]) -> RunFolder:
    for run in runs:
        if run.name == name:
            return run
    there = ", ".join(run.name for run in runs) or "none yet"
    raise ModelNotFoundError(f"There is no run {name!r} in {models} (there: {there}).")


def find_snapshot(models: Path, reference: str) -> Path:
    """The folder of `RUN`, `RUN@best`, `RUN@latest` or `RUN@step-000250`.

    Raises ModelNotFoundError or NoModelYetError.
    """
    name, _, which = reference.partition("@")
    return find_run(models, name).resolve(which or "best")


def newest_run(models: Path) -> RunFolder | None:
    """The run that was written to last: the one whose training people look at."""
    return max(list_runs(models), key=RunFolder.written_at, default=None)


def published_runs(models: Path) -> list[RunFolder]:
    """The runs that have snapshots, the one that was written to last in front: that one is served.

    A start that fails only writes its reason down: that alone makes no run the newest.
    """

    def written(run: RunFolder) -> float:
        status = run.status()
        return run.published_at() if status is not None and status.phase == "failed" else run.written_at()

    return sorted((run for run in list_runs(models) if run.snapshots()), key=written, reverse=True)


def newest_published_run(models: Path) -> RunFolder | None:
    """The run that is served."""
    return next(iter(published_runs(models)), None)
