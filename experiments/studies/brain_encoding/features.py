"""Which features of the network drive a region's prediction: chosen on stimuli explored, by where the prediction varies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from experiments.studies.brain_encoding.bench import Edit, EncodingBench
from experiments.studies.brain_encoding.fits import Explored, called_in
from mechinterp.capturing import run_with_cache
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.interventions import intervene, replace_by_features
from mechinterp.store.reader import ActivationStore
from sparse_autoencoders import SparseAutoencoder, TrainSAEConfig, random_sae, train_saes

N_FEATURES = 30
_OTHER_SEED = 1000
_MOST_STIMULI, _BATCH = 256, 64


@dataclass(frozen=True)
class Driving:
    """The features that drive one region.

    Parameters
    ----------
    features
        Those with the largest share, largest first.
    share
        Of every feature: the part of the prediction's variance over stimuli that goes through it, to first order.
    codes
        Of every feature: its mean code over tokens of the stimuli explored, put in its place when it is taken away.
    norm
        Of every feature: length of what taking it away removes, root mean square over tokens.

    """

    features: Int[NDArray[np.int64], " chosen"]
    share: Float[NDArray[np.float64], " feature"]
    codes: Float[Tensor, " feature"]
    norm: Float[NDArray[np.float64], " feature"]


def trained_features(bench: EncodingBench, store: ActivationStore) -> SparseAutoencoder:
    """Train the autoencoder on the stimuli explored, or take a frozen-random one where that is planted."""
    config = bench.config
    if config.condition == "frozen-random-sae":
        return frozen_features(bench, store, config.seed)
    settings = TrainSAEConfig(k=config.k, expansion=config.expansion, epochs=config.sizes.epochs, seeds=(config.seed,))
    return train_saes(
        store, site=bench.feature_site, config=settings, images=np.arange(len(bench.experiment.explored)),
        out=bench.run.folder / "saes", progress=bench.progress,
    )[0]  # fmt: skip


def frozen_features(bench: EncodingBench, store: ActivationStore, seed: int | None = None) -> SparseAutoencoder:
    """Return an autoencoder of the same size that was never trained."""
    width = round(bench.config.expansion * store.width(bench.feature_site))
    chosen = bench.config.seed + _OTHER_SEED if seed is None else seed
    return random_sae(
        store, bench.feature_site, np.arange(len(bench.experiment.explored)), width, bench.config.k, chosen
    )


def driving(bench: EncodingBench, explored: Explored, encoder: FeatureEncoder) -> dict[str, Driving]:
    r"""Return the features that drive each region's mean prediction.

    To first order the prediction is a sum over features of :math:`\sum_t z_{tj}\, d_j \cdot \partial p / \partial a_t`; a
    feature's share is the covariance of its part with the whole over stimuli, over the whole's variance: the shares of all
    features, of what the autoencoder misses and of what does not pass this site sum to about one.
    """
    stimuli = bench.experiment.fit[:_MOST_STIMULI]
    x = bench.inputs(stimuli)
    regions = {r: v for r in bench.experiment.regions if len(v := called_in(bench, explored, r)) > 0}
    parts: dict[str, list[Tensor]] = {r: [] for r in regions}
    wholes: dict[str, list[Tensor]] = {r: [] for r in regions}
    total, squares, rows = torch.zeros(encoder.width), torch.zeros(encoder.width), 0
    weights = {r: _as_tensors(explored, v) for r, v in regions.items()}
    directions = encoder.directions.float()
    for at in range(0, len(x), _BATCH):
        for region, by_site in weights.items():
            whole, gradient, acts = _gradient(bench, x[at : at + _BATCH], by_site)
            codes = encoder.encode(acts)
            parts[region].append(((gradient @ directions.T) * codes).sum(1))
            wholes[region].append(whole)
        if weights:
            total += codes.sum((0, 1))
            squares += codes.square().sum((0, 1))
            rows += codes.shape[0] * codes.shape[1]
    mean = total / max(rows, 1)
    spread = (squares / max(rows, 1) - mean.square()).clamp(min=0).sqrt()
    norm = (spread * directions.norm(dim=1)).double().numpy()
    found = {}
    for region in regions:
        by_feature, prediction = (torch.cat(b).double().numpy() for b in (parts[region], wholes[region]))
        centred = prediction - prediction.mean()
        variance = float(np.square(centred).mean())
        share = (by_feature - by_feature.mean(0)).T @ centred / len(centred) / (variance if variance > 0 else np.inf)
        found[region] = Driving(np.argsort(-share, kind="stable")[:N_FEATURES], share, mean, norm)
    return found


def taken_away(
    encoder: FeatureEncoder,
    features: Int[NDArray[np.int64], " chosen"],
    codes: Float[Tensor, " feature"] | None,
    part: float = 1.0,
) -> Edit:
    """Return the edit that puts mean codes, or those of another stimulus of the batch, in place of some features' own.

    Parameters
    ----------
    encoder
        Whose features.
    features
        Which of them.
    codes
        Mean of every feature; ``None`` for those of another stimulus.
    part
        How much of the way the codes go.

    """
    chosen = torch.from_numpy(np.asarray(features, dtype=np.int64))

    def change(z: Tensor) -> Tensor:
        own = z[..., chosen]
        # every stimulus takes the codes of the one half a batch on
        other = torch.roll(own, max(1, len(z) // 2), 0) if codes is None else codes[chosen].to(z)
        z[..., chosen] = own + part * (other - own)
        return z

    return replace_by_features(encoder, change)


def moved_by(
    bench: EncodingBench, encoder: FeatureEncoder, features: NDArray[np.int64], codes: Float[Tensor, " feature"] | None
) -> float:
    """Return how far taking features away moves the site's activation: root mean square over tokens of stimuli explored."""
    x = bench.inputs(bench.experiment.fit[:_BATCH])
    with torch.inference_mode():
        acts = run_with_cache(bench.model, x, [bench.feature_site])[bench.feature_site]
        step = taken_away(encoder, features, codes)(acts.clone()) - acts
    return float(step.square().sum(-1).mean().sqrt())


