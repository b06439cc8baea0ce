"""Model folders with a given tokenizer, and what transformers reads from them."""

from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from gptbox.models import folder as model_folder
from gptbox.models import weights
from gptbox.models.config import Architecture, ModelConfig
from gptbox.models.runs import utc_now
from gptbox.tokenizers import Tokenizer


def publish(folder: Path, architecture: Architecture, tokenizer: Tokenizer) -> Path:
    """A model folder as training publishes it, with the smallest model."""
    config = ModelConfig(
        architecture=architecture,
        vocab_size=tokenizer.vocab_size,
        context_length=16,
        n_layer=1,
        n_head=1,
        n_embd=2,
        activation="silu" if architecture == "qwen3" else "gelu",
    )
    zeros = {name: np.zeros(shape, np.float32) for name, shape in weights.shapes(config).items()}
    info = model_folder.SnapshotInfo(
        run="r",
        dataset="d",
        dataset_source="a test",
        step=0,
        tokens=0,
        train_loss=None,
        val_loss=None,
        val_bpb=None,
        training_s=0.0,
        parameters=config.parameters,
        gptbox_version="0",
        created_at=utc_now(),
    )
    model_folder.write(folder / "step-000000", config, zeros, tokenizer, info, "# A test\n")
    return folder / "step-000000"


def load(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
