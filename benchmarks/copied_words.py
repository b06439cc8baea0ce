"""The index of a training text, for copied words: time, memory and disk to write it, and time to search it.

    python benchmarks/copied_words.py --text input.txt [--megabytes 100] [--searches 200]

The text is that of prepare_vs_nanogpt.py: passages of the given one, with words replaced by invented ones. The index is
written from the ids of the tokenizers char and byte, in a process of its own, whose peaks of memory are those of all
pages and of anonymous ones. Searches are of 2,000 characters: passages of 10 to 100 characters from all over the text,
as a model that knows it by heart might join them, and invented words, of which nothing is found.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gptbox.datasets.ngram_writer import write_index
from gptbox.models.copied_spans import find_copied
from gptbox.models.ngram_index import FILE_NAME, NgramIndex
from gptbox.tokenizers import TOKENIZERS
from long_text import MB, anonymous_memory
from prepare_vs_nanogpt import documents

SIZE = 2000
"""Characters of a text that is searched."""
ALPHABET = [chr(i) for i in (10, *range(32, 127))]


def build(folder: Path, name: str) -> None:
    """Write the index of train.bin, in this process, and print the processor time."""
    ids = np.memmap(folder / "train.bin", np.uint16, "r")
    tokenizer = TOKENIZERS[name].train((), ALPHABET)
    began, cpu = time.perf_counter(), time.process_time()
    write_index(folder, ids, tokenizer, len(ids))
    print(time.perf_counter() - began, time.process_time() - cpu)


def measure(folder: Path, name: str, num_bytes: int) -> None:
    process = subprocess.Popen(
        [sys.executable, __file__, "--build", str(folder), name], stdout=subprocess.PIPE, text=True
    )
    anonymous = peak = 0
    while process.poll() is None:
        anonymous = max(anonymous, anonymous_memory(process.pid))
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))])
        time.sleep(0.02)
    assert process.stdout is not None
    if process.returncode:
        raise SystemExit("the index could not be written")
    seconds, cpu = map(float, process.stdout.read().split())
    size = (folder / FILE_NAME).stat().st_size
    print(
        f"{name:5} {seconds:6.2f} s  {cpu:6.2f} CPU seconds  {size / num_bytes:.2f} x the training text  "
        f"peak memory {peak / MB:.0f} MB, anonymous {anonymous / MB:.0f} MB",
        flush=True,
    )


def search(index: NgramIndex, texts: list[str]) -> str:
    times, copied = [], 0
    for text in texts:
        began = time.perf_counter()
        copied += sum(span.end - span.start for span in find_copied(index, text))
        times.append(1000 * (time.perf_counter() - began))
    share = copied / sum(map(len, texts))
    return f"median {statistics.median(times):.1f} ms, longest {max(times):.1f} ms, {share:.0%} copied"


def main() -> None:
    if sys.argv[1:2] == ["--build"]:
        build(Path(sys.argv[2]), sys.argv[3])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="Tiny Shakespeare's input.txt, or another ASCII text")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="for temporary files: about 6 times the text")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        text = "".join(documents(options.text.read_text("ascii"), options.megabytes * MB))
        train = text[: int(len(text) * 0.9)]
        print(f"{len(text) / MB:,.0f} MB of text, of which {len(train) / MB:,.0f} MB to train on", flush=True)
        for tokenizer in ("char", "byte"):
            TOKENIZERS[tokenizer].train((), ALPHABET).encode(train).tofile(folder / "train.bin")
            measure(folder, tokenizer, len(train))
        index = NgramIndex(folder / FILE_NAME)
        rng = random.Random(1)
        joined, other = [], []
        for _ in range(options.searches):
            parts: list[str] = []
            while sum(map(len, parts)) < SIZE:
                start = rng.randrange(len(train) - 100)
                parts.append(train[start : start + rng.randint(10, 100)])
            joined.append("".join(parts)[:SIZE])
            other.append("".join(rng.choices(ALPHABET[66:92], k=SIZE)))
        print(f"{SIZE:,} characters of joined passages: {search(index, joined)}")
        print(f"{SIZE:,} characters of invented words: {search(index, other)}")


if __name__ == "__main__":
    main()
