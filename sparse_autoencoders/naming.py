"""Names for features, from attributes and labels; none where a feature is not selective; tested on other patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import ConfigError, LeakageError, ShapeError
from mechinterp.files import jsonable
from mechinterp.statistics import (
    Interval,
    auroc,
    benjamini_hochberg,
    max_statistic_test,
    unit_means,
    unit_permutations,
)
from mechinterp.statistics.bootstrap import FEWEST_GROUPS, corrected_ends, few_groups_warning, groups_to_positions
from sparse_autoencoders.concepts import Concept, concepts_of

FEWEST_IMAGES = 5
"""A feature active in fewer discovery images is not named."""
MARGIN = 0.05
"""How far a concept's AUROC must lie above that of every concept that does not go along with it."""
ALONG = 0.5
"""Correlation above which two concepts go along with each other: one image has both or neither."""
BOOTSTRAPS = 1000


@dataclass(frozen=True)
class FeatureName:
    """One feature's name, or why it has none.

    Parameters
    ----------
    feature
        Its number.
    name
        A concept in words; ``None`` where the feature abstains.
    reason
        Why it has no name; empty where it has one.
    source
        The attribute behind the name, or ``label``.
    auroc, p
        On discovery patients: how well the feature separates images with the best concept from those without, and the p-value of
        its rank correlation, corrected for all features and concepts.
    runner_up
        The best concept that does not go along with the name, and its AUROC.
    threshold
        The feature *says* the concept where its value is above: chosen on discovery patients, so that it says it as often as it is
        there.
    precision, base_rate, recall
        On confirmation patients: share of the images of which the feature says the concept that have it; share of all images that
        have it; share of the images with it of which the feature says so. NaN without a name, or where it says nothing.
    images
        Confirmation images of which the feature says the concept.
    interval
        Of the precision, over patients.
    p_confirmation
        Of the precision, when confirmation patients change places.
    holds
        Whether the precision is above the base rate at a false-discovery rate of alpha over all names.

    """

    feature: int
    name: str | None
    reason: str = ""
    source: str = ""
    auroc: float = float("nan")
    p: float = float("nan")
    runner_up: tuple[str, float] | None = None
    threshold: float = float("nan")
    precision: float = float("nan")
    base_rate: float = float("nan")
    recall: float = float("nan")
    images: int = 0
    interval: Interval = field(default_factory=lambda: Interval.not_estimable(0))
    p_confirmation: float = float("nan")
    holds: bool = False

    @property
    def text(self) -> str:
        """One line: the name with its precision, or why there is none."""
        if self.name is None:
            return f"no name: {self.reason}"
        said = (
            f"{self.name}: {self.precision:.0%} of {self.images} held-out images have it, {self.base_rate:.0%} of all"
        )
        return (said if self.holds else f"{said}; not confirmed").replace("%", " %")


@dataclass(frozen=True)
class FeatureNames:
    """The names of all features.

    Parameters
    ----------
    names
        One for each feature, in their order.
    concepts
        What was on offer.
    alpha
        Level of both tests.
    discovery_patients, confirmation_patients
        Numbers of patients that names were chosen on, and tested on.

    """

    names: tuple[FeatureName, ...]
    concepts: tuple[str, ...]
    alpha: float
    discovery_patients: int
    confirmation_patients: int

    @property
    def named(self) -> tuple[FeatureName, ...]:
        """Features that have a name."""
        return tuple(n for n in self.names if n.name is not None)

    @property
    def holding(self) -> tuple[FeatureName, ...]:
        """Features whose name holds on confirmation patients."""
        return tuple(n for n in self.named if n.holds)

    @property
    def precision(self) -> float:
        """Share of the names that hold; NaN where no feature has one."""
        return len(self.holding) / len(self.named) if self.named else float("nan")

    @property
    def text(self) -> str:
        """One sentence."""
        if not self.named:
            return (
                f"none of {len(self.names)} features follows one of {len(self.concepts)} concepts: no feature is named"
            )
        median = float(np.nanmedian([n.precision for n in self.named]))
        base = float(np.median([n.base_rate for n in self.named]))
        return (
            f"{len(self.named)} of {len(self.names)} features have a name, {len(self.holding)} names hold on "
            f"{self.confirmation_patients} other patients; median precision {median:.0%} (base rate {base:.0%})"
        ).replace("%", " %")

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        rows = [
            {**asdict(n), "interval": n.interval.to_json(), "text": n.text} if n.name is not None
            else {"feature": n.feature, "name": None, "reason": n.reason}
            for n in self.names
        ]  # fmt: skip
        found: dict[str, Any] = jsonable(
            {
                "names": rows,
                "concepts": self.concepts,
                "alpha": self.alpha,
                "discovery_patients": self.discovery_patients,
                "confirmation_patients": self.confirmation_patients,
                "precision": self.precision,
                "text": self.text,
            }
        )
        return found


