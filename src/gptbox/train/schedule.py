"""Learning rate schedules. To add one, write a function and enter it in SCHEDULES."""

import math
from collections.abc import Callable

from gptbox.train.config import TrainConfig


def warmup_steps(config: TrainConfig, steps: float) -> float:
    """Number of warm-up steps in a run of `steps`: the configured number, but at most a tenth."""
    return min(config.warmup_steps, steps / 10)


def cosine(config: TrainConfig, progress: float) -> float:
    """Half a cosine from 1 to 0: Loshchilov and Hutter, SGDR, arXiv 1608.03983, without restarts."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def linear(config: TrainConfig, progress: float) -> float:
    """Constant 1, then linear to 0 over the last `cooldown` of the work: Hagele et al., arXiv 2405.18392."""
    return min(1.0, (1 - progress) / config.cooldown)


SCHEDULES: dict[str, Callable[[TrainConfig, float], float]] = {"cosine": cosine, "linear": linear}


def learning_rate(config: TrainConfig, step: int, warmup: float, progress: float) -> float:
    """Linear warm-up over the first `warmup` steps, then the schedule down to the minimum.

    `progress` is the fraction, 0 to 1, of the work after the warm-up that is done, in steps or in seconds.
    """
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    factor = SCHEDULES[config.schedule](config, min(max(progress, 0.0), 1.0))
    return config.min_learning_rate + factor * (config.learning_rate - config.min_learning_rate)
