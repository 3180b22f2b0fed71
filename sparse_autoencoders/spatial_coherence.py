"""Spatial coherence of a feature's maps: whether it lights up regions or scattered cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ShapeError


class SpatialCoherence:
    r"""Moran's I of every feature's maps, over any number of images.

    .. math:: I = \frac{N}{W}\, \frac{\sum_{(i,j)} (z_i - \bar z)(z_j - \bar z)}{\sum_i (z_i - \bar z)^2}

    over pairs of cells that share a side (W of them) and all N cells, with the mean of each image's map; numerator and
    denominator are summed over images, so maps weigh by how much they vary. Near 1 for regions, 0 for scatter
    (:math:`-1 / (N - 1)` exactly, in the mean over random arrangements), −1 for a chessboard.

    Parameters
    ----------
    shape
        Cells along each axis: (rows, columns), or (depth, rows, columns), as :attr:`TokenGrid.shape`.
    prefix_tokens
        Leading tokens without a place, left out.

    Raises
    ------
    ShapeError
        If the grid has no two cells side by side.

    References
    ----------
    Moran. Notes on continuous stochastic phenomena. Biometrika 37, 1950.

    """

    def __init__(self, shape: Sequence[int], prefix_tokens: int = 0) -> None:
        self.shape, self.prefix_tokens = tuple(shape), prefix_tokens
        self.cells = int(np.prod(self.shape))
        self.pairs = sum(self.cells // n * (n - 1) for n in self.shape)
        if self.pairs == 0:
            raise ShapeError(
                f"a grid of {' × '.join(map(str, self.shape))} has no two cells side by side: no coherence"
            )
        self._products: Tensor | None = None
        self._squares: Tensor | None = None

    @property
    def chance(self) -> float:
        """The mean over random arrangements of a map's values."""
        return -1 / (self.cells - 1)

    def update(self, codes_btf: Float[Tensor, "image token feature"]) -> None:
        """Add the maps of some images.

        Raises
        ------
        ShapeError
            If they do not have the grid's number of tokens.

        """
        n, tokens, width = codes_btf.shape
        if tokens != self.cells + self.prefix_tokens:
            raise ShapeError(
                f"codes of {tokens} tokens for a grid of {self.cells} cells and {self.prefix_tokens} prefix tokens: give those "
                "of one site, all tokens stored"
            )
        maps = codes_btf[:, self.prefix_tokens :]
        centred = (maps - maps.mean(1, keepdim=True)).reshape(n, *self.shape, width)
        products = torch.zeros(width, dtype=torch.float64)
        for axis, length in enumerate(self.shape, start=1):
            beside = centred.narrow(axis, 0, length - 1) * centred.narrow(axis, 1, length - 1)
            products += beside.flatten(0, -2).sum(0).double()
        squares = centred.square().flatten(0, -2).sum(0).double()
        self._products = products if self._products is None else self._products + products
        self._squares = squares if self._squares is None else self._squares + squares

    def compute(self) -> Float[NDArray[np.float64], " feature"]:
        """Return the coherence of every feature; NaN where its maps do not vary."""
        if self._products is None or self._squares is None:
            return np.empty(0)
        products, squares = self._products.numpy(), self._squares.numpy()
        ratio = np.divide(products, squares, out=np.full(len(squares), np.nan), where=squares > 0)
        return np.asarray(ratio * self.cells / self.pairs)