def name_features(
    values: Float[NDArray[Any], "image feature"],
    attributes: AttributeTable,
    groups: Sequence[Any] | NDArray[Any],
    *,
    discovery: Sequence[int] | NDArray[np.int64],
    confirmation: Sequence[int] | NDArray[np.int64],
    labels: Sequence[str | None] | None = None,
    least_auroc: float = 0.75,
    alpha: float = 0.05,
    n_permutations: int = 1000,
    seed: int = 0,
    units_are_patients: bool = True,
) -> FeatureNames:
    """Name every feature by the concept it separates best, on some patients, and test the names on others.

    A feature gets no name when it is active in fewer than 5 discovery images, when its rank correlation with no concept survives
    the correction for all features and all concepts, when its best AUROC is below `least_auroc`, or when another concept that does not
    go along with the best does nearly as well (within 0.05): then it is not selective.

    Parameters
    ----------
    values
        One value of each feature for each image, as :attr:`FeatureSummary.maximum`.
    attributes, labels
        Of the same images; see :func:`~sparse_autoencoders.concepts.concepts_of`.
    groups
        Patient of each image.
    discovery, confirmation
        Positions of the images that names are chosen on and tested on; no patient may be in both.
    least_auroc
        Least AUROC of a name on discovery patients.
    alpha
        Family-wise level on discovery patients; false-discovery rate on confirmation patients.
    n_permutations
        Permutations of whole patients, in both tests.
    seed
        Of permutations and resamples.
    units_are_patients
        False where the groups are parts of one subject: then no interval is estimable.

    Raises
    ------
    LeakageError
        If a patient is in both parts.
    ShapeError
        If values, attributes and groups are not of the same images.
    ConfigError
        If `least_auroc` or `alpha` cannot be meant, or there is no concept at all.

    """
    values = np.asarray(values)
    if not len(values) == len(attributes) == len(groups):
        raise ShapeError(
            f"values of {len(values)} images, attributes of {len(attributes)}, groups of {len(groups)}: give all of the same"
        )
    if not (0.5 <= least_auroc <= 1 and 0 < alpha < 1):
        raise ConfigError(f"least_auroc is {least_auroc:g} and alpha {alpha:g}: give 0.5 to 1, and 0 to 1")
    first, second = np.asarray(discovery, dtype=np.int64), np.asarray(confirmation, dtype=np.int64)
    units = np.asarray(groups, dtype=object)
    shared = set(units[first]) & set(units[second])
    if shared:
        raise LeakageError(
            f"group '{sorted(map(str, shared))[0]}' is in discovery and confirmation: split by patient, so that names are tested "
            "on others"
        )
    concepts = concepts_of(attributes, labels, discovery=first)
    if not concepts:
        raise ConfigError(
            "no concept to name features by: give attributes or labels that vary over the discovery images"
        )
    present = np.stack([c.present for c in concepts], axis=1)
    chosen = _chosen(values[first], present[first], units[first], concepts, least_auroc, alpha, n_permutations, seed)
    tested = [n for n in chosen if n.name is not None]
    if tested:
        column = {c.name: i for i, c in enumerate(concepts)}
        says = np.stack([values[second, n.feature] > n.threshold for n in tested], axis=1).astype(np.float64)
        there = present[second][:, [column[n.name] for n in tested if n.name is not None]]
        counts = _confirmed(says, there, units[second], n_permutations, seed, units_are_patients)
        q = benjamini_hochberg(np.asarray(counts["p_confirmation"]))
        for i, n in enumerate(tested):
            fields = {name: found[i] for name, found in counts.items()}
            holds = bool(q[i] <= alpha and fields["precision"] > fields["base_rate"])
            chosen[n.feature] = replace(n, **fields, holds=holds)
    return FeatureNames(
        tuple(chosen), tuple(c.name for c in concepts), alpha, len(set(units[first])), len(set(units[second]))
    )


