"""A rendered image with everything that is known about it, and its counterfactuals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from mechinterp.errors import ImagesError, nearest
from mechinterp.phantoms.quantities import EVERYWHERE, check_name, quantities
from mechinterp.phantoms.random_streams import Identity
from mechinterp.phantoms.view import View

P = TypeVar("P")


@dataclass(frozen=True)
class PhantomImage(Generic[P]):
    """An image and its ground truth.

    Parameters
    ----------
    pixels
        Height × width, or height × width × 3, float32, 0 to 1.
    spacing_mm
        Millimetres per pixel, (row, column).
    coverage
        For every structure the share of each pixel that it covers, float32, 0 to 1.
    parameters
        What it was rendered from.
    identity
        What its randomness is keyed by.
    landmarks_mm
        Named points of the anatomy, (row, column) in mm.
    view
        From the anatomy to the pixels.
    reach_px
        How far beyond a structure's mask it can change pixels: blur and anti-aliasing.
    render
        Renders other parameters with the same identity and size.

    """

    pixels: Float[NDArray[np.float32], "height width *channel"]
    spacing_mm: tuple[float, float]
    coverage: Mapping[str, Float[NDArray[np.float32], "height width"]]
    parameters: P
    identity: Identity
    landmarks_mm: Mapping[str, tuple[float, float]]
    view: View
    reach_px: int
    render: Callable[[P, Identity], PhantomImage[P]]

    def mask(self, structure: str) -> Bool[NDArray[np.bool_], "height width"]:
        """Return the pixels of which the structure covers at least half.

        Raises
        ------
        ImagesError
            If the phantom has no such structure.

        """
        mask: NDArray[np.bool_] = self._covered(structure) >= 0.5
        return mask

    def area_mm2(self, structure: str) -> float:
        """Return a structure's visible area in mm², from its coverage."""
        return float(self._covered(structure).sum(dtype=np.float64)) * self.spacing_mm[0] * self.spacing_mm[1]

    def landmark_px(self, name: str) -> tuple[float, float]:
        """Return where a landmark lies in the image, (row, column), pixel ``i`` covering ``[i, i + 1)``."""
        if name not in self.landmarks_mm:
            raise ImagesError(f"the phantom has no landmark '{name}': {nearest(name, self.landmarks_mm)}")
        row, column = self.view.to_pixels(np.asarray(self.landmarks_mm[name]))
        return float(row), float(column)

    def centroid_mm(self, structure: str) -> tuple[float, float] | None:
        """Return the middle of a structure in the anatomy, (row, column) in mm; ``None`` when it is not there."""
        covered = self._covered(structure).astype(np.float64)
        if covered.sum() == 0:
            return None
        row, column = np.einsum("hw,hwc->c", covered, self.view.grid_mm) / covered.sum()
        return float(row), float(column)

    def counterfactual(self, **changes: Any) -> PhantomImage[P]:
        """Return the same image with some parameters changed and everything else, noise included, held fixed.

        Raises
        ------
        ConfigError
            If a parameter does not exist or its value cannot be rendered.

        """
        for name in changes:
            check_name(self.parameters, name)
        return self.render(replace(self.parameters, **changes), self.identity)  # type: ignore[type-var]

    def may_differ(self, other: PhantomImage[P], *names: str) -> Bool[NDArray[np.bool_], "height width"]:
        """Return where a change of these parameters can have changed pixels.

        Parameters
        ----------
        other
            The counterfactual.
        *names
            What was changed.

        Returns
        -------
        ndarray
            The union of both images' masks of the structures that the parameters touch, dilated by `reach_px`.

        """
        from scipy.ndimage import binary_dilation

        declared = quantities(self.parameters)
        union = np.zeros(self.pixels.shape[:2], dtype=bool)
        for name in names:
            check_name(self.parameters, name)
            for structure in declared[name].structures:
                if structure == EVERYWHERE:
                    return np.ones_like(union)
                union |= (self.coverage[structure] > 0) | (other.coverage[structure] > 0)
        reach = max(self.reach_px, other.reach_px)
        dilated: NDArray[np.bool_] = binary_dilation(union, np.ones((2 * reach + 1, 2 * reach + 1)))
        return dilated

    def _covered(self, structure: str) -> NDArray[np.float32]:
        if structure not in self.coverage:
            raise ImagesError(f"the phantom has no structure '{structure}': {nearest(structure, self.coverage)}")
        return self.coverage[structure]
