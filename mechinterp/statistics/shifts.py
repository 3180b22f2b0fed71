r"""Truncated shifts: the permutations of an ordered series whose p-value holds however smooth the series is.

Slices of a volume are neighbours: shuffling them, or shifting them around a circle, makes jumps that the real series
does not have, and calls smooth curves related that are not. Here nothing wraps around. The features stay on a window
of slices, the attribute is read from the same window moved by :math:`-N \dots N` slices, and the correlation at shift 0
is compared with those at the other shifts. If the attribute is stationary along the volume and unrelated to the
features, the chance that shift 0 is among the :math:`m` highest of the :math:`2N + 1` is at most
:math:`m / (N + 1)` [1]_, whatever the length of the correlation.

References
----------
.. [1] Harris. A shift test for independence in generic time series. arXiv 2012.06862.

"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ShapeError

Bound = Literal["guaranteed", "approximate"]

SMALLEST_WINDOW = 10
"""Fewer slices than this are never compared."""


@dataclass(frozen=True)
class ShiftPlan:
    """Which images are compared, and where the attribute is read at each shift.

    Parameters
    ----------
    window
        Images whose features are compared: those that have an image at every shift.
    images
        Shift × window: the image whose attribute is read. Row ``max_shift`` is the window itself.
    max_shift
        Largest shift, in units of the spacing between positions.
    bound
        How p-values are computed: see :meth:`p_value`.

    """

    window: Int[NDArray[np.int64], " window"]
    images: Int[NDArray[np.int64], "shift window"]
    max_shift: int
    bound: Bound = "guaranteed"

    @property
    def smallest_p(self) -> float:
        """The smallest p-value there can be; 1 when nothing can be shifted."""
        return float(self.p_value(np.asarray(1)))

    def p_value(self, at_least_as_high: NDArray[Any]) -> NDArray[np.float64]:
        """Turn the number of shifts, shift 0 included, that reach the observed value into a p-value.

        ``guaranteed`` divides by N + 1: the bound that holds for every stationary series. ``approximate`` divides by
        2N + 1: near the truth where the shifts are long against the correlation length, and wrong by a factor of up to
        two where series repeat with a period near N.
        """
        shifts = self.max_shift + 1 if self.bound == "guaranteed" else 2 * self.max_shift + 1
        return np.minimum(1.0, np.asarray(at_least_as_high, dtype=np.float64) / shifts)


def plan_shifts(
    order: Sequence[int] | NDArray[Any],
    within: NDArray[np.bool_] | None = None,
    *,
    max_shift: int | None = None,
    bound: Bound = "guaranteed",
    alpha: float = 0.05,
) -> ShiftPlan:
    """Choose the window and the shifts for the images of one ordered volume.

    Parameters
    ----------
    order
        Position (slice number) of each image; equally spaced, gaps allowed.
    within
        Which images' features are tested, for example the held-out ones; the others lend their attributes to the
        shifts. All by default. A block in the middle of the volume is tested in full.
    max_shift
        Largest shift N; by default the shortest that can reach `alpha`, and the next steps of p where the volume is
        long enough to keep half of its slices in the window.
    bound
        ``guaranteed`` or ``approximate``: see :meth:`ShiftPlan.p_value`.
    alpha
        Level to be reached.

    Returns
    -------
    ShiftPlan
        With a `max_shift` too small for `alpha` where the volume is too short: ask its ``smallest_p``.

    Raises
    ------
    ConfigError
        If a position stands twice or is no whole number, or the shift leaves no window.
    ShapeError
        If `order` and `within` differ in length.

    """
    positions = np.asarray(order)
    if positions.ndim != 1 or len(positions) < 2 or not np.equal(np.mod(positions, 1), 0).all():
        raise ConfigError("order must hold one whole number (slice position) per image, two images at least")
    positions = positions.astype(np.int64)
    if len(np.unique(positions)) != len(positions):
        raise ConfigError(
            "a position stands twice in order: order is for the slices of one volume, use groups for patients"
        )
    tested = np.ones(len(positions), dtype=bool) if within is None else np.asarray(within, dtype=bool)
    if tested.shape != positions.shape:
        raise ShapeError(f"order has {len(positions)} images, within {tested.shape}: one value per image")
    positions = positions - positions.min()
    step = np.gcd.reduce(positions)
    grid = np.full(int(positions.max() // step) + 1, -1, dtype=np.int64)
    grid[positions // step] = np.arange(len(positions))

    def window_of(shift: int) -> NDArray[np.int64]:
        places = np.arange(shift, len(grid) - shift)
        covered = np.lib.stride_tricks.sliding_window_view(grid >= 0, 2 * shift + 1).all(1)
        images = grid[places[covered]]
        chosen: NDArray[np.int64] = images[tested[images]]
        return chosen

    if max_shift is None:
        max_shift = _choose(window_of, len(grid), bound, alpha)
    elif max_shift < 0 or 2 * max_shift >= len(grid) or len(window_of(max_shift)) < 3:
        raise ConfigError(
            f"max_shift is {max_shift}: with {len(grid)} positions it leaves fewer than 3 slices to compare"
        )
    window = window_of(max_shift)
    place = np.empty(len(positions), dtype=np.int64)
    place[grid[grid >= 0]] = np.flatnonzero(grid >= 0)
    shifts = np.arange(-max_shift, max_shift + 1)
    return ShiftPlan(window, grid[place[window][None] + shifts[:, None]], max_shift, bound)


def _choose(window_of: Any, length: int, bound: Bound, alpha: float) -> int:
    # p is a multiple of 1 / divisor: k steps fit under alpha from divisor = k / alpha on, and any longer shift only
    # shortens the window. More than one step is taken while the window keeps half of the volume.
    def shortest(steps: int) -> int:
        divisor = int(np.ceil(steps / alpha - 1e-9))
        return divisor - 1 if bound == "guaranteed" else divisor // 2

    best = shortest(1)
    steps = 2
    while 4 * shortest(steps) <= length:
        best, steps = shortest(steps), steps + 1
    for shift in range(min(best, (length - 1) // 2), 0, -1):
        if len(window_of(shift)) >= SMALLEST_WINDOW:
            return shift
    return 0
