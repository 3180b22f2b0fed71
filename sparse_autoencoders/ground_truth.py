"""Activations made from a known dictionary, and how much of it an autoencoder found.

Reconstruction is not recovery: an SAE that explains 71 % of the variance may hold 9 % of the true features (arXiv 2602.14111). Here
the features are known, with frequencies, correlations and a hierarchy as one likes, so recovery can be counted. Beside each score
stands the *oracle*: the true dictionary read by the same encoder, which is what could be reached.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.special import ndtri
from torch import Tensor

from mechinterp.errors import ConfigError, ShapeError


@dataclass(frozen=True, kw_only=True)
class DictionarySettings:
    """What a synthetic dictionary is like.

    Parameters
    ----------
    width
        Dimensions of an activation.
    features
        True features; more than `width` means superposition.
    active
        True features active in a row, on average.
    zipf
        Exponent of the frequencies over the rank: 0 for equal ones.
    correlation
        Of the firing (Gaussian copula) within a group of features.
    group
        Features in a group.
    children
        Features that fire only where their parent does; each parent has one. At most half of all.
    noise
        Standard deviation of isotropic noise, where a feature's value has mean 1.
    seed
        Decides the directions, the order of the frequencies, and who is whose child.

    Raises
    ------
    ConfigError
        If a number cannot be meant.

    """

    width: int = 192
    features: int = 1024
    active: float = 20.0
    zipf: float = 0.0
    correlation: float = 0.0
    group: int = 16
    children: int = 0
    noise: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.active < self.features:
            raise ConfigError(f"active is {self.active}: it must lie between 0 and the {self.features} features")
        if not 0 <= self.correlation < 1:
            raise ConfigError(f"correlation is {self.correlation}: it must be at least 0 and below 1")
        if not 0 <= self.children <= self.features // 2:
            raise ConfigError(
                f"children is {self.children}: at most half of the {self.features} features have a parent"
            )


PLAIN = DictionarySettings()
HARD = DictionarySettings(zipf=0.5, correlation=0.3, children=256)


class SyntheticDictionary:
    """A dictionary from which activations are drawn.

    Parameters
    ----------
    settings
        What it is like.

    """

    def __init__(self, settings: DictionarySettings = PLAIN) -> None:
        self.settings = settings
        g = torch.Generator().manual_seed(settings.seed)
        # not torch's stream: an initialisation with the same seed would start at the truth
        drawn = np.random.default_rng(settings.seed).standard_normal((settings.features, settings.width))
        raw = torch.from_numpy(drawn).float()
        self.directions: Float[Tensor, "feature width"] = torch.nn.functional.normalize(raw, dim=1)
        self.parent: Int[Tensor, " feature"] = torch.full((settings.features,), -1)
        order = torch.randperm(settings.features, generator=g)
        # parents come from the other half, so no child is a parent
        children, parents = order[: settings.children], order[settings.features // 2 :][: settings.children]
        self.parent[children] = parents
        rank = torch.randperm(settings.features, generator=g).double() + 1
        self.frequency: Float[Tensor, " feature"] = _frequencies(rank**-settings.zipf, settings.active, self.parent)

    def draw(
        self, rows: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "row width"], Float[Tensor, "row feature"]]:
        """Return activations and the true codes they were made from."""
        s = self.settings
        groups = -(-s.features // s.group)
        shared = torch.randn(rows, groups, generator=generator).repeat_interleave(s.group, 1)[:, : s.features]
        own = torch.randn(rows, s.features, generator=generator)
        latent = s.correlation**0.5 * shared + (1 - s.correlation) ** 0.5 * own
        # a child's frequency is that of firing where its parent does
        fires = latent < torch.from_numpy(ndtri(self.frequency.numpy())).float()
        child = (self.parent >= 0).nonzero().flatten()
        fires[:, child] &= fires[:, self.parent[child]]
        codes = fires * (0.5 + torch.rand(rows, s.features, generator=generator))
        return codes @ self.directions + s.noise * torch.randn(rows, s.width, generator=generator), codes


@dataclass(frozen=True)
class Recovery:
    """How much of a known dictionary was found.

    Parameters
    ----------
    cosine
        Of each true direction and the feature matched with it one to one (Hungarian), the mean over the true ones.
    found
        Share of the true directions whose match has a cosine above 0.9.
    f1
        Of firing: a true feature fires, its match fires; the mean over the true features that fire.
    oracle_f1
        The same for the true directions read by the same encoder.

    """

    cosine: float
    found: float
    f1: float
    oracle_f1: float


def recovery(
    directions: Float[Tensor, "feature width"],
    codes: Float[Tensor, "row feature"],
    truth: SyntheticDictionary,
    true_codes: Float[Tensor, "row true"],
    oracle_codes: Float[Tensor, "row true"],
) -> Recovery:
    """Compare an autoencoder with the dictionary that its activations came from.

    Parameters
    ----------
    directions, codes
        Decoder directions, and codes of some rows.
    truth, true_codes
        The dictionary, and what the rows were made of.
    oracle_codes
        What the autoencoder's own way of encoding (top-k, matching pursuit) gives with the true directions.

    Raises
    ------
    ShapeError
        If codes and true codes are of different rows.

    """
    if len(codes) != len(true_codes):
        raise ShapeError(f"{len(codes)} rows of codes, {len(true_codes)} of true codes: encode the same rows")
    cosine = torch.nn.functional.normalize(directions, dim=1) @ truth.directions.T
    feature, true = linear_sum_assignment(-cosine.numpy())
    matched = cosine[torch.from_numpy(feature), torch.from_numpy(true)]
    # where a dictionary is smaller than the truth, the features without a match count as not found
    total = truth.settings.features
    return Recovery(
        cosine=float(matched.sum() / total),
        found=float((matched > 0.9).sum() / total),
        f1=_f1(codes[:, feature] > 0, true_codes[:, true] > 0, total),
        oracle_f1=_f1(oracle_codes > 0, true_codes > 0, total),
    )


def topk_codes(
    x: Float[Tensor, "row width"], directions: Float[Tensor, "feature width"], k: int
) -> Float[Tensor, "row feature"]:
    """Return the ReLU of the k largest projections of each row: what a top-k encoder makes of known directions."""
    values, columns = (x @ directions.T).topk(k, dim=1)
    return torch.zeros(len(x), len(directions)).scatter(1, columns, values.relu())


def matching_pursuit_codes(
    x: Float[Tensor, "row width"], directions: Float[Tensor, "feature width"], k: int
) -> Float[Tensor, "row feature"]:
    """Return codes by matching pursuit: k times the largest projection of what is left (Mallat and Zhang 1993)."""
    codes, left = torch.zeros(len(x), len(directions)), x.clone()
    for _ in range(k):
        value, column = (left @ directions.T).max(dim=1)
        value = value.relu()
        codes.scatter_add_(1, column[:, None], value[:, None])
        left -= value[:, None] * directions[column]
    return codes


def _frequencies(weight: Tensor, active: float, parent: Tensor) -> Tensor:
    """Scale weights to probabilities of firing whose expected number is `active`, children's taken given their parent's."""
    child = parent >= 0
    low, high = 0.0, active / float(weight.sum()) * 64
    for _ in range(80):
        scale = (low + high) / 2
        p = (scale * weight).clamp(max=0.5)
        # a child fires in half of its parent's rows
        p[child] = 0.5
        expected = float(p[~child].sum() + (p[child] * p[parent[child]]).sum())
        low, high = (scale, high) if expected < active else (low, scale)
    return p


def _f1(found: Tensor, true: Tensor, total: int) -> float:
    both = (found & true).sum(0).double()
    fires = true.any(0)
    scores = 2 * both / (found.sum(0) + true.sum(0)).clamp_min(1)
    # true features that have no match have an F1 of zero
    return float(scores[fires].sum() / max(int(fires.sum()) + total - true.shape[1], 1))


def random_recovery(settings: DictionarySettings, features: int, seed: int) -> float:
    """Return the mean matched cosine of directions drawn at random: what is found by chance."""
    g = torch.Generator().manual_seed(seed)
    drawn = torch.nn.functional.normalize(torch.randn(features, settings.width, generator=g), dim=1)
    cosine = (drawn @ SyntheticDictionary(settings).directions.T).numpy()
    return float(np.mean(cosine[linear_sum_assignment(-cosine)]))
