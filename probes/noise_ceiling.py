"""How well responses can be predicted at all: signal and noise, told apart by what repeats share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ShapeError

Values = NDArray[np.float64]


@dataclass(frozen=True)
class NoiseCeiling:
    """Signal and noise of each voxel.

    Parameters
    ----------
    signal_variance
        Variance over stimuli of what a stimulus causes; 0 where the repeats share nothing.
    noise_variance
        Variance of a single trial about that.
    repeats
        Trials behind each mean response that is predicted.

    """

    signal_variance: Float[Values, " voxel"]
    noise_variance: Float[Values, " voxel"]
    repeats: int

    @property
    def of_trial(self) -> Float[Values, " voxel"]:
        """Share of a single trial's variance that the stimulus explains; 0 for a voxel that never varies."""
        return _share(self.signal_variance, self.noise_variance)

    @property
    def of_mean(self) -> Float[Values, " voxel"]:
        """The same of the mean over repeats: the largest R² that any model can reach."""
        return _share(self.signal_variance, self.noise_variance / self.repeats)

    @property
    def correlation(self) -> Float[Values, " voxel"]:
        """The largest correlation of a prediction with the mean over repeats."""
        return np.sqrt(self.of_mean)


def noise_ceiling(responses: Float[NDArray[np.floating], "image repeat voxel"]) -> NoiseCeiling:
    r"""Tell signal from noise by repeats of the same stimuli.

    Parameters
    ----------
    responses
        Stimulus × repeat × voxel, in any unit; at least two of each.

    Returns
    -------
    NoiseCeiling
        Noise is the mean over stimuli of the variance over repeats; signal is what the means over repeats vary beyond a
        share of that, at least 0 [1]_.

    Raises
    ------
    ShapeError
        If there are fewer than two stimuli or repeats, or a response is missing.

    Notes
    -----
    :math:`\hat\sigma^2_s = \max(0, \operatorname{var}_i \bar r_i - \hat\sigma^2_n / R)` for R repeats. The estimate is that of
    a one-way analysis of variance.

    References
    ----------
    .. [1] Allen et al. A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence. Nature
       Neuroscience 2022, Methods: noise ceiling.

    """
    r = np.asarray(responses, dtype=np.float64)
    if r.ndim != 3 or min(r.shape[:2]) < 2:
        raise ShapeError(
            f"responses of shape {r.shape}: a noise ceiling needs stimulus × repeat × voxel, at least two stimuli and two "
            "repeats"
        )
    if np.isnan(r).any():
        raise ShapeError(f"{int(np.isnan(r).sum())} responses are missing (NaN): leave out stimuli without all repeats")
    noise = r.var(1, ddof=1).mean(0)
    signal = np.maximum(r.mean(1).var(0, ddof=1) - noise / r.shape[1], 0)
    return NoiseCeiling(signal, noise, r.shape[1])


def _share(signal: Values, noise: Values) -> Values:
    whole = signal + noise
    found: Values = np.divide(signal, whole, out=np.zeros_like(signal), where=whole > 0)
    return found
