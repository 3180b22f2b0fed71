"""Erase an attribute from activations, and check that it is gone while the one that matters survives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.claims import Claim, Control
from mechinterp.errors import ShapeError
from mechinterp.statistics.bootstrap import Interval
from probes.folds import Folds, make_folds
from probes.reading import read_new
from probes.score_intervals import score_interval
from probes.scores import Reading

Values = NDArray[np.float64]
GONE, KEPT_SHARE = 0.05, 0.5


def leace(
    x: Float[NDArray[Any], "image width"], z: Float[NDArray[Any], "image attribute"]
) -> Callable[[Float[NDArray[Any], "row width"]], Float[Values, "row width"]]:
    """Return the least change of activations after which no linear probe can read `z` from those it was fitted on.

    Parameters
    ----------
    x
        Activations that the eraser is fitted on: of training patients.
    z
        What to erase; a category as one column of zeros and ones for each class but one.

    Returns
    -------
    callable
        From activations (row × width) to activations.

    Raises
    ------
    ShapeError
        If the two are not of the same images.

    Notes
    -----
    LEACE in closed form [1]_, by the ``concept-erasure`` package. Erasing takes with it the part of any other
    attribute that goes along with `z` linearly: at a correlation of 0.8 that is 64 % of its variance.

    References
    ----------
    .. [1] Belrose et al. LEACE: perfect linear concept erasure in closed form. NeurIPS 2023, theorem 4.3.

    """
    from concept_erasure import LeaceFitter

    acts, concept = np.asarray(x, dtype=np.float64), np.asarray(z, dtype=np.float64)
    concept = concept[:, None] if concept.ndim == 1 else concept
    if acts.ndim != 2 or len(acts) != len(concept):
        raise ShapeError(f"activations of shape {acts.shape} and a concept of shape {concept.shape}: one row per image")
    # the fitter calls a singular value zero below an absolute number: standardised, the scale does not decide
    mean, scale = acts.mean(0), acts.std(0)
    scale = np.where(scale > 1e-12 * np.maximum(np.abs(mean), 1), scale, 1.0)
    spread = concept.std(0)
    standard = torch.from_numpy((acts - mean) / scale)
    wanted = torch.from_numpy((concept - concept.mean(0)) / np.where(spread > 0, spread, 1.0))
    fitter = LeaceFitter(acts.shape[1], wanted.shape[1], dtype=torch.float64, svd_tol=1e-6)
    fitter.update(standard, wanted)
    eraser = fitter.eraser

    def erase(rows: Float[NDArray[Any], "row width"]) -> Float[Values, "row width"]:
        moved = eraser(torch.from_numpy((np.asarray(rows, dtype=np.float64) - mean) / scale))
        found: Values = moved.numpy() * scale + mean
        return found

    return erase


@dataclass(frozen=True)
class ErasureCheck:
    """How well two attributes can be read before and after one of them was erased.

    Parameters
    ----------
    kept, erased
        Names of the attribute that should survive and of the one that was erased.
    kept_before, kept_after
        Held-out R² of the kept attribute, after what goes along with the erased one linearly was taken from it: the
        part that erasing must not touch.
    erased_before, erased_after
        Held-out R² of the erased attribute.
    interval_kept, interval_erased
        Of both after erasing, over patients.

    """

    kept: str
    erased: str
    kept_before: float
    kept_after: float
    erased_before: float
    erased_after: float
    interval_kept: Interval
    interval_erased: Interval

    @property
    def claim(self) -> Claim:
        """That erasing removed the one and left the other: judged by margins set beforehand."""
        survives = self.kept_after >= KEPT_SHARE * self.kept_before and (self.interval_kept.low or -1) > 0
        gone = self.erased_after <= GONE
        return Claim(
            statement=(
                f"without {self.erased} the activations still hold {self.kept}: R² {self.kept_before:.2f} → "
                f"{self.kept_after:.2f} of its own part; {self.erased} {self.erased_before:.2f} → {self.erased_after:.2f}"
            ),
            strength="correlational",
            value=self.kept_after,
            unit="1",
            holds=bool(survives),
            criterion=f"at least {KEPT_SHARE:.0%} of the R² survives and its interval excludes 0",
            controls=(
                Control(
                    f"{self.erased} dropped", self.erased_after, bool(gone),
                    f"held-out R² {self.erased_after:.2f} after erasing, at most {GONE:g} is allowed",
                ),
            ),
            interval=self.interval_kept.ends,
            interval_note=self.interval_kept.reason or self.interval_kept.warning,
        )  # fmt: skip


def check_erasure(
    x: Float[NDArray[Any], "image width"],
    keep: Float[NDArray[Any], " image"],
    erase: Float[NDArray[Any], " image"],
    *,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    names: tuple[str, str] = ("the kept attribute", "the erased one"),
    folds: int = 5,
    n_boot: int = 1000,
    seed: int = 0,
) -> ErasureCheck:
    """Erase one attribute on training patients, and read both attributes for the others, before and after.

    Parameters
    ----------
    x
        Activations.
    keep, erase
        Values per image.
    groups
        Patient of each image.
    names
        Of the two attributes.
    folds
        Eraser and probes are fitted on all folds but the one that is tested.
    n_boot, seed
        Of the intervals.

    """
    acts = np.asarray(x, dtype=np.float64)
    true, false = np.asarray(keep, dtype=np.float64), np.asarray(erase, dtype=np.float64)
    kept = np.flatnonzero(np.isfinite(true) & np.isfinite(false))
    acts, true, false = acts[kept], true[kept], false[kept]
    units = np.arange(len(kept)) if groups is None else np.asarray(groups, dtype=object)[kept]
    made = make_folds(len(kept), folds, groups=units, seed=seed)
    design = np.column_stack([np.ones(len(false)), false])
    own = np.empty(len(true))
    for k in range(made.n):
        train, test = made.split(k)
        own[test] = true[test] - design[test] @ np.linalg.lstsq(design[train], true[train], rcond=None)[0]
    targets = np.column_stack([own, false])
    before = _read(acts, targets, made, None)
    after = _read(acts, targets, made, false)

    def interval(column: int) -> Interval:
        return score_interval(lambda images: _column(after, column).score_of(images), units, "continuous", n_boot, seed)

    scores = before.scores(), after.scores()
    return ErasureCheck(
        *names, float(scores[0][0]), float(scores[1][0]), float(scores[0][1]), float(scores[1][1]),
        interval(0), interval(1),
    )  # fmt: skip


def _read(x: Values, targets: Values, folds: Folds, erase: Values | None) -> Reading:
    predicted, reference = np.empty_like(targets), np.empty_like(targets)
    for k in range(folds.n):
        train, test = folds.split(k)
        acts = x if erase is None else leace(x[train], erase[train])(x)
        inner = folds.subset(train)
        for j in range(targets.shape[1]):
            y = targets[train, j]
            predicted[test, j] = read_new(acts[train], y, acts[test], inner, "continuous", np.empty(0), "")[:, 0]
            reference[test, j] = y.mean()
    return Reading("continuous", targets, predicted, reference)


def _column(reading: Reading, j: int) -> Reading:
    return Reading("continuous", reading.truth[:, [j]], reading.predicted[:, [j]], reading.reference[:, [j]])
