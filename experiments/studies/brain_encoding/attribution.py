"""Physical attribution: does a region's prediction follow a stimulus' place in degrees as the region itself does.

A stimulus' size is no test: predictions from an untrained network's channels follow it as well (0.88 of the true change for faces
made 1.5° smaller, against 0.90 from the trained one's, over 59 simulated voxels).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from experiments.report import ElementEvidence, PlannedTest
from experiments.studies.brain_encoding.bench import EncodingBench, as_input
from experiments.studies.brain_encoding.experiment import KnownVoxels
from experiments.studies.brain_encoding.fits import Explored, called_in
from mechinterp.claims import Bound, Claim, Control
from mechinterp.phantoms.phantom_set import PhantomSet
from mechinterp.statistics.bootstrap import bootstrap_groups
from probes.encoding import EncodingModel

ELEMENT = "physical attribution"
FEWEST_VOXELS = 3
"""Of fewer predicted voxels a region's change is not judged."""
LEAST = Bound("at least", 0.5)
TRUE, OTHERS, MISPLACED, UNTRAINED = (
    "true counterfactual", "other voxels' changes", "responses to other stimuli", "untrained network",
)  # fmt: skip
_MOST = Bound("at most", 1.5)
_CRITERION = "at least 0.5 times the true change over its whole interval, and at most 1.5 times"


@dataclass(frozen=True)
class Change:
    """One thing that is changed of stimuli of one content, and the region that should follow.

    Parameters
    ----------
    region, content
        Whose prediction, and which stimuli.
    parameter, step
        What is added to, and how much, in degrees.
    words
        The quantity in words.

    """

    region: str
    content: str
    parameter: str
    step: float
    words: str

    @property
    def test(self) -> str:
        """Name of the planned test."""
        return f"the {self.region} region's prediction follows {self.words}"


CHANGES = (
    Change("face", "face", "right_deg", 1.5, "the place of faces to the right"),
    Change("face", "face", "up_deg", 1.5, "the height at which faces are shown"),
    Change("scene", "scene", "right_deg", 1.5, "the place of scenes to the right"),
    Change("scene", "scene", "up_deg", 1.5, "the height at which scenes are shown"),
)


def planned(*, truth_known: bool) -> tuple[PlannedTest, ...]:
    """Return the tests of this element: none for real stimuli, which have no true counterfactual."""
    if not truth_known:
        return ()
    return tuple(
        PlannedTest(
            ELEMENT, change.test,
            f"confirmation stimuli are rendered again with {change.step:+g}° of {change.parameter}; the change of every voxel's "
            "prediction is regressed on that of the simulated voxel without noise",
            "slope of predicted on true changes", _CRITERION, (TRUE, OTHERS, MISPLACED, UNTRAINED), LEAST,
        )
        for change in CHANGES
    )  # fmt: skip


def confirm(bench: EncodingBench, explored: Explored) -> ElementEvidence:
    """Change confirmation stimuli, and compare predicted with true changes."""
    truth = bench.experiment.truth
    if truth is None:
        return ElementEvidence(ELEMENT, (), ("Recorded stimuli have no true counterfactual: nothing was changed.",))
    limits = (
        "What the prediction follows is what the simulated voxels follow: of real ones nobody knows it.",
        "Sizes were not changed: predictions from an untrained network's channels follow them as well.",
    )
    found = [change for change in CHANGES if len(called_in(bench, explored, change.region)) >= FEWEST_VOXELS]
    images = [_stimuli(bench, truth, change) for change in found]
    changed = truth.changes([(i, {c.parameter: c.step}) for i, c in zip(images, found, strict=True)])
    claims = [
        _claim(bench, explored, change, shown, *after)
        for change, shown, after in zip(found, images, changed, strict=True)
    ]
    return ElementEvidence(ELEMENT, tuple(claims), limits)


