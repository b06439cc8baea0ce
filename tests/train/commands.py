"""Starts `gptbox train` as a process."""

import os
import subprocess
import sys
from pathlib import Path

from gptbox.models.runs import RunFolder, Status


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
