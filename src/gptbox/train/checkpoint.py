"""Checkpoints, from which a run resumes: the newest and the one before it, in case the newest is damaged.

torch's format, because the optimizer's state consists of tensors; read with weights_only, so that no code runs.
"""

import io
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gptbox.errors import RunError
from gptbox.models.runs import start_over_advice
from gptbox.system.atomic import atomic_file
from gptbox.train.config import FIXED
from gptbox.train.optim import Optimizer
from gptbox.train.train_state import TrainState


class Checkpoint:
    """The checkpoint folder of a run."""

    def __init__(self, folder: Path) -> None:
        self.path, self.previous = folder / "state.pt", folder / "previous.pt"

    def exists(self) -> bool:
        return self.path.exists() or self.previous.exists()

    def save(self, model: nn.Module, optimizer: Optimizer, state: TrainState, identity: dict[str, Any]) -> None:
        """Replace the checkpoint atomically. A run resumes only with the same `identity`; see `differences`.

        Raises OSError if the disk is full.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stored = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "progress": asdict(state),
            "identity": identity,
        }
        content = io.BytesIO()  # on a full disk, torch.save to a file raises RuntimeError instead of OSError
        torch.save(stored, content)
        with atomic_file(self.path) as temporary:
            temporary.write_bytes(content.getbuffer())
            if self.path.exists():
                self.path.replace(self.previous)  # `read` falls back on it if the process is killed right here

    def read(self) -> tuple[dict[str, Any], str | None]:
        """The newest readable checkpoint, and a warning if a newer one is damaged.

        Raises RunError if no checkpoint can be read.
        """
        reasons = []
        for path in (self.path, self.previous):
            try:
                stored = torch.load(path, map_location="cpu", weights_only=True)
            except FileNotFoundError:
                continue
            except Exception as error:  # damage can make torch.load raise anything
                reasons.append(f"{path} is damaged ({type(error).__name__})")
                continue
            return stored, f"{reasons[0]}; resuming from the one before it." if reasons else None
        found = ", ".join(reasons) or f"{self.path} is missing"
        raise RunError(f"No checkpoint can be read: {found}. {start_over_advice(self.path.parent.parent.name)}")

    @staticmethod
    def restore(stored: dict[str, Any], model: nn.Module, optimizer: Optimizer) -> TrainState:
        """Load what `read` returned into the model and the optimizer; returns the run's state."""
        model.load_state_dict(stored["model"])
        optimizer.load_state_dict(stored["optimizer"])
        known = {field.name for field in fields(TrainState)}
        state = TrainState(**{name: value for name, value in stored["progress"].items() if name in known})
        if state.best_estimate is None:  # written by an older version, whose losses were all exact
            state.best_estimate, state.val_loss_estimate = state.best_val_loss, state.val_loss
            if state.best_snapshot is not None and state.best_estimate is not None:
                state.candidates = {state.best_snapshot: state.best_estimate}
        return state


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The differing values of two identities as a phrase; empty if there are none.

    Names that older versions stored and this one does not know are ignored.
    """
    names = [*wanted, *(name for name in FIXED if name in found and name not in wanted)]

    def value_of(identity: dict[str, Any], name: str) -> str:
        return repr(identity[name]) if name in identity else "the default"

    changed = [name for name in names if found.get(name) != wanted.get(name)]
    return ", ".join(f"{name} was {value_of(found, name)} and is now {value_of(wanted, name)}" for name in changed)
