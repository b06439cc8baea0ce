"""Compile training's Numba kernels ahead of the first run: `python -m gptbox.train.precompile`.

This takes about ten seconds, once per machine and version; see `gptbox.jit.cache` for where the code is cached.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numba.core.registry import cpu_target

from gptbox.jit.cache import folder_of
from gptbox.train import cpu_backend, kernels
from gptbox.train.data_parallel import DataParallel, assign_gradient
from gptbox.train.dataloader import DataLoader
from gptbox.train.decoder import CompiledDecoder
from gptbox.train.evaluation import evaluate
from gptbox.train.gpt import GPT
from gptbox.train.ops import Dropout, dropout_sites
from gptbox.train.optim import OPTIMIZERS
from gptbox.train.recipe import RECIPES


def _stamp() -> Path | None:
    """The file that marks this processor's kernels as compiled; None if there is no cache folder."""
    folder = folder_of(Path(kernels.__file__).parent)
    if folder is None:
        return None
    processor = "-".join(cpu_target.target_context.codegen().magic_tuple())
    name = hashlib.sha256(processor.encode()).hexdigest()[:16]
    return folder / f"compiled-{name}"


def is_done() -> bool:
    """Whether this version's kernels are compiled for this processor."""
    stamp = _stamp()
    return stamp is not None and stamp.exists()


def compile_all() -> None:
    """Call every kernel once with the types that training uses; kernels in the cache are only loaded."""
    config, data_parallel = RECIPES[0].config, DataParallel(1)
    model = GPT(config.model)
    ids = np.zeros(2 * config.model.context_length, np.uint16)
    inputs, targets = DataLoader(ids, 1, config.model.context_length, 0).batch(0)
    _, gradient = data_parallel.gradients(
        model, inputs, targets, Dropout.draw(0.1, 0, 0, 1, dropout_sites(config.model.n_layer))
    )
    assign_gradient(model, gradient)
    OPTIMIZERS[config.optimizer](model, config, data_parallel).step()
    evaluate(model, ids)
    with torch.inference_mode():
        model.generate([0], 2)
        if cpu_backend.supports(model):
            CompiledDecoder(model)([0, 0])
    if (stamp := _stamp()) is not None:
        stamp.touch()


if __name__ == "__main__":
    compile_all()
