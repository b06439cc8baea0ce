"""The state of a run that a checkpoint stores beside the weights and the optimizer's state."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class TrainState:
    """Counters, losses and snapshots of a run.

    Losses are in nats per token. Checkpoints store these fields by name: a renamed field is lost when an older run
    resumes.
    """

    step: int = 0
    """Optimizer steps taken."""
    tokens: int = 0
    """Training tokens consumed."""
    elapsed_s: float = 0.0
    """Wall seconds of training, without the time between processes."""
    cpu_s: float = 0.0
    """CPU seconds of training on all threads."""
    spent_s: float | None = None
    """Seconds of the budget spent, by the clock that counts them; None in checkpoints of older versions."""
    learning_rate: float = 0.0
    """Learning rate of the last step."""
    loss_sum: float = 0.0
    loss_count: int = 0
    """Sum and number of the batch losses since the last row of metrics."""
    train_loss: float | None = None
    """Mean training loss in the last row of metrics."""
    val_loss: float | None = None
    """Exact validation loss of the latest snapshot; None if it was only estimated."""
    val_loss_estimate: float | None = None
    """Estimated validation loss of the latest snapshot."""
    best_val_loss: float | None = None
    """Exact validation loss of the best snapshot; None if it was only estimated."""
    best_estimate: float | None = None
    """Lowest val_loss_estimate so far."""
    best_snapshot: str | None = None
    latest_snapshot: str | None = None
    best_s: float = 0.0
    """elapsed_s when the best snapshot was published."""
    worse: int = 0
    """Evaluations since the best one."""
    candidates: dict[str, float] = field(default_factory=dict)
    """Estimates by name of the snapshots with the lowest; at the end of the run, exact losses decide among them."""
    begun_s: float | None = None
    """spent_s when the first step began."""
    evaluations: int = 0
    evaluation_cpu_s: float = 0.0
    """CPU seconds spent on evaluating and publishing."""
    next_evaluation: float | None = None
    """Fraction of the work, 0 to 1, after which the next evaluation is due; see EvaluationSchedule."""
    done: dict[str, float] | None = None
    """The limits that ended the run (steps, minutes, target_loss); None while the run is not finished."""
