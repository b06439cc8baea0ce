"""Measure a whole command: wall time from spawn to exit, peak memory, and its output lines with their times.

As a script this is a small launcher between benchmark and command. A child shares its parent's memory until it loads
its program, and the kernel counts that in its peak: a child of a benchmark with torch would never show less than that.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class CommandFailed(Exception):  # noqa: N818  (its name says it)
    """The message ends with the last lines of the command's output."""


@dataclass(frozen=True)
class Finished:
    seconds: float
    peak_mib: float
    """Peak resident memory; of the largest process if there are several."""
    lines: list[tuple[float, str]]
    """The output lines, each with the seconds since the spawn."""


def run(
    command: list[str], *, timeout_s: float, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> Finished:
    """Run a command to its end; it is killed after `timeout_s`.

    Raises CommandFailed if its exit status is not 0.
    """
    launcher = [sys.executable, "-I", "-S", __file__, str(int(timeout_s) + 1), *command]
    with subprocess.Popen(
        launcher,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        stamped = [(time.monotonic(), line.rstrip("\n")) for line in process.stdout]
    try:
        report = json.loads(stamped.pop()[1])
        status = report["status"]
    except (IndexError, ValueError, TypeError, KeyError):
        raise CommandFailed(f"{' '.join(command)}: ended without a report") from None
    lines = [(at - report["began"], line) for at, line in stamped]
    if status != 0:
        last = "\n".join(line for _, line in lines[-10:])
        how = f"killed after {timeout_s:.0f} s" if status == -signal.SIGKILL else f"exit code {status}"
        raise CommandFailed(f"{' '.join(command)}: {how}\n{last}")
    return Finished(report["seconds"], report["peak_mib"], lines)


def _launch(timeout_s: int, command: list[str]) -> None:
    began = time.monotonic()
    process = subprocess.Popen(command)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(process.pid, signal.SIGKILL))
    signal.alarm(timeout_s)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    signal.alarm(0)
    process.returncode = os.waitstatus_to_exitcode(status)
    report = {
        "began": began,
        "seconds": seconds,
        "peak_mib": usage.ru_maxrss / 1024,
        "status": process.returncode,
    }
    print(f"\n{json.dumps(report)}")


if __name__ == "__main__":
    _launch(int(sys.argv[1]), sys.argv[2:])
