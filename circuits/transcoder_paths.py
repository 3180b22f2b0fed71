r"""A ViT whose MLPs are replaced by transcoders, made linear: what of every source reaches a feature, exactly.

With transcoders in place of MLPs, attention patterns and the spread of normalisation held at what they are in an image, the
residual stream carries everything that was written on to every later feature by a linear map [1]_. So what a feature sees
before its threshold is a sum over the embedding, over the features, errors and biases of every earlier block:

.. math:: h_{\ell' t' f'} = b + \sum_{\ell t f} a_{\ell t f}\, d_f^{\top} J_{\ell t \to \ell' t'}\, e_{f'} + \sum_{\ell t} \epsilon_{\ell t}^{\top} J_{\ell t \to \ell' t'}\, e_{f'}

with *a* the activations, *d* the decoder's and *e* the encoder's directions, ε what the transcoder does not write, and *J* the
ways along the stream and through held attention, but through no other MLP.

References
----------
.. [1] Dunefsky et al. Transcoders find interpretable LLM feature circuits. 2024 (arXiv 2406.11944); Ameisen et al. Circuit
   tracing. 2025, "attribution graphs".

"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.frozen import FrozenCalls
from circuits.metrics import Metric
from circuits.wiring import Put, holding
from mechinterp.errors import ConfigError, SiteError
from mechinterp.models.vision_model import VisionModel

EMBEDDING = "blocks.0.hook_resid_pre"
"""Name of the source that is there before the first block."""


class WritesFeatures(Protocol):
    """What is needed of a transcoder: it reads one site and says through features what another holds."""

    @property
    def site(self) -> str:
        """Name of the site that is read."""
        ...

    @property
    def to_site(self) -> str:
        """Name of the site that is written: a block's ``hook_mlp_out``."""
        ...

    @property
    def width(self) -> int:
        """Number of features."""
        ...

    @property
    def directions(self) -> Float[Tensor, "feature d_out"]:
        """What one unit of each feature writes."""
        ...

    def preactivations(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows feature"]:
        """Return what the features see: an affine function of `x`."""
        ...

    def encode(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows feature"]:
        """Return the features' activations."""
        ...

    def decode(self, z: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows d_out"]:
        """Return what activations write, with the bias."""
        ...

    def skipped(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        """Return what a linear path beside the features writes."""
        ...


@dataclass(frozen=True, eq=False)
class Inflow:
    """What adds up to one outcome of every image.

    Parameters
    ----------
    features
        Written site → what each feature of each token brings.
    errors
        Written site → what the transcoder's error of each token brings.
    wholes
        Written site → what each token of an MLP without a transcoder brings.
    embedding
        What each token of the embedding brings.
    bias
        What is always there.
    total
        The outcome itself, from the run: the sum of the others up to rounding.

    """

    features: Mapping[str, Float[Tensor, "image token feature"]]
    errors: Mapping[str, Float[Tensor, "image token"]]
    wholes: Mapping[str, Float[Tensor, "image token"]]
    embedding: Float[Tensor, "image token"]
    bias: Float[Tensor, " image"]
    total: Float[Tensor, " image"]

    @property
    def summed(self) -> Float[Tensor, " image"]:
        """The sum of everything that flows in, bias included."""
        parts = [self.bias, self.embedding.sum(1)]
        parts += [v.flatten(1).sum(1) for group in (self.features, self.errors, self.wholes) for v in group.values()]
        return torch.stack(parts).sum(0)


class LinearRun:
    """One batch of images in a ViT whose MLPs are transcoders, with attention and normalisation held.

    Parameters
    ----------
    model
        The ViT; its weights are not touched.
    transcoders
        One for each block that has one, in any order. Another block's MLP is a source as a whole.
    metric
        What the paths end in.
    x
        Prepared images.
    first
        Number of the first image, for metrics that know something of each.

    Raises
    ------
    SiteError
        If the model has no blocks whose MLPs add up to its stream, or its attention cannot be held.
    ConfigError
        If there is no transcoder, two write the same site, or one does not write an MLP's output.

    """

    def __init__(
        self,
        model: VisionModel,
        transcoders: Sequence[WritesFeatures],
        metric: Metric,
        x: Float[Tensor, "image channel height width"],
        *,
        first: int = 0,
    ) -> None:
        self.model, self.metric, self.x, self.first = model, metric, x, first
        self.written = written_sites(model)
        self.transcoders = by_written_site(transcoders, self.written)
        self.frozen = FrozenCalls(frozenset({"attention", "norm"}))
        reads = [t.site for t in self.transcoders.values()]
        seen: dict[str, Tensor] = {}
        with (
            torch.no_grad(),
            self.frozen.recording(),
            holding(model, {}, [EMBEDDING, *self.written, *reads], seen),
        ):
            self.model.logits(x)
        self.embedding = seen[EMBEDDING]
        self.codes: dict[str, Tensor] = {}
        self.gates: dict[str, Tensor] = {}
        self.errors: dict[str, Tensor] = {}
        self.wholes = {site: seen[site] for site in self.written if site not in self.transcoders}
        with torch.no_grad():
            for site, t in self.transcoders.items():
                x_in = seen[t.site]
                codes, before = t.encode(x_in), t.preactivations(x_in)
                self.codes[site] = codes
                # an activation is its pre-activation times this, which is held
                self.gates[site] = torch.where(before == 0, torch.zeros_like(before), codes / before)
                self.errors[site] = seen[site] - t.decode(codes) - t.skipped(x_in)

    def __len__(self) -> int:
        return len(self.x)

    def into(self, site: str, token: int, feature: int) -> Inflow:
        """Return what reaches one feature at one token, before its threshold.

        Parameters
        ----------
        site
            The site that the feature's transcoder writes.
        token, feature
            Which.

        """
        return self._inflow(lambda before, _: before[site][:, token, feature])

    def into_metric(self) -> Inflow:
        """Return what reaches the metric directly: past every other MLP."""
        return self._inflow(lambda _, metric: metric)

    def gradients_into(
        self, site: str, weights: Sequence[tuple[int, Float[Tensor, "image token"]]]
    ) -> list[dict[str, Float[Tensor, "image token width"]]]:
        """Return the gradients, at every source, of weighted sums over the tokens of some features' pre-activations.

        Parameters
        ----------
        site
            The site that the features' transcoder writes.
        weights
            Feature and the weight of each of its tokens, for every sum.

        """
        leaves = self._leaves()
        with torch.enable_grad():
            before, _ = self._forward(leaves, live=False)
            outcomes = [(before[site][..., feature] * weight).sum() for feature, weight in weights]
            return [_gradients(outcome, leaves) for outcome in outcomes]

    def metric_gradients(self, *, live: bool) -> dict[str, Float[Tensor, "image token width"]]:
        """Return the metric's gradient at every source.

        Parameters
        ----------
        live
            Whether later features follow what changes, with their gates held: the total effect. Otherwise they are held, and
            only the direct way remains.

        """
        leaves = self._leaves()
        with torch.enable_grad():
            _, metric = self._forward(leaves, live=live)
            return _gradients(metric.sum(), leaves)

    def metric_without_sources(self) -> Float[Tensor, " image"]:
        """Return the metric when nothing at all is written: what biases alone give."""
        with torch.no_grad():
            return self._forward({k: torch.zeros_like(v) for k, v in self._sources().items()}, live=False)[1]

    def _sources(self) -> dict[str, Tensor]:
        """Return everything that is written, biases of the transcoders left out."""
        with torch.no_grad():
            features = {
                site: self.codes[site] @ t.directions.to(self.codes[site]) + self.errors[site]
                for site, t in self.transcoders.items()
            }
        return {EMBEDDING: self.embedding, **features, **self.wholes}

    def _leaves(self) -> dict[str, Tensor]:
        return {name: value.detach().clone().requires_grad_() for name, value in self._sources().items()}

    def _forward(self, sources: Mapping[str, Tensor], *, live: bool) -> tuple[dict[str, Tensor], Tensor]:
        """Return pre-activations and metric when sources write given values, everything else held.

        ``live``: what features write changes with what they see, their gates held.
        """
        seen: dict[str, Tensor] = {}
        put: Put = {
            EMBEDDING: sources[EMBEDDING],
            **{site: sources[site] for site in self.wholes},
            **{site: self._writer(site, sources[site], seen, live) for site in self.transcoders},
        }
        with self.frozen.replaying(), holding(self.model, put, [t.site for t in self.transcoders.values()], seen):
            logits = self.model.logits(self.x)
        images = torch.arange(self.first, self.first + len(self.x), device=logits.device)
        before = {site: t.preactivations(seen[t.site]) for site, t in self.transcoders.items()}
        return before, self.metric.at(logits, images)

    def _writer(self, site: str, source: Tensor, seen: Mapping[str, Tensor], live: bool) -> _Writer:
        held = self.codes[site] if live else None
        return _Writer(self.transcoders[site], source, seen, held, self.gates[site])

    def _inflow(self, outcome: _Outcome) -> Inflow:
        leaves = self._leaves()
        with torch.enable_grad():
            total = outcome(*self._forward(leaves, live=False))
            gradients = _gradients(total.sum(), leaves)
        with torch.no_grad():
            empty = {name: torch.zeros_like(value) for name, value in leaves.items()}
            bias = outcome(*self._forward(empty, live=False))
        return Inflow(
            {
                site: self.codes[site] * (gradients[site] @ t.directions.to(gradients[site]).T)
                for site, t in self.transcoders.items()
            },
            {site: (gradients[site] * error).sum(2) for site, error in self.errors.items()},
            {site: (gradients[site] * whole).sum(2) for site, whole in self.wholes.items()},
            (gradients[EMBEDDING] * self.embedding).sum(2),
            bias,
            total.detach(),
        )


class _Outcome(Protocol):
    def __call__(self, before: Mapping[str, Tensor], metric: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class _Writer:
    """What a replaced MLP writes: its source, its bias, its linear path, and with `held` what its features do beyond that."""

    transcoder: WritesFeatures
    source: Tensor
    seen: Mapping[str, Tensor]
    held: Tensor | None
    gates: Tensor

    def __call__(self, acts: Tensor) -> Tensor:
        x_in = self.seen[self.transcoder.site]
        bias = self.transcoder.decode(torch.zeros_like(self.gates[:1, :1]))
        written = self.source + bias + self.transcoder.skipped(x_in)
        if self.held is not None:
            moved = self.transcoder.preactivations(x_in) * self.gates - self.held
            written = written + moved @ self.transcoder.directions.to(acts)
        return written


def written_sites(model: VisionModel) -> tuple[str, ...]:
    """Return the sites that a ViT's MLPs write, in the order of the blocks.

    Raises
    ------
    SiteError
        If the model has no blocks that add up what attention and MLP write.

    """
    sites = [n for n in model.sites if n.startswith("blocks.") and n.endswith(".hook_mlp_out")]
    if not sites or EMBEDDING not in model.sites:
        raise SiteError(
            f"'{model.spec}' has no blocks whose MLPs add up to one stream: transcoder graphs are for such ViTs"
        )
    return tuple(sorted(sites, key=lambda n: int(n.split(".")[1])))


def by_written_site(transcoders: Sequence[WritesFeatures], written: Sequence[str]) -> dict[str, WritesFeatures]:
    """Return transcoders by the site they write, in the order of the blocks.

    Raises
    ------
    ConfigError
        If there is none, two write the same site, or one writes no MLP's output.

    """
    if not transcoders:
        raise ConfigError(
            "there is no transcoder: give at least one, trained from a block's MLP input to its hook_mlp_out"
        )
    found = {t.to_site: t for t in transcoders}
    if len(found) < len(transcoders):
        raise ConfigError("two transcoders write the same site: give one a block")
    wrong = [site for site in found if site not in written]
    if wrong:
        raise ConfigError(
            f"a transcoder writes '{wrong[0]}', which is no MLP's output: it must be one of {', '.join(written)}"
        )
    return {site: found[site] for site in written if site in found}


def _gradients(outcome: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(outcome, list(leaves.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if g is None else g.detach()
        for (name, leaf), g in zip(leaves.items(), found, strict=True)
    }
