r"""Encoding models: predict every voxel's response from a network's maps, seen through a receptive field of its own.

A voxel's response is modelled as :math:`r = b + \sum_k w_k \sum_p g(p; \mu, \sigma)\, \phi_k(p)`: what the channels
:math:`\phi_k` of some sites show through a Gaussian receptive field, weighted linearly [1]_ [2]_. The weights come from ridge
regression; the field is the mean over candidates, each as probable as the evidence of the responses says
(:mod:`probes.encoding_evidence`), since many fields predict a voxel nearly alike.

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
from probes.encoding_evidence import log_evidence, probable_fields
from probes.receptive_fields import ReceptiveFields

Values = NDArray[np.float64]
Maps = Mapping[str, Float[NDArray[np.float32], "image token width"]]
Places = Mapping[str, Float[Values, "token 2"]]

PENALTIES: tuple[float, ...] = tuple(float(a) for a in np.logspace(0, 5, 6))
"""Tried for channels of deviation 1."""

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
    penalty
        Of each voxel: that of the largest evidence, for scaled channels.
    spread_deg
        How far each field's middle may lie from where it was found: root mean square over probable fields [°].

    """

    places: Places
    widths: tuple[int, ...]
    fields: ReceptiveFields
    weights: Float[Values, "channel voxel"]
    intercept: Float[Values, " voxel"]
    penalty: Float[Values, " voxel"]
    spread_deg: Float[Values, " voxel"]

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
            self.penalty[voxels], self.spread_deg[voxels],
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
        Image × voxel, for example means over repeats. Their noise is taken to be independent from stimulus to stimulus.
    candidates
        Receptive fields, all equally probable beforehand; the field found lies among them or between.
    penalties
        To choose from. Channels are scaled by their deviation over stimuli, the mean over candidates.
    progress
        Told of the candidates, some at a time.

    Returns
    -------
    EncodingModel
        Fitted to all the images. Its own fit to them says nothing of how well it predicts others.

    Raises
    ------
    ShapeError
        If maps, places and responses are not of the same images and tokens.

    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    check_maps(maps, places)
    n = len(maps[next(iter(places))])
    y = np.asarray(responses, dtype=np.float64)
    if y.ndim != 2 or len(y) != n:
        raise ShapeError(f"maps of {n} images, responses of shape {y.shape}: give both of the same")
    if not np.isfinite(y).all():
        raise ShapeError(
            f"{int((~np.isfinite(y)).sum())} responses are missing (NaN): leave out stimuli that were not shown to all"
        )
    scale, tried = _scale(maps, places, candidates), np.asarray(penalties, dtype=np.float64)
    # over many small products threads only wait for each other
    with threadpool_limits(1, user_api="blas"):
        evidence = np.empty((len(candidates), y.shape[1]))
        starts = range(0, len(candidates), _FIELDS_AT_ONCE)
        for start in progress.track(starts, "receptive fields", total=len(starts)):
            block = np.arange(start, min(start + _FIELDS_AT_ONCE, len(candidates)))
            for k, seen in zip(block, seen_through(maps, places, candidates[block]), strict=True):
                evidence[k] = np.logaddexp.reduce(log_evidence(seen / scale, y, tried), axis=0)
        fields, spread = probable_fields(candidates, evidence)
        weights, intercept, chosen = np.zeros((len(scale), y.shape[1])), np.zeros(y.shape[1]), np.zeros(y.shape[1])
        for start in range(0, y.shape[1], _FIELDS_AT_ONCE):
            voxels = np.arange(start, min(start + _FIELDS_AT_ONCE, y.shape[1]))
            for v, seen in zip(voxels, seen_through(maps, places, fields[voxels]), strict=True):
                weights[:, v], intercept[v], chosen[v] = _solved(seen, scale, y[:, v], tried)
    widths = tuple(maps[site].shape[2] for site in places)
    return EncodingModel(dict(places), widths, fields, weights, intercept, chosen, spread)


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


def _scale(maps: Maps, places: Places, candidates: ReceptiveFields) -> Float[Values, " channel"]:
    """Return each channel's deviation over stimuli through some of the candidates; infinite where it never varies."""
    some = candidates[np.unique(np.linspace(0, len(candidates) - 1, _FIELDS_AT_ONCE).round().astype(np.int64))]
    seen = seen_through(maps, places, some)
    spread = seen.std(1).mean(0)
    # float32 maps: what is left of a constant is rounding
    return np.where(spread > 1e-6 * np.maximum(np.abs(seen).max((0, 1)), 1e-300), spread, np.inf)


def _solved(
    x: Values, scale: Float[Values, " channel"], y: Float[Values, " image"], penalties: Float[Values, " penalty"]
) -> tuple[Float[Values, " channel"], float, float]:
    """Return weights in the channels' own scale, the intercept, and the penalty of the largest evidence."""
    chosen = float(penalties[log_evidence(x / scale, y[:, None], penalties)[:, 0].argmax()])
    mean = x.mean(0)
    z = (x - mean) / scale
    weights = np.linalg.solve(z.T @ z + chosen * np.eye(len(scale)), z.T @ (y - y.mean())) / scale
    return weights, float(y.mean() - mean @ weights), chosen
