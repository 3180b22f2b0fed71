"""Whether responses are predicted at all, region by region, beside the noise ceiling and the untrained network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from experiments.report import ModelCheck, distance_check
from experiments.studies.brain_encoding.bench import EncodingBench
from experiments.studies.brain_encoding.experiment import NOISE_REGION
from experiments.studies.brain_encoding.fits import Confirmed, Explored
from mechinterp.claims import Bound, Claim, Control
from mechinterp.statistics.bootstrap import bootstrap_groups, groups_to_positions
from probes.encoding_scores import correlations, permuted_stimuli, voxel_test

ALPHA = 0.05
UNTRAINED, PERMUTED = "untrained network", "responses to other stimuli"


def check_predictions(bench: EncodingBench, explored: Explored, confirmed: Confirmed) -> ModelCheck:
    """Return how well the confirmation stimuli's responses are predicted, over all voxels of all regions."""
    there = np.flatnonzero(bench.experiment.region != NOISE_REGION)
    predicted, measured = confirmed.predicted[:, there], confirmed.measured[:, there]
    interval = bootstrap_groups(
        lambda i: float(correlations(predicted[i], measured[i]).mean()), confirmed.groups, n_boot=1000,
        seed=bench.config.seed, method="percentile",
    )  # fmt: skip
    # one shuffle moves all voxels of a region alike: chance is what shuffled stimuli reach, not 0
    orders = permuted_stimuli(confirmed.groups, bench.config.sizes.permutations, bench.config.seed)[1:]
    shuffled = [float(correlations(predicted, measured[order]).mean()) for order in orders]
    last = bench.sites[-1]
    outside = distance_check(
        explored.maps[last].mean(1), bench.experiment.groups[bench.experiment.fit].tolist(), confirmed.maps[last].mean(1),
        what=f"mean activations of {last}", units="exemplars", seed=bench.config.seed,
    )  # fmt: skip
    return ModelCheck(
        task="responses of all voxels to stimuli never shown before, per stimulus",
        metric="correlation",
        value=float(correlations(predicted, measured).mean()),
        interval=interval.ends,
        interval_note=interval.reason or interval.warning,
        chance=float(np.quantile(shuffled, 1 - ALPHA)),
        n_images=len(measured),
        n_groups=len(groups_to_positions(confirmed.groups)[0]),
        out_of_distribution=outside,
        trained=bench.model.trained,
        note="; ".join(
            [f"chance is what {ALPHA:.0%} of {len(orders)} permutations of stimuli reach"]
            + (["without repeats the noise ceiling is not known"] if bench.ceiling is None else [])
        ),
        claims=tuple(_region(bench, confirmed, region) for region in bench.experiment.regions),
    )


def _region(bench: EncodingBench, confirmed: Confirmed, region: str) -> Claim:
    """Say how well one region is predicted; as a share of the noise ceiling where repeats tell it."""
    voxels = np.flatnonzero(bench.experiment.of(region))
    predicted, measured, untrained = (
        v[:, voxels] for v in (confirmed.predicted, confirmed.measured, confirmed.by_untrained)
    )
    most = 1.0 if bench.ceiling is None else float(bench.ceiling.correlation[voxels].mean())
    most = most if most > 0 else 1.0

    def score(images: NDArray[np.int64]) -> float:
        return float(correlations(predicted[images], measured[images]).mean()) / most

    def beyond(images: NDArray[np.int64]) -> float:
        return score(images) - float(correlations(untrained[images], measured[images]).mean()) / most

    everything = np.arange(len(measured))
    interval = bootstrap_groups(score, confirmed.groups, n_boot=500, seed=bench.config.seed, method="percentile")
    gain = bootstrap_groups(beyond, confirmed.groups, n_boot=500, seed=bench.config.seed, method="percentile")
    test = voxel_test(
        confirmed.predicted, confirmed.measured, confirmed.groups, n_permutations=bench.config.sizes.permutations,
        alpha=ALPHA, seed=bench.config.seed,
    )  # fmt: skip
    found, twin = int(test.predicted[voxels].sum()), score(everything) - beyond(everything)
    of = "of the noise ceiling" if bench.ceiling is not None else "(correlation; the noise ceiling is not known)"
    better = None if gain.low is None else gain.low > 0
    return Claim.measured(
        f"The {region} region is predicted to {score(everything):.2f} {of}; {found} of {len(voxels)} voxels are predicted beyond "
        "chance, corrected for all voxels.",
        "correlational", score(everything), "share of the noise ceiling" if bench.ceiling is not None else "correlation",
        Bound("at least", 0.0), "above 0 over its whole interval",
        controls=(
            Control(PERMUTED, float(found), found > 0, f"largest correlation over all voxels in {test.scheme}",
                    measure="voxels predicted beyond chance"),
            Control(UNTRAINED, twin, better, f"its untrained twin reaches {twin:.2f}"),
        ),
        interval=interval.ends, interval_note=interval.reason or interval.warning, trained=bench.model.trained,
        numbers={"voxels predicted": found, "voxels": len(voxels), "permutations": bench.config.sizes.permutations + 1,
                 "exemplars": len(groups_to_positions(confirmed.groups)[0])},
    )  # fmt: skip
