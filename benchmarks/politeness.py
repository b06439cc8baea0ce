"""What a visitor waits for while the box trains: the server's latency with and without `gptbox train` beside it.

    python benchmarks/politeness.py --text input.txt [--models models --run shakespeare_char] [--rounds 3]

In turn, on the same cores: visits one after the other with the box idle, then the same visits while a run trains. A
visit is POST /v1/completions for 100 tokens, streamed, on a connection of its own. Training's speed is what its
status.json says: tokens over seconds, before and after the visits and during them. Without --models a run is
trained first, for 15 seconds; with it the run is copied, and nothing is written into the folder.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptbox.run_folder import RunFolder, Status

DATASET = "shakespeare_char"
TOKENS = 100
SHORTEST_S = 5.0
"""How long training is watched at least for its speed: it writes its status once a second."""


class Visit(NamedTuple):
    first_s: float
    """To the first text."""
    last_s: float
    """To the end of the stream."""


@dataclass
class Figures:
    """Of one kind of phase, round by round."""

    visits: list[list[Visit]] = field(default_factory=list)
    tokens_per_s: list[float] = field(default_factory=list)


def visit(port: int, model: str, seed: int) -> Visit:
    """One request, from the connection to the last byte."""
    wanted = {"model": model, "prompt": "\n", "max_tokens": TOKENS, "stream": True, "seed": seed}
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/completions", json.dumps(wanted), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"the server answers {response.status}: {response.read().decode()}")
        first, line = None, b""
        for line in filter(None, map(bytes.strip, response)):
            if first is None and line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["text"]:
                first = time.perf_counter() - began
        if first is None or line != b"data: [DONE]":
            raise RuntimeError(f"the stream ended with {line!r}")
        return Visit(first, time.perf_counter() - began)
    finally:
        connection.close()


def visits(port: int, model: str, most: int, seconds: float) -> list[Visit]:
    """Up to `most`, one after the other; none is begun after `seconds`."""
    end = time.monotonic() + seconds
    made: list[Visit] = []
    while len(made) < most and (not made or time.monotonic() < end):
        made.append(visit(port, model, len(made)))
    return made


@contextmanager
def running(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`gptbox` with these arguments, ended by SIGTERM on leaving, killed where that does not help."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "gptbox", *arguments], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(what: str, ask: Callable[[], int | None], process: subprocess.Popen[bytes], log: Path) -> int:
    """Ask until there is an answer, for two minutes at most and while the process lives."""
    end = time.monotonic() + 120
    while (answer := ask()) is None:
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{what}: not reached.\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)
    return answer


@contextmanager
def server(environment: dict[str, str], log: Path) -> Iterator[int]:
    """`gptbox serve` with a model loaded; gives its port."""

    def port() -> int | None:
        found = re.search(r"the page is at http://\S+:(\d+)/", log.read_text(errors="replace"))
        return int(found[1]) if found else None

    def ready() -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", opened, timeout=10)
        try:
            connection.request("GET", "/readyz")
            return 1 if connection.getresponse().status == 200 else None
        except OSError:
            return None
        finally:
            connection.close()

    with running(["serve", "--port", "0"], environment, log) as process:
        opened = wait_for("the server's port", port, process, log)
        wait_for("the server's model", ready, process, log)
        yield opened


def speed(run: RunFolder, meanwhile: Callable[[], None]) -> float:
    """Training's tokens a second while something else is done, for five seconds at least."""
    before, began = _status(run), time.monotonic()
    meanwhile()
    time.sleep(max(0.0, SHORTEST_S - (time.monotonic() - began)))
    after = _status(run)
    return (after.tokens - before.tokens) / max(after.elapsed_s - before.elapsed_s, 1e-9)


def _status(run: RunFolder) -> Status:
    status = run.status()
    if status is None or status.phase != "training":
        raise RuntimeError(f"training is not under way: {status and status.message}")
    return status


def report(name: str, of: Figures) -> None:
    made = [visit for each in of.visits for visit in each]
    columns = [
        f"{1000 * np.median(values):>7.1f} {1000 * np.percentile(values, 95):>7.1f}"
        for values in ([v.first_s for v in made], [v.last_s for v in made])
    ]
    print("   ".join([f"{name:<10} {len(made):>5}", *columns]))


