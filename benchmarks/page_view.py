"""What a visit of /cgi-bin/test costs: gptbox through Apache, against the lesson's CGI script.

    docker compose up --wait web apache
    python benchmarks/page_view.py --url http://localhost/cgi-bin/test --nanogpt ../nanoGPT [--requests 50]

The checkout must hold a model trained by the lesson's command (out-shakespeare-char). Its side is the lesson's script
word for word, a process a visit: sample.py with one sample and a random seed.
"""

import argparse
import random
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np


def visit(url: str) -> tuple[float, float, int]:
    """Seconds to the first byte and to the last, and the length."""
    began = time.perf_counter()
    with urllib.request.urlopen(url, timeout=60) as response:
        first = response.read(1)
        to_first = time.perf_counter() - began
        text = first + response.read()
    return to_first, time.perf_counter() - began, len(text)


def lesson(checkout: Path) -> float:
    """Seconds of one run of sample.py, as the lesson's script starts it."""
    seed = random.randrange(32768)
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "sample.py", "--out_dir=out-shakespeare-char", "--device=cpu", "--num_samples=1",
         f"--seed={seed}"],
        cwd=checkout, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - began


def spread(seconds: list[float]) -> str:
    return f"median {np.median(seconds) * 1000:.0f} ms, p95 {np.percentile(seconds, 95) * 1000:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://localhost/cgi-bin/test")
    parser.add_argument("--nanogpt", type=Path, help="a checkout of karpathy/nanoGPT with the lesson's model")
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--peer-requests", type=int, default=5)
    options = parser.parse_args()
    visit(options.url)
    ours, theirs = [], []
    for i in range(options.requests):
        ours.append(visit(options.url))
        if options.nanogpt and i % max(1, options.requests // options.peer_requests) == 0:
            theirs.append(lesson(options.nanogpt))
    print(
        f"gptbox, {len(ours)} requests of {ours[0][2]} bytes: to the last byte {spread([last for _, last, _ in ours])}"
    )
    print(f"gptbox, to the first byte: {spread([first for first, _, _ in ours])}")
    if theirs:
        ratio = np.median(theirs) / np.median([last for _, last, _ in ours])
        print(f"sample.py, {len(theirs)} runs: {spread(theirs)}; ratio of the medians {ratio:.1f}")


if __name__ == "__main__":
    main()
