"""Linear probes: whether a physical quantity can be read from a site, for patients never seen, beyond its controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import AttributeTable
from mechinterp.claims import Control
from mechinterp.errors import AttributeTableError, ConfigError, ShapeError
from mechinterp.statistics.bootstrap import Interval, bootstrap_groups
from mechinterp.statistics.shifts import Bound
from probes.folds import Folds, make_folds
from probes.logistic import nested_logistic
from probes.pooling import Pooling, TokenStore, patients_of, pooled_activations
from probes.results import ProbeResult
from probes.ridge import ALPHAS, nested_ridge
from probes.scores import ProbeKind, Reading, rank_correlation
from probes.shuffles import compare_by_groups, compare_by_shifts

Matrix = Float[NDArray[Any], "image width"]
_FEWEST_IMAGES = 10


def fit_probe(
    activations: Matrix,
    attribute: Float[NDArray[Any], " image"],
    *,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    order: Sequence[int] | NDArray[Any] | None = None,
    gap: int = 0,
    folds: int | Sequence[int] | NDArray[np.int64] = 5,
    kind: ProbeKind | None = None,
    name: str = "attribute",
    unit: str = "1",
    site: str = "",
    baseline: Matrix | None = None,
    untrained: Matrix | None = None,
    n_shuffles: int = 200,
    n_boot: int = 2000,
    bound: Bound = "guaranteed",
    units_are_patients: bool = True,
    seed: int = 0,
) -> ProbeResult:
    """Read one attribute from activations, and from what must not do as well.

    Parameters
    ----------
    activations
        Image × width: one vector per image, see :func:`~probes.pooling.pooled_activations`.
    attribute
        Value of each image in its unit; images with NaN are left out.
    groups
        Patient of each image; no fold straddles one. Every image is its own by default.
    order
        Position of each image along *one* volume. Folds are then contiguous blocks, the p-value comes from shifts along
        the volume, and there is no interval: one subject is n = 1.
    gap
        With `order`: images within so many positions of a tested one do not train.
    folds
        Number of outer folds, or the fold of each image. Inside each, the penalty is chosen over the other folds.
    kind
        ``continuous`` (ridge) or ``binary`` (logistic); by default binary where there are two values, 0 and 1.
    name, unit, site
        What is read, in which unit, where from: for texts.
    baseline
        Image × measure: what is plain in the pixels (mean intensity, area); a control that the probe must beat.
    untrained
        Image × width: activations of the same images under random weights; another such control.
    n_shuffles
        Permutations of whole patients for the p-value; 0 asks for none. The shifts of a volume are as many as there are.
    n_boot
        Draws of patients for the interval.
    bound
        How p-values of shifts are computed: see :func:`~mechinterp.statistics.shifts.plan_shifts`.
    units_are_patients
        False where the groups are parts of one subject.
    seed
        Of folds, permutations and draws.

    Returns
    -------
    ProbeResult
        Score on out-of-fold predictions, interval, p-value, controls.

    Raises
    ------
    ConfigError
        If the groups are no patients and there is no order, or the folds cannot be made.
    LeakageError
        If given folds put one group on both sides.
    AttributeTableError
        If fewer than 10 images have a value, or it does not vary, or one class is missing from a training set.
    ShapeError
        If lengths differ.

    Notes
    -----
    The permuted targets go through the same nested cross-validation. For a binary attribute that test scores the ridge
    of the classes, which is fitted to all permutations at once, for the true classes and the permuted ones alike.

    """
    values = np.asarray(attribute, dtype=np.float64)
    n = len(values)
    matrices = {"activations": activations, "baseline": baseline, "untrained": untrained}
    for what, matrix in matrices.items():
        if matrix is not None and (np.ndim(matrix) != 2 or len(matrix) != n):
            raise ShapeError(f"{what} have shape {np.shape(matrix)} for {n} values of '{name}': one row per image")
    if not units_are_patients and order is None:
        raise ConfigError(
            "the groups are parts of one subject: give order, the position of each image along the volume"
        )
    kept = np.flatnonzero(~np.isnan(values))
    y = values[kept]
    if len(kept) < _FEWEST_IMAGES:
        raise AttributeTableError(f"'{name}' has {len(kept)} values: a probe needs {_FEWEST_IMAGES} at least")
    if np.ptp(y) == 0:
        raise AttributeTableError(f"'{name}' is {y[0]:g} on every image: there is nothing to read")
    kind = kind or ("binary" if set(np.unique(y)) == {0.0, 1.0} else "continuous")
    if kind == "binary" and set(np.unique(y)) != {0.0, 1.0}:
        raise AttributeTableError(f"'{name}' has values besides 0 and 1: code the classes so, or read it as continuous")
    unit_of = np.arange(len(kept)) if groups is None else np.asarray(groups, dtype=object)[kept]
    places = None if order is None else np.asarray(order)[kept]
    outer = make_folds(
        len(kept),
        folds if isinstance(folds, int) else np.asarray(folds)[kept],
        groups=None if groups is None else unit_of,
        order=places,
        gap=gap,
        classes=y if kind == "binary" else None,
        seed=seed,
    )
    x = np.asarray(activations, dtype=np.float64)[kept]
    reading = _read(x, y, outer, kind, name)
    continuous = kind == "continuous"

    def over_patients(statistic: Callable[[NDArray[np.int64]], float]) -> Interval:
        return bootstrap_groups(
            statistic, unit_of, n_boot, seed, units_are_patients=units_are_patients and order is None
        )

    controls = []
    test = None
    if n_shuffles:
        if places is None:
            test = compare_by_groups(x, y, outer, kind, unit_of, n_shuffles, seed)
        else:
            test = compare_by_shifts(x, y, outer, kind, places, bound, gap, folds if isinstance(folds, int) else None)
        controls.append(test.control)
    for what, matrix in (("pixel baseline", baseline), ("untrained network", untrained)):
        if matrix is not None:
            rival = _read(np.asarray(matrix, dtype=np.float64)[kept], y, outer, kind, name)
            controls.append(_against(what, reading, rival, over_patients))
    return ProbeResult(
        attribute=name,
        unit=unit,
        site=site,
        kind=kind,
        metric="R²" if continuous else "AUROC",
        score=float(reading.scores()[0]),
        spearman=float(rank_correlation(reading.truth, reading.predicted)[0]),
        mae=float(np.abs(reading.truth - reading.predicted).mean()) if continuous else None,
        mae_of_mean=float(np.abs(reading.truth - reading.reference).mean()) if continuous else None,
        interval=over_patients(reading.score_of),
        p_value=test.p_value if test else None,
        smallest_p=test.smallest_p if test else 1.0,
        p_scheme=test.scheme if test else "",
        truth=y,
        predicted=reading.predicted[:, 0],
        fold=outer.fold,
        images=kept,
        penalties=reading.penalties,
        n_units=len(kept) if places is not None else len(set(unit_of.tolist())),
        controls=tuple(controls),
    )


def probe_store(
    store: TokenStore,
    site: str,
    attributes: AttributeTable,
    name: str,
    *,
    pooling: Pooling = "mean",
    images: NDArray[np.int64] | None = None,
    **settings: Any,
) -> ProbeResult:
    """Read one attribute from a store's activations; groups and what they are come from the store.

    Where the groups are parts of one subject, the order of its images is taken for the order of the volume.

    Parameters
    ----------
    store, site
        Where the activations are, and which.
    attributes, name
        The table of the store's images, and the attribute.
    pooling
        How the tokens of an image become one vector.
    images
        Positions of the images to use; all by default.
    **settings
        Of :func:`fit_probe`.

    Raises
    ------
    ShapeError
        If the table is not that of the store's images.

    """
    if len(attributes) != len(store.images):
        raise ShapeError(
            f"the store has {len(store.images)} images, the attributes {len(attributes)}: take one image set"
        )
    about, values = attributes[name], attributes.column(name)
    chosen = np.arange(len(values)) if images is None else np.asarray(images)
    groups, are_patients = patients_of(store)
    if not are_patients:
        settings.setdefault("order", chosen)
    settings.setdefault("groups", None if groups is None else groups[chosen])
    settings.setdefault("units_are_patients", are_patients)
    found = pooled_activations(store, site, images=chosen, pooling=pooling)
    result = fit_probe(found, values[chosen], name=name, unit=about.unit, site=site, **settings)
    return replace(result, images=chosen[result.images])


def _read(x: NDArray[np.float64], y: NDArray[np.float64], folds: Folds, kind: ProbeKind, name: str) -> Reading:
    """Predict every image from the other folds."""
    if kind == "continuous":
        predicted, reference, chosen = nested_ridge(x, y[:, None], folds)
        return Reading(kind, y[:, None], predicted, reference, tuple(ALPHAS[i] for i in chosen[:, 0]))
    logits, penalties = nested_logistic(x, y, folds, name)
    return Reading(kind, y[:, None], logits[:, None], np.zeros((len(y), 1)), penalties)


def _against(
    what: str,
    reading: Reading,
    rival: Reading,
    over_patients: Callable[[Callable[[NDArray[np.int64]], float]], Interval],
) -> Control:
    """Return the control that fails unless the probe scores above its rival, by more than chance where that is known."""

    def advantage(images: NDArray[np.int64]) -> float:
        return reading.score_of(images) - rival.score_of(images)

    ahead = advantage(np.arange(len(reading.truth)))
    interval = over_patients(advantage)
    passed = ahead > 0 and (interval.low is None or interval.low > 0)
    detail = f"the probe scores {ahead:+.2f} against it; {interval.text}"
    return Control(what, float(rival.scores()[0]), bool(passed), detail)
