"""The lesson's training run beside nanoGPT's own: the same work, the losses and the wall times.

    python benchmarks/lesson_vs_nanogpt.py --nanogpt ../nanoGPT --text input.txt [--rounds 2]

Both programs run as whole commands, in turn, on the same cores. nanoGPT logs the loss of 20 random batches; its
last checkpoint is measured here once more, exactly, over the whole validation split.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from gptbox.run_folder import RunFolder
from gptbox.train.config import PRESETS
from gptbox.train.evaluate import evaluate
from gptbox.train.gpt import GPT

FLAGS = [
    "config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=1",
    "--block_size=64", "--batch_size=12", "--n_layer=4", "--n_head=4", "--n_embd=128", "--max_iters=2000",
    "--lr_decay_iters=2000", "--dropout=0.0",
]  # fmt: skip

# nanoGPT's names within a block: ours
NAMES = {
    "ln_1": "attention_norm",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out",
    "ln_2": "mlp_norm",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}


def nanogpt_loss(checkout: Path) -> float:
    """The exact validation loss of nanoGPT's last checkpoint, in windows of 64."""
    path = checkout / "out-shakespeare-char" / "ckpt.pt"
    theirs = torch.load(path, map_location="cpu", weights_only=True)["model"]
    ours = {"embedding.weight": theirs["transformer.wte.weight"], "position.weight": theirs["transformer.wpe.weight"]}
    ours["final_norm.weight"] = theirs["transformer.ln_f.weight"]
    for i in range(4):
        for their_name, our_name in NAMES.items():
            ours[f"blocks.{i}.{our_name}.weight"] = theirs[f"transformer.h.{i}.{their_name}.weight"]
    model = GPT(PRESETS["lesson"].model(65))
    model.load_state_dict(ours)
    return evaluate(model, np.fromfile(checkout / "data" / "shakespeare_char" / "val.bin", np.uint16))


def run_nanogpt(checkout: Path) -> tuple[float, dict[int, float], float]:
    """Seconds, its own estimates by step, the exact loss at the end."""
    began = time.perf_counter()
    command = [sys.executable, "train.py", *FLAGS]
    out = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - began
    estimates = {int(a): float(b) for a, b in re.findall(r"step (\d+): train loss [\d.]+, val loss ([\d.]+)", out)}
    return seconds, estimates, nanogpt_loss(checkout)


def run_gptbox(folder: Path, seed: int) -> tuple[float, dict[int, float]]:
    """Seconds, exact losses by step."""
    began = time.perf_counter()
    name = f"seed-{seed}"
    command = [sys.executable, "-m", "gptbox", "train", "--preset", "lesson", "--seed", str(seed), "--run", name]
    settings = {"GPTBOX_MODELS": str(folder / "models"), "GPTBOX_DATA": str(folder / "data")}
    subprocess.run(command, env=os.environ | settings, check=True, capture_output=True)
    seconds = time.perf_counter() - began
    rows = RunFolder(folder / "models", name).rows("metrics")
    return seconds, {row["step"]: row["val_loss"] for row in rows if row["val_loss"] is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--text", type=Path, required=True, help="Tiny Shakespeare's input.txt")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        checkout = folder / "nanoGPT"
        shutil.copytree(options.nanogpt, checkout, ignore=shutil.ignore_patterns(".git"))
        for target in (checkout / "data" / "shakespeare_char", folder / "data" / "shakespeare_char"):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(options.text, target / "input.txt")
        subprocess.run(
            [sys.executable, "data/shakespeare_char/prepare.py"], cwd=checkout, check=True, stdout=subprocess.DEVNULL
        )
        theirs, ours = [], []
        for i in range(options.rounds):
            theirs.append(run_nanogpt(checkout))
            ours.append(run_gptbox(folder, 1337 + i))
        print(f"{'step':>5}  nanoGPT (20 batches)  gptbox (exact)")
        for step in sorted(ours[0][1]):
            estimate = theirs[0][1].get(step)
            print(f"{step:>5}  {'' if estimate is None else f'{estimate:.4f}':>20}  {ours[0][1][step]:>14.4f}")
        print("exact at the end: nanoGPT " + ", ".join(f"{loss:.4f}" for _, _, loss in theirs), end="")
        print("; gptbox " + ", ".join(f"{losses[max(losses)]:.4f}" for _, losses in ours))
        a, b = float(np.median([t for t, *_ in theirs])), float(np.median([t for t, _ in ours]))
        print(f"wall time, median of {options.rounds}: nanoGPT {a:.1f} s, gptbox {b:.1f} s, ratio {a / b:.2f}")


if __name__ == "__main__":
    main()
