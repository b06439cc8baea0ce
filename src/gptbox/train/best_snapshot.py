"""Which snapshot of a run is the best: by estimated loss while it trains, by exact loss at its end."""

from gptbox.train.train_state import TrainState

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
    """Enter a new snapshot's losses into the state; `val_loss` is its exact loss, or None if not measured."""
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
