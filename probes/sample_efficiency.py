"""How many patients a probe needs: its held-out score over the number that trained it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import AttributeTableError, ConfigError
from mechinterp.statistics.bootstrap import groups_to_positions
from probes.folds import make_folds
from probes.reading import classified, read_new
from probes.scores import METRICS, ProbeKind, Reading

SHARES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
_FEWEST = 4


@dataclass(frozen=True)
class LearningCurve:
    """Held-out score over the number of training patients.

    Parameters
    ----------
    metric
        How it is scored.
    patients
        Number of patients that trained.
    score
        Mean over repeats, each with other patients.
    low, high
        Smallest and largest of the repeats.

    """

    metric: str
    patients: tuple[int, ...]
    score: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def patients_for(self, share: float = 0.9) -> int | None:
        """Return the fewest patients tried that reach a share of the full score; ``None`` where that is not above 0."""
        goal = share * self.score[-1]
        reached = [n for n, s in zip(self.patients, self.score, strict=True) if s >= goal]
        return min(reached) if reached and self.score[-1] > 0 else None


def learning_curve(
    activations: Float[NDArray[Any], "image width"],
    attribute: Float[NDArray[Any], " image"],
    *,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    kind: ProbeKind = "continuous",
    shares: Sequence[float] = SHARES,
    repeats: int = 5,
    folds: int = 5,
    name: str = "attribute",
    seed: int = 0,
) -> LearningCurve:
    """Train on fewer patients and test on the same ones.

    Parameters
    ----------
    activations, attribute
        Image × width, and the value of each image; images with NaN are left out.
    groups
        Patient of each image: whole patients are left out of the training, and none is on both sides.
    kind
        Of the attribute.
    shares
        Of the patients that may train for a fold.
    repeats
        Draws of the patients for each share below 1.
    folds
        Outer folds, the same for all points.
    name, seed
        For errors; of the draws.

    Raises
    ------
    ConfigError
        If a share is not above 0 and at most 1.
    AttributeTableError
        If no draw has two classes to learn.

    """
    if not shares or not all(0 < s <= 1 for s in shares):
        raise ConfigError(f"shares is {tuple(shares)}: give numbers above 0 and at most 1")
    values = np.asarray(attribute, dtype=np.float64)
    kept = np.flatnonzero(~np.isnan(values))
    x, y = np.asarray(activations, dtype=np.float64)[kept], values[kept]
    units = np.arange(len(y)) if groups is None else np.asarray(groups, dtype=object)[kept]
    made = make_folds(len(y), folds, groups=units, classes=None if kind == "continuous" else y, seed=seed)
    rng = np.random.default_rng(seed)
    splits = []
    for k in range(made.n):
        train, test = made.split(k)
        splits.append((train, test, groups_to_positions(units[train])[1]))
    counts = sorted({max(_FEWEST, round(s * min(len(m) for _, _, m in splits))) for s in shares})
    rows = []
    for n in counts:
        # with all patients a draw changes nothing but a few at the margin
        scores = [_score(x, y, units, splits, n, kind, name, rng) for _ in range(repeats if n < counts[-1] else 1)]
        known = [s for s in scores if np.isfinite(s)]
        if known:
            rows.append((n, float(np.mean(known)), min(known), max(known)))
    if not rows:
        raise AttributeTableError(f"'{name}' has one class only in every draw of patients: give larger shares")
    return LearningCurve(METRICS[kind], *(tuple(column) for column in zip(*rows, strict=True)))


def _score(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    units: NDArray[Any],
    splits: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], list[NDArray[np.int64]]]],
    n: int,
    kind: ProbeKind,
    name: str,
    rng: np.random.Generator,
) -> float:
    levels, codes = np.unique(y, return_inverse=True)
    columns = 1 if kind == "continuous" else len(levels)
    found, reference = np.empty((len(y), columns)), np.zeros((len(y), 1))
    for train, test, members in splits:
        drawn = rng.permutation(len(members))[:n]
        some = train[np.concatenate([members[u] for u in drawn])]
        if kind != "continuous" and len(np.unique(y[some])) < 2:
            return float("nan")
        inner = make_folds(len(some), min(4, len(drawn)), groups=units[some], seed=0)
        found[test] = read_new(x[some], y[some], x[test], inner, kind, levels, name)
        reference[test] = y[some].mean()
    if kind == "continuous":
        return float(Reading(kind, y[:, None], found, reference).scores()[0])
    return float(classified(kind, y, levels, codes.reshape(-1), found).scores()[0])
