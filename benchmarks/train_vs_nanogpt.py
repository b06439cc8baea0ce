"""`gptbox train --minutes` beside nanoGPT's lesson command: the loss for a fraction of its time, and for all of it.

    python benchmarks/train_vs_nanogpt.py --nanogpt ../nanoGPT --text input.txt [--parts 5 8] [--seeds 1337 1338 1339]
        [--curve [SECONDS ...]] [--json figures.json] [--plot curve.svg]

Both run as whole commands, timed from before the spawn to after the exit, alternately on the same cores: for each seed
nanoGPT, then gptbox with each fraction of the time nanoGPT just took, then with all of it. nanoGPT's text is prepared
beforehand; gptbox prepares its own within its time. Losses are exact, over the whole validation split, by the same code
and in the same windows of 64 characters for both; gptbox's are those of its published snapshots.
"""

import argparse
import json
import math
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch

import commands
import nanogpt
from gptbox.datasets.prepared import PreparedDataset
from gptbox.engine.evaluate import evaluate
from gptbox.engine.gpt import GPT
from gptbox.models import folder as model_folder
from gptbox.models.runs import RunFolder
from gptbox.system.cpus import available_cpus

CURVE_S = [5.0, 8.0, 13.0, 20.0, 40.0, 80.0, 150.0, 300.0]
WARM_UP_S = 10.0


@dataclass(frozen=True)
class Trained:
    """Result of one `gptbox train`."""

    seed: int
    budget_s: float
    seconds: float
    peak_mib: float
    best: float
    latest: float
    """Losses of the two snapshots in windows of 64, or of the context if that is shorter (a handicap)."""
    best_own: float
    """Loss of the best snapshot in windows of its own context."""
    context: int
    parameters: int
    best_snapshot: str
    latest_snapshot: str
    steps: int
    tokens: int
    step_tokens_per_s: float
    """Speed of training steps: the median over the rows of metrics.jsonl."""

    @property
    def gflops(self) -> float:
        """Throughput of training steps: 6 operations per parameter and token, without the attention products."""
        return 6 * self.parameters * self.step_tokens_per_s / 1e9

    @property
    def whole_gflops(self) -> float:
        """Throughput over the whole command."""
        return 6 * self.parameters * self.tokens / self.seconds / 1e9


@dataclass(frozen=True)
class Pair:
    """A gptbox run, and the nanoGPT run whose time divided by `part` is its budget."""

    part: int
    theirs: nanogpt.Run
    ours: Trained

    @property
    def reached(self) -> bool:
        return self.ours.best <= self.theirs.loss


def train(folder: Path, seed: int, budget_s: float, validation: np.ndarray) -> Trained:
    """Run `gptbox train` once, measure the result, and delete the run.

    Raises commands.CommandFailed, or an error of reading the run if it published nothing.
    """
    run = RunFolder(folder / "models", f"seed-{seed}")
    command = [sys.executable, "-m", "gptbox", "train", nanogpt.DATASET, "--minutes", f"{budget_s / 60:.6f}"]
    command += ["--seed", str(seed), "--run", run.name]
    settings = {"GPTBOX_MODELS": str(folder / "models"), "GPTBOX_DATA": str(folder / "data")}
    try:
        done = commands.run(command, environment=os.environ | settings, timeout_s=2 * budget_s + 120)
        ids = PreparedDataset.load(run.dataset).val
        assert np.array_equal(ids, validation), "the two programs split the text differently"
        models = {which: model_folder.load(run.resolve(which)) for which in ("best", "latest")}
        engines = {which: GPT(model.config, model.weights) for which, model in models.items()}
        best = evaluate(engines["best"], ids, nanogpt.WINDOW)
        same = models["best"].path == models["latest"].path
        status = run.status()
        assert status is not None
        speeds = [row["tokens_per_s"] for row in run.read_rows("metrics") if row.get("tokens_per_s")]
        return Trained(
            seed=seed,
            budget_s=budget_s,
            seconds=done.seconds,
            peak_mib=done.peak_mib,
            best=best,
            latest=best if same else evaluate(engines["latest"], ids, nanogpt.WINDOW),
            best_own=evaluate(engines["best"], ids),
            context=models["best"].config.context_length,
            parameters=models["best"].parameters,
            best_snapshot=models["best"].path.name,
            latest_snapshot=models["latest"].path.name,
            steps=status.step,
            tokens=status.tokens,
            step_tokens_per_s=float(np.median(speeds)) if speeds else math.nan,
        )
    finally:
        shutil.rmtree(run.path, ignore_errors=True)


