r"""The share of a metric that a circuit restores: over images, with an interval over patients, and in parts of them.

With :math:`m` the metric of the whole model, :math:`m_C` with the circuit alone and :math:`m_\emptyset` with nothing,
over the images :math:`i`:

.. math:: F(C) = \frac{\sum_i (m_{C,i} - m_{\emptyset,i}) (m_i - m_{\emptyset,i})}{\sum_i (m_i - m_{\emptyset,i})^2}

1 when every image's metric is restored, 0 when nothing is. The usual ratio of means [1]_ has no value where other images'
activations are put in place, since they leave the mean where it is.

References
----------
.. [1] Marks et al. Sparse feature circuits. 2024 (arXiv 2403.19647), section 4.

"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from circuits.inputs import Batch
from mechinterp.statistics import Interval


@dataclass(frozen=True, eq=False)
class Share:
    """What one circuit restores: over all images, with an interval over patients, and over parts of them.

    Parameters
    ----------
    value
        :math:`F` over all images.
    interval
        Over patients.
    unexplained
        Mean squared error of the circuit's metric, as a share of the whole change's: a circuit can restore the right
        amount on average and the wrong amount on every image.
    subgroups
        :math:`F` within each; NaN where what is replaced does not change the metric, so that there is nothing to restore.

    """

    value: float
    interval: Interval
    unexplained: float
    subgroups: Mapping[str, float]

    @property
    def worst(self) -> tuple[str, float]:
        """The subgroup that is farthest from 1, of those that have a share; the whole where none has."""
        known = {name: value for name, value in self.subgroups.items() if not np.isnan(value)}
        if not known:
            return "all images", self.value
        return max(known.items(), key=lambda item: abs(item[1] - 1))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        name, value = self.worst
        return {
            "value": self.value,
            "interval": None if self.interval.low is None else [self.interval.low, self.interval.high],
            "interval_note": self.interval.reason,
            "unexplained": self.unexplained,
            "worst_subgroup": {"name": name, "value": value},
            "subgroups": dict(self.subgroups),
        }


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a test: which image each is of, and the metric with everything and with nothing.

    Parameters
    ----------
    batch
        The images and their patients.
    images
        Which image each row is of: with several draws an image has several.
    whole, none
        The metric of the whole model, and with everything replaced.
    subgroups
        Class or subgroup of each image.
    boot, seed
        Resamples of the patients, and their seed.

    """

    batch: Batch
    images: Int[NDArray[np.int64], " row"]
    whole: Float[NDArray[np.float64], " row"]
    none: Float[NDArray[np.float64], " row"]
    subgroups: Sequence[str] | None = None
    boot: int = 500
    seed: int = 0

    def share(self, values: Float[NDArray[np.float64], " row"]) -> Share:
        """Return what a circuit restores that gives the rows these values of the metric."""

        def of(rows: NDArray[np.int64]) -> float:
            return restored(values[rows], self.whole[rows], self.none[rows])

        every = np.arange(len(values))
        interval = self.batch.interval(of, self.images, self.boot, self.seed)
        names = [] if self.subgroups is None else sorted(set(self.subgroups))
        labels = np.array([] if self.subgroups is None else list(self.subgroups))
        parts = {name: of(every[labels[self.images] == name]) for name in names}
        spread = float(np.square(self.whole - self.none).sum())
        unexplained = float(np.square(values - self.whole).sum() / spread) if spread else float("nan")
        return Share(of(every), interval, unexplained, parts)


def restored(
    values: Float[NDArray[np.float64], " image"],
    whole: Float[NDArray[np.float64], " image"],
    none: Float[NDArray[np.float64], " image"],
) -> float:
    """Return the share of the metric's change that is restored: least squares through the origin; NaN where none changes."""
    full = whole - none
    square = float(full @ full)
    return float((values - none) @ full / square) if square > 0 else float("nan")
