"""A mean over patients with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from circuits.inputs import no_interval
from circuits.localization.shown_images import ShownImages
from mechinterp.statistics import Interval, bootstrap_groups


@dataclass(frozen=True)
class Estimate:
    """One number over patients.

    Parameters
    ----------
    value
        Mean over patients of each one's mean over images; ``None`` where no image has one.
    interval
        95 % over patients.
    n
        Images that have a value.
    unit
        ``1`` where there is none.

    """

    value: float | None
    interval: Interval
    n: int
    unit: str = "1"

    @property
    def text(self) -> str:
        """As a table prints it: ``0.41 (0.33 to 0.50)``."""
        if self.value is None:
            return "–"
        ends = self.interval.ends
        return f"{self.value:.2f}" + (f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else " (no interval)")

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as plain JSON."""
        return {"value": self.value, "interval": self.interval.to_json(), "images": self.n, "unit": self.unit}


def estimate(
    values: Float[NDArray[Any], " image"], shown: ShownImages, *, boot: int = 1000, seed: int = 0, unit: str = "1"
) -> Estimate:
    """Return the mean over patients of a number per image, NaN where an image has none.

    Parameters
    ----------
    values
        Per image.
    shown
        The images, which know their patients.
    boot, seed
        Resamples of patients, and their seed.
    unit
        Of the values.

    """
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    if not known.any():
        return Estimate(None, Interval.not_estimable(0), 0, unit)
    if shown.groups is None:
        return Estimate(float(values[known].mean()), no_interval(), int(known.sum()), unit)
    patients, at = np.unique(np.asarray(shown.groups, dtype=object)[known].astype(str), return_inverse=True)
    means = np.bincount(at, weights=values[known]) / np.bincount(at)
    interval = bootstrap_groups(
        lambda drawn: float(means[drawn].mean()), patients, boot, seed, units_are_patients=shown.units_are_patients
    )
    return Estimate(float(means.mean()), interval, int(known.sum()), unit)
