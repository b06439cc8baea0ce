"""The lesson preset beside nanoGPT's own run: the same work, its losses and wall times.

    python benchmarks/lesson_vs_nanogpt.py --nanogpt ../nanoGPT --text input.txt [--rounds 2]

Both programs run as whole commands, alternately, on the same cores. nanoGPT logs the mean loss of 20 random batches;
its last checkpoint is measured here again, exactly, over the whole validation split.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

import commands
import nanogpt
from gptbox.models.runs import RunFolder


def run_gptbox(folder: Path, seed: int) -> tuple[float, dict[int, float]]:
    """Seconds of the command, and exact losses by step."""
    name = f"seed-{seed}"
    command = [sys.executable, "-m", "gptbox", "train", "--preset", "lesson", "--seed", str(seed), "--run", name]
    settings = {"GPTBOX_MODELS": str(folder / "models"), "GPTBOX_DATA": str(folder / "data")}
    done = commands.run(command, environment=os.environ | settings, timeout_s=1800)
    rows = RunFolder(folder / "models", name).read_rows("metrics")
    return done.seconds, {row["step"]: row["val_loss"] for row in rows if row["val_loss"] is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--text", type=Path, required=True, help="Tiny Shakespeare's input.txt")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        checkout = nanogpt.set_up(folder, options.nanogpt, options.text)
        theirs, ours = [], []
        for i in range(options.rounds):
            theirs.append(nanogpt.run(checkout))
            ours.append(run_gptbox(folder, nanogpt.SEED + i))
        estimates = {step: estimate for step, _, estimate in theirs[0].estimates}
        print(f"{'step':>5}  nanoGPT (20 batches)  gptbox (exact)")
        for step in sorted(ours[0][1]):
            estimate = estimates.get(step)
            print(f"{step:>5}  {'' if estimate is None else f'{estimate:.4f}':>20}  {ours[0][1][step]:>14.4f}")
        print("exact at the end: nanoGPT " + ", ".join(f"{run.loss:.4f}" for run in theirs), end="")
        print("; gptbox " + ", ".join(f"{losses[max(losses)]:.4f}" for _, losses in ours))
        a, b = float(np.median([run.seconds for run in theirs])), float(np.median([t for t, _ in ours]))
        print(f"wall time, median of {options.rounds}: nanoGPT {a:.1f} s, gptbox {b:.1f} s, ratio {a / b:.2f}")


if __name__ == "__main__":
    main()