def ratios(name: str, of: Callable[[Visit], float], idle: Figures, busy: Figures) -> None:
    """With training over without, round by round."""
    for what, statistic in (("median", 50), ("p95", 95)):
        values = [
            float(np.percentile([of(v) for v in b], statistic) / np.percentile([of(v) for v in a], statistic))
            for a, b in zip(idle.visits, busy.visits, strict=True)
        ]
        print(f"{name}, {what}, training / idle: {np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")


def publish(options: argparse.Namespace, folder: Path, environment: dict[str, str]) -> str:
    """See to it that a model is published in the benchmark's own models folder; the run's name."""
    models = folder / "models"
    if options.models is None:
        command = ["train", DATASET, "--minutes", "0.25", "--run", "visited"]
        subprocess.run([sys.executable, "-m", "gptbox", *command], env=environment, check=True, timeout=180)
        return "visited"
    RunFolder(options.models, options.run).resolve("best")  # says so where there is no model
    ignored = shutil.ignore_patterns("checkpoint")
    shutil.copytree(options.models / options.run, models / options.run, symlinks=True, ignore=ignored)
    return str(options.run)


def measure(options: argparse.Namespace, folder: Path) -> None:
    data = folder / "data" / DATASET
    data.mkdir(parents=True)
    shutil.copy(options.text, data / "input.txt")
    models = folder / "models"
    environment = os.environ | {"GPTBOX_MODELS": str(models), "GPTBOX_DATA": str(folder / "data")}
    environment.pop("API_KEY", None)
    model = publish(options, folder, environment)
    idle, busy, quiet = Figures(), Figures(), Figures()
    with server(environment, folder / "server.log") as port:
        visits(port, model, 5, options.seconds)  # not counted

        def now(figures: Figures) -> None:
            figures.visits.append(visits(port, model, options.requests, options.seconds))

        for i in range(options.rounds):
            now(idle)
            other = RunFolder(models, f"beside-{i}")
            log = folder / "train.log"
            command = ["train", DATASET, "--minutes", f"{options.minutes:g}", "--run", other.name]
            with running(command, environment, log) as trainer:

                def begun(run: RunFolder = other) -> int | None:
                    status = run.status()
                    return None if status is None or not status.step else status.step

                wait_for("training's first steps", begun, trainer, log)
                time.sleep(options.settle)
                alone = [speed(other, lambda: None)]
                busy.tokens_per_s.append(speed(other, lambda: now(busy)))
                alone.append(speed(other, lambda: None))
                quiet.tokens_per_s.append(float(np.mean(alone)))
            without, beside = (1000 * np.median([v.last_s for v in f.visits[-1]]) for f in (idle, busy))
            print(f"round {i + 1}: {TOKENS} tokens, median: idle {without:.0f} ms, training {beside:.0f} ms", end="")
            print(f"; training's tokens/s: alone {quiet.tokens_per_s[-1]:,.0f}", end="")
            print(f", with visitors {busy.tokens_per_s[-1]:,.0f}", flush=True)
    print(f"\n{'ms':<10} {'visits':>5}   {'first text':>15}   {f'{TOKENS} tokens':>15}")
    print(f"{'':<16}   {'median':>7} {'p95':>7}   {'median':>7} {'p95':>7}")
    report("idle", idle)
    report("training", busy)
    ratios("first text", lambda v: v.first_s, idle, busy)
    ratios(f"{TOKENS} tokens", lambda v: v.last_s, idle, busy)
    shares = [b / a for a, b in zip(quiet.tokens_per_s, busy.tokens_per_s, strict=True)]
    print(
        f"training, tokens/s, median: alone {np.median(quiet.tokens_per_s):,.0f}, with visitors one after the other "
        f"{np.median(busy.tokens_per_s):,.0f}, ratio {np.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="Tiny Shakespeare's input.txt, to train on")
    parser.add_argument("--models", type=Path, help="a models folder with a published run")
    parser.add_argument("--run", default=DATASET, help=f"its name (default: {DATASET})")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=100, help="visits a phase, at most (default: 100)")
    parser.add_argument("--seconds", type=float, default=60.0, help="a phase's visits, at most (default: 60)")
    parser.add_argument("--settle", type=float, default=10.0, help="seconds from the first steps on (default: 10)")
    parser.add_argument("--minutes", type=float, default=10.0, help="what training is told; it is ended before")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measure(options, Path(temporary))


if __name__ == "__main__":
    main()