def matmul_gflops(seconds: float = 1.0) -> float:
    """Measured peak of the machine: the fastest of many products of 1024 x 1024 float32 matrices, on all threads."""
    size = 1024
    torch.set_num_threads(available_cpus())
    a, b, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    fastest, end = math.inf, time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        torch.mm(a, b, out=out)
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * size**3 / fastest / 1e9


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def spread(values: Sequence[float], digits: int = 4) -> str:
    """The median, and the range of several values."""
    middle, low, high = float(np.median(values)), min(values), max(values)
    if len(values) == 1:
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def report_parts(pairs: list[Pair]) -> None:
    """Print medians over the seeds for each fraction of nanoGPT's time."""
    theirs = {pair.theirs.seed: pair.theirs for pair in pairs}.values()
    print(f"\nMedians, and the range, of {len(theirs)} seed{'s' if len(theirs) > 1 else ''}:")
    print(f"nanoGPT, whole command: {spread([run.seconds for run in theirs], 1)} s", end=", ")
    print(f"loss {spread([run.loss for run in theirs])}, peak {spread([run.peak_mib for run in theirs], 0)} MiB")
    for part in dict.fromkeys(pair.part for pair in pairs):
        chosen = [pair for pair in pairs if pair.part == part]
        ours = [pair.ours for pair in chosen]
        print(
            f"gptbox, {'all of that' if part == 1 else f'1/{part} of that'}: {spread([o.seconds for o in ours], 1)} s",
            end="",
        )
        print(f", nanoGPT's time / its own {spread([p.theirs.seconds / p.ours.seconds for p in chosen], 2)}")
        print(f"    in windows of {nanogpt.WINDOW}: best {spread([o.best for o in ours])}", end="")
        print(f", latest {spread([o.latest for o in ours])}", end="")
        print(f"; at or below nanoGPT's with {sum(p.reached for p in chosen)} of {len(chosen)} seeds")
        contexts = "/".join(str(c) for c in sorted({o.context for o in ours}))
        print(f"    best in windows of its context ({contexts}): {spread([o.best_own for o in ours])}", end="")
        print(f"; {spread([o.parameters / 1e6 for o in ours], 2)}M parameters", end="")
        print(f", peak {spread([o.peak_mib for o in ours], 0)} MiB")


def report_speed(ours: list[Trained], peaks: list[float]) -> None:
    """Print the throughput of training, and that of a large matrix product measured in the same run."""
    peak = float(np.median(peaks))
    print(f"\nMatrix product, 1024 x 1024 float32, {available_cpus()} threads: {spread(peaks, 0)} GFLOP/s")
    for name, values in (
        ("in training steps", [run.gflops for run in ours]),
        ("over the whole command", [run.whole_gflops for run in ours]),
    ):
        share = 100 * float(np.median(values)) / peak
        print(f"gptbox given nanoGPT's time, {name}: {spread(values, 1)} GFLOP/s, {share:.0f} % of that")
    print("(6 x parameters x tokens per second, without the attention products.)")


