"""Physical attribution: do predictions follow a stimulus' height in degrees, and its scrambling, as the voxels themselves do.

A convolution keeps place and extent whatever its weights are, so predictions from an untrained network's channels follow much of a
move, whatever moves. What tells the two apart is *which* voxel changes how much beside the mean of its region, and that a scrambled
face, moved as far, changes nothing. So of a height both are taken off before predicted and true changes are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from experiments.report import ElementEvidence, PlannedTest
from experiments.studies.brain_encoding.bench import EncodingBench, as_input
from experiments.studies.brain_encoding.experiment import KnownVoxels
from experiments.studies.brain_encoding.fits import Explored, called_in
from mechinterp.claims import Bound, Claim, Control
from mechinterp.models.vision_model import VisionModel
from mechinterp.phantoms.phantom_set import PhantomSet
from mechinterp.phantoms.quantities import quantities
from mechinterp.phantoms.stimuli.parameters import StimulusParameters
from mechinterp.statistics.bootstrap import bootstrap_groups
from probes.encoding import EncodingModel

Effect = Float[NDArray[np.float64], "image voxel"]

ELEMENT = "physical attribution"
FEWEST_VOXELS = 3
"""Of fewer predicted voxels a region's change is not judged."""
HIGHER_DEG = 1.5
LEAST = Bound("at least", 0.5)
TRUE, OTHERS, MISPLACED, UNTRAINED = (
    "true counterfactual", "other voxels' changes", "responses to other stimuli", "untrained network",
)  # fmt: skip
_MOST = Bound("at most", 1.5)
_CRITERION = "at least 0.5 times the true change over its whole interval, and at most 1.5 times"
_HIGHER: Mapping[str, float | str] = MappingProxyType({"up_deg": HIGHER_DEG})
_SCRAMBLED: Mapping[str, float | str] = MappingProxyType({"arrangement": "random-phases"})


@dataclass(frozen=True)
class Change:
    """One thing that is changed of stimuli of one content, and the region of that name, which should follow.

    Parameters
    ----------
    content
        Which stimuli, and whose prediction.
    moved
        Whether stimuli are shown higher; otherwise they are scrambled.

    """

    content: str
    moved: bool

    @property
    def test(self) -> str:
        """Name of the planned test."""
        words = (
            f"the height at which {self.content}s are shown" if self.moved else f"whether {self.content}s are scrambled"
        )
        return f"the {self.content} region's prediction follows {words}"

    @property
    def method(self) -> str:
        """What is done, in the words of the plan."""
        if self.moved:
            return (
                f"confirmation stimuli are rendered again, {HIGHER_DEG}° higher, and so are the same ones scrambled (random phases); the "
                "change of every voxel's prediction, less what the scrambled one does, less the mean over the region's voxels, is "
                "regressed on that of the simulated voxel without noise"
            )
        return (
            "confirmation stimuli are rendered again, scrambled (random phases); the change of every voxel's prediction is regressed "
            "on that of the simulated voxel without noise"
        )

    @property
    def renderings(self) -> tuple[Mapping[str, float | str], ...]:
        """What becomes of a stimulus: it is scrambled; or it is shown higher, and so is it scrambled, here and there."""
        return (_HIGHER, _SCRAMBLED, {**_SCRAMBLED, **_HIGHER}) if self.moved else (_SCRAMBLED,)

    def effect(self, changes: Float[NDArray[np.float64], "rendering image voxel"]) -> Effect:
        """Return what is asked about, of how a region's voxels change from the stimulus to each of its renderings."""
        first: Effect = changes[0]
        return own_part(first - (changes[2] - changes[1])) if self.moved else first

    def possible(self, parameters: StimulusParameters) -> bool:
        """Return whether a stimulus shows the content, and can be changed so."""
        highest = quantities(parameters)["up_deg"].high - HIGHER_DEG if self.moved else np.inf
        return parameters.shown == self.content and parameters.up_deg <= highest


CHANGES = tuple(Change(content, moved) for content in ("face", "scene") for moved in (True, False))