def _chosen(
    values: NDArray[Any],
    present: NDArray[np.float64],
    units: NDArray[Any],
    concepts: Sequence[Concept],
    least_auroc: float,
    alpha: float,
    n_permutations: int,
    seed: int,
) -> list[FeatureName]:
    """Choose each feature's name on discovery patients."""
    areas = np.nan_to_num(auroc(values, present)[0], nan=0.5)
    test = max_statistic_test(values, present, groups=units, n_permutations=n_permutations, seed=seed, alpha=alpha)
    along = _going_along(present)
    active = (values != 0).sum(0)
    names = []
    for feature in range(values.shape[1]):
        best = int(areas[feature].argmax())
        area, p = float(areas[feature, best]), float(test.p_corrected[feature, best])
        others = np.flatnonzero(along[best] < ALONG)
        rival = int(others[areas[feature, others].argmax()]) if len(others) else None
        runner_up = None if rival is None else (concepts[rival].name, float(areas[feature, rival]))
        if active[feature] < FEWEST_IMAGES:
            reason = f"active in {int(active[feature])} images only"
        elif not test.can_be_significant:
            reason = test.text
        elif not p <= alpha:
            reason = f"follows none of {len(concepts)} concepts beyond chance (p {p:.2g})"
        elif area < least_auroc:
            reason = f"not selective (AUROC {area:.2f} for {concepts[best].name})"
        elif runner_up is not None and area - runner_up[1] < MARGIN:
            reason = f"not selective ({concepts[best].name} and {runner_up[0]} alike)"
        else:
            reason = ""
        known = ~np.isnan(present[:, best])
        rate = float(present[known, best].mean())
        names.append(
            FeatureName(
                feature,
                None if reason else concepts[best].name,
                reason,
                concepts[best].source,
                area,
                p,
                runner_up,
                float(np.quantile(values[known, feature], 1 - rate)),
            )
        )
    return names


def _going_along(present: NDArray[np.float64]) -> Float[NDArray[np.float64], "concept concept"]:
    """Return the correlations of concepts over images where both are known."""
    known = ~np.isnan(present)
    filled = np.where(known, present, 0.0)
    both = known.T.astype(np.float64) @ known
    here = known.astype(np.float64)
    joint, mine = filled.T @ filled, filled.T @ here
    with np.errstate(invalid="ignore", divide="ignore"):
        p = mine / both  # share with the row's concept among images where the column's is known
        correlation = (joint / both - p * p.T) / np.sqrt(p * (1 - p) * (p * (1 - p)).T)
    found: NDArray[np.float64] = np.nan_to_num(correlation, nan=0.0)
    return found


def _confirmed(
    says: NDArray[np.float64],
    present: NDArray[np.float64],
    units: NDArray[Any],
    n_permutations: int,
    seed: int,
    units_are_patients: bool,
) -> dict[str, list[Any]]:
    """Count hits of every name on confirmation patients, with intervals and a null."""
    known = ~np.isnan(present)
    says, there = says * known, np.where(known, present, 0.0)
    hits, said, have, seen = says * there, says.sum(0), there.sum(0), known.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, base_rate, recall = hits.sum(0) / said, have / seen, hits.sum(0) / have
    _, members = groups_to_positions(units)
    hits_of, said_of = (np.stack([x[m].sum(0) for m in members]) for x in (hits, says))
    return {
        "precision": precision.tolist(),
        "base_rate": base_rate.tolist(),
        "recall": recall.tolist(),
        "images": said.astype(int).tolist(),
        "interval": _intervals(hits_of, said_of, seed, units_are_patients),
        "p_confirmation": _p_values(unit_means(says, units), unit_means(present, units), n_permutations, seed).tolist(),
    }


def _p_values(
    says: NDArray[np.float64], present: NDArray[np.float64], n_permutations: int, seed: int
) -> Float[NDArray[np.float64], " name"]:
    """Return how often patients that changed places agree as well with what a feature says of others."""
    centred = np.nan_to_num(present - np.nanmean(present, axis=0, keepdims=True), nan=0.0)
    orders = unit_permutations(len(says), n_permutations, seed)
    found = np.stack([(says * centred[order]).sum(0) for order in orders])
    p: NDArray[np.float64] = (found >= found[0] - 1e-9).mean(0)
    return p


def _intervals(
    hits: Float[NDArray[np.float64], "unit name"],
    said: Float[NDArray[np.float64], "unit name"],
    seed: int,
    units_are_patients: bool,
) -> list[Interval]:
    """Return the interval of each precision: the bootstrap over patients, for all names in one product."""
    n = len(hits)
    if not units_are_patients or n < FEWEST_GROUPS:
        return [Interval.not_estimable(n if units_are_patients else 1)] * hits.shape[1]
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=BOOTSTRAPS).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = (weights @ hits) / (weights @ said)
        left_out = (hits.sum(0) - hits) / (said.sum(0) - said)
        observed = hits.sum(0) / said.sum(0)
    found = []
    for column in range(hits.shape[1]):
        d = draws[:, column]
        d = d[~np.isnan(d)]
        if len(d) < 0.9 * BOOTSTRAPS:
            found.append(Interval(None, None, n=n, reason="not estimable (the feature says it of too few patients)"))
            continue
        spread = np.nanmean(left_out[:, column]) - left_out[:, column]
        scale = np.nansum(spread**2) ** 1.5
        acceleration = float(np.nansum(spread**3) / (6 * scale)) if scale > 0 else 0.0
        low, high = corrected_ends(d, float(observed[column]), acceleration, n)
        found.append(Interval(low, high, n=n, warning=few_groups_warning(n)))
    return found
