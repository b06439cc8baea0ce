"""How the learning rate rises and falls."""

import math

from gptbox.train.config import TrainConfig


def warmup_steps(config: TrainConfig, steps: float) -> float:
    """How many of `steps` are warm-up: the configured number, but at most a tenth."""
    return min(config.warmup_steps, steps / 10)


def learning_rate(config: TrainConfig, step: int, warmup: float, progress: float) -> float:
    """Linear warm-up over the first `warmup` steps, then half a cosine down to the minimum.

    `progress` is how much of the work after the warm-up is done, from 0 to 1, be it counted in steps or in seconds.
    Loshchilov and Hutter, SGDR, arXiv 1608.03983, without restarts.
    """
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    above = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return config.min_learning_rate + above * (config.learning_rate - config.min_learning_rate)
