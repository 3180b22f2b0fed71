"""``find_shortcuts``: features whose use differs between two environments, with false alarms controlled.

A feature is *used* where removing it costs log-odds of the truth. An honest feature costs as much at one hospital as at
another. A shortcut pays where it goes along with the label and not where it does not: its use differs. That is measured by
intervention; that a feature merely *occurs* more often in one environment is no difference in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from circuits.ablations import Ablation, mean
from circuits.acting.decision import Decision, patients_of, true_labels
from circuits.acting.use_differences import PatientMeans, UseDifferences
from circuits.measuring import Method, effects
from circuits.node_results import Effects, NodeName
from circuits.nodes import NodeSet
from circuits.nodes import features as feature_nodes
from mechinterp.claims import Claim, Control
from mechinterp.errors import ConfigError, ShapeError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.images.image_set import ImageSet
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress
from mechinterp.statistics.bootstrap import Interval, bootstrap_groups

if TYPE_CHECKING:
    import plotly.graph_objects as go

PLACEBOS = 100
Features = NodeSet | FeatureEncoder


@dataclass(frozen=True)
class FoundFeature:
    """One feature and how its use differs.

    Parameters
    ----------
    node
        Which feature of which site.
    rank
        1 for the largest difference that is significant.
    first, second
        Mean change of the log-odds of the truth when the feature is removed, in either environment: negative where it
        helps.
    difference
        First minus second.
    statistic
        The difference over its standard error.
    p
        Corrected for all features.
    interval
        Of the difference, over patients; only computed for the first few.

    """

    node: NodeName
    rank: int
    first: float
    second: float
    difference: float
    statistic: float
    p: float
    interval: Interval | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            **{k: v for k, v in vars(self).items() if k not in {"node", "interval"}},
            "site": self.node.site, "index": self.node.index, "name": self.node.name,
            "interval": None if self.interval is None else self.interval.to_json(),
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class ShortcutSearch:
    """Features ranked by how differently two environments use them.

    Parameters
    ----------
    environments
        Names of the two.
    decision
        What the effects are on.
    effects
        Of every feature on every image.
    differences
        The test.
    placebo_alarms, placebos
        How many of so many random divisions of the same patients would have raised an alarm, and how many may.
    alpha
        Level of an alarm.
    trained
        Whether the model is.
    patients_named, units_are_patients
        Whether somebody said whose images these are, and whether those are patients: over others there is no interval.

    """

    environments: tuple[str, str]
    decision: Decision
    effects: Effects
    differences: UseDifferences
    second: Bool[NDArray[np.bool_], " image"]
    labels: Bool[NDArray[np.bool_], " image"]
    groups: NDArray[Any]
    placebo_alarms: int
    placebos: int
    alpha: float = 0.05
    n_boot: int = 1000
    trained: bool = True
    patients_named: bool = True
    units_are_patients: bool = True

    @cached_property
    def order(self) -> Int[NDArray[np.int64], " feature"]:
        """Positions of the features: those whose use differs at the level set, largest difference first, then the others."""
        size = np.round(np.abs(self.differences.difference), 12)
        found: NDArray[np.int64] = np.lexsort((-size, self.differences.p > self.alpha))
        return found

    def ranked(self, n: int = 10, *, intervals: int = 0) -> tuple[FoundFeature, ...]:
        """Return the first `n` features; intervals for the first `intervals` of them."""
        d = self.differences
        return tuple(
            FoundFeature(
                self.effects.nodes[k], rank + 1, float(d.first[k]), float(d.second[k]), float(d.difference[k]),
                float(d.statistic[k]), float(d.p[k]), self.interval(k) if rank < intervals else None,
            )
            for rank, k in enumerate(self.order[:n].tolist())
        )  # fmt: skip

    @property
    def found(self) -> tuple[FoundFeature, ...]:
        """The features whose use differs at the level set."""
        return self.ranked(int((self.differences.p <= self.alpha).sum()))

    @property
    def alarm(self) -> bool:
        """Whether there is one."""
        return bool(self.differences.p.min(initial=1.0) <= self.alpha)

    @property
    def placebo_bound(self) -> int:
        """How many placebo alarms a test that holds its level stays within, in 97.5 of 100 runs."""
        from scipy.stats import binom

        return int(binom.ppf(0.975, self.placebos, self.alpha))

    def interval(self, feature: int) -> Interval:
        """Return the interval of one feature's difference in use, over patients."""
        values = self.effects.per_image[:, feature].astype(np.float64)
        cells = [(self.labels == c) & (self.second == e) for e in (False, True) for c in (False, True)]
        # a patient counts once in each class, as in the difference itself, however many images there are
        whose = np.unique(np.asarray(self.groups).astype(str), return_inverse=True)[1] * 2 + self.labels
        share = 1 / np.bincount(whose)[whose]

        def difference(images: NDArray[np.int64]) -> float:
            chosen = [images[cell[images]] for cell in cells]
            if any(len(rows) == 0 for rows in chosen):
                return float("nan")
            means = [float(np.average(values[rows], weights=share[rows])) for rows in chosen]
            return (means[0] + means[1] - means[2] - means[3]) / 2

        return bootstrap_groups(
            difference, self.groups, self.n_boot, method="percentile", units_are_patients=self.units_are_patients
        )

    @cached_property
    def claim(self) -> Claim:
        """That the first feature is used differently; not met where nothing is found."""
        (top,) = self.ranked(1, intervals=1)
        interval = top.interval or Interval.not_estimable(0)
        a, b = self.environments
        return Claim(
            statement=(
                f"{top.node.name} is used differently: removing it changes the log-odds of the truth by {top.first:+.2f} "
                f"in {a} and by {top.second:+.2f} in {b} ({len(self.found)} of {len(self.order)} features differ)"
            ),
            strength="interventional",
            value=top.difference,
            unit="log-odds",
            holds=self.alarm,
            criterion=f"p ≤ {self.alpha:g} after correction for {len(self.order)} features",
            controls=(
                Control(
                    "patients dealt to environments at random", float(self.placebo_alarms),
                    self.placebo_alarms <= self.placebo_bound,
                    f"{self.placebo_alarms} alarms in {self.placebos} divisions, at most {self.placebo_bound} allowed",
                ),
            ),
            interval=interval.ends,
            interval_note=interval.reason or interval.warning,
            p_value=top.p,
            trained=self.trained,
        )  # fmt: skip

    def to_json(self, n: int = 20) -> dict[str, Any]:
        """Return the first `n` features and the claim as plain JSON."""
        d = self.differences
        return {
            "environments": list(self.environments),
            "patients": list(d.patients) if self.patients_named and self.units_are_patients else None,
            "target": self.decision.name,
            "method": self.effects.method,
            "ablation": self.effects.ablation.name,
            "features": len(self.order),
            "permutations": len(d.null) - 1,
            "alpha": self.alpha,
            "alarm": self.alarm,
            "found": len(self.found),
            "placebos": {"alarms": self.placebo_alarms, "of": self.placebos, "at_most": self.placebo_bound},
            "ranked": [f.to_json() for f in self.ranked(n, intervals=min(n, 5))],
            "claim": self.claim.to_json(),
        }

    def figure(self, n: int = 15) -> go.Figure:
        """Draw the use of the first `n` features in both environments."""
        from circuits.acting.figures import use_figure

        return use_figure(self, n)


