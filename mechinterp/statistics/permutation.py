"""Which feature follows which attribute, when images are not independent: whole units, and the maximum over all tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.statistics.bootstrap import groups_to_positions
from mechinterp.statistics.rank import check_pair, spearman, unit_ranks
from mechinterp.statistics.shifts import Bound, plan_shifts

Family = Literal["pairs", "features"]

_TOLERANCE = 1e-5
"""Null values this close to the observed one count as reaching it: float32 products, and exact ties."""
_CELLS = 1 << 24
"""Correlations held at once while permuting."""


@dataclass(frozen=True)
class MaxStatisticResult:
    r"""Rank correlations with p-values corrected for all tests at once.

    Parameters
    ----------
    rho
        Feature × attribute: Spearman's rho over the units compared.
    p_corrected
        Feature × attribute: chance that the highest \|rho\| of the family is as high without any relation. NaN where
        rho is undefined or the pair was not tested.
    null_max
        Permutation × column: the family's highest \|rho\| under each permutation but the unpermuted one; one column for
        the family of all pairs, one per attribute otherwise.
    n_units
        Number of units offered: patients, or slices of the one volume.
    n_compared
        Number of units that the correlations rest on: fewer than `n_units` where shifts need room.
    smallest_p
        The smallest p-value these units allow.
    scheme
        What was permuted, in words.
    alpha
        Level of :attr:`findings`.

    """

    rho: Float[NDArray[np.float64], "feature attribute"]
    p_corrected: Float[NDArray[np.float64], "feature attribute"]
    null_max: Float[NDArray[np.float64], "permutation column"]
    n_units: int
    n_compared: int
    smallest_p: float
    scheme: str
    alpha: float = 0.05

    @property
    def can_be_significant(self) -> bool:
        """Whether any p-value could reach the level."""
        return self.smallest_p <= self.alpha

    @property
    def findings(self) -> Bool[NDArray[np.bool_], "feature attribute"]:
        """Which pairs are significant after correction; none where nothing can be."""
        with np.errstate(invalid="ignore"):
            return (self.p_corrected <= self.alpha) & self.can_be_significant

    @property
    def text(self) -> str:
        """One sentence: how many findings, or that there can be none."""
        if not self.can_be_significant:
            return f"cannot be significant with {self.n_units} units (smallest p {self.smallest_p:.2g}; {self.scheme})"
        tested = int(np.isfinite(self.p_corrected).sum())
        return (
            f"{int(self.findings.sum())} of {tested} pairs significant at {self.alpha:g} after correction for all of them "
            f"({self.scheme})"
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything but the null distribution as plain JSON."""
        return {
            "rho": self.rho.tolist(),
            "p_corrected": self.p_corrected.tolist(),
            "n_units": self.n_units,
            "n_compared": self.n_compared,
            "smallest_p": self.smallest_p,
            "can_be_significant": self.can_be_significant,
            "scheme": self.scheme,
            "alpha": self.alpha,
            "text": self.text,
        }


def unit_permutations(n_units: int, n_permutations: int, seed: int = 0) -> Int[NDArray[np.int64], "permutation unit"]:
    """Return permutations of whole units, the identity first.

    Parameters
    ----------
    n_units
        Number of units (patients) that may change places.
    n_permutations
        How many permutations besides the identity. Where no more exist, all of them are returned, once each.
    seed
        Seed of the draws.

    Returns
    -------
    NDArray
        Permutation × unit. A p-value is the share of the rows, the identity among them, that reach the observed value:
        so it is never 0 and holds its level exactly.

    References
    ----------
    Phipson, Smyth. Permutation p-values should never be zero. Stat. Appl. Genet. Mol. Biol. 9, 2010.

    """
    if n_units < 9 and math.factorial(n_units) <= n_permutations + 1:
        return np.array(list(permutations(range(n_units))), dtype=np.int64).reshape(-1, n_units)
    rng = np.random.default_rng(seed)
    drawn = rng.permuted(np.tile(np.arange(n_units), (n_permutations, 1)), axis=1)
    return np.concatenate([np.arange(n_units)[None], drawn])


def unit_means(
    values: Float[NDArray[Any], "image column"], groups: Sequence[Any] | NDArray[Any]
) -> Float[NDArray[np.float64], "unit column"]:
    """Average the images of each unit, ignoring missing values; units in order of first appearance.

    A unit without any value of a column gets NaN there.
    """
    values = np.asarray(values, dtype=np.float64)
    labels, members = groups_to_positions(groups)
    if len(labels) == len(values):
        return values[np.concatenate(members)]
    unit = np.empty(len(values), dtype=np.int64)
    for u, positions in enumerate(members):
        unit[positions] = u
    order = np.argsort(unit, kind="stable")
    starts = np.searchsorted(unit[order], np.arange(len(labels)))
    known = ~np.isnan(values)
    sums = np.add.reduceat(np.where(known, values, 0)[order], starts, axis=0)
    counts = np.add.reduceat(known[order], starts, axis=0, dtype=np.int64)
    means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return means


