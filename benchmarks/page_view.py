"""The latency of /cgi-bin/test: gptbox through Apache against the lesson's CGI script.

    docker compose up --wait web apache
    python benchmarks/page_view.py --url http://localhost/cgi-bin/test --nanogpt ../nanoGPT [--requests 50]

The checkout must contain a model trained by the lesson's command (out-shakespeare-char). For each visit the peer starts
a process, exactly as the lesson's script does: sample.py with one sample and a random seed.
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
    """Seconds to the first and to the last byte, and the length in bytes."""
    start = time.perf_counter()
    with urllib.request.urlopen(url, timeout=60) as response:
        first = response.read(1)
        first_byte_s = time.perf_counter() - start
        text = first + response.read()
    return first_byte_s, time.perf_counter() - start, len(text)


def run_sample_py(checkout: Path) -> float:
    """Seconds for one run of sample.py, with the arguments of the lesson's script."""
    seed = random.randrange(32768)
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "sample.py", "--out_dir=out-shakespeare-char", "--device=cpu", "--num_samples=1",
         f"--seed={seed}"],
        cwd=checkout, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - start


def summarize(seconds: list[float]) -> str:
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
            theirs.append(run_sample_py(options.nanogpt))
    last_byte_s = [last for _, last, _ in ours]
    print(f"gptbox, {len(ours)} requests of {ours[0][2]} bytes: to the last byte {summarize(last_byte_s)}")
    print(f"gptbox, to the first byte: {summarize([first for first, _, _ in ours])}")
    if theirs:
        ratio = np.median(theirs) / np.median(last_byte_s)
        print(f"sample.py, {len(theirs)} runs: {summarize(theirs)}; ratio of the medians {ratio:.1f}")


if __name__ == "__main__":
    main()