def report_curve(curve: list[Trained], theirs: nanogpt.Run) -> None:
    """Print loss against time, both programs side by side."""
    print("\ngptbox: one run per line, exact losses of the best snapshot | nanoGPT: one run, its own estimates by")
    print("seconds since its start, noisy means of 20 random batches (exact at the end: ", end="")
    print(f"{theirs.loss:.4f} after {theirs.seconds:.1f} s)")
    left = f"{'budget':>8} {'took':>7} {f'loss/{nanogpt.WINDOW}':>8} {'own':>8} {'ctx':>4} {'params':>7} {'peak':>9}"
    print(f"{left} | {'took':>7} {'step':>5} {'estimate':>8}")
    for ours, estimate in zip_longest(curve, theirs.estimates):
        line = " " * len(left)
        if ours is not None:
            line = f"{ours.budget_s:>6g} s {ours.seconds:>5.1f} s {ours.best:>8.4f} {ours.best_own:>8.4f} "
            line += f"{ours.context:>4} {ours.parameters / 1e6:>6.2f}M {ours.peak_mib:>5.0f} MiB"
        if estimate is not None:
            step, seconds, loss = estimate
            line += f" | {seconds:>5.1f} s {step:>5} {loss:>8.4f}"
        print(line)


def draw(path: Path, curve: list[Trained], theirs: nanogpt.Run) -> None:
    """Draw both curves as an SVG with a logarithmic time axis."""
    width, height, left, right, top, bottom = 720, 440, 60, 20, 40, 50
    lines = {
        "gptbox, exact": ("#0b6e4f", sorted((run.seconds, run.best) for run in curve)),
        "nanoGPT, its estimates": ("#b3541e", [(seconds, loss) for _, seconds, loss in theirs.estimates]),
    }
    points = [point for _, line in lines.values() for point in line]
    low_x, high_x = math.log(min(x for x, _ in points)), math.log(max(x for x, _ in points))
    low_y, high_y = (f(y for _, y in points) for f in (min, max))
    low_y, high_y = math.floor(low_y * 5) / 5, math.ceil(high_y * 5) / 5

    def at(seconds: float, loss: float) -> tuple[float, float]:
        x = (math.log(seconds) - low_x) / ((high_x - low_x) or 1)
        y = (high_y - loss) / ((high_y - low_y) or 1)
        return left + x * (width - left - right), top + y * (height - top - bottom)

    def text(x: float, y: float, words: str, anchor: str = "middle", colour: str = "#333") -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'

    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        text(left, 20, f"Validation loss in windows of {nanogpt.WINDOW} characters (nats)", "start"),
        text((left + width) / 2, height - 10, "seconds of the whole command"),
    ]
    for tick in np.arange(low_y, high_y + 0.01, 0.2 if high_y - low_y < 2 else 0.4):
        y = at(math.exp(low_x), tick)[1]
        svg.append(
            f'<path d="M{left} {y:.1f}H{width - right}" stroke="#ddd"/>' + text(left - 8, y + 4, f"{tick:.1f}", "end")
        )
    for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000):
        if low_x <= math.log(tick) <= high_x:
            x = at(tick, low_y)[0]
            svg.append(f'<path d="M{x:.1f} {top}V{height - bottom}" stroke="#ddd"/>')
            svg.append(text(x, height - bottom + 18, str(tick)))
    for i, (label, (colour, line)) in enumerate(lines.items()):
        places = [at(*point) for point in line]
        path_of = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        svg.append(f'<path d="M{path_of}" fill="none" stroke="{colour}" stroke-width="2"/>')
        svg += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        svg.append(text(width - right - 8, top + 18 * (i + 1), label, "end", colour))
    path.write_text("\n".join([*svg, "</svg>"]) + "\n", encoding="utf-8")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--text", type=Path, required=True, help="Tiny Shakespeare's input.txt")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1337, 1338, 1339], help="of both programs")
    parser.add_argument("--parts", type=int, nargs="*", default=[5, 8], help="divisors of nanoGPT's time: 5 is a fifth")
    parser.add_argument(
        "--curve", type=float, nargs="*", metavar="SECONDS", help="loss by budget; without values, 5 to 300 s"
    )
    parser.add_argument("--curve-seeds", type=int, default=1, metavar="N", help="with the first N seeds (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, after each run")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the curve; needs --curve")
    parser.add_argument("--nanogpt-steps", type=int, default=nanogpt.STEPS, help="for a quick try: a multiple of 250")
    options = parser.parse_args()
    if options.plot and options.curve is None:
        parser.error("--plot needs --curve")
    if options.nanogpt_steps < 1 or options.nanogpt_steps % nanogpt.EVAL_EVERY:
        parser.error(f"--nanogpt-steps must be a multiple of {nanogpt.EVAL_EVERY}: it saves a model only then")
    return options


