"""Sites followed by a model written by hand, so that what drives the answer is known exactly."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import torch

from circuits.bands import two_bands
from circuits.set_experiment import SetExperimentConfig, run_set_experiment
from mechinterp.feature_encoder import Neurons
from mechinterp.objectives import logit_difference

WIDTH, TOKENS, BAND = 64, 4, 12


@dataclass
class ByHand:
    """Class 0 is the target, 1 the reference, 2 never wins: the target's logit is `weight` · (mean over tokens) + bias."""

    weight: torch.Tensor
    bias: float
    calls: int = 0

    def logits(self, acts_bnd, x=None):
        self.calls += len(acts_bnd)
        score = acts_bnd.mean(1) @ self.weight + self.bias
        return torch.stack([score, torch.zeros_like(score), torch.full_like(score, -50.0)], 1)


def some_activations(seed=0):
    """Two bands of 12 target images and 24 reference images; every channel moves a little from image to image."""
    generator = torch.Generator().manual_seed(seed)
    acts = 1 + 0.2 * torch.rand(4 * BAND, 1, WIDTH, generator=generator).expand(-1, TOKENS, -1).clone()
    acts += 0.05 * torch.rand(acts.shape, generator=generator)
    return acts


def two_drivers():
    """Channels 5 and 9 are higher on target images, and only both together carry the answer over the threshold.

    The other channels differ between the classes as much, one way or the other, but nothing reads them.
    """
    acts = some_activations()
    shift = torch.linspace(-1.2, 1.2, WIDTH)
    shift[[5, 9]] = 1.0
    acts[: 2 * BAND] += shift
    return acts, reading_two_channels()


def two_drivers_that_stand_out():
    """The same two drivers, but no other channel differs between the classes: no other pair removes as much."""
    acts = some_activations()
    acts[: 2 * BAND, :, [5, 9]] += 1.0
    return acts, reading_two_channels()


def reading_two_channels():
    weight = torch.zeros(WIDTH)
    weight[[5, 9]] = 4.0
    return ByHand(weight, -8 * 1.125 - 3)


def an_always_on_vote():
    """Channel 3 votes 20 for the target on every image; 40 others tell the bands from the reference, a little each."""
    acts = some_activations()
    acts[:, :, 3] += 10
    acts[: 2 * BAND, :, 20:60] += 0.4
    weight = torch.zeros(WIDTH)
    weight[3] = 2.0
    weight[20:60] = 0.5
    return acts, ByHand(weight, -(2 * 11.125 + 20 * 1.125 + 4))


def spread_over_forty():
    """Forty channels each say a little, none matters by itself."""
    acts = some_activations()
    acts[: 2 * BAND, :, 20:60] += 0.4
    weight = torch.zeros(WIDTH)
    weight[20:60] = 0.5
    return acts, ByHand(weight, -(20 * 1.125 + 4))


def experiment_on(planted, encoders=None, progress=None, **settings):
    acts, run = planted
    bands = two_bands(range(BAND), range(BAND, 2 * BAND), range(2 * BAND, 4 * BAND), names=("lower", "upper"))
    config = SetExperimentConfig(**{"sizes": (1, 2, 3, 40), "draws": 2, "max_images": BAND, "batch": 64, **settings})
    extra = {} if progress is None else {"progress": progress}
    encoders = encoders or [Neurons("stage", WIDTH)]
    with one_thread():
        return run_set_experiment(run, encoders, acts, bands, logit_difference(0, 1), config, **extra)


@contextmanager
def one_thread():
    """Small products wait longer for a second thread than they gain from it, above all beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
