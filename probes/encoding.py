r"""Encoding models: predict every voxel's response from a network's maps, seen through a receptive field of its own.

A voxel's response is modelled as :math:`r = b + \sum_k w_k \sum_p g(p; \mu, \sigma)\, \phi_k(p)`: what the channels
:math:`\phi_k` of some sites show through a Gaussian receptive field, weighted linearly [1]_ [2]_. Field and penalty are chosen
per voxel by cross-validation over whole groups of stimuli, the weights by ridge regression.

References
----------
.. [1] St-Yves, Naselaris. The feature-weighted receptive field: an interpretable encoding model for complex feature spaces.
   NeuroImage 2018.
.. [2] Naselaris, Kay, Nishimoto, Gallant. Encoding and decoding in fMRI. NeuroImage 2011.

"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mechinterp.errors import ShapeError
from mechinterp.progress import SILENT, Progress
from probes.folds import Folds
from probes.receptive_fields import ReceptiveFields
from probes.ridge import ridge_path

Values = NDArray[np.float64]
Maps = Mapping[str, Float[NDArray[np.float32], "image token width"]]
Places = Mapping[str, Float[Values, "token 2"]]

PENALTIES: tuple[float, ...] = tuple(float(a) for a in np.logspace(0, 5, 6))
"""Tried for standardised channels."""

_FIELDS_AT_ONCE = 16
"""Looked through in one product: memory grows with it."""


@dataclass(frozen=True)
class EncodingModel:
    """What predicts some voxels.

    Parameters
    ----------
    places
        For each site it reads, in order, where the tokens lie: (up, right) of fixation [°].
    widths
        Channels of each site.
    fields
        Each voxel's receptive field.
    weights
        What one unit of each channel, site after site, adds to each voxel's response.
    intercept
        Of each voxel.
    penalty, score
        Chosen for each voxel, and the cross-validated R² by which they and the field were chosen: the best of many, so too
        good to be reported.

    """

    places: Places
    widths: tuple[int, ...]
    fields: ReceptiveFields
    weights: Float[Values, "channel voxel"]
    intercept: Float[Values, " voxel"]
    penalty: Float[Values, " voxel"]
    score: Float[Values, " voxel"]

    def predict(self, maps: Maps) -> Float[Values, "image voxel"]:
        """Predict the responses to some stimuli.

        Raises
        ------
        ShapeError
            If the maps are not those of the sites that it reads.

        """
        check_maps(maps, self.places)
        table = np.stack([self.fields.up_deg, self.fields.right_deg, self.fields.size_deg], axis=1)
        _, first, which = np.unique(table, axis=0, return_index=True, return_inverse=True)
        predicted = np.tile(self.intercept, (len(maps[next(iter(self.places))]), 1))
        for start in range(0, len(first), _FIELDS_AT_ONCE):
            block = first[start : start + _FIELDS_AT_ONCE]
            for k, seen in enumerate(seen_through(maps, self.places, self.fields[block]), start):
                voxels = np.flatnonzero(which.reshape(-1) == k)
                predicted[:, voxels] += seen @ self.weights[:, voxels]
        return predicted

    def of(self, voxels: Int[NDArray[np.int64], " chosen"]) -> EncodingModel:
        """Return the model of some of the voxels."""
        return EncodingModel(
            self.places, self.widths, self.fields[voxels], self.weights[:, voxels], self.intercept[voxels],
            self.penalty[voxels], self.score[voxels],
        )  # fmt: skip

    def region_map(self, voxels: Int[NDArray[np.int64], " chosen"]) -> dict[str, Float[Values, "token width"]]:
        """Return, for each site, what one unit of a channel at a token adds to the mean response of some voxels."""
        found, start = {}, 0
        for (site, places), width in zip(self.places.items(), self.widths, strict=True):
            of_channel = self.weights[start : start + width, voxels]
            found[site] = self.fields[voxels].over(places).T @ of_channel.T / len(voxels)
            start += width
        return found


def fit_encoding(
    maps: Maps,
    places: Places,
    responses: Float[Values, "image voxel"],
    candidates: ReceptiveFields,
    folds: Folds,
    *,
    penalties: tuple[float, ...] = PENALTIES,
    progress: Progress = SILENT,
) -> EncodingModel:
    """Fit a receptive field and channel weights to every voxel.

    Parameters
    ----------
    maps
        For each site, what the stimuli do there: image × token × width, float32.
    places
        For each site, where its tokens lie: (up, right) of fixation [°].
    responses
        Image × voxel, for example means over repeats.
    candidates
        Receptive fields to choose from.
    folds
        Of the images, whole groups together: every field and penalty is judged on stimuli that it was not fitted to.
    penalties
        To choose from; channels are standardised first.
    progress
        Told of the candidates, some at a time.

    Returns
    -------
    EncodingModel
        Fitted to all the images, with each voxel's best field and penalty.

    Raises
    ------
    ShapeError
        If maps, places, responses and folds are not of the same images and tokens.

    """
    check_maps(maps, places)
    n = len(maps[next(iter(places))])
    y = np.asarray(responses, dtype=np.float64)
    if y.ndim != 2 or len(y) != n or len(folds.fold) != n:
        raise ShapeError(
            f"maps of {n} images, responses of shape {y.shape}, folds of {len(folds.fold)}: give all of the same"
        )
    if not np.isfinite(y).all():
        raise ShapeError(
            f"{int((~np.isfinite(y)).sum())} responses are missing (NaN): leave out stimuli that were not shown to all"
        )
    least, field, penalty = np.full(y.shape[1], np.inf), np.zeros(y.shape[1], int), np.zeros(y.shape[1], int)
    starts = range(0, len(candidates), _FIELDS_AT_ONCE)
    for start in progress.track(starts, "receptive fields", total=len(starts)):
        block = np.arange(start, min(start + _FIELDS_AT_ONCE, len(candidates)))
        for k, seen in zip(block, seen_through(maps, places, candidates[block]), strict=True):
            error = _errors(seen, y, folds, penalties)
            best = error.argmin(0)
            lower = error[best, np.arange(len(best))]
            better = lower < least
            least[better], field[better], penalty[better] = lower[better], k, best[better]
    baseline = _errors(np.zeros((n, 1)), y, folds, penalties[:1])[0]
    score = 1 - np.divide(least, baseline, out=np.ones_like(least), where=baseline > 0)
    widths = tuple(maps[site].shape[2] for site in places)
    chosen = np.asarray(penalties)[penalty]
    weights, intercept = np.zeros((sum(widths), y.shape[1])), np.zeros(y.shape[1])
    for k in np.unique(field):
        mine = np.flatnonzero(field == k)
        x = seen_through(maps, places, candidates[np.array([k])])[0]
        weights[:, mine], intercept[mine] = _solved(x, y[:, mine], chosen[mine])
    return EncodingModel(dict(places), widths, candidates[field], weights, intercept, chosen, score)


def seen_through(maps: Maps, places: Places, fields: ReceptiveFields) -> Float[Values, "field image channel"]:
    """Return what each of some receptive fields shows of every channel of every site, site after site."""
    parts = [np.matmul(fields.over(at).astype(np.float32), maps[site]) for site, at in places.items()]
    return np.concatenate(parts, axis=2).transpose(1, 0, 2).astype(np.float64)


def check_maps(maps: Maps, places: Places) -> None:
    """Check that maps are of the sites whose tokens' places are known, all of the same images.

    Raises
    ------
    ShapeError
        If they are not.

    """
    counts = {len(maps[site]) for site in places if site in maps}
    for site, at in places.items():
        if site not in maps:
            raise ShapeError(f"no map of site '{site}': the encoding model reads {', '.join(places)}")
        if maps[site].ndim != 3 or maps[site].shape[1] != len(at):
            raise ShapeError(
                f"the map of site '{site}' has shape {maps[site].shape}: give image × {len(at)} tokens × width"
            )
    if len(counts) != 1:
        raise ShapeError(f"maps of {sorted(counts)} images: give all sites of the same images")


def _errors(x: Values, y: Values, folds: Folds, penalties: tuple[float, ...]) -> Float[Values, "penalty voxel"]:
    """Return the squared error of every voxel on held-out folds, under every penalty."""
    error = np.zeros((len(penalties), y.shape[1]))
    for k in range(folds.n):
        train, test = folds.split(k)
        error += np.square(ridge_path(x[train], y[train], x[test], penalties) - y[test]).sum(1)
    return error


def _solved(x: Values, y: Values, penalty: Values) -> tuple[Float[Values, "channel voxel"], Values]:
    """Return weights in the channels' own scale, and intercepts."""
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-12 * np.maximum(np.abs(mean), 1), scale, np.inf)
    z, centre = (x - mean) / scale, y.mean(0)
    values, vectors = np.linalg.eigh(z.T @ z)
    right = vectors.T @ (z.T @ (y - centre))
    weights = vectors @ (right / (np.maximum(values, 0)[:, None] + penalty)) / scale[:, None]
    return weights, centre - mean @ weights
