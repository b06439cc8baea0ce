"""Decoding throughput of the engine, beside nanoGPT, transformers and llama.cpp; without HTTP.

    python benchmarks/serve_engine.py --nanogpt ../nanoGPT [--large] [--rounds 5] [--only gptbox transformers ...]
        [--trained models/lesson/best models/five/best] [--llama-python VENV/bin/python] [--json figures.json]

The models have the shape of nanoGPT's lesson (4 x 128, context 64), of the default preset (4 x 128, context 256), or,
with --large, of GPT-2 (124M), in float32 and with int8 matrices. Weights are random, or those of the snapshots in
--trained, matched by shape: speculative decoding accepts more of the draft's tokens with a trained model, so that a
single stream is faster. Models are published as gptbox publishes them; transformers loads the same folder, llama.cpp
the same weights as GGUF. nanoGPT has random weights of the same shape; its speed does not depend on them.

Each measurement runs in a fresh process, which first warms up; a round runs each measurement once, in turn. All sample
at temperature 0.8 with top-k 200, from a prompt of one token, 500 tokens per text (--large: 100). When the context is
full, gptbox continues from its newest quarter, and transformers and llama.cpp are driven to do the same; nanoGPT always
recomputes the whole window for every token. The script checks with 40 greedy tokens that gptbox, transformers and
llama.cpp run the same model. llama.cpp's cache is float16, its default. Loading is not counted.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gptbox.errors import GptboxError
from gptbox.models import folder as model_folder
from gptbox.models import weights
from gptbox.models.config import ModelConfig
from gptbox.models.folder import SnapshotInfo
from gptbox.system.cpus import available_cpus
from gptbox.tokenizers.char import CharTokenizer
from serve_peers import GREEDY, PEERS, Job, Result

SHAPES = {
    "lesson": ModelConfig(architecture="gpt2", vocab_size=65, context_length=64, n_layer=4, n_head=4, n_embd=128),
    "default": ModelConfig(
        architecture="qwen3", vocab_size=65, context_length=256, n_layer=4, n_head=4, n_embd=128, norm_eps=1e-6,
        intermediate_size=352, activation="silu", tie_embeddings=False,
    ),
    "large": ModelConfig(
        architecture="gpt2", vocab_size=50257, context_length=1024, n_layer=12, n_head=12, n_embd=768, bias=True,
        activation="gelu_new",
    ),
}  # fmt: skip
STREAMS = (8, 32)
MAX_MEASUREMENT_S = 900
"""Timeout of a measurement. Most take seconds, but kernels may have to be compiled first."""


@dataclass
class Case:
    """One line of the table: a job, and its result in each round."""

    job: Job
    results: list[Result] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.job.peer + (" int8" if self.job.quantized else "")

    @property
    def speeds(self) -> list[float]:
        return [result.tokens_per_s for result in self.results]


class CaseFailed(Exception):  # noqa: N818  (its name says it)
    """The message ends with the tail of the process's standard error."""


def random_weights(config: ModelConfig, seed: int = 0) -> weights.Weights:
    """Random weights, large enough that rounding never decides which token is the most probable."""
    random = np.random.default_rng(seed)
    result = {}
    for name, shape in weights.shapes(config).items():
        weight = random.standard_normal(shape, np.float32) * (1.7 / config.n_embd**0.5 if len(shape) == 2 else 0.1)
        result[name] = weight + np.float32("norm.weight" in name)
    return result


