"""Whether a model only learns its text by heart: judged from the losses, and said in words.

A text that is read many times gives itself away: the loss on it goes on falling while that on the part kept for
checking rises.
"""

from gptbox.train.checkpoint import Progress


def has_begun(progress: Progress) -> bool:
    """Whether training and validation loss go different ways, by more than chance."""
    p = progress
    if not p.worse or p.val_loss_estimate is None or p.best_estimate is None or p.train_loss is None:
        return False
    return p.val_loss_estimate > p.best_estimate + 0.02 and p.train_loss < p.best_estimate - 0.05


def is_for_good(progress: Progress, elapsed_s: float) -> bool:
    """Whether it has gone on for so long that there is no hope: for a third of the run, and five evaluations."""
    return has_begun(progress) and progress.worse >= 5 and elapsed_s - progress.best_s > elapsed_s / 3


def remark(progress: Progress) -> str:
    """What to say of it, once it has begun."""
    p = progress
    assert p.best_snapshot is not None
    return (
        f"validation loss about {p.val_loss_estimate:.3f} at step {p.step:,}, above the best, {p.best_estimate:.3f} at "
        f"step {int(p.best_snapshot[5:]):,}, while the training loss still falls: the model has begun to learn the "
        "text by heart (overfitting). The best snapshot is kept."
    )


LAST_WORDS = (
    "Stopped early: the validation loss has not come down for long while the training loss still falls, so the model "
    "only learns the text by heart. A longer text would help, or a smaller model."
)
