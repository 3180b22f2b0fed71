"""Physical attribution: does a region's prediction follow a stimulus' height in degrees, and its scrambling, as the region itself does.

Some changes are no test, since predictions from an untrained network's channels follow them as well: a convolution keeps place and extent
whatever its weights are. Faces made 1.5° smaller are followed by 0.88 of the true change (0.90 from the trained one's, over 59 simulated
voxels), scenes moved 1.5° to the right by 0.72 and 0.85 on two seeds (the whole interval of the trained one's should lie above).
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
from mechinterp.phantoms.quantities import quantities
from mechinterp.phantoms.stimuli.parameters import StimulusParameters
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
_PLACES = ("up_deg", "right_deg")
_CRITERION = "at least 0.5 times the true change over its whole interval, and at most 1.5 times"


@dataclass(frozen=True)
class Change:
    """One thing that is changed of stimuli of one content, and the region that should follow.

    Parameters
    ----------
    region, content
        Whose prediction, and which stimuli.
    parameter, step
        What is added to, and how much, in degrees; or what becomes something else.
    done
        What is done, in words.
    words
        The quantity in words.

    """

    region: str
    content: str
    parameter: str
    step: float | str
    done: str
    words: str

    @property
    def test(self) -> str:
        """Name of the planned test."""
        return f"the {self.region} region's prediction follows {self.words}"

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the controls: of a region whose voxels all answer alike to a change, changing their places says nothing."""
        return (TRUE, OTHERS, MISPLACED, UNTRAINED) if self.parameter in _PLACES else (TRUE, MISPLACED, UNTRAINED)

    def possible(self, parameters: StimulusParameters) -> bool:
        """Return whether a stimulus shows the content, and the change can be rendered."""
        if parameters.shown != self.content or isinstance(self.step, str):
            return parameters.shown == self.content
        allowed = quantities(parameters)[self.parameter]
        return bool(allowed.low <= getattr(parameters, self.parameter) + self.step <= allowed.high)


CHANGES = (
    Change("face", "face", "up_deg", 1.5, "1.5° higher", "the height at which faces are shown"),
    Change("face", "face", "arrangement", "random-phases", "scrambled (random phases)", "whether faces are scrambled"),
    Change("scene", "scene", "up_deg", 1.5, "1.5° higher", "the height at which scenes are shown"),
    Change(
        "scene", "scene", "arrangement", "random-phases", "scrambled (random phases)", "whether scenes are scrambled"
    ),
)


def planned(*, truth_known: bool) -> tuple[PlannedTest, ...]:
    """Return the tests of this element: none for real stimuli, which have no true counterfactual."""
    if not truth_known:
        return ()
    return tuple(
        PlannedTest(
            ELEMENT, change.test,
            f"confirmation stimuli are rendered again, {change.done}; the change of every voxel's "
            "prediction is regressed on that of the simulated voxel without noise",
            "slope of predicted on true changes", _CRITERION, change.controls, LEAST,
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
        "Sizes and places to the right were not changed: predictions from an untrained network's channels follow them as well.",
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
    controls = (
        Control(TRUE, value if known else None, None, f"{value:.2f} times the true change", _MOST),
        Control(OTHERS, usual, None, "voxels of the same region change places", below),
        Control(MISPLACED, misplaced, None, f"fitted to responses to other stimuli: {misplaced:.2f}", below),
        Control(UNTRAINED, untrained, None, f"the untrained twin's channels: {untrained:.2f}", below),
    )
    return Claim.measured(
        f"Where a {change.content} is shown {change.done}, the prediction of {len(voxels)} {change.region} voxels changes by "
        f"{value:.2f} of what the voxels do.",
        "ground-truth-verified", value if known else None, "times the true change", LEAST, _CRITERION,
        controls=tuple(c for c in controls if c.name in change.controls),
        test=change.test, interval=interval.ends, interval_note=interval.reason or interval.warning,
        trained=bench.model.trained, numbers={"voxels": len(voxels), "stimuli": len(images)},
    )  # fmt: skip


def _stimuli(bench: EncodingBench, truth: KnownVoxels, change: Change) -> NDArray[np.int64]:
    """Return one confirmation stimulus of each exemplar whose change can be rendered."""
    fitting = np.array(
        [i for i in bench.experiment.confirm if change.possible(truth.phantoms.parameters[i])], dtype=np.int64
    )
    _, first = np.unique(bench.experiment.groups[fitting].astype(str), return_index=True)
    return fitting[np.sort(first)][: bench.config.sizes.changed]


def _unit(bench: EncodingBench, voxels: NDArray[np.int64]) -> Float[NDArray[np.float64], " voxel"]:
    """Return the standard deviation of each voxel's signal in that of its measured responses: what true changes count in."""
    if bench.ceiling is None:
        return np.ones(len(voxels))
    return np.maximum(bench.ceiling.correlation[voxels], 0.1)
