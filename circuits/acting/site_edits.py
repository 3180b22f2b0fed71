r"""What can be done to a site so that a feature or a direction no longer speaks: each edit has a strength from 0 to 1.

=============  ===================================================================================================
``ablate``     codes of some features become their mean over reference images, place by place
``clamp``      codes of some features are kept within what reference images show
``project``    what lies along some features' directions becomes what reference images have there on average
``leace``      the least change after which no linear probe reads the shortcut from the pooled activation [1]_
``p-clarc``    the activation moves along the shortcut's concept vector to where images without it lie [2]_
=============  ===================================================================================================

In reference images every class with and without the shortcut weighs the same. Those without it alone would not do for the
first three: a model that took a mark as evidence takes its absence as evidence too, and with every image made to look
unmarked it would decide against the target everywhere. ``p-clarc`` is as published, and pays that price. At strength :math:`s` an activation :math:`x` becomes
:math:`x + s\,(e(x) - x)`.

References
----------
.. [1] Belrose et al. LEACE: perfect linear concept erasure in closed form. NeurIPS 2023, theorem 4.3. Fitted on the mean over
   tokens and applied to every token: as the eraser is affine, the mean of the erased tokens is the erased mean.
.. [2] Anders et al. Finding and removing Clever Hans: using explanation methods to debug and improve deep models. Information
   Fusion 77, 2022, projective class artifact compensation (P-ClArC).

"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from circuits.acting.bench import EditBench, Pictures
from mechinterp.errors import ConfigError, ImagesError, nearest
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.progress import SILENT, Progress

SiteMethod: TypeAlias = Literal["ablate", "clamp", "project", "leace", "p-clarc"]
SITE_METHODS: tuple[SiteMethod, ...] = ("ablate", "clamp", "project", "leace", "p-clarc")
OF_FEATURES = frozenset({"ablate", "clamp", "project"})
SAMPLED_IMAGES = 128


@dataclass(frozen=True, eq=False)
class SiteSample:
    """What is known of a site from some images, in bounded memory.

    Parameters
    ----------
    pooled
        Mean over tokens of each image.
    balanced
        Images of which as many are of each class with and without the shortcut: where it goes along with the class, what
        is fitted on all would take the class for the shortcut.
    reference_mean
        Mean activation, token by token, each class with and without the shortcut weighing the same.
    unmarked_mean
        The same of the images without the shortcut.
    acts
        Some images' activations, spread over all.
    reference_acts
        Some of each class with and without the shortcut, as many of each.
    shortcut
        Which images have it.

    """

    pooled: Float[NDArray[np.float64], "image width"]
    balanced: Int[NDArray[np.int64], " chosen"]
    reference_mean: Float[Tensor, "token width"]
    unmarked_mean: Float[Tensor, "token width"]
    acts: Float[Tensor, "some token width"]
    reference_acts: Float[Tensor, "some token width"]
    shortcut: Bool[NDArray[np.bool_], " image"]

    @classmethod
    def of(
        cls,
        bench: EditBench,
        images: Pictures,
        shortcut: Bool[NDArray[np.bool_], " image"],
        labels: Bool[NDArray[np.bool_], " image"],
        progress: Progress = SILENT,
    ) -> SiteSample:
        """Run the model over the images once.

        Raises
        ------
        ImagesError
            If a class has no image with the shortcut, or none without.

        """
        cells = [np.flatnonzero((labels == c) & (shortcut == s)) for c in (False, True) for s in (False, True)]
        if min(len(c) for c in cells) == 0:
            counts = ", ".join(str(len(c)) for c in cells)
            raise ImagesError(
                f"images without and with the shortcut, of the other class and the target: {counts}; an edit needs some of each"
            )
        balanced = np.sort(np.concatenate([_spread(c, min(len(c) for c in cells)) for c in cells]))
        weights = np.zeros((2, len(labels)))
        for k, cell in enumerate(cells):
            weights[0, cell] = 0.25 / len(cell)
            weights[1, cell] = 0.5 / len(cell) if k in {0, 2} else 0.0
        kept = set(_spread(np.arange(len(images)), SAMPLED_IMAGES).tolist())
        fewest = min(SAMPLED_IMAGES // 4, *(len(c) for c in cells))
        references = {int(i) for cell in cells for i in _spread(cell, fewest)}
        pooled: list[Tensor] = []
        some: list[Tensor] = []
        chosen: list[Tensor] = []
        means: Tensor | None = None
        for rows, _, acts in bench.batches(images, progress, "activations"):
            pooled.append(acts.mean(1).double().cpu())
            share = torch.from_numpy(weights[:, rows]).to(acts)
            weighted = torch.einsum("kb,btd->ktd", share, acts).double()
            means = weighted if means is None else means + weighted
            here = range(rows.start, rows.stop)
            some += [acts[i - rows.start] for i in here if i in kept]
            chosen += [acts[i - rows.start] for i in here if i in references]
        assert means is not None
        shown = torch.stack(some)
        mean, unmarked = means.to(shown).unbind(0)
        return cls(torch.cat(pooled).numpy(), balanced, mean, unmarked, shown, torch.stack(chosen), shortcut)


def _spread(positions: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return `n` of some positions, evenly spread; all where there are fewer."""
    return positions[np.unique(np.linspace(0, len(positions) - 1, min(n, len(positions))).astype(np.int64))]


