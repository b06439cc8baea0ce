"""What resuming needs: one file, replaced atomically, and the one before it in case the disk damaged the newer.

It is torch's own format because the optimizer's state is; read with weights_only, so that no code in it can run.
"""

import io
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gptbox.atomic import atomic_file
from gptbox.errors import RunError
from gptbox.run_folder import begin_anew
from gptbox.train.optim import Optimizer


@dataclass(kw_only=True)
class Progress:
    """How far a run has come; everything that a step changes but the weights and the optimizer."""

    step: int = 0
    tokens: int = 0
    """That were trained on."""
    elapsed_s: float = 0.0
    """Wall seconds of training, interruptions not counted."""
    cpu_s: float = 0.0
    """CPU seconds of training on all threads."""
    spent_s: float | None = None
    """Seconds of the minutes spent, by the clock that counts them; None in checkpoints of older versions."""
    learning_rate: float = 0.0
    """Of the last step."""
    loss_sum: float = 0.0
    loss_count: int = 0
    """Of the batches since the last row of metrics."""
    train_loss: float | None = None
    val_loss: float | None = None
    """Exact, of the latest snapshot; None where it was only estimated."""
    val_loss_estimate: float | None = None
    """Of the latest snapshot."""
    best_val_loss: float | None = None
    """Exact, of the best snapshot; None where it was only estimated."""
    best_estimate: float | None = None
    """The lowest val_loss_estimate so far."""
    best_snapshot: str | None = None
    latest_snapshot: str | None = None
    best_s: float = 0.0
    """When the best was published, in elapsed seconds."""
    worse: int = 0
    """How many evaluations have been above the best since."""
    candidates: dict[str, float] = field(default_factory=dict)
    """The snapshots with the lowest estimates; the best of the run is chosen among them exactly, at its end."""
    begun_s: float | None = None
    """When the first step began, in spent seconds."""
    evaluations: int = 0
    evaluation_cpu_s: float = 0.0
    """CPU seconds that evaluations and publishing have taken."""
    next_evaluation: float | None = None
    """The share of the work after which to evaluate next, 0 to 1; see EvaluationSchedule."""
    done: dict[str, float] | None = None
    """The limits that ended the run (steps, minutes, target_loss); None while it is not finished."""


class Checkpoint:
    """The checkpoint folder of a run."""

    def __init__(self, folder: Path) -> None:
        self.path, self.previous = folder / "state.pt", folder / "previous.pt"

    def exists(self) -> bool:
        return self.path.exists() or self.previous.exists()

    def save(self, model: nn.Module, optimizer: Optimizer, progress: Progress, identity: dict[str, Any]) -> None:
        """`identity` is what a later run must have in common with this one; see `load`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "progress": asdict(progress),
            "identity": identity,
        }
        content = io.BytesIO()  # torch's own way to the disk makes a RuntimeError of a full one
        torch.save(state, content)
        with atomic_file(self.path) as temporary:
            temporary.write_bytes(content.getbuffer())
            if self.path.exists():
                self.path.replace(self.previous)  # `read` takes it, should we be killed right here

    def read(self) -> tuple[dict[str, Any], str | None]:
        """The newest state that can be read, and a sentence where that is not the newest written.

        Raises RunError where there is none.
        """
        reasons = []
        for path in (self.path, self.previous):
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
            except FileNotFoundError:
                continue
            except Exception as error:  # torch.load raises whatever the damage leads to
                reasons.append(f"{path} is damaged ({type(error).__name__})")
                continue
            return state, f"{reasons[0]}; going on from the one before it." if reasons else None
        found = ", ".join(reasons) or f"{self.path} is missing"
        raise RunError(f"No checkpoint can be read: {found}. {begin_anew(self.path.parent.parent.name)}")

    @staticmethod
    def restore(state: dict[str, Any], model: nn.Module, optimizer: Optimizer) -> Progress:
        """Put a state that was read into the model and the optimizer."""
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        known = {field.name for field in fields(Progress)}
        progress = Progress(**{name: value for name, value in state["progress"].items() if name in known})
        if progress.best_estimate is None:  # an older version, whose losses were all exact
            progress.best_estimate, progress.val_loss_estimate = progress.best_val_loss, progress.val_loss
            if progress.best_snapshot is not None and progress.best_estimate is not None:
                progress.candidates = {progress.best_snapshot: progress.best_estimate}
        return progress


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """What differs between two identities, in words; empty where nothing does."""
    names = [name for name in wanted if found.get(name) != wanted[name]]
    return ", ".join(f"{name} was {found.get(name)!r} and is now {wanted[name]!r}" for name in names)
