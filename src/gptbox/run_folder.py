"""A run's folder in the volume: train writes it, web reads it.

<run>/dataset/  status.json  metrics.jsonl  samples.jsonl  checkpoint/  snapshots/step-000250/  best  latest
"""

import errno
import json
import os
import re
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from gptbox.atomic import atomic_file, replace_symlink, write_json
from gptbox.errors import ModelNotFoundError, NoModelYetError, SettingError

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


def list_runs(models: Path) -> list[RunFolder]:
    """Every run below the models folder, in the order of their names."""
    try:
        names = sorted(os.listdir(models))  # noqa: PTH208
    except OSError:
        return []
    runs = [RunFolder(models, name) for name in names if _RUN_NAME.fullmatch(name)]
    return [run for run in runs if (run.path / "status.json").is_file() or (run.path / "snapshots").is_dir()]


def find_run(models: Path, name: str) -> RunFolder:
    """The run of that name.

    Raises ModelNotFoundError, naming the runs there are.
    """
    runs = list_runs(models)
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
    """The run that was written to last: the one that people look at."""

    def written(run: RunFolder) -> float:
        times = [0.0]
        for file in ("status.json", "snapshots"):
            try:
                times.append((run.path / file).stat().st_mtime)
            except OSError:
                continue
        return max(times)

    return max(list_runs(models), key=written, default=None)
