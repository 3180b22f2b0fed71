"""Every feature against every attribute: chosen on some patients, tested on others, nothing hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import AttributeTableError, ConfigError, LeakageError, ShapeError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.progress import SILENT, Progress
from mechinterp.statistics.bootstrap import Interval
from mechinterp.statistics.few_patients import rank_correlation_intervals
from mechinterp.statistics.permutation import max_statistic_test, unit_means
from mechinterp.statistics.rank import spearman
from mechinterp.statistics.shifts import Bound
from probes.controls import baseline_encoders
from probes.matrix_result import AttributeMatrix
from probes.mean_difference import mean_difference_directions
from probes.pair_measures import pair_measures
from probes.pooling import Pooling, TokenStore, patients_of, pooled_features

Images = Sequence[int] | NDArray[np.int64]


def match_attributes(
    features: Float[NDArray[Any], "image feature"],
    attributes: AttributeTable,
    discovery: Images,
    confirmation: Images,
    *,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    order: Sequence[int] | NDArray[Any] | None = None,
    n_permutations: int = 1000,
    bound: Bound = "guaranteed",
    kind: str = "features",
    pooling: str = "",
    measures: bool = True,
    n_boot: int = 1000,
    most_intervals: int = 200,
    seed: int = 0,
) -> AttributeMatrix:
    """Choose each feature's closest attribute on the discovery images, and test it on the confirmation images.

    Parameters
    ----------
    features
        Image × feature, for all images.
    attributes
        Of the same images.
    discovery, confirmation
        Positions of the images to choose on, and of those to test on.
    groups
        Patient of each image. What is compared is patients.
    order
        Instead, for one volume: position of each image. The attributes of all images lend themselves to the shifts, so
        a confirmation block in the middle of the volume is tested in full.
    n_permutations
        Permutations of patients.
    bound
        How p-values of shifts are computed: see :func:`~mechinterp.statistics.shifts.plan_shifts`.
    kind, pooling
        For texts.
    measures
        Measure mutual information, AUROC and R² of all pairs beside the rank correlation, and the survivors' intervals.
    n_boot
        Draws of patients for an interval.
    most_intervals
        Survivors beyond the so many strongest get no interval.
    seed
        Of the permutations and the draws.

    Returns
    -------
    AttributeMatrix
        With all pairs, those that were not chosen too.

    Raises
    ------
    LeakageError
        If an image or a group stands on both sides.
    AttributeTableError
        If no attribute has an order.
    ShapeError
        If features and attributes are not of the same images.

    """
    features = np.asarray(features)
    if features.ndim != 2 or len(features) != len(attributes):
        raise ShapeError(
            f"features have shape {features.shape}, attributes {len(attributes)} images: one row per image"
        )
    ordered = [a.kind != "categorical" or len(attributes.categories.get(a.name, ())) == 2 for a in attributes]
    if not any(ordered):
        raise AttributeTableError("no attribute to compare with: add a continuous, ordinal or binary one")
    values = attributes.values[:, ordered]
    chosen, held_out = np.asarray(discovery, dtype=np.int64), np.asarray(confirmation, dtype=np.int64)
    # blocks of one volume are no patients: there the images between discovery and confirmation keep them apart
    _check_sides(chosen, held_out, None if order is not None else groups)
    # blocks of one volume are no patients: averaging them would leave a handful of values to choose by
    units = None if order is not None else groups
    rho_discovery = spearman(*_units(features, values, chosen, units))
    strength = np.nan_to_num(np.abs(rho_discovery), nan=-1.0)
    best = np.where(strength.max(1) >= 0, strength.argmax(1), -1)
    # Patients are independent, so a choice made on some is no choice for others and only the chosen pairs are tested. Slices
    # are not: a pair that agrees at the edge of the held-out block agrees a little inside it, so all pairs are tested.
    tested = np.full(rho_discovery.shape, order is not None)
    tested[np.flatnonzero(best >= 0), best[best >= 0]] = True
    within = np.zeros(len(features), dtype=bool)
    within[held_out] = True
    test = max_statistic_test(
        features, values, groups=None if order is not None else groups, order=order, within=within, tested=tested,
        n_permutations=n_permutations, bound=bound, seed=seed,
    )  # fmt: skip
    held_out_units = _units(features, values, held_out, units)
    found = AttributeMatrix(
        tuple(a for a, kept in zip(attributes, ordered, strict=True) if kept),
        rho_discovery,
        test.rho if order is None else spearman(*held_out_units),  # of patients the test's are the same
        best,
        test,
        kind,
        pooling,
        tuple(a.name for a, kept in zip(attributes, ordered, strict=True) if not kept),
    )
    if not measures:
        return found
    found = replace(
        found,
        measures=pair_measures(
            _units(features, values, chosen, units), held_out_units, found.rho_confirmation,
            None if order is not None else tested, test.p_corrected,
        ),
    )  # fmt: skip
    return replace(
        found, intervals=_survivors_intervals(found, *held_out_units, order is None, n_boot, most_intervals, seed)
    )


def _survivors_intervals(
    matrix: AttributeMatrix,
    features: NDArray[Any],
    values: NDArray[np.float64],
    units_are_patients: bool,
    n_boot: int,
    most: int,
    seed: int,
) -> dict[int, Interval]:
    """Return the intervals of the strongest survivors, so wide that 95 % of those that are given cover.

    They were selected by the very correlation that the interval is about. At the nominal level too many would miss it;
    with R of m pairs selected at 5 %, the level 1 - 0.05 R / m keeps the share that misses at 5 % (Benjamini, Yekutieli.
    False discovery rate-adjusted multiple confidence intervals for selected parameters. 2005).
    """
    rows = np.flatnonzero(matrix.surviving)
    if not len(rows):
        return {}
    tested = int((matrix.best >= 0).sum())
    strength = np.abs(matrix.rho_confirmation[rows, matrix.best[rows]])
    given = rows[np.argsort(-strength, kind="stable")[:most]]
    level = 1 - 0.05 * len(rows) / tested
    intervals = rank_correlation_intervals(
        features[:, given], values[:, matrix.best[given]], n_boot=n_boot, level=level, seed=seed,
        units_are_patients=units_are_patients,
    )  # fmt: skip
    return {int(i): replace(interval, level=0.95) for i, interval in zip(given, intervals, strict=True)}


def attribute_matrix(
    encoder: FeatureEncoder,
    store: TokenStore,
    attributes: AttributeTable,
    *,
    discovery: Images | str | None = None,
    confirmation: Images | str | None = None,
    order: Sequence[int] | NDArray[Any] | None = None,
    pooling: Pooling = "mean",
    controls: Mapping[str, FeatureEncoder] | None = None,
    n_permutations: int = 1000,
    bound: Bound = "guaranteed",
    seed: int = 0,
    progress: Progress = SILENT,
) -> AttributeMatrix:
    """Match an encoder's features with the attributes of a store's images, beside neurons, PCA and random directions.

    Parameters
    ----------
    encoder
        The features: an SAE, or any other encoder of one of the store's sites.
    store
        Activations of the images.
    attributes
        Of the same images, in the store's order.
    discovery, confirmation
        Images, or the name of their split; by default those that are not in the split ``test``, and those that are.
    order
        Position of each image along the volume, where the store's groups are parts of one subject; the order of its
        images by default.
    pooling
        The image-level value, named beforehand: ``mean``, ``max`` or ``active``.
    controls
        What the features have to beat; by default the site's neurons, PCA of the discovery images, and as many random
        directions as there are features.
    n_permutations, bound, seed
        See :func:`match_attributes`.
    progress
        Where progress goes.

    Returns
    -------
    AttributeMatrix
        With its controls, and with the directions that the attributes themselves give.

    Raises
    ------
    ConfigError
        If the images have no splits and none are given.
    ShapeError
        If the attributes are of other images.

    """
    if len(attributes) != len(store.images):
        raise ShapeError(
            f"the store has {len(store.images)} images, the attributes {len(attributes)}: take one image set"
        )
    splits = store.images["split"].to_numpy(dtype=object)
    held_out = _images_of(confirmation if confirmation is not None else "test", splits)
    chosen = (
        _images_of(discovery, splits)
        if discovery is not None
        else np.array([i for i, s in enumerate(splits) if isinstance(s, str) and s != "test"], dtype=np.int64)
    )
    groups, are_patients = patients_of(store)
    if order is None and not are_patients:
        order = np.arange(len(splits))
    others = (
        baseline_encoders(store, encoder.site, encoder.width, images=chosen, seed=seed)
        if controls is None
        else controls
    )
    supervised = mean_difference_directions(store, encoder.site, attributes, images=chosen)
    matrices = {}
    for name, each in {"": encoder, **others, **({"supervised": supervised} if supervised else {})}.items():
        values = pooled_features(each, store, progress=progress).take("mean" if each is supervised else pooling)
        matrices[name] = match_attributes(
            values, attributes, chosen, held_out, groups=groups, order=order, n_permutations=n_permutations,
            bound=bound, kind=each.kind, pooling=pooling, measures=not name or each is supervised, seed=seed,
        )  # fmt: skip
    beside = matrices.pop("supervised", None) if supervised else None
    return replace(matrices.pop(""), controls=matrices, supervised=beside)


def _units(
    features: NDArray[Any], values: NDArray[np.float64], images: NDArray[np.int64], groups: Any
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return features and attributes of whole units: patients' means, or images that are units of their own."""
    f, a = features[images], values[images]
    if groups is None:
        return f, a
    units = np.asarray(groups, dtype=object)[images]
    return unit_means(f, units), unit_means(a, units)


def _check_sides(chosen: NDArray[np.int64], held_out: NDArray[np.int64], groups: Any) -> None:
    if np.intersect1d(chosen, held_out).size:
        raise LeakageError("an image is both for discovery and for confirmation: take disjoint sets")
    if groups is not None:
        sides = np.asarray(groups, dtype=object)
        if set(sides[chosen].tolist()) & set(sides[held_out].tolist()):
            raise LeakageError(
                "a group is both for discovery and for confirmation: put all images of a patient on one side"
            )


def _images_of(images: Images | str, splits: NDArray[Any]) -> NDArray[np.int64]:
    if not isinstance(images, str):
        return np.asarray(images, dtype=np.int64)
    found = np.flatnonzero(splits == images)
    if not len(found):
        known = sorted({s for s in splits if isinstance(s, str)})
        raise ConfigError(
            f"no image of split '{images}' (splits: {', '.join(known) or 'none'}): give discovery and confirmation"
        )
    return found
