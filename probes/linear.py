"""Linear probes: whether a physical quantity can be read from a site, for patients never seen, beyond its controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.claims import Control
from mechinterp.errors import AttributeTableError, ConfigError, ShapeError, nearest
from mechinterp.statistics.bootstrap import Interval
from mechinterp.statistics.shifts import Bound
from probes.calibration import calibration_of
from probes.control_task import read_control_tasks
from probes.description_length import description_length
from probes.folds import make_folds
from probes.pooling import Pooling, TokenStore, patients_of, pooled_activations
from probes.reading import read_attribute
from probes.results import ProbeResult
from probes.rivals import against
from probes.score_intervals import reading_interval, score_interval
from probes.scores import METRICS, ProbeKind, Reading, rank_correlation
from probes.shuffles import compare_by_groups, compare_by_shifts

Matrix = Float[NDArray[Any], "image width"]
CONTROL_TASK = "control task"
_FEWEST_IMAGES, _MOST_CLASSES = 10, 20


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
    n_control_tasks: int = 3,
    types: Sequence[Any] | NDArray[Any] | None = None,
    code_length: bool = True,
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
        ``continuous`` (ridge), ``binary`` or ``categorical`` (logistic regression), ``ordinal`` (proportional odds); by
        default binary where there are two values, 0 and 1, and continuous otherwise.
    name, unit, site
        What is read, in which unit, where from: for texts.
    baseline
        Image × measure: what is plain in the pixels (mean intensity, area); a control that the probe must beat.
    untrained
        Image × width: activations of the same images under random weights; another such control.
    n_shuffles
        Permutations of whole patients for the p-value; 0 asks for none. The shifts of a volume are as many as there are.
    n_control_tasks
        Random labels of input types that the probe must read worse than the attribute, see
        :func:`~probes.control_task.read_control_tasks`; 0 asks for none. Not for a volume.
    types
        Type of each image for the control tasks, where there is a natural one.
    code_length
        Whether to measure the attribute's description length, see
        :func:`~probes.description_length.description_length`. Not for a volume.
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
    The permuted targets go through the same nested cross-validation. For classes and levels that test scores their
    ridge, which is fitted to all permutations at once, for the true classes and the permuted ones alike.

    """
    values = np.asarray(attribute, dtype=np.float64)
    matrices = {"activations": activations, "baseline": baseline, "untrained": untrained}
    _check_lengths(matrices, values, name)
    if not units_are_patients and order is None:
        raise ConfigError(
            "the groups are parts of one subject: give order, the position of each image along the volume"
        )
    # an image without a region has no activations of it, so it is left out like one without a value
    there = [np.isfinite(np.asarray(m)).all(1) for m in matrices.values() if m is not None]
    kept = np.flatnonzero(~np.isnan(values) & np.all(there, axis=0))
    y = values[kept]
    kind = _checked_kind(y, kind, name)
    unit_of = np.arange(len(kept)) if groups is None else np.asarray(groups, dtype=object)[kept]
    places = None if order is None else np.asarray(order)[kept]
    outer = make_folds(
        len(kept),
        folds if isinstance(folds, int) else np.asarray(folds)[kept],
        groups=None if groups is None else unit_of,
        order=places,
        gap=gap,
        classes=None if kind == "continuous" else y,
        seed=seed,
    )
    x = np.asarray(activations, dtype=np.float64)[kept]
    reading = read_attribute(x, y, outer, kind, name)

    are_patients = units_are_patients and order is None

    def over_patients(statistic: Callable[[NDArray[np.int64]], float]) -> Interval:
        return score_interval(statistic, unit_of, kind, n_boot, seed, units_are_patients=are_patients)

    controls: list[Control] = []
    test = described = None
    if n_shuffles:
        if places is None:
            test = compare_by_groups(x, y, outer, kind, unit_of, n_shuffles, seed)
        else:
            test = compare_by_shifts(x, y, outer, kind, places, bound, gap, folds if isinstance(folds, int) else None)
        controls.append(test.control)
    for what, matrix in (("pixel baseline", baseline), ("untrained network", untrained)):
        if matrix is not None:
            rival = read_attribute(np.asarray(matrix, dtype=np.float64)[kept], y, outer, kind, name)
            controls.append(against(what, reading, [rival], over_patients))
    # along one volume neighbours share whatever type they have: both would measure its smoothness
    if places is None and n_control_tasks:
        of_type = None if types is None else np.unique(np.asarray(types)[kept], return_inverse=True)[1].reshape(-1)
        tasks = read_control_tasks(x, y, outer, kind, n_tasks=n_control_tasks, types=of_type, seed=seed)
        if tasks:
            controls.append(against(CONTROL_TASK, reading, tasks, over_patients))
    if places is None and code_length:
        described = description_length(x, y, kind, unit_of, name=name, seed=seed)
        if described:
            controls.append(described.control)
    levels = np.unique(y) if kind != "continuous" else None
    error = _errors(reading, y, kind)
    return ProbeResult(
        attribute=name,
        unit=unit,
        site=site,
        kind=kind,
        metric=METRICS[kind],
        score=float(reading.scores()[0]),
        spearman=float("nan") if kind == "categorical" else float(rank_correlation(y[:, None], reading.predicted)[0]),
        mae=error[0],
        mae_of_mean=error[1],
        interval=reading_interval(reading, unit_of, n_boot, seed, units_are_patients=are_patients),
        p_value=test.p_value if test else None,
        smallest_p=test.smallest_p if test else 1.0,
        p_scheme=test.scheme if test else "",
        truth=y,
        predicted=_shown(reading, levels),
        fold=outer.fold,
        images=kept,
        penalties=reading.penalties,
        n_units=len(kept) if places is not None else len(set(unit_of.tolist())),
        controls=tuple(controls),
        calibration=calibration_of(reading),
        description=described,
        log_p=reading.log_p,
        levels=None if levels is None else tuple(float(v) for v in levels),
    )


