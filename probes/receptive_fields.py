"""Gaussian receptive fields in degrees of visual angle, and what a map of activations shows through them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ShapeError

Values = NDArray[np.float64]


@dataclass(frozen=True)
class ReceptiveFields:
    """Some receptive fields, or the candidates among which each voxel's is looked for.

    Parameters
    ----------
    up_deg, right_deg
        Middle of each, from fixation [°].
    size_deg
        Standard deviation of each Gaussian [°].

    """

    up_deg: Float[Values, " field"]
    right_deg: Float[Values, " field"]
    size_deg: Float[Values, " field"]

    def __post_init__(self) -> None:
        if not self.up_deg.shape == self.right_deg.shape == self.size_deg.shape or self.up_deg.ndim != 1:
            raise ShapeError(
                f"fields of shapes {self.up_deg.shape}, {self.right_deg.shape} and {self.size_deg.shape}: give one middle and "
                "one size each"
            )

    def __len__(self) -> int:
        return len(self.up_deg)

    def __getitem__(self, which: Int[NDArray[np.int64], " chosen"]) -> ReceptiveFields:
        """Return some of them, in the given order."""
        return ReceptiveFields(self.up_deg[which], self.right_deg[which], self.size_deg[which])

    @classmethod
    def candidates(cls, reach_deg: float, step_deg: float, sizes_deg: tuple[float, ...]) -> ReceptiveFields:
        """Return fields on a square lattice inside a disc about fixation, each in every size.

        Parameters
        ----------
        reach_deg
            Radius of the disc [°].
        step_deg
            Distance of neighbouring middles [°].
        sizes_deg
            Standard deviations [°].

        Raises
        ------
        ConfigError
            If a length is not above 0, or there is no size.

        """
        if reach_deg <= 0 or step_deg <= 0 or not sizes_deg or min(sizes_deg) <= 0:
            raise ConfigError(
                f"reach {reach_deg:g}°, step {step_deg:g}° and sizes {sizes_deg}: receptive fields need lengths above 0"
            )
        n = int(reach_deg / step_deg + 1e-9)  # 0.3 / 0.1 is a little below 3
        at = step_deg * np.arange(-n, n + 1)
        up, right, size = (a.ravel() for a in np.meshgrid(at, at, np.array(sizes_deg), indexing="ij"))
        inside = np.hypot(up, right) <= reach_deg + 1e-9
        return cls(up[inside], right[inside], size[inside])

    @property
    def eccentricity_deg(self) -> Float[Values, " field"]:
        """Distance of each middle from fixation [°]."""
        return np.hypot(self.up_deg, self.right_deg)

    def distance_deg(self, other: ReceptiveFields) -> Float[Values, " field"]:
        """Return how far each middle lies from that of another [°]."""
        return np.hypot(self.up_deg - other.up_deg, self.right_deg - other.right_deg)

    def over(self, places_deg: Float[Values, "token 2"]) -> Float[Values, "field token"]:
        """Return each field's weights of some places, which sum to 1.

        Parameters
        ----------
        places_deg
            Each place, (up, right) of fixation [°]: the middles of a site's cells.

        Raises
        ------
        ShapeError
            If places are not given as (up, right).

        """
        if places_deg.ndim != 2 or places_deg.shape[1] != 2:
            raise ShapeError(f"places of shape {places_deg.shape}: give (up, right) in degrees for each")
        apart = np.square(places_deg[None, :, 0] - self.up_deg[:, None])
        apart += np.square(places_deg[None, :, 1] - self.right_deg[:, None])
        exponent = -apart / (2 * np.square(self.size_deg)[:, None])
        # the largest first: a field far smaller than a cell still sees the cell that is nearest
        seen = np.exp(exponent - exponent.max(1, keepdims=True))
        weights: Values = seen / seen.sum(1, keepdims=True)
        return weights