def measure(options: argparse.Namespace, folder: Path, save: Callable[..., None]) -> None:
    """Run and print all measurements; `save` is called with all figures so far."""
    checkout = nanogpt.set_up(folder, options.nanogpt, options.text)
    validation = nanogpt.validation_ids(checkout)
    warm_up = train(folder, 0, WARM_UP_S, validation)
    print(f"Warm-up, not counted: gptbox given {WARM_UP_S:.0f} s took {warm_up.seconds:.1f} s.", flush=True)
    pairs: list[Pair] = []
    curve: list[Trained] = []
    peaks: list[float] = []
    for seed in options.seeds:
        peaks.append(matmul_gflops())
        theirs = nanogpt.run(checkout, seed, options.nanogpt_steps)
        print(f"\nseed {seed}: nanoGPT took {theirs.seconds:.1f} s", end="")
        print(f", loss {theirs.loss:.4f} (its checkpoint of step {theirs.checkpoint_step})", flush=True)
        for part in [*options.parts, 1]:
            ours = train(folder, seed, theirs.seconds / part, validation)
            pairs.append(pair := Pair(part, theirs, ours))
            print(f"  gptbox given 1/{part}, {ours.budget_s:.1f} s, took {ours.seconds:.1f} s", end="")
            print(f": best {ours.best:.4f}, latest {ours.latest:.4f}", end="")
            print(f", {'at or below' if pair.reached else 'ABOVE'} nanoGPT's", end="")
            print(f"; best in windows of {ours.context}: {ours.best_own:.4f}", flush=True)
            save(pairs, curve, peaks)
    report_parts(pairs)
    report_speed([pair.ours for pair in pairs if pair.part == 1], peaks)
    if options.curve is None:
        return
    for budget in options.curve or CURVE_S:
        for seed in options.seeds[: options.curve_seeds]:
            try:
                curve.append(train(folder, seed, budget, validation))
            except Exception as error:  # a budget too short for this machine is a result too
                print(f"\ngptbox given {budget:g} s, seed {seed}: no model: {error}", flush=True)
            save(pairs, curve, peaks)
    report_curve(curve, pairs[0].theirs)
    if options.plot and curve:
        draw(options.plot, curve, pairs[0].theirs)


def main() -> None:
    options = parse_options()
    machine = {"cpu": cpu_model(), "cores": available_cpus(), "torch": torch.__version__}
    print("{cpu}, {cores} cores, torch {torch}".format(**machine))
    print("nanoGPT's text is prepared beforehand; gptbox prepares its own within its time.")

    def save(pairs: list[Pair], curve: list[Trained], peaks: list[float]) -> None:
        if options.json is None:
            return
        figures = {
            "machine": machine,
            "matmul_gflops": peaks,
            "nanogpt": [asdict(run) for run in {pair.theirs.seed: pair.theirs for pair in pairs}.values()],
            "gptbox": [
                {"part": p.part, "nanogpt_s": p.theirs.seconds, "nanogpt_loss": p.theirs.loss, "reached": p.reached}
                | asdict(p.ours)
                | {"gflops": p.ours.gflops, "whole_gflops": p.ours.whole_gflops}
                for p in pairs
            ],
            "curve": [asdict(run) for run in curve],
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as temporary:
        measure(options, Path(temporary), save)


if __name__ == "__main__":
    main()