def publish(path: Path, config: ModelConfig) -> None:
    """Write a model with random weights, in the format that training publishes."""
    tokenizer = CharTokenizer([chr(i) for i in (10, *range(32, 31 + config.vocab_size))])
    info = SnapshotInfo(
        run="random", dataset="none", dataset_source="a benchmark", step=1, tokens=0, train_loss=None, val_loss=None,
        val_bpb=None, training_s=0.0, parameters=config.parameters, gptbox_version="0",
        created_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    model_folder.write(path, config, random_weights(config), tokenizer, info, "# Random weights, for a benchmark\n")


def bytes_read(config: ModelConfig, quantized: bool) -> int:
    """Bytes of weights read per token: each matrix and vector once, but one row of each embedding table.

    An int8 matrix has a float32 scale per row.
    """
    total = 0
    for name, shape in weights.shapes(config).items():
        is_lookup = name == "position.weight" or (name == "embedding.weight" and not config.tie_embeddings)
        if is_lookup:
            total += 4 * shape[1]
        elif quantized and len(shape) == 2:
            total += shape[0] * shape[1] + 4 * shape[0]
        else:
            total += 4 * int(np.prod(shape))
    return total


def cases_of(shape: str, folder: Path, options: argparse.Namespace) -> list[Case]:
    """The measurements of a model, gptbox first."""
    config, tokens = SHAPES[shape], options.tokens or (100 if shape == "large" else 500)
    base: dict[str, Any] = {"folder": str(folder), "context": config.context_length, "tokens": tokens}
    threads = sorted({1, available_cpus()})
    jobs: list[Job] = []
    for quantized in (False, True) if shape == "large" else (False,):
        size = bytes_read(config, quantized)
        if "gptbox" in options.only:
            for streams in (1, *STREAMS):
                jobs += [
                    Job(peer="gptbox", streams=streams, threads=n, quantized=quantized, bytes_read=size, **base)
                    for n in threads
                ]
        if "floor" in options.only:
            jobs.append(Job(peer="floor", threads=1, quantized=quantized, bytes_read=size, **base))
    if "nanogpt" in options.only and config.architecture == "gpt2":
        if options.nanogpt is None:
            print("nanoGPT is skipped: name its checkout with --nanogpt.")
        else:
            jobs += [
                Job(peer="nanogpt", threads=n, nanogpt=str(options.nanogpt), bias=config.bias, **base) for n in threads
            ]
    if "transformers" in options.only:
        jobs += [Job(peer="transformers", threads=n, **base) for n in threads]
    if "llama.cpp" in options.only and config.architecture == "qwen3":
        if missing := llama_missing(options.llama_python):
            print(f"llama.cpp is skipped: {missing}")
        else:
            jobs += [Job(peer="llama.cpp", threads=n, **base) for n in threads]
    return [Case(job) for job in jobs]


def llama_missing(python: str) -> str:
    """Why llama.cpp cannot be measured with this interpreter; empty if it can."""
    try:
        command = [python, "-c", "import llama_cpp, gguf, numpy"]
        tried = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return tried.stderr.strip().rpartition("\n")[2] if tried.returncode else ""


def run(job: Job, llama_python: str) -> Result:
    """Run one measurement in a fresh process.

    Raises CaseFailed if it fails or takes longer than MAX_MEASUREMENT_S.
    """
    python = llama_python if job.peer == "llama.cpp" else sys.executable
    script = Path(__file__).with_name("serve_peers.py")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if job.peer == "floor":
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [python, str(script), json.dumps(asdict(job))],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MAX_MEASUREMENT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CaseFailed(f"{job.peer}: killed after {MAX_MEASUREMENT_S} s") from None
    if done.returncode != 0:
        raise CaseFailed(f"{job.peer}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return Result(**json.loads(done.stdout.strip().rpartition("\n")[2]))


def spread(values: Sequence[float], format_spec: str = ",.0f") -> str:
    """The median, and the range of several values."""
    median = format(float(np.median(values)), format_spec)
    return median if len(values) == 1 else f"{median} ({min(values):{format_spec}} to {max(values):{format_spec}})"


def ratios(of: Case, to: Case) -> list[float]:
    """Ratios of speeds, round by round."""
    return [a / b for a, b in zip(of.speeds, to.speeds, strict=True)]


def single(cases: list[Case], threads: int, quantized: bool = False) -> Case | None:
    """gptbox's case with one stream; None if it was not measured."""
    for case in cases:
        job = case.job
        if (job.peer, job.streams, job.threads, job.quantized) == ("gptbox", 1, threads, quantized):
            return case
    return None


def report(shape: str, cases: list[Case], kind: str) -> None:
    """Print the table of one model."""
    c = SHAPES[shape]
    print(f"\n{shape}: {c.architecture}, {c.n_layer} x {c.n_embd}, context {c.context_length}", end="")
    print(f", {c.parameters / 1e6:.2f}M parameters; {cases[0].job.tokens} tokens per text; {kind};")
    print("tokens/s of all streams: ", end="")
    print(f"median of {len(cases[0].results)} rounds, and range; ratios are within a round")
    print(f"{'':<14} {'streams':>7} {'threads':>7}   {'tokens/s':<28} ")
    for case in cases:
        job = case.job
        if job.peer == "floor":
            continue
        line = f"{case.name:<14} {job.streams:>7} {job.threads:>7}   {spread(case.speeds):<28} "
        if job.peer != "gptbox":
            if ours := single(cases, job.threads):
                line += f"gptbox with 1 stream, same threads, is {spread(ratios(ours, case), ',.2f')} times as fast"
        elif (base := single(cases, 1, job.quantized)) and base is not case:
            line += f"{spread(ratios(case, base), ',.2f')} times 1 stream, 1 thread"
        print(line.rstrip())
    for case in cases:
        if case.job.peer == "floor":
            report_floor(case, single(cases, 1, case.job.quantized))
    report_greedy(cases)


def report_floor(case: Case, ours: Case | None) -> None:
    """Print the throughput that memory bandwidth allows."""
    size, max_tokens_per_s = case.job.bytes_read, float(np.median(case.speeds))
    kind = "int8" if case.job.quantized else "float32"
    print(f"Floor, {kind}: a token reads {size / 1e6:.2f} MB of weights; one thread reads an array of this size")
    print(f"    at {size * max_tokens_per_s / 1e9:.1f} GB/s at best: ", end="")
    print(f"at most {spread(case.speeds)} tokens/s for one stream.", end="")
    print(f" gptbox takes {spread(ratios(case, ours), ',.2f')} times as long." if ours else "")


def report_greedy(cases: list[Case]) -> None:
    """Print whether the peers with gptbox's weights generate the same greedy tokens."""
    ours = single(cases, 1)
    if ours is None or ours.results[0].greedy is None:
        return
    for case in cases:
        theirs = case.results[0].greedy
        if case.job.peer == "gptbox" or case.job.threads > 1 or theirs is None:
            continue
        pairs = enumerate(zip(theirs, ours.results[0].greedy, strict=True))
        differing = next((i + 1 for i, (a, b) in pairs if a != b), None)
        outcome = "agrees with gptbox" if differing is None else f"differs from gptbox from token {differing} on"
        print(f"Greedy, {GREEDY} tokens: {case.name} {outcome}.")


def shape_of(folder: Path, parser: argparse.ArgumentParser) -> str:
    """The name in SHAPES of a published model's shape; ends the program if it has none of them."""
    try:
        config = model_folder.load(folder).config
    except GptboxError as error:
        parser.error(str(error))
    # A published GPT-2 model always has biases, zeros if it was trained without.
    found = next((name for name, shape in SHAPES.items() if replace(shape, bias=config.bias) == config), None)
    if found is None:
        parser.error(f"{folder} has none of the shapes measured here: {config}")
    return found


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS), metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, metavar="SHAPE", help="lesson, default, large")
    parser.add_argument("--large", action="store_true", help="GPT-2's shape instead of the small ones")
    parser.add_argument(
        "--trained",
        type=Path,
        nargs="+",
        default=[],
        metavar="SNAPSHOT",
        help="published folders, instead of random weights",
    )
    parser.add_argument("--tokens", type=int, help="tokens per text (default: 500; with GPT-2's shape 100)")
    parser.add_argument("--nanogpt", type=Path, metavar="CHECKOUT", help="a checkout of karpathy/nanoGPT")
    parser.add_argument(
        "--llama-python", default=sys.executable, metavar="PYTHON", help="an interpreter with llama_cpp, gguf and numpy"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, after each round")
    options = parser.parse_args()
    options.shapes = options.shapes or (["large"] if options.large else ["lesson", "default"])
    if options.rounds < 1 or (options.tokens is not None and options.tokens < 1):
        parser.error("--rounds and --tokens must be at least 1")
    options.trained = {shape_of(folder, parser): folder for folder in options.trained}
    if options.nanogpt and not (options.nanogpt / "model.py").is_file():
        parser.error(f"{options.nanogpt} is not a checkout of nanoGPT: it has no model.py")
    return options


def main() -> None:
    options = parse_options()
    print(f"{available_cpus()} cores, NumPy {np.__version__}", flush=True)
    measured: dict[str, list[Case]] = {}

    def save() -> None:
        if options.json is None:
            return
        figures = {
            shape: [{**asdict(case.job), "results": [asdict(result) for result in case.results]} for case in cases]
            for shape, cases in measured.items()
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as temporary:
        for shape in options.shapes:
            folder = options.trained.get(shape)
            if folder is None:
                folder = Path(temporary) / shape
                publish(folder, SHAPES[shape])
            cases = measured[shape] = cases_of(shape, folder, options)
            for _ in range(options.rounds):
                for case in list(cases):
                    try:
                        case.results.append(run(case.job, options.llama_python))
                    except CaseFailed as failed:
                        print(f"Skipped from now on: {failed}", flush=True)
                        cases.remove(case)
                save()
            if cases:
                report(shape, cases, "trained" if shape in options.trained else "random weights")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