def as_far(
    bench: EncodingBench, encoder: FeatureEncoder, driven: Driving, far: float, codes: Float[Tensor, " feature"] | None
) -> list[tuple[Int[NDArray[np.int64], " chosen"], float]]:
    """Return more and more of the best features, until they move the activation so far, and which part of the way they go.

    Their number doubles; the last go only part of the way, so that they move it just as far. None goes beyond what is put in its
    place: codes on the other side of their mean would turn the prediction round, which is more than taking them away. Where all
    features that are ever active do not reach, all of them go the whole way.
    """
    order = np.argsort(-driven.share, kind="stable")
    order = order[driven.norm[order] > 0]
    count, tried = min(N_FEATURES, len(order)), []
    while (reached := moved_by(bench, encoder, order[:count], codes)) < far and count < len(order):
        tried.append((order[:count], 1.0))
        count = min(2 * count, len(order))
    return [*tried, (order[:count], min(1.0, far / reached) if reached > 0 else 1.0)]


def matched_sets(driven: Driving, sets: int, random: np.random.Generator) -> list[Int[NDArray[np.int64], " chosen"]]:
    """Return random sets of as many other features, each as strong as the feature whose place it takes.

    Strong: by the length of what taking it away removes; one of the twenty features nearest in that, none twice. No set where too
    few others live: a smaller one would lose less by being smaller.
    """
    living = np.setdiff1d(np.flatnonzero(driven.norm > 0), driven.features)
    if len(living) < len(driven.features):
        return []
    found = []
    for _ in range(sets):
        taken: list[int] = []
        for feature in driven.features:
            free = np.setdiff1d(living, taken)
            near = free[np.argsort(np.abs(driven.norm[free] - driven.norm[feature]), kind="stable")[:20]]
            taken.append(int(random.choice(near)))
        found.append(np.array(taken, dtype=np.int64))
    return found


def _as_tensors(explored: Explored, voxels: NDArray[np.int64]) -> dict[str, Tensor]:
    return {site: torch.from_numpy(w).float() for site, w in explored.encoding.region_map(voxels).items()}


def _gradient(
    bench: EncodingBench, x: Tensor, by_site: Mapping[str, Tensor]
) -> tuple[Float[Tensor, " image"], Float[Tensor, "image token width"], Float[Tensor, "image token width"]]:
    """Return a region's prediction without its intercept, its gradient at the features' site, and the activation there."""
    prefix = bench.model.site(bench.feature_site).prefix_tokens
    held: list[Tensor] = []

    def leaf(acts: Tensor) -> Tensor:
        held.append(acts.detach().clone().requires_grad_(True))
        return held[0]

    with torch.enable_grad(), intervene(bench.model, {bench.feature_site: leaf}):
        seen = run_with_cache(bench.model, x, bench.sites, logits=True)
        whole = torch.zeros(len(x))
        for site, weight in by_site.items():
            tokens = seen[site][:, bench.model.site(site).prefix_tokens :]
            whole = whole + torch.einsum("itw,tw->i", tokens.float(), weight)
        (gradient,) = torch.autograd.grad(whole.sum(), held[0])
    return whole.detach(), gradient[:, prefix:], held[0].detach()[:, prefix:]
