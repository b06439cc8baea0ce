"""Time and memory for a long text: `gptbox prepare`, then half a minute of `gptbox train`, on a generated text.

    python benchmarks/long_text.py [--megabytes 1000] [--minutes 0.5] [--ascii] [--prepare-only]

Prints each command's wall time and its peak memory: total, including pages of mapped files that the system may reclaim
at any time, and anonymous. `prepare again` finds the text unchanged; `touched` finds only its modification time changed
and reads it once.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MB = 1_000_000


def write_text(path: Path, megabytes: int, ascii_only: bool = False) -> None:
    """Write verses of invented words, a few of them not ASCII."""
    rng = random.Random(1)
    syllables = [
        "the",
        "and",
        "to",
        "of",
        "thou",
        "my",
        "in",
        "not",
        "lord",
        "king",
        "love",
        "heart",
        "ing",
        "ly",
        "er",
    ]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 3))) for _ in range(5000)]
    words += [] if ascii_only else ["café", "naïve", "Brontë", "“Ay”", "—", "日本", "🐎"]

    def speech() -> str:
        lines = [" ".join(rng.choices(words, k=rng.randint(5, 9))).capitalize() for _ in range(rng.randint(1, 9))]
        return f"{rng.choice(words).upper()}:\n" + ",\n".join(lines) + ".\n\n"

    chunks = ["".join(speech() for _ in range(4000)).encode() for _ in range(16)]
    with path.open("wb") as file:
        while (left := megabytes * MB - file.tell()) > 0:
            chunk = rng.choice(chunks)
            file.write(chunk if left > len(chunk) else chunk[:left].decode(errors="ignore").encode().ljust(left))


def anonymous_memory(pid: int) -> int:
    """Anonymous resident memory of a process in bytes: pages that no file backs."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def measure(label: str, folder: Path, megabytes: int, *arguments: str) -> None:
    """Run a gptbox command and print its figures; a failure ends the benchmark with the command's output."""
    environment = os.environ | {"GPTBOX_MODELS": str(folder / "models"), "GPTBOX_DATA": str(folder / "data")}
    with (folder / "log").open("w+") as log:
        began = time.perf_counter()
        command = [sys.executable, "-m", "gptbox", *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        anonymous = 0
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            anonymous = max(anonymous, anonymous_memory(process.pid))
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"gptbox {' '.join(arguments)} ended with {process.returncode}:\n{log.read()}")
    peak = ended[2].ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(
        f"{label:16} {seconds:7.2f} s  {megabytes / seconds:7.1f} MB/s  "
        f"peak memory {peak / MB:7.1f} MB, anonymous {anonymous / MB:7.1f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--ascii", action="store_true", help="write only ASCII characters")
    parser.add_argument("--prepare-only", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data" / "long").mkdir(parents=True)
        file = folder / "data" / "long" / "a.txt"
        write_text(file, options.megabytes, options.ascii)
        print(f"{file.stat().st_size / MB:,.0f} MB of text, with {os.cpu_count()} processors")
        time.sleep(3)  # prepare does not trust the modification time of a file younger than two seconds
        measure("prepare", folder, options.megabytes, "prepare", "long")
        measure("prepare again", folder, options.megabytes, "prepare", "long")
        os.utime(file)
        time.sleep(3)
        measure("touched", folder, options.megabytes, "prepare", "long")
        if not options.prepare_only:
            measure("train", folder, options.megabytes, "train", "long", "--minutes", str(options.minutes))
            print((folder / "log").read_text())


if __name__ == "__main__":
    main()
