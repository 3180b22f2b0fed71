"""Probes whose answer is a sum over tokens, for patients never seen, beside their controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.claims import Control
from mechinterp.errors import AttributeTableError, ConfigError, ShapeError
from mechinterp.statistics.bootstrap import Interval
from probes.calibration import calibration_of
from probes.folds import Folds, make_folds
from probes.results import ProbeResult
from probes.rivals import against
from probes.score_intervals import score_interval
from probes.scores import METRICS, Reading, rank_correlation
from probes.share_regression import STRENGTHS
from probes.shuffles import compare_by_groups
from probes.token_sums import Tokens, learn_token_sum

Values = NDArray[np.float64]

_FEWEST_IMAGES, _BLOCK = 20, 64


def fit_token_sum(
    tokens: Tokens,
    shares: Float[NDArray[Any], "image cell structure"],
    attribute: Float[NDArray[Any], " image"],
    tile_area: Float[NDArray[Any], " image"],
    *,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    folds: int | Sequence[int] | NDArray[np.int64] = 5,
    name: str = "area",
    unit: str = "mm²",
    site: str = "",
    baseline: Tokens | None = None,
    untrained: Tokens | None = None,
    n_shuffles: int = 200,
    n_boot: int = 2000,
    strengths: tuple[float, ...] = STRENGTHS,
    seed: int = 0,
) -> ProbeResult:
    """Read an area off tokens for patients never seen, and off what must not do as well.

    Parameters
    ----------
    tokens, shares, attribute, tile_area
        As for :func:`learn_token_sum`; images whose attribute is NaN are left out.
    groups
        Patient of each image; no fold straddles one. Every image is its own by default.
    folds
        Number of outer folds, or the fold of each image, those without a value among them.
    name, unit, site
        What is read, in which unit, where from: for texts.
    baseline
        Gives what is plain in the pixels of each tile, see :func:`~probes.pixel_tiles.tile_pixels`; read by the same
        procedure, and a control that the probe must beat.
    untrained
        Gives the tokens of the same images under random weights; another such control.
    n_shuffles
        Permutations of whole patients for the p-value; 0 asks for none.
    n_boot
        Draws of patients for intervals that take draws.
    strengths, seed
        As for :func:`learn_token_sum`.

    Returns
    -------
    ProbeResult
        R² of out-of-fold predictions with its interval over patients, mean absolute error in the unit, calibration,
        controls. Its penalties are the inverse ones that were chosen.

    Raises
    ------
    AttributeTableError
        If fewer than 20 images have a value, or it does not vary, or a structure is nowhere.
    LeakageError
        If given folds put one group on both sides.
    ShapeError
        If lengths differ.

    Notes
    -----
    For the permutations the curve is made straight: the sum of a linear answer over tokens is a ridge of the tokens'
    mean, which is refitted to all permutations at once. True and permuted attributes are scored alike, so the p-value
    holds its level; it may have less power than the score shown.

    """
    values = np.asarray(attribute, dtype=np.float64)
    _check(shares, values, tile_area, groups, name)
    kept = np.flatnonzero(~np.isnan(values))
    if len(kept) < _FEWEST_IMAGES:
        raise AttributeTableError(f"'{name}' has {len(kept)} values: a sum over tokens needs {_FEWEST_IMAGES} at least")
    y, tile = values[kept], np.asarray(tile_area, dtype=np.float64)
    if np.ptp(y) == 0:
        raise AttributeTableError(f"'{name}' is {y[0]:g} on every image: there is nothing to read")
    unit_of = np.arange(len(values)) if groups is None else np.asarray(groups, dtype=object)
    given = folds if isinstance(folds, int) else of_every_image(folds, len(values))[kept]
    outer = make_folds(len(kept), given, groups=unit_of[kept], seed=seed)

    def read(of: Tokens) -> Reading:
        return _read(of, shares, values, tile, unit_of, kept, outer, strengths, seed)

    def over_patients(statistic: Callable[[NDArray[np.int64]], float]) -> Interval:
        return score_interval(statistic, unit_of[kept], "continuous", n_boot, seed)

    reading = read(tokens)
    controls: list[Control] = []
    test = None
    if n_shuffles:
        linear = _means(tokens, kept) * tile[kept, None]
        test = compare_by_groups(linear, y, outer, "continuous", unit_of[kept], n_shuffles, seed)
        controls.append(test.control)
    for what, rival in (("pixel baseline", baseline), ("untrained network", untrained)):
        if rival is not None:
            controls.append(against(what, reading, [read(rival)], over_patients))
    predicted = reading.predicted[:, 0]
    return ProbeResult(
        attribute=name,
        unit=unit,
        site=site,
        kind="continuous",
        metric=METRICS["continuous"],
        score=float(reading.scores()[0]),
        spearman=float(rank_correlation(y[:, None], reading.predicted)[0]),
        mae=float(np.abs(y - predicted).mean()),
        mae_of_mean=float(np.abs(y - reading.reference[:, 0]).mean()),
        interval=over_patients(reading.score_of),
        p_value=test.p_value if test else None,
        smallest_p=test.smallest_p if test else 1.0,
        p_scheme=test.scheme if test else "",
        truth=y,
        predicted=predicted,
        fold=outer.fold,
        images=kept,
        penalties=reading.penalties,
        n_units=len(set(unit_of[kept].tolist())),
        controls=tuple(controls),
        calibration=calibration_of(reading),
    )


def of_every_image(folds: Sequence[int] | NDArray[np.int64], images: int) -> NDArray[Any]:
    """Return given folds as an array, one for each image; a list of another length is refused, never cut."""
    if len(folds) != images:
        raise ShapeError(
            f"folds has {len(folds)} values for {images} images: give the fold of every image, those without a value too"
        )
    return np.asarray(folds)


def _means(tokens: Tokens, images: NDArray[np.int64]) -> Float[Values, "image width"]:
    blocks = [tokens(images[start : start + _BLOCK]).mean(1) for start in range(0, len(images), _BLOCK)]
    return np.concatenate(blocks).astype(np.float64)


def _read(
    tokens: Tokens, shares: NDArray[Any], values: Values, tile: Values, groups: NDArray[Any], kept: NDArray[np.int64],
    outer: Folds, strengths: tuple[float, ...], seed: int,
) -> Reading:  # fmt: skip
    predicted, reference, chosen = np.empty(len(kept)), np.empty(len(kept)), []
    for k in range(outer.n):
        train, test = outer.split(k)
        learned = learn_token_sum(
            tokens, shares, values, tile, groups=groups, images=kept[train], strengths=strengths, seed=seed
        )
        predicted[test] = learned.read(tokens, kept[test], tile)
        reference[test] = values[kept[train]].mean()
        chosen.append(learned.strength)
    return Reading("continuous", values[kept][:, None], predicted[:, None], reference[:, None], tuple(chosen))


def _check(
    shares: NDArray[Any], values: Values, tile_area: NDArray[Any], groups: Sequence[Any] | NDArray[Any] | None, name: str
) -> None:  # fmt: skip
    if np.ndim(shares) != 3 or len(shares) != len(values):
        raise ShapeError(
            f"shares have shape {np.shape(shares)} for {len(values)} values of '{name}': image × cell × structure"
        )
    if not (np.min(shares) >= 0 and np.max(shares) <= 1 + 1e-6):
        raise ConfigError(
            f"shares of '{name}' lie from {np.min(shares):g} to {np.max(shares):g}: give 0 to 1 of a tile"
        )
    for what, given in (("tile_area", tile_area), ("groups", groups)):
        if given is not None and len(given) != len(values):
            raise ShapeError(f"{what} has {len(given)} values for {len(values)} of '{name}': one for each image")
