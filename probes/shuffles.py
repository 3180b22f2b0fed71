"""A probe's score against the scores of permuted attributes, each read by the same nested cross-validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.claims import Control
from mechinterp.statistics.bootstrap import groups_to_positions
from mechinterp.statistics.permutation import unit_permutations
from mechinterp.statistics.shifts import Bound, plan_shifts
from probes.folds import Folds, make_folds
from probes.ridge import nested_ridge
from probes.scores import ProbeKind, Reading

ALPHA = 0.05


@dataclass(frozen=True)
class ShuffleTest:
    """What permuting the attribute says.

    Parameters
    ----------
    p_value, smallest_p
        Of the probe's score, and the smallest there can be.
    scheme
        What was permuted, in words.
    usual
        Score that 95 % of the permuted attributes stay below; NaN where there is none.
    n_units
        Number of units that could change places.

    """

    p_value: float
    smallest_p: float
    scheme: str
    usual: float
    n_units: int

    @property
    def control(self) -> Control:
        """The control ``shuffled attribute``: passed where the true attribute reads better than permuted ones."""
        if self.smallest_p > ALPHA:
            detail = (
                f"cannot be significant with {self.n_units} units (smallest p {self.smallest_p:.2g}; {self.scheme})"
            )
        else:
            detail = f"p {self.p_value:.2g} by {self.scheme}, 95 % of which score below {self.usual:.2f}"
        return Control("shuffled attribute", self.usual, self.p_value <= ALPHA, detail)


def compare_by_groups(
    x: Float[NDArray[np.float64], "image width"],
    y: Float[NDArray[np.float64], " image"],
    folds: Folds,
    kind: ProbeKind,
    groups: NDArray[Any],
    n_shuffles: int,
    seed: int,
) -> ShuffleTest:
    """Permute whole patients: each takes all values of another; one with more images repeats the giver's."""
    labels, members = groups_to_positions(groups)
    orders = unit_permutations(len(labels), n_shuffles, seed)
    targets = np.empty((len(y), len(orders)))
    for column, order in enumerate(orders):
        for unit, positions in enumerate(members):
            targets[positions, column] = np.resize(y[members[order[unit]]], len(positions))
    scores = _scores(x, targets, folds, kind)
    p = float((scores >= scores[0] - 1e-12).mean())
    what = "patients" if len(labels) < len(y) else "units"
    return ShuffleTest(
        p, 1 / len(orders), f"{len(orders)} permutations of {len(labels)} {what}", _usual(scores[1:]), len(labels)
    )


def compare_by_shifts(
    x: Float[NDArray[np.float64], "image width"],
    y: Float[NDArray[np.float64], " image"],
    folds: Folds,
    kind: ProbeKind,
    order: NDArray[Any],
    bound: Bound,
    gap: int,
    n_folds: int | None,
) -> ShuffleTest:
    """Shift the attribute along the volume: see :mod:`mechinterp.statistics.shifts`.

    The probe is fitted on the window that every shift covers, in `n_folds` blocks of its own (``None``: the folds as
    they are).
    """
    plan = plan_shifts(order, bound=bound)
    inner = folds.subset(plan.window)
    if n_folds is not None:
        inner = make_folds(len(plan.window), min(n_folds, len(plan.window)), order=order[plan.window], gap=gap)
    scores = _scores(x[plan.window], y[plan.images].T, inner, kind)
    now = scores[plan.max_shift]
    count = (scores >= now - 1e-12).sum() if np.isfinite(now) else len(scores)
    scheme = f"shifts of ±{plan.max_shift} slices over a window of {len(plan.window)}"
    usual = _usual(np.delete(scores, plan.max_shift))
    return ShuffleTest(float(plan.p_value(np.asarray(count))), plan.smallest_p, scheme, usual, len(y))


def _scores(
    x: NDArray[np.float64], targets: NDArray[np.float64], folds: Folds, kind: ProbeKind
) -> Float[NDArray[np.float64], " target"]:
    """Score each target by its ridge; a target without a score (one class) counts as the lowest."""
    columns, classes = targets, 1
    if kind == "categorical":
        levels = np.unique(targets)
        classes = len(levels)
        columns = (targets[:, :, None] == levels).reshape(len(targets), -1).astype(np.float64)
    predicted, reference, _ = nested_ridge(x, columns, folds)
    return np.nan_to_num(Reading(kind, columns, predicted, reference, classes=classes).scores(), nan=-np.inf)


def _usual(scores: NDArray[np.float64]) -> float:
    known = scores[np.isfinite(scores)]
    return float(np.quantile(known, 0.95)) if len(known) else float("nan")