def planned(*, truth_known: bool) -> tuple[PlannedTest, ...]:
    """Return the tests of this element: none for real stimuli, which have no true counterfactual."""
    if not truth_known:
        return ()
    return tuple(
        PlannedTest(
            ELEMENT, change.test, change.method, "slope of predicted on true changes", _CRITERION,
            (TRUE, OTHERS, MISPLACED, UNTRAINED), LEAST,
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
        "What a height does to all voxels of a region alike, and what sizes do, was not tested: predictions from an untrained "
        "network's channels follow it as well.",
    )
    found = [change for change in CHANGES if len(called_in(bench, explored, change.content)) >= FEWEST_VOXELS]
    images = [changed_stimuli(bench, truth, change) for change in found]
    # in one recording, so that every change counts in the same deviations
    asked = [(shown, added) for shown, change in zip(images, found, strict=True) for added in change.renderings]
    rendered = iter(truth.changes(asked))
    claims = [
        _claim(bench, explored, change, shown, [next(rendered) for _ in change.renderings])
        for change, shown in zip(found, images, strict=True)
    ]
    return ElementEvidence(ELEMENT, tuple(claims), limits)


def slope(predicted: Effect, true: Effect) -> float:
    """Return how much of a true change is predicted: least squares through the origin; NaN where nothing truly changes."""
    whole = float(np.square(true).sum())
    return float((predicted * true).sum() / whole) if whole > 0 else float("nan")


def own_part(change: Effect) -> Effect:
    """Return how each voxel changes beside the mean of all: what they do alike is taken off, stimulus by stimulus."""
    part: NDArray[np.float64] = change - change.mean(1, keepdims=True)
    return part


def changed_stimuli(bench: EncodingBench, truth: KnownVoxels, change: Change) -> NDArray[np.int64]:
    """Return one confirmation stimulus of each exemplar whose change can be rendered."""
    fitting = np.array(
        [i for i in bench.experiment.confirm if change.possible(truth.phantoms.parameters[i])], dtype=np.int64
    )
    _, first = np.unique(bench.experiment.groups[fitting].astype(str), return_index=True)
    return fitting[np.sort(first)][: bench.config.sizes.changed]


def _claim(
    bench: EncodingBench, explored: Explored, change: Change, images: NDArray[np.int64],
    rendered: list[tuple[PhantomSet, Effect]],
) -> Claim:  # fmt: skip
    voxels = called_in(bench, explored, change.content)
    true = change.effect(np.stack([each[:, voxels] for _, each in rendered]))
    unit = _unit(bench, voxels)
    before = bench.inputs(images)
    after = [as_input(bench.model, [found.phantom(i).pixels for i in range(len(found))]) for found, _ in rendered]

    def moved(network: VisionModel, *fitted: EncodingModel) -> list[Effect]:
        here, there = bench.maps(before, network), [bench.maps(x, network) for x in after]
        return [
            change.effect(np.stack([(by.predict(seen) - by.predict(here))[:, voxels] / unit for seen in there]))
            for by in fitted
        ]

    predicted, by_misplaced = moved(bench.model, explored.encoding, explored.misplaced)
    (by_untrained,) = moved(bench.untrained, explored.untrained)
    value = slope(predicted, true)
    interval = bootstrap_groups(
        lambda i: slope(predicted[i], true[i]), bench.experiment.groups[images], seed=bench.config.seed
    )
    misplaced, untrained = slope(by_misplaced, true), slope(by_untrained, true)
    below = None if interval.low is None else Bound("at most", interval.low)
    known = bool(np.isfinite(value))
    beside = f", each beside their mean and what a scrambled {change.content} does," if change.moved else ""
    done = f"{HIGHER_DEG}° higher" if change.moved else "scrambled (random phases)"
    return Claim.measured(
        f"Where a {change.content} is shown {done}, the predictions of {len(voxels)} {change.content} voxels change{beside} by "
        f"{value:.2f} of what the voxels do.",
        "ground-truth-verified", value if known else None, "times the true change", LEAST, _CRITERION,
        controls=(
            Control(TRUE, value if known else None, None, f"{value:.2f} times the true change", _MOST),
            _other_voxels(bench, change, predicted, true, images),
            Control(MISPLACED, misplaced, None, f"fitted to responses to other stimuli: {misplaced:.2f}", below),
            Control(UNTRAINED, untrained, None, f"the untrained twin's channels: {untrained:.2f}", below),
        ),
        test=change.test, interval=interval.ends, interval_note=interval.reason or interval.warning,
        trained=bench.model.trained,
        numbers={"voxels": len(voxels), "stimuli": len(images)} | ({"higher [°]": HIGHER_DEG} if change.moved else {}),
    )  # fmt: skip


def _other_voxels(
    bench: EncodingBench, change: Change, predicted: Effect, true: Effect, images: NDArray[np.int64]
) -> Control:
    """Let voxels of the region change places: in what each does beside their mean, since they may well do the rest alike."""
    own, truly = own_part(predicted), own_part(true)
    interval = bootstrap_groups(
        lambda i: slope(own[i], truly[i]), bench.experiment.groups[images], seed=bench.config.seed
    )
    random = np.random.default_rng(bench.config.seed)
    others = [slope(own[:, random.permutation(own.shape[1])], truly) for _ in range(bench.config.sizes.n_random)]
    usual = float(np.quantile(others, 0.95))
    detail = f"in what each voxel does beside their mean, 95 % of the orders in which voxels change places stay below {usual:.2f}"
    measure = "" if change.moved else "times the true change beside the mean of the region"
    if interval.low is None:
        return Control(OTHERS, usual, None, detail, measure=measure)
    return Control(
        OTHERS, usual, None, f"{detail}; in the right order it is at least {interval.low:.2f}",
        Bound("at most", interval.low), measure,
    )  # fmt: skip


def _unit(bench: EncodingBench, voxels: NDArray[np.int64]) -> Float[NDArray[np.float64], " voxel"]:
    """Return the standard deviation of each voxel's signal in that of its measured responses: what true changes count in."""
    if bench.ceiling is None:
        return np.ones(len(voxels))
    return np.maximum(bench.ceiling.correlation[voxels], 0.1)