def max_statistic_test(
    features: Float[NDArray[Any], "image feature"],
    attributes: Float[NDArray[Any], "image attribute"],
    *,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    order: Sequence[int] | NDArray[Any] | None = None,
    within: Bool[NDArray[np.bool_], " image"] | None = None,
    tested: Bool[NDArray[np.bool_], "feature attribute"] | None = None,
    family: Family = "pairs",
    n_permutations: int = 1000,
    max_shift: int | None = None,
    bound: Bound = "guaranteed",
    seed: int = 0,
    alpha: float = 0.05,
) -> MaxStatisticResult:
    r"""Test every feature against every attribute, corrected for all tests by the maximum over them.

    Parameters
    ----------
    features
        Image × feature.
    attributes
        Image × attribute; NaN where missing.
    groups
        Patient of each image. Images of a patient are averaged, patients change places: what is compared is patients.
    order
        Instead of `groups`, for the slices of *one* volume: position of each. The attributes are shifted along it.
        With neither, every image is a unit of its own.
    within
        Which images' features are tested (the held-out ones); all by default. The other slices of a volume lend their
        attributes to the shifts, their features are not looked at.
    tested
        Which pairs belong to the family; all by default. The others get no p-value.
    family
        ``pairs`` corrects over all pairs, ``features`` over the features of each attribute.
    n_permutations
        Permutations of patients; the shifts of a volume are as many as there are.
    max_shift, bound
        For `order`: see :func:`~mechinterp.statistics.shifts.plan_shifts`.
    seed
        Seed of the permutations.
    alpha
        Level of the findings.

    Returns
    -------
    MaxStatisticResult
        With few units it says that nothing can be significant, and reports no finding.

    Raises
    ------
    ConfigError
        If both `groups` and `order` are given, or `within` leaves fewer than 3 images.
    ShapeError
        If shapes do not agree.

    Notes
    -----
    The highest \|rho\| over the family is compared with its own distribution when the units change places, so features
    may depend on each other in any way [1]_. Patients with missing values change places among those that have one.

    References
    ----------
    .. [1] Westfall, Young. Resampling-based multiple testing. 1993 (single-step maxT).

    """
    features, attributes = check_pair(features, attributes)
    n = len(features)
    if groups is not None and order is not None:
        raise ConfigError("groups and order are both given: groups for patients, order for the slices of one volume")
    for name, values in (("groups", groups), ("order", order), ("within", within)):
        if values is not None and len(values) != n:
            raise ShapeError(f"{name} has {len(values)} values for {n} images: one each")
    shape = (features.shape[1], attributes.shape[1])
    counted = np.ones(shape, dtype=bool) if tested is None else np.asarray(tested, dtype=bool)
    if counted.shape != shape:
        raise ShapeError(f"tested has shape {counted.shape}, there are {shape[0]} features × {shape[1]} attributes")
    chosen = np.ones(n, dtype=bool) if within is None else np.asarray(within, dtype=bool)
    if chosen.sum() < 3:
        raise ConfigError(f"{int(chosen.sum())} images to test: a rank correlation needs 3 at least")
    if order is not None:
        return _by_shifts(features, attributes, order, chosen, counted, family, max_shift, bound, alpha)
    f, a = (features, attributes) if chosen.all() else (features[chosen], attributes[chosen])
    if groups is not None:
        units = np.asarray(groups, dtype=object)[chosen]
        f, a = unit_means(f, units), unit_means(a, units)
    return _by_units(f, a, counted, family, n_permutations, seed, alpha, "images" if groups is None else "patients")


