"""Which snapshot of a run is the best: by estimated loss while it trains, by exact loss at its end."""

import torch

from gptbox.errors import ModelFolderError
from gptbox.models import folder as model_folder
from gptbox.models.runs import RunFolder
from gptbox.train.disk import DiskFullGuard
from gptbox.train.evaluation import Evaluator
from gptbox.train.gpt import GPT
from gptbox.train.publish import Publisher
from gptbox.train.train_state import TrainState
from gptbox.train.training_step import require_finite

MAX_CANDIDATES = 3
"""Snapshots with the lowest estimates that compete for the best."""
ESTIMATE_MARGIN = 0.01
"""Nats per token: a snapshot whose estimate is further above the lowest cannot be the best. All snapshots of a run are
estimated on the same tokens, so the error of their difference is only a fifth of this: benchmarks/LOG.md."""

EVALUATION_FIELDS = (
    "val_loss", "val_loss_estimate", "best_val_loss", "best_estimate", "best_snapshot", "latest_snapshot", "best_s",
    "worse", "candidates",
)  # fmt: skip
"""Fields of TrainState that `record_evaluation` changes; restored when the snapshot cannot be written."""


def record_evaluation(
    state: TrainState, snapshot: str, estimate: float, val_loss: float | None, elapsed_s: float
) -> None:
    """Record a new snapshot's losses, in nats per token; `val_loss` is its exact loss, None if it was not measured."""
    state.val_loss, state.val_loss_estimate, state.latest_snapshot = val_loss, estimate, snapshot
    ranked = sorted({**state.candidates, snapshot: estimate}.items(), key=lambda item: item[1])
    state.candidates = dict(ranked[:MAX_CANDIDATES])
    if state.best_estimate is None or estimate < state.best_estimate:
        state.best_estimate, state.best_val_loss, state.best_snapshot = estimate, val_loss, snapshot
        state.best_s, state.worse = elapsed_s, 0
    else:
        state.worse += 1


def candidates_within_margin(state: TrainState) -> list[str]:
    """The candidates whose exact loss may be the lowest, by ascending estimate."""
    lowest = min(state.candidates.values(), default=0.0)
    return [name for name, estimate in state.candidates.items() if estimate <= lowest + ESTIMATE_MARGIN]


class BestSnapshotSelector:
    """Chooses the best snapshot once training has ended."""

    def __init__(
        self, run: RunFolder, evaluator: Evaluator, publisher: Publisher, disk: DiskFullGuard, device: torch.device
    ) -> None:
        self._run, self._evaluator, self._publisher, self._disk, self._device = run, evaluator, publisher, disk, device

    def select(self, state: TrainState) -> list[str]:
        """Measure the exact losses of the candidates, and link `best` to the lowest.

        Returns an error message for each candidate that cannot be read; such candidates are skipped. Raises Interrupted
        if a stop was requested meanwhile, DivergedError if a loss is not finite.
        """
        exact: dict[str, float] = {}
        unreadable = []
        latest = state.latest_snapshot
        for name in dict.fromkeys([*candidates_within_margin(state), *([latest] if latest else [])]):
            if name == latest and state.val_loss is not None:
                exact[name] = state.val_loss
                continue
            try:
                exact[name] = self._exact_loss(name, state)
            except ModelFolderError as error:
                unreadable.append(str(error))
        if exact:
            state.val_loss = exact.get(latest or "", state.val_loss)
            state.best_snapshot = min(exact, key=lambda name: exact[name])
            state.best_val_loss = exact[state.best_snapshot]
            with self._disk.suppress_full():
                self._run.update_link("best", self._run.path / "snapshots" / state.best_snapshot)
        return unreadable

    def _exact_loss(self, name: str, state: TrainState) -> float:
        """The exact loss of a published snapshot: stored in its folder, or else measured and stored.

        Raises ModelFolderError if the folder cannot be read.
        """
        path = self._run.path / "snapshots" / name
        folder = model_folder.load(path)
        if folder.info is not None and folder.info.val_loss is not None:
            return folder.info.val_loss
        model = GPT(folder.config)
        model.load_weights(folder.weights)
        loss = self._evaluator.exact(model.to(self._device))
        require_finite(loss, "validation", int(name[5:]), state.learning_rate, self._run.name)
        if folder.info is not None:
            with self._disk.suppress_full():
                self._publisher.set_val_loss(path, folder.info, folder.config, loss)
        return loss
