"""Actionability: choosing stimuli that drive a voxel before they are shown, and saying which voxels not to trust."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from experiments.report import ElementEvidence, PlannedTest, ReportFigure
from experiments.studies.brain_encoding.bench import EncodingBench
from experiments.studies.brain_encoding.fits import Confirmed, Explored, called_in
from mechinterp.claims import Bound, Claim, Control
from mechinterp.statistics.bootstrap import bootstrap_groups
from probes.encoding_figures import region_score_figure
from probes.encoding_scores import correlations

if TYPE_CHECKING:
    import plotly.graph_objects as go

ELEMENT = "actionability"
CHOOSE = "stimuli chosen by the prediction drive a voxel"
TRUST = "leaving out the voxels that are not vouched for"
SHARE = 0.1
RANDOM, OTHERS, CONTENT, AT_RANDOM = (
    "as many at random", "stimuli chosen for other voxels of the region", "stimuli of the content it likes best",
    "as many voxels at random",
)  # fmt: skip
_CHOSEN, _TRUSTED = Bound("at least", 0.5), Bound("at least", 0.0)


def planned(bench: EncodingBench) -> tuple[PlannedTest, ...]:
    """Return the tests of this element."""
    controls = (RANDOM, OTHERS, CONTENT) if contents(bench) is not None else (RANDOM, OTHERS)
    return (
        PlannedTest(
            ELEMENT, CHOOSE,
            f"for each voxel vouched for, the {SHARE:.0%} of the confirmation stimuli with the largest predicted responses",
            "mean measured response to them [standard deviations]", "at least 0.5 over its whole interval", controls, _CHOSEN,
        ),
        PlannedTest(
            ELEMENT, TRUST,
            "of all voxels, those whose prediction held-back stimuli do not vouch for are left out",
            "gain of the mean correlation on confirmation stimuli", "above 0 over its whole interval", (AT_RANDOM,), _TRUSTED,
        ),
    )  # fmt: skip


def contents(bench: EncodingBench) -> NDArray[np.str_] | None:
    """Return the content of each stimulus, if it has a known one."""
    truth, labels = bench.experiment.truth, bench.experiment.images.labels
    if truth is not None:
        return np.array([p.shown for p in truth.phantoms.parameters])
    return None if labels is None or any(label is None for label in labels) else np.array(labels)


def confirm(bench: EncodingBench, explored: Explored, confirmed: Confirmed) -> ElementEvidence:
    """Choose stimuli and voxels, and see what was measured."""
    voxels = called_in(bench, explored)
    limits = (
        "Stimuli are chosen among those that were recorded; none was made to drive a voxel.",
        "A voxel that is not vouched for may answer to what these stimuli do not show.",
    )
    if not len(voxels):
        return ElementEvidence(ELEMENT, (), ("No voxel is predicted: no stimulus can be chosen for one.", *limits))
    text = (
        "Mean correlation with responses to new stimuli, over all voxels of a region, beside what noise allows at most."
    )
    return ElementEvidence(
        ELEMENT,
        (_chosen(bench, explored, confirmed, voxels), _trusted(bench, explored, confirmed)),
        limits,
        (ReportFigure.of("How well each region is predicted", text, _scores(bench, confirmed)),),
    )


def _scores(bench: EncodingBench, confirmed: Confirmed) -> go.Figure:
    """Draw each region's score beside its ceiling and the controls."""
    of = {
        "model": confirmed.predicted, "untrained network": confirmed.by_untrained,
        "responses to other stimuli": confirmed.by_misplaced,
    }  # fmt: skip
    regions = bench.experiment.regions
    scores = {name: correlations(predicted, confirmed.measured) for name, predicted in of.items()}
    means = {name: {r: float(each[bench.experiment.of(r)].mean()) for r in regions} for name, each in scores.items()}
    ceiling = bench.ceiling
    most = None if ceiling is None else {r: float(ceiling.correlation[bench.experiment.of(r)].mean()) for r in regions}
    return region_score_figure(means, most)


def response_to_chosen(
    predicted: Float[NDArray[np.float64], "image voxel"],
    measured: Float[NDArray[np.float64], "image voxel"],
    share: float = SHARE,
) -> float:
    """Return the mean measured response, over voxels, to the stimuli with the largest predicted ones."""
    n = max(1, round(share * len(predicted)))
    best = np.argpartition(-predicted, n - 1, axis=0)[:n]
    return float(np.take_along_axis(measured, best, axis=0).mean())


