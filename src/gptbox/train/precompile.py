"""Compile what training runs in Numba, ahead of the first run: `python -m gptbox.train.precompile`.

It takes about ten seconds, once a machine and version; `gptbox.kernel_cache` says where the code is kept.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numba.core.registry import cpu_target

from gptbox.kernel_cache import folder_of
from gptbox.train.dataloader import DataLoader
from gptbox.train.evaluate import evaluate
from gptbox.train.fused import Dropout, sites
from gptbox.train.gpt import GPT
from gptbox.train.optim import OPTIMIZERS
from gptbox.train.recipe import RECIPES
from gptbox.train.shards import Shards, assign_gradient


def _stamp() -> Path | None:
    """The file that says that everything is compiled for this processor; None where no code can be kept."""
    folder = folder_of(Path(__file__).parent)
    if folder is None:
        return None
    processor = "-".join(cpu_target.target_context.codegen().magic_tuple())
    name = hashlib.sha256(processor.encode()).hexdigest()[:16]
    return folder / f"compiled-{name}"


def is_done() -> bool:
    """Whether the compiled code of this version for this processor is there."""
    stamp = _stamp()
    return stamp is not None and stamp.exists()


def compile_all() -> None:
    """Call everything once, as training does; compiled code that is kept already is loaded."""
    config, shards = RECIPES[0].config, Shards(1)
    model = GPT(config.model(65))
    ids = np.zeros(2 * config.context_length, np.uint16)
    inputs, targets = DataLoader(ids, 1, config.context_length, 0).batch(0)
    _, gradient = shards.gradients(model, inputs, targets, Dropout.draw(0.1, 0, 0, 1, sites(config.n_layer)))
    assign_gradient(model, gradient)
    OPTIMIZERS[config.optimizer](model, config, shards).step()
    evaluate(model, ids)
    with torch.inference_mode():
        model.generate([0], 2)
    if (stamp := _stamp()) is not None:
        stamp.touch()


if __name__ == "__main__":
    compile_all()
