"""Early stopping: whether a model overfits, judged from its losses.

A text that is read many times is memorised: its training loss keeps falling while the validation loss rises.
"""

from gptbox.train.train_state import TrainState

STOPPED_MESSAGE = (
    "Stopped early: the validation loss has not come down for a long time while the training loss still falls, so the "
    "model only learns the text by heart. A longer text would help, or a smaller model."
)


def is_overfitting(state: TrainState) -> bool:
    """Whether training and validation loss diverge by more than their noise."""
    if not state.worse or state.val_loss_estimate is None or state.best_estimate is None or state.train_loss is None:
        return False
    return state.val_loss_estimate > state.best_estimate + 0.02 and state.train_loss < state.best_estimate - 0.05


def should_stop(state: TrainState, elapsed_s: float) -> bool:
    """Whether the model overfits, and five or more evaluations over a third of the run so far were no better."""
    return is_overfitting(state) and state.worse >= 5 and elapsed_s - state.best_s > elapsed_s / 3


def overfitting_message(state: TrainState) -> str:
    """The status message of a run that overfits."""
    assert state.best_snapshot is not None
    return (
        f"validation loss about {state.val_loss_estimate:.3f} at step {state.step:,}, above the best, "
        f"{state.best_estimate:.3f} at step {int(state.best_snapshot[5:]):,}, while the training loss still falls: the "
        "model has begun to learn the text by heart (overfitting). The best snapshot is kept."
    )
