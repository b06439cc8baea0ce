"""The server's latency with and without `gptbox train` on the same cores.

    python benchmarks/politeness.py --text input.txt [--models models --run shakespeare_char] [--rounds 3]

Each round makes sequential visits while the machine is idle, then the same visits while a run trains. A visit is a
streamed POST /v1/completions for 100 tokens on a new connection. Training's speed, in tokens per second, is read from
its status.json before, during and after the visits. Without --models, a run is trained first for 15 seconds; with it,
the run is copied, and nothing is written to the folder.
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

from gptbox.models.runs import RunFolder, Status

DATASET = "shakespeare_char"
TOKENS = 100
MIN_SPEED_INTERVAL_S = 5.0
"""Minimum interval for measuring training's speed: it writes its status once per second."""


class Visit(NamedTuple):
    first_text_s: float
    """From the request to the first text."""
    total_s: float
    """From the request to the end of the stream."""


@dataclass
class Measurements:
    """Results under one condition, idle or training: one entry per round in each list."""

    visits: list[list[Visit]] = field(default_factory=list)
    tokens_per_s: list[float] = field(default_factory=list)


def visit(port: int, model: str, seed: int) -> Visit:
    """One request, timed from the connection to the last byte."""
    body = {"model": model, "prompt": "\n", "max_tokens": TOKENS, "stream": True, "seed": seed}
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"the server answers {response.status}: {response.read().decode()}")
        first, line = None, b""
        for line in filter(None, map(bytes.strip, response)):
            if first is None and line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["text"]:
                first = time.perf_counter() - start
        if first is None or line != b"data: [DONE]":
            raise RuntimeError(f"the stream ended with {line!r}")
        return Visit(first, time.perf_counter() - start)
    finally:
        connection.close()


def visits(port: int, model: str, max_visits: int, seconds: float) -> list[Visit]:
    """Up to `max_visits` sequential visits; none starts after `seconds`."""
    end = time.monotonic() + seconds
    visits_made: list[Visit] = []
    while len(visits_made) < max_visits and (not visits_made or time.monotonic() < end):
        visits_made.append(visit(port, model, len(visits_made)))
    return visits_made


@contextmanager
def running(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `gptbox` process with these arguments; on exit it gets SIGTERM, and is killed if that fails."""
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
    """Poll `ask` until it returns a value, for at most two minutes and while the process runs."""
    end = time.monotonic() + 120
    while (answer := ask()) is None:
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{what}: not reached.\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)
    return answer


@contextmanager
def server(environment: dict[str, str], log: Path) -> Iterator[int]:
    """`gptbox serve` with a model loaded; yields its port."""

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
    """Training's tokens per second during `meanwhile`, measured over at least MIN_SPEED_INTERVAL_S."""
    before, start = _status(run), time.monotonic()
    meanwhile()
    time.sleep(max(0.0, MIN_SPEED_INTERVAL_S - (time.monotonic() - start)))
    after = _status(run)
    return (after.tokens - before.tokens) / max(after.elapsed_s - before.elapsed_s, 1e-9)


def _status(run: RunFolder) -> Status:
    status = run.status()
    if status is None or status.phase != "training":
        raise RuntimeError(f"training is not under way: {status and status.message}")
    return status


def report(name: str, measurements: Measurements) -> None:
    all_visits = [visit for round_visits in measurements.visits for visit in round_visits]
    columns = [
        f"{1000 * np.median(values):>7.1f} {1000 * np.percentile(values, 95):>7.1f}"
        for values in ([v.first_text_s for v in all_visits], [v.total_s for v in all_visits])
    ]
    print("   ".join([f"{name:<10} {len(all_visits):>5}", *columns]))


def ratios(name: str, latency: Callable[[Visit], float], idle: Measurements, busy: Measurements) -> None:
    """Print the latency with training over that without, as a median over rounds."""
    for what, statistic in (("median", 50), ("p95", 95)):
        values = [
            float(np.percentile([latency(v) for v in b], statistic) / np.percentile([latency(v) for v in a], statistic))
            for a, b in zip(idle.visits, busy.visits, strict=True)
        ]
        print(f"{name}, {what}, training / idle: {np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")


def publish(options: argparse.Namespace, folder: Path, environment: dict[str, str]) -> str:
    """Publish a model in the benchmark's own models folder, and return the run's name."""
    models = folder / "models"
    if options.models is None:
        command = ["train", DATASET, "--minutes", "0.25", "--run", "visited"]
        subprocess.run([sys.executable, "-m", "gptbox", *command], env=environment, check=True, timeout=180)
        return "visited"
    RunFolder(options.models, options.run).resolve("best")  # raises if there is no model
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
    idle, busy, quiet = Measurements(), Measurements(), Measurements()
    with server(environment, folder / "server.log") as port:
        visits(port, model, 5, options.seconds)  # warm-up

        def measure_visits(measurements: Measurements) -> None:
            measurements.visits.append(visits(port, model, options.requests, options.seconds))

        for i in range(options.rounds):
            measure_visits(idle)
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
                busy.tokens_per_s.append(speed(other, lambda: measure_visits(busy)))
                alone.append(speed(other, lambda: None))
                quiet.tokens_per_s.append(float(np.mean(alone)))
            idle_ms, training_ms = (1000 * np.median([v.total_s for v in f.visits[-1]]) for f in (idle, busy))
            print(
                f"round {i + 1}: {TOKENS} tokens, median: idle {idle_ms:.0f} ms, training {training_ms:.0f} ms", end=""
            )
            print(f"; training's tokens/s: alone {quiet.tokens_per_s[-1]:,.0f}", end="")
            print(f", with visitors {busy.tokens_per_s[-1]:,.0f}", flush=True)
    print(f"\n{'ms':<10} {'visits':>5}   {'first text':>15}   {f'{TOKENS} tokens':>15}")
    print(f"{'':<16}   {'median':>7} {'p95':>7}   {'median':>7} {'p95':>7}")
    report("idle", idle)
    report("training", busy)
    ratios("first text", lambda v: v.first_text_s, idle, busy)
    ratios(f"{TOKENS} tokens", lambda v: v.total_s, idle, busy)
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
    parser.add_argument("--requests", type=int, default=100, help="maximum visits per phase (default: 100)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="maximum duration of a phase's visits (default: 60)"
    )
    parser.add_argument(
        "--settle", type=float, default=10.0, help="seconds of training before the visits (default: 10)"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="training's time limit; it is stopped earlier")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measure(options, Path(temporary))


if __name__ == "__main__":
    main()
