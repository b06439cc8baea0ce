"""Which snapshot of a run is the best: by the estimated loss while it trains, by the exact one at its end."""

from gptbox.train.checkpoint import Progress

MAX_CANDIDATES = 3
"""Snapshots with the lowest estimates, of which one is the best."""
MARGIN = 0.01
"""Nats a token above the lowest estimate at which a snapshot can no longer be the best. Two snapshots of a run are
estimated on the same tokens, so that the error of their difference is a fifth of this: benchmarks/LOG.md."""

JUDGED = (
    "val_loss", "val_loss_estimate", "best_val_loss", "best_estimate", "best_snapshot", "latest_snapshot", "best_s",
    "worse", "candidates",
)  # fmt: skip
"""The fields of Progress that an evaluation changes; a snapshot that could not be written takes them all back."""


def record(progress: Progress, snapshot: str, estimate: float, val_loss: float | None, elapsed_s: float) -> None:
    """Let a new snapshot compete; `val_loss` is its exact loss where it was measured."""
    p = progress
    p.val_loss, p.val_loss_estimate, p.latest_snapshot = val_loss, estimate, snapshot
    p.candidates = dict(sorted({**p.candidates, snapshot: estimate}.items(), key=lambda item: item[1])[:MAX_CANDIDATES])
    if p.best_estimate is None or estimate < p.best_estimate:
        p.best_estimate, p.best_val_loss, p.best_snapshot = estimate, val_loss, snapshot
        p.best_s, p.worse = elapsed_s, 0
    else:
        p.worse += 1


def finalists(progress: Progress) -> list[str]:
    """The candidates whose exact loss may be the lowest, the lowest estimate first."""
    lowest = min(progress.candidates.values(), default=0.0)
    return [name for name, estimate in progress.candidates.items() if estimate <= lowest + MARGIN]