def _chosen(bench: EncodingBench, explored: Explored, confirmed: Confirmed, voxels: NDArray[np.int64]) -> Claim:
    predicted, measured = confirmed.predicted[:, voxels], confirmed.measured[:, voxels]
    # beyond the mean of the confirmation stimuli: what choosing wins over showing any
    measured = measured - measured.mean(0)
    value = response_to_chosen(predicted, measured)
    interval = bootstrap_groups(
        lambda i: response_to_chosen(predicted[i], measured[i]), confirmed.groups, n_boot=500, seed=bench.config.seed,
        method="percentile",
    )  # fmt: skip
    draw = np.random.default_rng(bench.config.seed)
    n = bench.config.sizes.n_random
    chance = [response_to_chosen(draw.standard_normal(predicted.shape), measured) for _ in range(n)]
    regions = bench.experiment.region[voxels]
    others = []
    for _ in range(n):
        order = np.arange(len(voxels))
        for region in np.unique(regions):
            mine = np.flatnonzero(regions == region)
            order[mine] = draw.permutation(mine)
        others.append(response_to_chosen(predicted[:, order], measured))
    usual, strange = float(np.quantile(chance, 0.95)), float(np.quantile(others, 0.95))
    below = None if interval.low is None else Bound("at most", interval.low)
    controls = [
        Control(RANDOM, usual, None, f"95 % of random choices stay below {usual:.2f}", below),
        Control(OTHERS, strange, None, f"95 % stay below {strange:.2f}", below),
    ]
    liked = _by_content(bench, confirmed, voxels, measured)
    if liked is not None:
        controls.append(Control(CONTENT, liked, None, f"any stimuli of that content: {liked:.2f}", below))
    return Claim.measured(
        f"The {SHARE:.0%} of new stimuli that the prediction chooses for a voxel drive it {value:.2f} standard deviations above "
        f"the mean ({len(voxels)} voxels).",
        "interventional", value, "standard deviations", _CHOSEN, "at least 0.5 over its whole interval",
        controls=tuple(controls), test=CHOOSE, interval=interval.ends, interval_note=interval.reason or interval.warning,
        trained=bench.model.trained, numbers={"share chosen": SHARE, "voxels": len(voxels)},
    )  # fmt: skip


def _by_content(
    bench: EncodingBench, confirmed: Confirmed, voxels: NDArray[np.int64], measured: NDArray[np.float64]
) -> float | None:
    """Return the mean response to the content that each voxel liked best among the stimuli explored."""
    shown = contents(bench)
    if shown is None:
        return None
    experiment = bench.experiment
    known = experiment.measured[:, voxels]
    before, now = shown[experiment.explored], shown[experiment.confirm]
    names = [c for c in np.unique(before) if (now == c).any()]
    means = np.stack([known[experiment.explored][before == c].mean(0) for c in names])
    later = np.stack([measured[now == c].mean(0) for c in names])
    return float(np.take_along_axis(later, means.argmax(0)[None], axis=0).mean())


def _trusted(bench: EncodingBench, explored: Explored, confirmed: Confirmed) -> Claim:
    kept = np.flatnonzero(explored.called)
    predicted, measured = confirmed.predicted, confirmed.measured

    def gain(images: NDArray[np.int64]) -> float:
        found = correlations(predicted[images], measured[images])
        return float(found[kept].mean() - found.mean())

    each = correlations(predicted, measured)
    value = gain(np.arange(len(measured)))
    interval = bootstrap_groups(gain, confirmed.groups, n_boot=500, seed=bench.config.seed, method="percentile")
    random = np.random.default_rng(bench.config.seed)
    chance = [
        float(each[random.permutation(len(each))[: len(kept)]].mean() - each.mean())
        for _ in range(max(200, bench.config.sizes.n_random))
    ]
    usual, left_out = float(np.quantile(chance, 0.95)), len(each) - len(kept)
    before, after = float(each.mean()), float(each[kept].mean())
    # where nothing is left out, a gain of exactly 0 would keep the bound, and say nothing
    return Claim.measured(
        f"Leaving out {left_out} of {len(each)} voxels changes the mean correlation from {before:.2f} to {after:.2f}."
        if left_out
        else f"All {len(each)} voxels are vouched for: none is left out, so nothing is gained.",
        "interventional", value if left_out else None, "correlation", _TRUSTED, "above 0 over its whole interval",
        controls=(
            Control(AT_RANDOM, usual, None, f"95 % of {len(chance)} random choices gain less than {usual:.3f}",
                    None if interval.low is None else Bound("at most", interval.low)),
        ),
        test=TRUST, interval=interval.ends, interval_note=interval.reason or interval.warning, trained=bench.model.trained,
        numbers={"before": before, "after": after, "voxels left out": left_out, "voxels": len(each), "choices": len(chance)},
    )  # fmt: skip
