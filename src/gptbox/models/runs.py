"""The folder of a run: training writes it, the web server reads it.

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

from gptbox.errors import ModelNotFoundError, NoModelYetError, RunBusyError, RunError, RunNotFoundError, SettingError
from gptbox.system import file_lock
from gptbox.system.atomic import atomic_file, replace_symlink, temporary_beside, write_json

Phase = Literal["preparing", "training", "finished", "stopped", "failed"]

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SNAPSHOT_NAME = re.compile(r"step-\d{6,}", re.ASCII)
_MAX_SHOWN_NAME = 100
"""In characters."""


def start_over_advice(run: str) -> str:
    """The last sentence of an error message for a run that cannot be continued."""
    return f"Train under another name (--run NAME, or RUN=NAME), or start over after: gptbox delete {run}"


def utc_now() -> str:
    """The current time as ISO 8601 in UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, kw_only=True)
class Status:
    """The content of `status.json`; a field is None until its value is known."""

    run: str
    phase: Phase
    message: str = ""
    """Current activity, result or error, in plain words."""
    step: int = 0
    steps: int | None = None
    """Total steps of the run: exact if the run is limited by steps, an estimate if by minutes."""
    tokens: int = 0
    elapsed_s: float = 0.0
    """Seconds of training, without interruptions."""
    eta_s: float | None = None
    """Estimated seconds until the end of training."""
    train_loss: float | None = None
    val_loss: float | None = None
    """Exact loss of the latest snapshot, over the whole validation split; None if it was only estimated."""
    val_loss_estimate: float | None = None
    """Estimated loss of the latest snapshot, over a small fixed part of the validation split."""
    best_val_loss: float | None = None
    """Loss of the best snapshot: an estimate during the run, exact once the run has finished."""
    tokens_per_s: float | None = None
    parameters: int | None = None
    architecture: str | None = None
    device: str | None = None
    dataset_source: str | None = None
    characters_per_token: float | None = None
    """Mean number of the text's characters per token."""
    letters_per_token: float | None = None
    """The same in letters, of which a Chinese character has several: losses per token divided by it are comparable."""
    token_unit: str | None = None
    """What a token is: Tokenizer.unit."""
    dataset_health: list[str] | None = None
    """The health of the text, in lines for people."""
    latest_snapshot: str | None = None
    best_snapshot: str | None = None
    updated_at: str = ""

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in content.items() if name in known})


def _killed_message(status: Status) -> str:
    preparing = status.phase == "preparing"
    when = "during preparation" if preparing else f"at step {status.step:,}"
    remedy = "Start it again with" if preparing else "Resume from the last checkpoint with"
    return (
        f"Training ended unexpectedly {when}: its process was killed, perhaps for lack of memory or by a power cut. "
        f"{remedy} docker compose up -d, or gptbox train."
    )