def kind_of(about: Attribute) -> ProbeKind | None:
    """Return how an attribute is read by what its table says of it; ``None`` leaves that to its values."""
    return None if about.kind == "continuous" else about.kind


def _check_lengths(matrices: dict[str, Matrix | None], values: NDArray[np.float64], name: str) -> None:
    for what, matrix in matrices.items():
        if matrix is not None and (np.ndim(matrix) != 2 or len(matrix) != len(values)):
            raise ShapeError(
                f"{what} have shape {np.shape(matrix)} for {len(values)} values of '{name}': one row per image"
            )


def _checked_kind(y: NDArray[np.float64], kind: ProbeKind | None, name: str) -> ProbeKind:
    if len(y) < _FEWEST_IMAGES:
        raise AttributeTableError(f"'{name}' has {len(y)} values: a probe needs {_FEWEST_IMAGES} at least")
    if np.ptp(y) == 0:
        raise AttributeTableError(f"'{name}' is {y[0]:g} on every image: there is nothing to read")
    distinct = np.unique(y)
    kind = kind or ("binary" if set(distinct) == {0.0, 1.0} else "continuous")
    if kind not in METRICS:
        raise ConfigError(f"kind is '{kind}': {nearest(kind, METRICS)}")
    if kind == "binary" and set(distinct) != {0.0, 1.0}:
        raise AttributeTableError(f"'{name}' has values besides 0 and 1: code the classes so, or read it as continuous")
    if kind in ("ordinal", "categorical") and len(distinct) > _MOST_CLASSES:
        raise AttributeTableError(
            f"'{name}' has {len(distinct)} distinct values, too many for classes (at most {_MOST_CLASSES}): "
            "read it as continuous"
        )
    return kind


def _errors(reading: Reading, y: NDArray[np.float64], kind: ProbeKind) -> tuple[float | None, float | None]:
    """Return the mean absolute error in the attribute's unit (in levels), and that of a constant answer."""
    if kind == "continuous":
        return float(np.abs(y - reading.predicted[:, 0]).mean()), float(np.abs(y - reading.reference[:, 0]).mean())
    if kind == "ordinal":
        return float(np.abs(y - reading.predicted[:, 0]).mean()), float(np.abs(y - np.median(y)).mean())
    return None, None


def _shown(reading: Reading, levels: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return one number an image: of a categorical attribute the class that is likeliest."""
    if reading.kind == "categorical" and levels is not None:
        found: NDArray[np.float64] = levels[reading.predicted.argmax(1)]
        return found
    return reading.predicted[:, 0]


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
    settings.setdefault("kind", kind_of(about))
    found = pooled_activations(store, site, images=chosen, pooling=pooling)
    result = fit_probe(found, values[chosen], name=name, unit=about.unit, site=site, **settings)
    return replace(result, images=chosen[result.images])
