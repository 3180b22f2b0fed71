"""Model transparency: few features, chosen on stimuli explored, without which a region is no longer predicted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from experiments.report import ElementEvidence, PlannedTest
from experiments.studies.brain_encoding.bench import EncodingBench
from experiments.studies.brain_encoding.experiment import Experiment
from experiments.studies.brain_encoding.features import N_FEATURES, Driving, as_far, matched_sets, moved_by, taken_away
from experiments.studies.brain_encoding.fits import Confirmed, Explored, called_in
from mechinterp.claims import Bound, Claim, Control
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.phantoms.stimuli.parameters import CONTENTS
from mechinterp.statistics.bootstrap import Interval, bootstrap_groups
from probes.encoding_scores import correlations

ELEMENT = "model transparency"
LEAST = Bound("at least", 0.25)
RANDOM, FROZEN, OTHER, AGREES = (
    "random features of the same norm", "features of a frozen-random autoencoder that move as far", "features of the other regions",
    "the other kind of replacement",
)  # fmt: skip
HOW = ("mean", "resample")
FEWEST_VOXELS = 3
_CRITERION = "a quarter of the region's correlation is lost, over the whole interval"


def asked(experiment: Experiment) -> tuple[str, ...]:
    """Return the regions whose features are taken away: of simulated ones those of a content, since V1 answers to contrast.

    Few features cannot carry what every edge in the picture drives: of V1 ten took 0.04 of the correlation away.
    """
    return experiment.regions if experiment.truth is None else tuple(r for r in experiment.regions if r in CONTENTS)


def planned(regions: tuple[str, ...]) -> tuple[PlannedTest, ...]:
    """Return the tests of this element: one for each region and ablation."""
    return tuple(
        PlannedTest(
            ELEMENT, _name(region, how),
            f"the {N_FEATURES} features of the middle site through which most of the region's predicted variance goes on stimuli "
            f"explored are replaced by {'their mean' if how == 'mean' else 'those of another stimulus'} on confirmation stimuli; the "
            "rest of the network runs anew, what the autoencoder missed is kept. Of a frozen-random autoencoder the best, twice as many, "
            "and so on are replaced until they move the activation as far; what loses most counts",
            "share of the correlation with measured responses that is lost", _CRITERION, (RANDOM, FROZEN, OTHER, AGREES), LEAST,
        )
        for region in regions for how in HOW
    )  # fmt: skip


def confirm(
    bench: EncodingBench, explored: Explored, confirmed: Confirmed, encoder: FeatureEncoder, found: Mapping[str, Driving],
    frozen: FeatureEncoder, of_frozen: Mapping[str, Driving],
) -> ElementEvidence:  # fmt: skip
    """Take the features away on the confirmation stimuli."""
    regions = [r for r in asked(bench.experiment) if r in found and len(called_in(bench, explored, r)) >= FEWEST_VOXELS]
    x = bench.inputs(bench.experiment.confirm)

    everywhere = (
        np.unique(np.concatenate([called_in(bench, explored, r) for r in regions])) if regions else np.zeros(0, int)
    )
    n = len(bench.experiment.region)

    def without(
        by: FeatureEncoder, driven: Driving, features: NDArray[np.int64], how: str, voxels: NDArray[np.int64],
        part: float = 1.0,
    ) -> NDArray[np.float64]:  # fmt: skip
        edit = taken_away(by, features, driven.codes if how == "mean" else None, part)
        predicted = np.full((len(x), n), np.nan)
        predicted[:, voxels] = explored.encoding.of(voxels).predict(bench.maps(x, edit=edit))
        return predicted

    claims = []
    random = np.random.default_rng(bench.config.seed)
    n_sets = max(20, bench.config.sizes.n_random // 4)
    ablated = {how: {r: without(encoder, found[r], found[r].features, how, everywhere) for r in regions} for how in HOW}
    for how in HOW:
        for region in regions:
            voxels = called_in(bench, explored, region)
            far = moved_by(bench, encoder, found[region].features, found[region].codes if how == "mean" else None)
            codes = of_frozen[region].codes if how == "mean" else None
            # more of them need not lose more: some make up for others
            by_frozen = [
                (lost(confirmed.predicted[:, voxels], without(frozen, of_frozen[region], theirs, how, voxels, part)[:, voxels],
                      confirmed.measured[:, voxels]), len(theirs))
                for theirs, part in as_far(bench, frozen, of_frozen[region], far, codes)
            ]  # fmt: skip
            sets = matched_sets(found[region], n_sets, random)
            rivals = [
                without(encoder, found[region], s, how, voxels)
                for s in bench.progress.track(sets, f"random features beside those of {region}", total=len(sets))
            ]
            claims.append(_claim(bench, confirmed, voxels, region, how, ablated, max(by_frozen), rivals))
    limits = (
        "Only what passes the middle site can be taken away: earlier maps still speak to the prediction.",
        "Features that are few need not be simple: what they show is asked under visual recognizability.",
    )
    return ElementEvidence(ELEMENT, tuple(claims), limits)


def lost(
    predicted: Float[NDArray[np.float64], "image voxel"],
    ablated: Float[NDArray[np.float64], "image voxel"],
    measured: Float[NDArray[np.float64], "image voxel"],
) -> float:
    """Return the share of the mean correlation that an ablation loses; NaN where there is none to lose."""
    before, after = correlations(predicted, measured).mean(), correlations(ablated, measured).mean()
    return float(1 - after / before) if before > 0 else float("nan")


def _loss(
    bench: EncodingBench, confirmed: Confirmed, voxels: NDArray[np.int64], ablated: NDArray[np.float64]
) -> tuple[float, Interval]:
    measured, predicted, without = (v[:, voxels] for v in (confirmed.measured, confirmed.predicted, ablated))
    interval = bootstrap_groups(
        lambda i: lost(predicted[i], without[i], measured[i]), confirmed.groups, n_boot=500, seed=bench.config.seed,
        method="percentile",
    )  # fmt: skip
    return lost(predicted, without, measured), interval


def _claim(
    bench: EncodingBench, confirmed: Confirmed, voxels: NDArray[np.int64], region: str, how: str,
    ablated: Mapping[str, Mapping[str, NDArray[np.float64]]], frozen: tuple[float, int], rivals: list[NDArray[np.float64]],
) -> Claim:  # fmt: skip
    measured, predicted = confirmed.measured[:, voxels], confirmed.predicted[:, voxels]
    value, interval = _loss(bench, confirmed, voxels, ablated[how][region])
    # either kind of replacement has artefacts of its own: what holds under one alone is not shown
    (rest,) = (h for h in HOW if h != how)
    least = _loss(bench, confirmed, voxels, ablated[rest][region])[1].low
    random = [lost(predicted, r[:, voxels], measured) for r in rivals]
    usual = float(np.quantile(random, 0.95)) if random else None
    of_frozen = frozen[0]
    elsewhere = {r: lost(predicted, a[:, voxels], measured) for r, a in ablated[how].items() if r != region}
    other = max(elsewhere, key=lambda r: elsewhere[r]) if elsewhere else None
    below = None if interval.low is None else Bound("at most", interval.low)
    return Claim.measured(
        f"Without {N_FEATURES} features the prediction of the {region} region loses {value:.2f} of its correlation with what was "
        f"measured ({how} replacement, {len(voxels)} voxels).",
        "interventional", value if np.isfinite(value) else None, "share of the correlation lost", LEAST, _CRITERION,
        controls=(
            Control(RANDOM, usual, None,
                    "too few other features are ever active" if usual is None
                    else f"95 % of {len(random)} random sets lose less than {usual:.3f}", below),
            Control(FROZEN, of_frozen, None, f"{frozen[1]} of them lose {of_frozen:.2f}", below),
            Control(OTHER, None if other is None else elsewhere[other], None,
                    "no other region" if other is None else f"those of {other} lose {elsewhere[other]:.2f}", below),
            Control(AGREES, least, None,
                    "no interval" if least is None else f"under {rest} replacement at least {least:.2f} is lost", LEAST),
        ),
        test=_name(region, how), interval=interval.ends, interval_note=interval.reason or interval.warning,
        trained=bench.model.trained, numbers={"features": N_FEATURES, "voxels": len(voxels), "random sets": len(random), "frozen-random features": frozen[1]},
    )  # fmt: skip


def _name(region: str, how: str) -> str:
    return f"few features carry the prediction of the {region} region ({how} replacement)"