class RunFolder:
    """One run in the models folder. Folders are created on the first write."""

    def __init__(self, models: Path, name: str) -> None:
        """Raises SettingError if `name` is not a valid run name."""
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

    # lock

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run for one trainer. The kernel releases the lock however the process ends.

        Raises RunBusyError if another process holds the lock.
        """
        try:
            file = file_lock.acquire(self.path / ".lock")
        except BlockingIOError:
            raise RunBusyError(
                f"Another trainer is at work on the run {self.name!r}; wait for it, or train under another name "
                "(--run)."
            ) from None
        with file:
            yield

    def has_trainer(self) -> bool | None:
        """Whether a trainer holds the lock; None if the lock cannot be examined."""
        return file_lock.is_held(self.path / ".lock")

    # status

    def write_status(self, status: Status) -> Status:
        """Replace status.json atomically; return the status with its timestamp."""
        self.path.mkdir(parents=True, exist_ok=True)
        status = replace(status, updated_at=utc_now())
        write_json(self.path / "status.json", asdict(status))
        return status

    def status(self) -> Status | None:
        """The status last written; None if status.json is missing or unreadable."""
        try:
            return Status.from_json(json.loads((self.path / "status.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def checked_status(self) -> Status | None:
        """The status last written, or `stopped` if its trainer is gone: a killed process writes no status."""
        status = self.status()
        while status is not None and status.phase in ("preparing", "training") and self.has_trainer() is False:
            reread = self.status()
            if reread == status:
                return replace(status, phase="stopped", message=_killed_message(status), eta_s=None)
            status = reread  # a trainer started or ended between reading the status and examining the lock
        return status

    # metrics.jsonl and samples.jsonl

    def append(self, name: Literal["metrics", "samples"], row: dict[str, Any]) -> None:
        """Append a row as one line, so that only the last line of the file can be incomplete.

        Raises OSError, as on a full disk, or ValueError for NaN or infinity; the file then stays as it was.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
        with (self.path / f"{name}.jsonl").open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(size)  # disk full: the next row must not continue an incomplete line
                raise

    def rows_version(self, name: Literal["metrics", "samples"]) -> tuple[int, int, int] | None:
        """A cache key of `read_rows`: inode, modification time and size of the file; None if it is missing."""
        try:
            file = (self.path / f"{name}.jsonl").stat()
        except OSError:
            return None
        return file.st_ino, file.st_mtime_ns, file.st_size

    def read_rows(self, name: Literal["metrics", "samples"]) -> list[dict[str, Any]]:
        """All complete rows; a line that is being written, or was cut off by a crash, is skipped."""
        try:
            text = (self.path / f"{name}.jsonl").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        rows = []
        for line in text.split("\n"):  # not splitlines: JSON does not escape U+2028 and similar line separators
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
        return rows

    def truncate_rows(self, step: int) -> None:
        """Drop the rows after `step`, which a resumed run writes again."""
        names: tuple[Literal["metrics", "samples"], ...] = ("metrics", "samples")
        for name in names:
            file = self.path / f"{name}.jsonl"
            if not file.exists():
                continue
            kept = [row for row in self.read_rows(name) if row.get("step", 0) <= step]
            with atomic_file(file) as temporary:
                lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
                temporary.write_text("".join(lines), encoding="utf-8")

    # snapshots

    def snapshot(self, step: int) -> Path:
        """Path of the snapshot of a step, whether it exists or not."""
        return self.path / "snapshots" / f"step-{step:06d}"

    def snapshots(self) -> list[Path]:
        """The published snapshots, ordered by step."""
        try:
            names = os.listdir(self.path / "snapshots")  # noqa: PTH208  (names suffice)
        except OSError:
            return []
        steps = sorted((_step(name), name) for name in names if _SNAPSHOT_NAME.fullmatch(name))
        return [self.path / "snapshots" / name for _, name in steps]

    def update_link(self, link: Literal["best", "latest"], snapshot: Path) -> None:
        """Point `best` or `latest` at a published snapshot."""
        replace_symlink(self.path / link, f"snapshots/{snapshot.name}")

    def resolve(self, which: str = "best") -> Path:
        """The folder of `best`, `latest` or `step-000250`. Without its link, `best` or `latest` is the last snapshot.

        Raises NoModelYetError if the run has no snapshot, ModelNotFoundError if it lacks the one asked for, which names
        the nearest one.
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
        elif (snapshot := self.path / "snapshots" / which) in snapshots:
            return snapshot
        if not snapshots:
            raise NoModelYetError(f"The run {self.name!r} has not published a model yet.")
        name = which if len(which) <= _MAX_SHOWN_NAME else f"{which[:_MAX_SHOWN_NAME]}..."
        advice = "."
        if _SNAPSHOT_NAME.fullmatch(name):
            nearest = min(snapshots, key=lambda path: abs(_step(path.name) - _step(name)))
            advice = f"; the nearest one that is kept is {nearest.name!r}."
        raise ModelNotFoundError(f"The run {self.name!r} has no snapshot {name!r}{advice}")

    # the whole folder

    def written_at(self) -> float:
        """When the status or a snapshot was last written, as a Unix timestamp; 0 if there is neither."""
        return max(_modification_time(self.path / "status.json"), self.published_at())

    def published_at(self) -> float:
        """When a snapshot was last published, as a Unix timestamp; 0 if there is none."""
        return _modification_time(self.path / "snapshots")

    def size(self) -> int:
        """Total size of all files in bytes."""
        size = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                with suppress(OSError):
                    size += (Path(folder) / name).lstat().st_size
        return size

    def inaccessible_paths(self) -> list[Path]:
        """The parts of the run that exist but that this process lacks the permission to read."""
        names = ("status.json", "metrics.jsonl", "samples.jsonl", "snapshots")
        return [path for path in (self.path, *(self.path / name for name in names)) if _is_inaccessible(path)]

    def delete(self) -> None:
        """Delete the run and everything in it. Readers never see it partly deleted.

        Raises RunBusyError if a trainer holds the lock, RunError if the folder cannot be deleted.
        """
        hidden = temporary_beside(self.path)
        try:
            with self.lock():
                self.path.rename(hidden)
                shutil.rmtree(hidden)
        except OSError as error:
            remaining = hidden if hidden.exists() else self.path
            raise RunError(
                f"{remaining} could not be deleted: {error.strerror}. With Docker, delete it by: "
                f"docker compose run --rm train gptbox delete {self.name}"
            ) from None


def _step(name: str) -> int:
    """The step of a snapshot's name."""
    return int(name.removeprefix("step-"))