def slope(
    predicted: Float[NDArray[np.float64], "image voxel"], true: Float[NDArray[np.float64], "image voxel"]
) -> float:
    """Return how much of a true change is predicted: least squares through the origin; NaN where nothing truly changes."""
    whole = float(np.square(true).sum())
    return float((predicted * true).sum() / whole) if whole > 0 else float("nan")


def _claim(
    bench: EncodingBench, explored: Explored, change: Change, images: NDArray[np.int64], changed: PhantomSet,
    true: Float[NDArray[np.float64], "image voxel"],
) -> Claim:  # fmt: skip
    voxels = called_in(bench, explored, change.region)
    true = true[:, voxels]
    before = bench.inputs(images)
    after = as_input(bench.model, [changed.phantom(i).pixels for i in range(len(changed))])
    maps = bench.maps(before), bench.maps(after)
    strange = bench.maps(before, bench.untrained), bench.maps(after, bench.untrained)

    def moved(model: EncodingModel, seen: tuple[dict[str, NDArray[np.float32]], ...]) -> NDArray[np.float64]:
        difference: NDArray[np.float64] = (model.predict(seen[1]) - model.predict(seen[0]))[:, voxels] / _unit(
            bench, voxels
        )
        return difference

    predicted = moved(explored.encoding, maps)
    value = slope(predicted, true)
    interval = bootstrap_groups(
        lambda i: slope(predicted[i], true[i]), bench.experiment.groups[images], seed=bench.config.seed
    )
    random = np.random.default_rng(bench.config.seed)
    others = [slope(predicted[:, random.permutation(len(voxels))], true) for _ in range(bench.config.sizes.n_random)]
    usual = float(np.quantile(others, 0.95))
    misplaced, untrained = slope(moved(explored.misplaced, maps), true), slope(moved(explored.untrained, strange), true)
    below = None if interval.low is None else Bound("at most", interval.low)
    known = bool(np.isfinite(value))
    return Claim.measured(
        f"When {change.words} changes by {change.step:+g}°, the prediction of {len(voxels)} {change.region} voxels changes by "
        f"{value:.2f} of what the voxels do.",
        "ground-truth-verified", value if known else None, "times the true change", LEAST, _CRITERION,
        controls=(
            Control(TRUE, value if known else None, None, f"{value:.2f} times the true change", _MOST),
            Control(OTHERS, usual, None, "voxels of the same region change places", below),
            Control(MISPLACED, misplaced, None, f"fitted to responses to other stimuli: {misplaced:.2f}", below),
            Control(UNTRAINED, untrained, None, f"the untrained twin's channels: {untrained:.2f}", below),
        ),
        test=change.test, interval=interval.ends, interval_note=interval.reason or interval.warning,
        trained=bench.model.trained, numbers={"voxels": len(voxels), "stimuli": len(images), "step [°]": change.step},
    )  # fmt: skip


def _stimuli(bench: EncodingBench, truth: KnownVoxels, change: Change) -> NDArray[np.int64]:
    """Return one confirmation stimulus of each exemplar whose change can be rendered."""
    from mechinterp.phantoms.quantities import quantities

    allowed = quantities(truth.phantoms.parameters[0])[change.parameter]
    fitting = np.array([
        i for i in bench.experiment.confirm
        if (p := truth.phantoms.parameters[i]).shown == change.content
        and allowed.low <= getattr(p, change.parameter) + change.step <= allowed.high
    ], dtype=np.int64)  # fmt: skip
    _, first = np.unique(bench.experiment.groups[fitting].astype(str), return_index=True)
    return fitting[np.sort(first)][: bench.config.sizes.changed]


def _unit(bench: EncodingBench, voxels: NDArray[np.int64]) -> Float[NDArray[np.float64], " voxel"]:
    """Return the standard deviation of each voxel's signal in that of its measured responses: what true changes count in."""
    if bench.ceiling is None:
        return np.ones(len(voxels))
    return np.maximum(bench.ceiling.correlation[voxels], 0.1)