def _by_units(
    features: NDArray[Any],
    attributes: NDArray[np.float64],
    counted: NDArray[np.bool_],
    family: Family,
    n_permutations: int,
    seed: int,
    alpha: float,
    what: str,
) -> MaxStatisticResult:
    rho = spearman(features, attributes)
    n = len(features)
    keys = unit_permutations(n, n_permutations, seed)
    null = np.zeros((len(keys), rho.shape[1]), dtype=np.float32)
    missing = np.isnan(attributes)
    patterns, which = np.unique(missing, axis=1, return_inverse=True)
    smallest = 1.0
    for p in range(patterns.shape[1]):
        kept, columns = np.flatnonzero(~patterns[:, p]), np.flatnonzero(which.reshape(-1) == p)
        if len(kept) < 2:
            continue
        # The same keys order every subset, so that related attributes stay related.
        shuffled = keys if len(kept) == n else np.argsort(keys[:, kept], axis=1)
        f = _ranked(features[kept])
        a = unit_ranks(attributes[kept][:, columns].T).astype(np.float32)
        for values, j in zip(a, columns, strict=True):
            rows = f if counted[:, j].all() else f[counted[:, j]]
            if not values.any() or not len(rows):
                continue
            smallest = min(smallest, max(1 / len(keys), 1 / _arrangements(attributes[kept, j])))
            step = max(1, _CELLS // max(len(rows), len(kept)))
            for start in range(0, len(keys), step):
                block = slice(start, start + step)
                null[block, j] = np.abs(rows @ values[shuffled[block]].T).max(0)
    return _result(
        rho, counted, null.astype(np.float64), 0, family, lambda count: count / len(keys),
        n, n, smallest, alpha, f"{len(keys)} permutations of {n} {what}",
    )  # fmt: skip


def _ranked(features: NDArray[Any]) -> NDArray[np.float32]:
    """Return the ranks of every feature as unit vectors, zero for one that holds NaN or does not vary."""
    ranks = np.zeros(features.shape[::-1], dtype=np.float32)
    step = max(1, _CELLS // (4 * len(features)))
    for start in range(0, len(ranks), step):
        rows = np.ascontiguousarray(features[:, start : start + step].T)
        whole = ~np.isnan(rows).any(1)
        ranks[start : start + step][whole] = unit_ranks(rows[whole])
    return ranks


def _by_shifts(
    features: NDArray[Any],
    attributes: NDArray[np.float64],
    order: Sequence[int] | NDArray[Any],
    within: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    family: Family,
    max_shift: int | None,
    bound: Bound,
    alpha: float,
) -> MaxStatisticResult:
    plan = plan_shifts(order, within, max_shift=max_shift, bound=bound, alpha=alpha)
    f = np.asarray(features[plan.window], dtype=np.float64)
    moved = attributes[plan.images]  # shift × window × attribute
    shifts, width, columns = moved.shape
    if np.isnan(moved).any() or np.isnan(f).any():
        by_shift = np.stack([spearman(f, a) for a in moved])
    else:
        f_ranks = unit_ranks(np.ascontiguousarray(f.T))
        a_ranks = unit_ranks(moved.transpose(0, 2, 1).reshape(-1, width))
        by_shift = (f_ranks @ a_ranks.T).reshape(-1, shifts, columns).transpose(1, 0, 2)
        by_shift[:, ~f_ranks.any(1)] = np.nan
        by_shift.transpose(0, 2, 1)[~a_ranks.any(1).reshape(shifts, columns)] = np.nan
    null = np.where(counted & ~np.isnan(by_shift), np.abs(by_shift), 0).max(1)
    what = "guaranteed bound" if bound == "guaranteed" else "approximate"
    return _result(
        by_shift[plan.max_shift], counted, null, plan.max_shift, family, plan.p_value,
        int(within.sum()), len(plan.window), plan.smallest_p, alpha,
        f"shifts of ±{plan.max_shift} slices over a window of {len(plan.window)}, {what}",
    )  # fmt: skip


def _result(
    rho: NDArray[np.float64],
    counted: NDArray[np.bool_],
    null: NDArray[np.float64],
    observed: int,
    family: Family,
    p_value: Callable[[NDArray[Any]], NDArray[np.float64]],
    n_units: int,
    n_compared: int,
    smallest_p: float,
    alpha: float,
    scheme: str,
) -> MaxStatisticResult:
    # The unpermuted row counts as one of the permutations, so a p-value is never 0.
    null = np.delete(null, observed, axis=0)
    if family == "pairs":
        null = null.max(1, keepdims=True)
    p = np.full(rho.shape, np.nan)
    for j in range(rho.shape[1]):
        column = np.sort(null[:, j if null.shape[1] > 1 else 0])
        reached = len(column) - np.searchsorted(column, np.abs(rho[:, j]) - _TOLERANCE)
        p[:, j] = p_value(reached + 1)
    p[np.isnan(rho) | ~counted] = np.nan
    return MaxStatisticResult(rho, p, null, n_units, n_compared, float(smallest_p), scheme, alpha)


def _arrangements(values: NDArray[np.float64]) -> float:
    """Return how many different orders these values have (ties make fewer)."""
    _, counts = np.unique(values, return_counts=True)
    log = math.lgamma(len(values) + 1) - sum(math.lgamma(c + 1) for c in counts)
    return math.exp(min(log, 700))
