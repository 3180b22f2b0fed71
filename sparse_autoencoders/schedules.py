"""Learning rate and number of active features over a training."""

from __future__ import annotations

import math

from sparse_autoencoders.config import TrainSAEConfig


def learning_rate(step: int, steps: int, config: TrainSAEConfig) -> float:
    """Return the learning rate of a step, counted from 0: a rise from zero, a plateau or a cosine, a linear fall to zero."""
    rise, fall = round(config.warm_up * steps), round(config.decay * steps)
    if step < rise:
        return config.lr * (step + 1) / rise
    rate = config.lr
    if config.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))
    if step >= steps - fall:
        rate *= (steps - step) / (fall + 1)
    return rate


def active_features(step: int, steps: int, config: TrainSAEConfig, width: int) -> int:
    """Return k at a step: it falls linearly from ``anneal_k * k`` over the first half of the training."""
    share = max(0.0, 1 - step / max(steps / 2, 1))
    return min(round(config.k * (1 + (config.anneal_k - 1) * share)), width)
