"""Explained variance of a reconstruction, accumulated over batches."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mechinterp.errors import ShapeError


@dataclass
class ExplainedVariance:
    r"""Share of a site's variance that a reconstruction explains, over any number of batches.

    .. math:: 1 - \frac{\sum_n \lVert x_n - \hat x_n \rVert^2}{\sum_n \lVert x_n - \bar x \rVert^2}

    with :math:`\bar x` the mean over *all* rows seen, so the value does not depend on how the rows were split into batches.
    1 is perfect, 0 is no better than always answering the mean of these rows, below 0 is worse.

    Parameters
    ----------
    rows
        Rows seen.
    squared_error
        Sum of their squared errors.

    Notes
    -----
    Sums are kept in float64: in float32 they lose the third decimal after about 10⁷ rows. The variance is Chan's pairwise
    update [1]_, exact under any split.

    References
    ----------
    .. [1] Chan, Golub, LeVeque. Updating formulae and a pairwise algorithm for computing sample variances. 1982.

    """

    rows: int = 0
    squared_error: float = 0.0
    _mean: Tensor | None = None
    _scatter: float = 0.0

    def update(self, x: Float[Tensor, "row width"], x_hat: Float[Tensor, "row width"]) -> None:
        """Add one batch.

        Parameters
        ----------
        x, x_hat
            Activations and their reconstruction, in the site's own scale.

        Raises
        ------
        ShapeError
            If the two shapes differ.

        """
        if x.shape != x_hat.shape:
            raise ShapeError(
                f"reconstruction has shape {tuple(x_hat.shape)}, activations {tuple(x.shape)}: "
                "decode with the encoder that was made for this site"
            )
        if len(x) == 0:
            return
        x = x.double()
        n, mean = len(x), x.mean(0)
        before = mean if self._mean is None else self._mean
        shift, total = mean - before, self.rows + n
        self._scatter += float((x - mean).square().sum() + shift.square().sum() * self.rows * n / total)
        self._mean = before + shift * (n / total)
        self.squared_error += float((x - x_hat.double()).square().sum())
        self.rows = total

    def compute(self) -> float:
        """Return the explained variance; ``nan`` when the rows seen do not vary."""
        return 1.0 - self.squared_error / self._scatter if self._scatter > 0 else float("nan")
