"""Minimum description length: how many bits an attribute costs someone who has the activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.claims import Control
from mechinterp.statistics.bootstrap import groups_to_positions
from probes.classifiers import RAREST
from probes.folds import make_folds
from probes.reading import read_new
from probes.ridge import nested_ridge
from probes.scores import ProbeKind

Values = NDArray[np.float64]

FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Where the code learns anew, as in Voita and Titov."""
_FEWEST_UNITS, _INNER_FOLDS = 8, 4


@dataclass(frozen=True)
class DescriptionLength:
    """Length of the online code of an attribute [1]_.

    Patients come in a random order; each block of them is coded by a probe trained on the blocks before. A probe that
    needs many patients to learn pays for it here, while its final score does not show it.

    Parameters
    ----------
    bits
        Per image, given the activations.
    bits_without
        Per image, by a code that learns the attribute's distribution only.
    trained_on, coded
        Number of patients that trained, and of images coded, in each block.
    block_bits, block_bits_without
        Per image, in each block.

    References
    ----------
    .. [1] Voita, Titov. Information-theoretic probing with minimum description length. EMNLP 2020, section 3.2.

    """

    bits: float
    bits_without: float
    trained_on: tuple[int, ...]
    coded: tuple[int, ...]
    block_bits: tuple[float, ...]
    block_bits_without: tuple[float, ...]

    @property
    def saved(self) -> float:
        """Bits per image that the activations save."""
        return self.bits_without - self.bits

    @property
    def control(self) -> Control:
        """The control ``description length``: passed where the activations shorten the code."""
        detail = (
            f"{self.bits:.2f} bits an image against {self.bits_without:.2f} without the activations, "
            f"learned online over {self.trained_on[-1] if self.trained_on else 0} patients"
        )
        return Control("description length", self.saved, bool(self.saved > 0), detail)


def description_length(
    x: Float[NDArray[Any], "image width"],
    y: Float[NDArray[Any], " image"],
    kind: ProbeKind,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    *,
    name: str = "attribute",
    seed: int = 0,
) -> DescriptionLength | None:
    r"""Return the online code's length of an attribute, with and without the activations.

    Parameters
    ----------
    x, y, kind
        Activations, values without missing ones, and the attribute's kind.
    groups
        Patient of each image; blocks are made of whole patients.
    name
        For errors.
    seed
        Of the order of the patients.

    Returns
    -------
    DescriptionLength or None
        ``None`` where there are too few patients (fewer than 16) for two blocks.

    Notes
    -----
    Classes cost :math:`-\log_2 p`. Continuous values cost :math:`-\log_2` of a Student density around the
    prediction, its scale the error over inner folds of the images seen so far: such a length depends on the unit, the
    difference between the two codes does not. Both codes pay the same for the first block, which is left out.

    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    units = np.arange(len(y)) if groups is None else np.asarray(groups, dtype=object)
    _, members = groups_to_positions(units)
    order = np.random.default_rng(seed).permutation(len(members))
    ends = sorted({round(f * len(members)) for f in FRACTIONS if f * len(members) >= _FEWEST_UNITS})
    levels = np.unique(y)
    rows: list[tuple[int, int, float, float]] = []
    for start, end in pairwise(ends):
        before = np.concatenate([members[u] for u in order[:start]])
        block = np.concatenate([members[u] for u in order[start:end]])
        if len(np.unique(y[before])) < 2:
            continue
        inner = make_folds(len(before), min(_INNER_FOLDS, start), groups=units[before], seed=seed)
        if kind == "continuous":
            with_, without = _density_bits(x, y, before, block, inner)
        else:
            log_p = read_new(x[before], y[before], x[block], inner, kind, levels, name)
            with_, without = _class_bits(log_p, y, before, block, levels)
        rows.append((start, len(block), with_, without))
    if not rows:
        return None
    coded = sum(n for _, n, _, _ in rows)
    return DescriptionLength(
        sum(b for _, _, b, _ in rows) / coded,
        sum(b for _, _, _, b in rows) / coded,
        tuple(s for s, _, _, _ in rows),
        tuple(n for _, n, _, _ in rows),
        tuple(b / n for _, n, b, _ in rows),
        tuple(b / n for _, n, _, b in rows),
    )


def _class_bits(
    log_p: Values, y: Values, before: NDArray[np.int64], block: NDArray[np.int64], levels: Values
) -> tuple[float, float]:
    seen, new = np.searchsorted(levels, y[before]), np.searchsorted(levels, y[block])
    given = np.maximum(log_p[np.arange(len(block)), new], np.log(RAREST))
    share = (np.bincount(seen, minlength=len(levels)) + 1) / (len(seen) + len(levels))
    return float(-given.sum() / np.log(2)), float(-np.log2(share[new]).sum())


def _density_bits(
    x: Values, y: Values, before: NDArray[np.int64], block: NDArray[np.int64], inner: Any
) -> tuple[float, float]:
    from scipy.stats import t

    held_out = nested_ridge(x[before], y[before][:, None], inner)[0][:, 0]
    error = float(np.sqrt(((y[before] - held_out) ** 2).mean()))
    spread, mean = float(y[before].std(ddof=1)), float(y[before].mean())
    predicted = read_new(x[before], y[before], x[block], inner, "continuous", np.empty(0), "")[:, 0]
    freedom = max(len(before) - 1, 1)
    floor = 1e-6 * (spread or 1.0)
    with_ = -t.logpdf(y[block], freedom, loc=predicted, scale=max(error, floor))
    without = -t.logpdf(y[block], freedom, loc=mean, scale=max(spread, floor) * np.sqrt(1 + 1 / len(before)))
    return float(with_.sum() / np.log(2)), float(without.sum() / np.log(2))