def _modification_time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_inaccessible(path: Path) -> bool:
    needed = os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK  # noqa: PTH112  (Path.is_dir may raise)
    return os.access(path, os.F_OK) and not os.access(path, needed)


def run_folders(models: Path) -> list[RunFolder]:
    """Every folder with a valid run name, whatever it contains, sorted by name."""
    try:
        names = sorted(os.listdir(models))  # noqa: PTH208
    except OSError:
        return []
    runs = [RunFolder(models, name) for name in names if _RUN_NAME.fullmatch(name)]
    return [run for run in runs if os.path.isdir(run.path)]  # noqa: PTH112


def list_runs(models: Path) -> list[RunFolder]:
    """Every readable run that has a status or snapshots, sorted by name."""

    def is_run(run: RunFolder) -> bool:
        status = run.path / "status.json"
        if os.access(status, os.F_OK):
            return os.access(status, os.R_OK)
        return os.access(run.path / "snapshots", os.R_OK | os.X_OK)

    return [run for run in run_folders(models) if is_run(run)]


def inaccessible_paths(models: Path) -> list[Path]:
    """The parts of the models folder that this process lacks the permission to read."""
    if _is_inaccessible(models):
        return [models]
    return [path for run in run_folders(models) for path in run.inaccessible_paths()]


def find_run(models: Path, name: str) -> RunFolder:
    """The run called `name`, one of `list_runs`.

    Raises RunNotFoundError, which lists the existing runs.
    """
    return _find(models, name, list_runs(models))


def find_run_folder(models: Path, name: str) -> RunFolder:
    """The run called `name`, one of `run_folders`: also a run that was only prepared or that failed at once.

    Raises RunNotFoundError.
    """
    return _find(models, name, run_folders(models))


def _find(models: Path, name: str, runs: list[RunFolder]) -> RunFolder:
    for run in runs:
        if run.name == name:
            return run
    names = ", ".join(run.name for run in runs) or "none yet"
    raise RunNotFoundError(f"There is no run {name!r} in {models} (there: {names}).")


def find_snapshot(models: Path, reference: str) -> Path:
    """The folder of `RUN`, `RUN@best`, `RUN@latest` or `RUN@step-000250`.

    Raises RunNotFoundError, ModelNotFoundError or NoModelYetError.
    """
    name, _, which = reference.partition("@")
    return find_run(models, name).resolve(which or "best")


def newest_run(models: Path) -> RunFolder | None:
    """The run that was written to last, whose training the page shows; None if there is no run."""
    return max(list_runs(models), key=RunFolder.written_at, default=None)


def published_runs(models: Path) -> list[RunFolder]:
    """The runs with snapshots, most recently written first. The first one is served.

    A failed start does not count as a write: it only leaves its reason in status.json.
    """

    def sort_key(run: RunFolder) -> float:
        status = run.status()
        return run.published_at() if status is not None and status.phase == "failed" else run.written_at()

    return sorted((run for run in list_runs(models) if run.snapshots()), key=sort_key, reverse=True)


def newest_published_run(models: Path) -> RunFolder | None:
    """The run that is served; None if no run has a snapshot."""
    return next(iter(published_runs(models)), None)
