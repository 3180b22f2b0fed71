"""Exact effect of every feature alone on every logit, by intervention, error node kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from circuits.ablations import Ablation, Source, draw, mean, resample, zero
from circuits.off_data import DataSpread
from circuits.running import RunsFromSite, logits_in_batches, slices
from mechinterp.errors import ConfigError, ShapeError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.objectives import Objective
from mechinterp.progress import SILENT, Progress


@dataclass(frozen=True, eq=False)
class FeatureEffects:
    """What changing each feature alone does to each logit of each image.

    Parameters
    ----------
    ablations
        What was put in place.
    features
        Which features of the encoder.
    logits
        Per ablation: the unchanged logits of the images it changes.
    effects
        Per ablation: changed minus unchanged logit, averaged over its draws.
    norms
        Per ablation: Frobenius norm of the activation's change over all tokens, averaged over its draws, in the site's
        scale.
    off_data
        Per ablation and feature: mean Mahalanobis distance of the changed images' tokens divided by that of the unchanged
        ones, over the images in which the feature changes anything; NaN where it changes nothing.

    """

    ablations: tuple[Ablation, ...]
    features: Int[NDArray[np.int64], " feature"]
    logits: Mapping[str, Float[NDArray[np.float32], "image class"]]
    effects: Mapping[str, Float[NDArray[np.float32], "image feature class"]]
    norms: Mapping[str, Float[NDArray[np.float32], "image feature"]]
    off_data: Mapping[str, Float[NDArray[np.float64], " feature"]]

    def on(self, objective: Objective, ablation: str) -> Float[NDArray[np.float32], "image feature"]:
        """Return the effect on an objective: of the changed logits (mean over draws), minus of the unchanged ones."""
        before = torch.from_numpy(self.logits[ablation])
        after = before[:, None] + torch.from_numpy(self.effects[ablation])
        result: NDArray[np.float32] = (objective(after) - objective(before)[:, None]).numpy()
        return result


def feature_effects(
    run: RunsFromSite,
    encoder: FeatureEncoder,
    acts_bnd: Float[Tensor, "image token width"],
    reference_bnd: Float[Tensor, "reference token width"],
    ablations: Sequence[Ablation] | None = None,
    *,
    features: Sequence[int] | NDArray[np.int64] | None = None,
    batch: int = 32,
    seed: int = 0,
    x: Float[Tensor, "image channel height width"] | None = None,
    x_reference: Float[Tensor, "reference channel height width"] | None = None,
    spread: DataSpread | None = None,
    progress: Progress = SILENT,
) -> FeatureEffects:
    """Change every feature alone, in every image, and measure what that does to every logit.

    A change of a feature's code from ``z`` to ``z'`` changes the activation by ``(z' - z) × direction`` and nothing else, so
    what the encoder does not reconstruct stays. Only pairs of image and feature where a code really changes are run: the
    others' effect is exactly 0. Memory is bounded by `batch` activations and one image's codes.

    Parameters
    ----------
    run
        The model after the site, for example :class:`mechinterp.tails.Tail`.
    encoder
        Features of the site.
    acts_bnd
        Activations of the images to be explained.
    reference_bnd
        Activations of the reference images: what the ablations put in place comes from them; ablations of the opposite
        direction change these, with values of the others.
    ablations
        What is put in place; zero, mean and resample by default.
    features
        Which features; all by default.
    batch
        How many changed activations are run at once.
    seed
        Of the draws.
    x, x_reference
        The prepared images, needed only where something bypasses the site.
    spread
        Where activations usually lie; fitted on `acts_bnd` and `reference_bnd` by default.
    progress
        Told about every image.

    Raises
    ------
    ConfigError, ShapeError
        If a feature does not exist, or the two sets of activations differ in shape.

    """
    chosen = _check(encoder, acts_bnd, reference_bnd, features, batch)
    ablations = tuple(ablations) if ablations is not None else (zero(), mean(), resample())
    logits: dict[str, NDArray[np.float32]] = {}
    effects: dict[str, NDArray[np.float32]] = {}
    norms: dict[str, NDArray[np.float32]] = {}
    off_data: dict[str, NDArray[np.float64]] = {}
    with torch.inference_mode():
        spread = spread or DataSpread.fit(torch.cat([acts_bnd, reference_bnd]))
        for ablation in ablations:
            changed, source = (reference_bnd, acts_bnd) if ablation.opposite else (acts_bnd, reference_bnd)
            images = x_reference if ablation.opposite else x
            one = _OneAblation(run, encoder, Source(encoder, source), ablation, chosen, batch, spread)
            picks = draw(ablation, len(changed), len(source), seed)
            before = logits_in_batches(run, changed, batch, images)
            rows = [
                one.image(changed[i], before[i], picks[i], None if images is None else images[i])
                for i in progress.track(
                    range(len(changed)), f"effects of single features, {ablation.name}", len(changed)
                )
            ]
            logits[ablation.name] = before.cpu().numpy()
            effects[ablation.name] = torch.stack([r[0] for r in rows]).cpu().numpy()
            norms[ablation.name] = torch.stack([r[1] for r in rows]).cpu().numpy()
            off_data[ablation.name] = _mean_where_changed(torch.stack([r[2] for r in rows]), norms[ablation.name])
    return FeatureEffects(ablations, chosen, logits, effects, norms, off_data)


@dataclass(eq=False)
class _OneAblation:
    """Single-feature effects under one ablation, one image at a time, in one reused buffer."""

    run: RunsFromSite
    encoder: FeatureEncoder
    source: Source
    ablation: Ablation
    features: NDArray[np.int64]
    batch: int
    spread: DataSpread

    def __post_init__(self) -> None:
        acts = self.source.acts_bnd
        self.index = torch.from_numpy(self.features).to(acts.device)
        self.directions = self.encoder.directions.detach().to(acts)[self.index]
        self.lengths = self.directions.norm(dim=1)
        self.curvatures = self.spread.curvatures(self.directions)
        self.buffer = acts.new_empty(self.batch, *acts.shape[1:])

    def image(
        self, acts_nd: Tensor, before: Tensor, picks: NDArray[np.int64], x: Tensor | None
    ) -> tuple[Float[Tensor, "feature class"], Float[Tensor, " feature"], Float[Tensor, " feature"]]:
        """Return effects on logits, norms and off-data ratios of all features in one image, averaged over draws."""
        codes = self.encoder.encode(acts_nd)
        effects = before.new_zeros(len(self.features), len(before))
        norms = acts_nd.new_zeros(len(self.features))
        ratios = acts_nd.new_zeros(len(self.features))
        for replaced in self.source.replacements(self.ablation, picks, codes):
            change = (replaced - codes)[:, self.index]
            norms += change.norm(dim=0) * self.lengths
            ratios += self.spread.single_ratios(acts_nd, change, self.directions, self.curvatures)
            live = change.any(0).nonzero()[:, 0]
            for part in slices(len(live), self.batch):
                some = live[part]
                effects[some] += self._logits(acts_nd, change[:, some], self.directions[some], x) - before
        draws = len(picks) if self.ablation.puts == "image" else 1
        return effects / draws, norms / draws, ratios / draws

    def _logits(self, acts_nd: Tensor, change_nf: Tensor, directions: Tensor, x: Tensor | None) -> Tensor:
        # one rank-1 update per feature, written where it is needed: fresh memory for every batch costs more than the sum
        out = self.buffer[: change_nf.shape[1]]
        torch.addcmul(acts_nd[None], change_nf.T[:, :, None], directions[:, None, :], out=out)
        return self.run.logits(out, None if x is None else x.expand(len(out), *x.shape))


def _mean_where_changed(ratios: Tensor, norms: NDArray[np.float32]) -> NDArray[np.float64]:
    values, live = ratios.double().cpu().numpy(), norms > 0
    count = live.sum(0)
    total = np.where(live, values, 0).sum(0)
    result: NDArray[np.float64] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return result


def _check(
    encoder: FeatureEncoder,
    acts_bnd: Tensor,
    reference_bnd: Tensor,
    features: Sequence[int] | NDArray[np.int64] | None,
    batch: int,
) -> NDArray[np.int64]:
    if acts_bnd.shape[1:] != reference_bnd.shape[1:] or acts_bnd.dim() != 3:
        raise ShapeError(
            f"activations have shape {tuple(acts_bnd.shape)}, those of the reference images {tuple(reference_bnd.shape)}: "
            "capture both at the same site, as (image, token, width)"
        )
    if batch < 1:
        raise ConfigError(f"batch is {batch}: it must be at least 1")
    chosen = np.arange(encoder.width) if features is None else np.asarray(features, dtype=np.int64)
    wrong = chosen[(chosen < 0) | (chosen >= encoder.width)]
    if len(wrong):
        raise ConfigError(f"there is no feature {int(wrong[0])}: the encoder has 0 to {encoder.width - 1}")
    return chosen
