"""From images to examinations and patients: several views, slices or patches that belong together become one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ShapeError, nearest
from mechinterp.images.image_set import ImageSet, own_patient

How = Literal["mean", "max"]
_HOWS: dict[str, Callable[..., NDArray[np.float64]]] = {"mean": np.nanmean, "max": np.nanmax}


@dataclass(frozen=True)
class Aggregate:
    """Values of wholes, from those of their parts.

    Parameters
    ----------
    keys
        Names of the wholes, in the order in which they first occur.
    values
        Whole × what every part has: features, classes, or nothing.
    counts
        Parts of each whole.

    """

    keys: tuple[str, ...]
    values: Float[NDArray[np.float64], "whole ..."]
    counts: Int[NDArray[np.int64], " whole"]


def aggregate(
    values: Float[NDArray[np.floating], "part ..."], keys: Sequence[str | None], how: How = "mean"
) -> Aggregate:
    """Combine the values of parts that share a key.

    The mean of features, probabilities or effects treats all parts alike; the maximum asks whether any part has it, as
    one lesion in one view makes a patient ill. Take means of logits and maxima of one class's probability with care:
    a maximum grows with the number of parts, so that patients with more slices look more ill.

    Parameters
    ----------
    values
        Part × anything; NaN is missing and does not count, where all are missing the whole is.
    keys
        The whole each part belongs to; parts with ``None`` are left out.
    how
        ``mean`` or ``max``.

    Raises
    ------
    ConfigError
        If `how` is neither, or no part belongs to any whole.
    ShapeError
        If there is not one key for each part.

    Examples
    --------
    >>> aggregate(np.array([1.0, 3.0, 5.0]), ["a", "b", "a"]).values
    array([3., 3.])

    """
    if how not in _HOWS:
        raise ConfigError(f"how is '{how}': {nearest(how, _HOWS)}")
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or len(array) != len(keys):
        raise ShapeError(f"{len(keys)} keys for values of shape {array.shape}: give one key for each part")
    order = {key: i for i, key in enumerate(dict.fromkeys(k for k in keys if k is not None))}
    if not order:
        raise ConfigError("no part belongs to a case or patient: the images name none")
    members: list[list[int]] = [[] for _ in order]
    for part, key in enumerate(keys):
        if key is not None:
            members[order[key]].append(part)
    combined = np.full((len(order), *array.shape[1:]), np.nan)
    for i, parts in enumerate(members):
        mine = array[parts]
        there = ~np.isnan(mine).all(axis=0)
        combined[i, ...] = np.where(there, _HOWS[how](np.where(there, mine, 0.0), axis=0), np.nan)
    return Aggregate(tuple(order), combined, np.array([len(m) for m in members], dtype=np.int64))


def per_case(values: Float[NDArray[np.floating], "image ..."], images: ImageSet, how: How = "mean") -> Aggregate:
    """Combine the values of images that belong to one examination; an image without one stands for itself.

    Parameters
    ----------
    values
        Image × anything: pooled features, predictions, effects.
    images
        In the same order.
    how
        See :func:`aggregate`.

    """
    return aggregate(values, _cases(images), how)


def per_patient(
    values: Float[NDArray[np.floating], "image ..."],
    images: ImageSet,
    how: How = "mean",
    *,
    within_cases: How | None = None,
) -> Aggregate:
    """Combine the values of images first within each examination, then within each patient.

    In two steps every examination weighs the same, however many slices it has.

    Parameters
    ----------
    values
        Image × anything.
    images
        In the same order; those without a group are left out.
    how
        How examinations are combined.
    within_cases
        How the images of one are; as `how` when left out.

    Raises
    ------
    ConfigError
        If the images name no patient, or an examination belongs to two.

    """
    if images.groups is None:
        raise ConfigError(f"'{images.name}' names no patients: give a column 'group'")
    cases = _cases(images)
    groups = [
        None if group == own_patient(name) else group for name, group in zip(images.ids, images.groups, strict=True)
    ]
    patient_of: dict[str, str | None] = {}
    for case, group in zip(cases, groups, strict=True):
        if patient_of.setdefault(case, group) != group:
            raise ConfigError(f"case '{case}' of '{images.name}' belongs to two patients: correct its column 'group'")
    by_case = aggregate(values, cases, within_cases or how)
    combined = aggregate(by_case.values, [patient_of[case] for case in by_case.keys], how)
    parts = dict.fromkeys(combined.keys, 0)
    for group in groups:
        if group is not None:
            parts[group] += 1
    return Aggregate(combined.keys, combined.values, np.array(list(parts.values()), dtype=np.int64))


def _cases(images: ImageSet) -> list[str]:
    """Return each image's examination, itself where it has none."""
    cases = images.cases or (None,) * len(images)
    return [f"image {name}" if case is None else case for name, case in zip(images.ids, cases, strict=True)]
