"""What an edit takes with it: how well every other attribute can be read before and after, by the same probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.statistics.bootstrap import Interval, bootstrap_groups
from probes.folds import make_folds
from probes.ridge import nested_ridge
from probes.scores import METRICS, ProbeKind, Reading, one_hot

FOLDS = 5
FEWEST_IMAGES = 20
LOST = 0.05
"""A fall of a probe's score beyond this is collateral; set before any was seen."""


@dataclass(frozen=True)
class Collateral:
    """How well one attribute can be read off what the head reads.

    Parameters
    ----------
    attribute, unit
        Its name and unit.
    metric
        R² for a continuous attribute, AUROC or concordance for others.
    before, after
        Of the model as it is and of the edited one; for patients who did not train the probe.
    random
        After each random edit of the same norm.
    interval
        Of the change, over patients.

    """

    attribute: str
    unit: str
    metric: str
    before: float
    after: float
    random: tuple[float, ...] = ()
    interval: Interval | None = None

    @property
    def change(self) -> float:
        """After minus before."""
        return self.after - self.before

    @property
    def lost(self) -> bool:
        """Whether the score fell by more than was set beforehand."""
        return self.change < -LOST

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            **vars(self), "random": list(self.random), "change": self.change, "lost": self.lost,
            "interval": None if self.interval is None else self.interval.to_json(),
        }  # fmt: skip


def measure_collateral(
    heads: list[Float[NDArray[np.float32], "image width"]],
    attributes: AttributeTable,
    groups: NDArray[Any],
    *,
    leave_out: tuple[str, ...] = (),
    units_are_patients: bool = True,
    n_boot: int = 500,
    seed: int = 0,
) -> tuple[Collateral, ...]:
    """Read every attribute by ridge regression, before and after.

    Parameters
    ----------
    heads
        What the head reads of the same images: of the model as it is, of the edited one, then of random edits.
    attributes
        Of the images.
    groups
        Patient of each image: on one side of every fold.
    leave_out
        Attributes that are not collateral: the shortcut itself.
    units_are_patients
        Whether those groups are patients; over the slices of one volume there is no interval.
    n_boot, seed
        Of the intervals (none at 0 draws), and of the folds.

    Returns
    -------
    tuple of Collateral
        Those of attributes that vary over at least 20 images.

    """
    # attributes known of the same images share their folds and their products
    alike: dict[bytes, list[tuple[Attribute, Float[NDArray[np.float64], "image column"]]]] = {}
    for attribute in attributes:
        y = attributes.column(attribute.name)
        known = np.isfinite(y)
        enough = known.sum() >= FEWEST_IMAGES and len(set(groups[known].tolist())) >= FOLDS
        if attribute.name in leave_out or attribute.level != "image" or not enough or np.ptp(y[known]) == 0:
            continue
        alike.setdefault(known.tobytes(), []).append((attribute, _targets(y[known], attribute.kind)))
    found: dict[str, Collateral] = {}
    for pattern, members in alike.items():
        rows = np.flatnonzero(np.frombuffer(pattern, dtype=bool))
        folds = make_folds(len(rows), FOLDS, groups=groups[rows], seed=seed)
        every = np.column_stack([targets for _, targets in members])
        read = [nested_ridge(head[rows].astype(np.float64), every, folds)[:2] for head in heads]
        start = 0
        for attribute, targets in members:
            columns = slice(start, start + targets.shape[1])
            start = columns.stop
            readings = [
                Reading(attribute.kind, targets, predicted[:, columns], reference[:, columns], classes=targets.shape[1])
                for predicted, reference in read
            ]
            scores = [float(r.scores()[0]) for r in readings]
            interval = None
            if n_boot:
                interval = _interval(
                    readings[0], readings[1], groups[rows], n_boot, seed, units_are_patients=units_are_patients
                )
            found[attribute.name] = Collateral(
                attribute.name, attribute.unit, METRICS[attribute.kind], scores[0], scores[1], tuple(scores[2:]), interval
            )  # fmt: skip
    return tuple(found[name] for name in attributes.names if name in found)


def _targets(y: Float[NDArray[np.float64], " image"], kind: ProbeKind) -> Float[NDArray[np.float64], "image column"]:
    codes = np.unique(y, return_inverse=True)[1].reshape(-1)
    if kind == "categorical":
        return one_hot(codes, int(codes.max()) + 1)
    return (codes.astype(np.float64) if kind == "binary" else y)[:, None]


def _interval(
    before: Reading, after: Reading, groups: NDArray[Any], n_boot: int, seed: int, *, units_are_patients: bool
) -> Interval:
    def change(images: NDArray[np.int64]) -> float:
        return after.score_of(images) - before.score_of(images)

    return bootstrap_groups(change, groups, n_boot, seed, method="percentile", units_are_patients=units_are_patients)
