"""nanoGPT as a peer of the benchmarks: the lesson's training command in a copy of its checkout, and its exact loss."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import commands
from gptbox.engine.evaluate import evaluate
from gptbox.engine.gpt import GPT
from gptbox.models.config import ModelConfig

DATASET = "shakespeare_char"
SEED = 1337
STEPS = 2000
EVAL_EVERY = 250
WINDOW = 64
"""The lesson's context; losses are compared in windows of this length."""

FLAGS = [
    "config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=1",
    f"--block_size={WINDOW}", "--batch_size=12", "--n_layer=4", "--n_head=4", "--n_embd=128", "--dropout=0.0",
]  # fmt: skip

# Names of a block's weights: nanoGPT's to gptbox's.
NAMES = {
    "ln_1": "attention_norm",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out",
    "ln_2": "mlp_norm",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}


@dataclass(frozen=True)
class Run:
    """Result of one whole command."""

    seed: int
    seconds: float
    peak_mib: float
    loss: float
    """Exact loss of the checkpoint, over the whole validation split in windows of 64."""
    checkpoint_step: int
    estimates: list[tuple[int, float, float]]
    """(Step, seconds since the command's start, nanoGPT's estimate of the loss: the mean of 20 random batches)."""


def set_up(folder: Path, checkout: Path, text: Path) -> Path:
    """Copy the checkout into `folder`, put the text in place for both programs, and prepare it for nanoGPT."""
    copy = folder / "nanoGPT"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git", "out-*"))
    for target in (copy / "data" / DATASET, folder / "data" / DATASET):
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(text, target / "input.txt")
    subprocess.run([sys.executable, f"data/{DATASET}/prepare.py"], cwd=copy, check=True, stdout=subprocess.DEVNULL)
    return copy


def validation_ids(checkout: Path) -> np.ndarray:
    return np.fromfile(checkout / "data" / DATASET / "val.bin", np.uint16)


def loss(checkout: Path) -> tuple[float, int]:
    """The exact validation loss of nanoGPT's checkpoint in windows of 64, and the checkpoint's step.

    nanoGPT saves when its estimate is the lowest so far, so this is its best model by that estimate.
    """
    saved = torch.load(checkout / "out-shakespeare-char" / "ckpt.pt", map_location="cpu", weights_only=True)
    theirs = {name: tensor.float().numpy() for name, tensor in saved["model"].items()}
    shape = saved["model_args"]
    config = ModelConfig(
        architecture="gpt2",
        vocab_size=shape["vocab_size"],
        context_length=shape["block_size"],
        n_layer=shape["n_layer"],
        n_head=shape["n_head"],
        n_embd=shape["n_embd"],
    )
    ours = {"embedding.weight": theirs["transformer.wte.weight"], "position.weight": theirs["transformer.wpe.weight"]}
    ours["final_norm.weight"] = theirs["transformer.ln_f.weight"]
    for i in range(config.n_layer):
        for their_name, our_name in NAMES.items():
            ours[f"blocks.{i}.{our_name}.weight"] = theirs[f"transformer.h.{i}.{their_name}.weight"]
    return evaluate(GPT(config, ours), validation_ids(checkout), WINDOW), saved["iter_num"]


def run(checkout: Path, seed: int = SEED, steps: int = STEPS) -> Run:
    """Run the lesson's command in a copy made by `set_up`.

    The seed is patched into train.py, which has no option for it. `steps` is a multiple of 250. Raises
    commands.CommandFailed.
    """
    script = checkout / "train.py"
    source, found = re.subn(r"torch\.manual_seed\(\d+ ", f"torch.manual_seed({seed} ", script.read_text("utf-8"))
    assert found == 1, "train.py sets its seed in another way"
    script.write_text(source, "utf-8")
    shutil.rmtree(checkout / "out-shakespeare-char", ignore_errors=True)
    done = commands.run(
        [sys.executable, "train.py", *FLAGS, f"--max_iters={steps}", f"--lr_decay_iters={steps}"],
        cwd=checkout,
        environment=os.environ | {"PYTHONUNBUFFERED": "1"},  # so that the lines are timed when printed
        timeout_s=1800,
    )
    estimates = [
        (int(match[1]), at, float(match[2]))
        for at, line in done.lines
        if (match := re.match(r"step (\d+): train loss [\d.]+, val loss ([\d.]+)", line))
    ]
    return Run(seed, done.seconds, done.peak_mib, *loss(checkout), estimates)