def find_shortcuts(
    model: VisionModel,
    features: Features | Sequence[Features],
    images: ImageSet | Float[Tensor, "image channel height width"],
    *,
    environments: Sequence[Any] | NDArray[Any],
    target: str | int,
    labels: Sequence[Any] | NDArray[Any] | None = None,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    units_are_patients: bool | None = None,
    method: Method = "exact",
    ablation: Ablation | None = None,
    n_permutations: int = 2000,
    placebos: int = PLACEBOS,
    alpha: float = 0.05,
    batch: int = 32,
    rows: int = 64,
    seed: int = 0,
    progress: Progress = SILENT,
) -> ShortcutSearch:
    """Rank features by how differently two environments use them.

    Parameters
    ----------
    model
        The model.
    features
        SAE, neurons (:func:`circuits.neurons`), directions: of one site or several.
    images
        Of both environments, none of which the model was trained on.
    environments
        Environment of each image: two values, such as two hospitals or scanners. No patient may be in both.
    target
        The class that the decision is about.
    labels, groups
        Class and patient of each image; an ``ImageSet`` has its own.
    units_are_patients
        Whether those groups are patients; an ``ImageSet`` knows it, and of prepared images it is believed.
    method
        How effects are computed, see :func:`circuits.effects`; ``attribution`` where exact ones take too long.
    ablation
        What is put in a feature's place; by default its mean over the images of both environments.
    n_permutations
        Of patients between the environments.
    placebos
        Random divisions of the patients that are tested alike.
    alpha
        Level of an alarm.
    batch, rows
        Images, and changed activations, at once.
    seed
        Of draws and permutations.
    progress
        Told of every block.

    Raises
    ------
    ConfigError
        If there are not two environments, or too few patients of a class in one.
    LeakageError
        If a patient is in both.

    Examples
    --------
    >>> search = find_shortcuts(model, sae, images, environments=scanner, target="referable")  # doctest: +SKIP
    >>> search.claim.verdict, search.ranked(3)  # doctest: +SKIP

    """
    decision = Decision.of(model, target)
    truth = true_labels(images, decision, labels)
    patients = patients_of(images, groups)
    names, second = two_environments(environments, len(images))
    # said before the model runs: what cannot be tested should not be computed
    PatientMeans.of(np.zeros((len(truth), 1)), second, truth, patients)
    nodes = [_nodes(f) for f in ([features] if isinstance(features, NodeSet | FeatureEncoder) else features)]
    found = effects(
        decision.for_the_truth(truth), nodes, model=model, images=images, method=method, ablation=ablation or mean(),
        groups=patients, batch=batch, rows=rows, seed=seed, progress=progress,
    )  # fmt: skip
    means = PatientMeans.of(found.per_image, second, truth, patients)
    if units_are_patients is None:
        units_are_patients = not isinstance(images, ImageSet) or images.units_are_patients
    named = groups is not None or (isinstance(images, ImageSet) and images.groups is not None)
    return ShortcutSearch(
        names, decision, found, means.test(n_permutations, seed), second, truth, patients,
        means.placebo_alarms(placebos, alpha=alpha, seed=seed), placebos, alpha, trained=model.trained,
        patients_named=named, units_are_patients=units_are_patients,
    )  # fmt: skip


def two_environments(
    environments: Sequence[Any] | NDArray[Any], images: int
) -> tuple[tuple[str, str], Bool[NDArray[np.bool_], " image"]]:
    """Return the names of two environments in order of first appearance, and which images are of the second.

    Raises
    ------
    ShapeError
        If there is not one for each image.
    ConfigError
        If there are not two.

    """
    given = np.asarray(environments)
    if given.shape != (images,):
        raise ShapeError(f"environments have shape {given.shape} for {images} images: give one each")
    values = list(dict.fromkeys(given.tolist()))
    if len(values) != 2:
        shown = ", ".join(str(v) for v in values[:4])
        raise ConfigError(f"{len(values)} environments ({shown}): give images of exactly two")
    return (str(values[0]), str(values[1])), given == values[1]


def _nodes(features: Features) -> NodeSet:
    return (features if isinstance(features, NodeSet) else feature_nodes(features)).without_error()
