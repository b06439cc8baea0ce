"""The command line as a real process."""

import os
import subprocess
import sys
from pathlib import Path


def gptbox(home: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "gptbox", *arguments],
        cwd=home, env=os.environ | {"THREADS": "1"} | settings, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
