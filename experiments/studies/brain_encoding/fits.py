"""What is fitted while exploring, and what it predicts of the stimuli that are opened once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from experiments.studies.brain_encoding.bench import EncodingBench, Maps
from experiments.studies.brain_encoding.experiment import NOISE_REGION
from probes.encoding import EncodingModel
from probes.encoding_scores import VoxelTest, permuted_stimuli, voxel_test

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Explored:
    """Encoding models of the stimuli explored.

    Parameters
    ----------
    encoding
        From the model's channels to responses.
    untrained
        The same from the channels of its untrained twin.
    misplaced
        From the model's channels to responses that changed places with those to other stimuli.
    maps
        What the model does on the stimuli that the models were fitted to.
    vouched
        The test, on stimuli held back from fitting, of which voxels are predicted at all.

    """

    encoding: EncodingModel
    untrained: EncodingModel
    misplaced: EncodingModel
    maps: Maps
    vouched: VoxelTest

    @property
    def called(self) -> Bool[NDArray[np.bool_], " voxel"]:
        """The voxels that are: whatever is said of single voxels is said of these."""
        return self.vouched.predicted


@dataclass(frozen=True)
class Confirmed:
    """Predictions for the confirmation stimuli, beside what was measured.

    Parameters
    ----------
    maps
        What the model does on them.
    measured, predicted, by_untrained, by_misplaced
        Image × voxel, in standard deviations of the responses explored.
    groups
        Of each stimulus.

    """

    maps: Maps
    measured: Float[Values, "image voxel"]
    predicted: Float[Values, "image voxel"]
    by_untrained: Float[Values, "image voxel"]
    by_misplaced: Float[Values, "image voxel"]
    groups: NDArray[np.object_]


def explore(bench: EncodingBench) -> Explored:
    """Fit to the first part of the stimuli, and test on the second which voxels are predicted."""
    experiment = bench.experiment
    measured, fit, check = experiment.measured, experiment.fit, experiment.check
    maps = bench.maps_of(fit)
    order = permuted_stimuli(experiment.groups[fit], 1, bench.config.seed)[1]
    # both at once: every candidate field is looked through once
    both = bench.fitted(maps, np.concatenate([measured[fit], measured[fit][order]], axis=1), "model")
    n = measured.shape[1]
    encoding, misplaced = both.of(np.arange(n)), both.of(np.arange(n, 2 * n))
    untrained = bench.fitted(bench.maps_of(fit, bench.untrained), measured[fit], "untrained network")
    vouched = voxel_test(
        encoding.predict(bench.maps_of(check)), measured[check], experiment.groups[check],
        n_permutations=bench.config.sizes.permutations, seed=bench.config.seed,
    )  # fmt: skip
    return Explored(encoding, untrained, misplaced, maps, vouched)


def confirm(bench: EncodingBench, explored: Explored) -> Confirmed:
    """Predict the confirmation stimuli."""
    experiment = bench.experiment
    maps = bench.maps_of(experiment.confirm)
    return Confirmed(
        maps,
        experiment.measured[experiment.confirm],
        explored.encoding.predict(maps),
        explored.untrained.predict(bench.maps_of(experiment.confirm, bench.untrained)),
        explored.misplaced.predict(maps),
        experiment.groups[experiment.confirm],
    )


def called_in(bench: EncodingBench, explored: Explored, region: str | None = None) -> Int[NDArray[np.int64], " chosen"]:
    """Return the voxels of a region, or of all regions, that are predicted at all."""
    there = bench.experiment.region != NOISE_REGION if region is None else bench.experiment.of(region)
    return np.flatnonzero(explored.called & there)