@dataclass(frozen=True, eq=False)
class CodeEdit:
    """Some features' codes are moved towards other values; what the encoder does not reconstruct stays.

    Parameters
    ----------
    encoder, chosen
        The features.
    put
        What their codes become, token by token; ``None`` to clamp.
    low, high
        Between what they are clamped.
    strength
        Share of the way.

    """

    encoder: FeatureEncoder
    chosen: tuple[int, ...]
    put: Float[Tensor, "token member"] | None = None
    low: Float[Tensor, " member"] | None = None
    high: Float[Tensor, " member"] | None = None
    strength: float = 1.0

    def acts(self, acts_bnd: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Return the activation with the codes moved."""
        if self.strength == 0 or not self.chosen:
            return acts_bnd
        codes = self.encoder.encode(acts_bnd)[..., list(self.chosen)]
        wanted = self.put if self.put is not None else codes.clamp(self.low, self.high)
        directions = self.encoder.directions[list(self.chosen)].to(acts_bnd)
        return acts_bnd + self.strength * (wanted - codes) @ directions

    def logits(self, logits: Tensor, head: Tensor) -> Tensor:
        """Return the same logits."""
        del head
        return logits


@dataclass(frozen=True, eq=False)
class LinearEdit:
    r"""The activation is moved by an affine map: :math:`x - s\,(x - c)\,M`.

    Parameters
    ----------
    matrix
        What is taken away of a deviation; of projections :math:`D^\top D` for orthonormal rows :math:`D`.
    centre
        Where nothing is taken away; one for all tokens or one each.
    strength
        Share of the way; above 1 for controls that are scaled to a norm.

    """

    matrix: Float[Tensor, "width width"]
    centre: Float[Tensor, "#token width"]
    strength: float = 1.0

    def acts(self, acts_bnd: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Return the activation moved."""
        return acts_bnd if self.strength == 0 else acts_bnd - self.strength * (acts_bnd - self.centre) @ self.matrix

    def logits(self, logits: Tensor, head: Tensor) -> Tensor:
        """Return the same logits."""
        del head
        return logits


SiteEdit: TypeAlias = CodeEdit | LinearEdit


def at_strength(edit: SiteEdit, strength: float) -> SiteEdit:
    """Return the same edit with another strength."""
    return replace(edit, strength=strength)


def site_edit(
    method: SiteMethod, sample: SiteSample, encoder: FeatureEncoder | None = None, chosen: Sequence[int] = ()
) -> SiteEdit:
    """Fit an edit, at full strength.

    Parameters
    ----------
    method
        See the table above.
    sample
        What it is fitted on.
    encoder, chosen
        The features, for the first three methods.

    Raises
    ------
    ConfigError
        If there is no such method, or features are needed and none or unknown ones are given.

    """
    if method not in SITE_METHODS:
        raise ConfigError(f"there is no edit '{method}': {nearest(str(method), SITE_METHODS)}")
    members = tuple(int(f) for f in chosen)
    if method in OF_FEATURES:
        if encoder is None or not members:
            raise ConfigError(f"the edit '{method}' changes features: give an encoder and which of its features")
        wrong = [f for f in members if not 0 <= f < encoder.width]
        if wrong:
            raise ConfigError(f"there is no feature {wrong[0]}: the encoder has 0 to {encoder.width - 1}")
        return _of_features(method, sample, encoder, members)
    like, pooled = sample.reference_mean, sample.pooled[sample.balanced]
    has = sample.shortcut[sample.balanced].astype(np.float64)
    if method == "leace":
        from probes.erasure import leace

        width = sample.pooled.shape[1]
        erase = leace(pooled, has)
        offset = erase(np.zeros((1, width)))
        taken = np.eye(width) - (erase(np.eye(width)) - offset)
        # x - erase(x) = x T - b = (x - c) T wherever c T = b; the mean of all is such a point
        return LinearEdit(torch.from_numpy(taken).to(like), torch.from_numpy(pooled.mean(0)[None]).to(like))
    from probes.concept_vectors import fit_concept_vector

    vector = fit_concept_vector(pooled, has, estimator="pattern")
    direction = torch.from_numpy(vector.direction).to(like)
    return LinearEdit(torch.outer(direction, direction), sample.unmarked_mean)


def _of_features(method: SiteMethod, sample: SiteSample, encoder: FeatureEncoder, members: tuple[int, ...]) -> SiteEdit:
    if method == "project":
        directions = encoder.directions[list(members)].to(sample.reference_mean)
        basis, triangle = torch.linalg.qr(directions.T.double())
        basis = basis[:, triangle.diagonal().abs() > 1e-9].to(directions)
        return LinearEdit(basis @ basis.T, sample.reference_mean)
    codes = encoder.encode(sample.reference_acts)[..., list(members)]
    if method == "ablate":
        return CodeEdit(encoder, members, put=codes.double().mean(0).to(codes))
    flat = codes.flatten(0, 1)
    return CodeEdit(encoder, members, low=flat.amin(0), high=flat.amax(0))


def norm_of(edit: SiteEdit, acts_bnd: Float[Tensor, "image token width"]) -> float:
    """Return the root mean square over images of the norm that an edit changes."""
    with torch.no_grad():
        change = edit.acts(acts_bnd) - acts_bnd
    return float(change.double().flatten(1).square().sum(1).mean().sqrt())


def random_feature_edits(
    encoder: FeatureEncoder, sample: SiteSample, size: int, norm: float, *, n: int = 20, seed: int = 0
) -> list[SiteEdit]:
    """Return ablations of random features, as many as were edited, scaled to change the same norm.

    Features that never vary cannot be scaled to any norm and are not drawn.
    """
    random = np.random.default_rng([seed, 11])
    codes = encoder.encode(sample.acts)
    alive = np.flatnonzero((codes.flatten(0, 1).std(0) > 0).cpu().numpy())
    out: list[SiteEdit] = []
    for _ in range(n):
        members = tuple(int(f) for f in random.permutation(alive)[:size])
        edit = _of_features("ablate", sample, encoder, members)
        out.append(_scaled(edit, sample, norm))
    return out


def random_direction_edits(sample: SiteSample, rank: int, norm: float, *, n: int = 20, seed: int = 0) -> list[SiteEdit]:
    """Return projections of random directions, scaled to change the same norm."""
    random = np.random.default_rng([seed, 12])
    width = sample.pooled.shape[1]
    out: list[SiteEdit] = []
    for _ in range(n):
        basis = torch.from_numpy(np.linalg.qr(random.standard_normal((width, min(rank, width))))[0])
        basis = basis.to(sample.reference_mean)
        out.append(_scaled(LinearEdit(basis @ basis.T, sample.reference_mean), sample, norm))
    return out


def _scaled(edit: SiteEdit, sample: SiteSample, norm: float) -> SiteEdit:
    own = norm_of(edit, sample.acts)
    return at_strength(edit, norm / own if own > 0 else 0.0)
