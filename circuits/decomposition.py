r"""Direct logit attribution: what every head, MLP and feature writes into the residual stream, read as the metric reads it.

A ViT's last residual stream is a sum, and what follows it is affine once the final normalisation's spread is held at what
it is for each image. So the metric is a sum over everything that was written [1]_:

.. math:: m = m_0 + \sum_c g \cdot x_c, \qquad g = \partial m / \partial x_{final}

References
----------
.. [1] Elhage et al. A mathematical framework for transformer circuits. 2021, "residual stream".

"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.inputs import Batch, as_batch
from circuits.metrics import Measurable, as_metric
from circuits.nodes import whole
from circuits.running import slices
from circuits.wiring import State, Wiring, holding
from mechinterp.errors import SiteError
from mechinterp.feature_encoder import FeatureEncoder

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from mechinterp.images.image_set import ImageSet
    from mechinterp.models.vision_model import VisionModel


@dataclass(frozen=True, eq=False)
class Decomposition:
    """A metric as a sum.

    Parameters
    ----------
    names
        Of the components.
    values
        What each adds to the metric.
    metric
        The metric itself.
    metric_name
        Its name.
    batch
        The images.

    """

    names: tuple[str, ...]
    values: Float[NDArray[np.float64], "image component"]
    metric: Float[NDArray[np.float64], " image"]
    metric_name: str
    batch: Batch

    @property
    def remainder(self) -> Float[NDArray[np.float64], " image"]:
        """What the components leave out: rounding, or a metric that is not affine in the last residual stream."""
        result: NDArray[np.float64] = self.metric - self.values.sum(1)
        return result

    def mean(self) -> dict[str, float]:
        """Return every component's mean over images."""
        return dict(zip(self.names, self.values.mean(0).tolist(), strict=True))

    def figure(self, n: int = 20) -> go.Figure:
        """Draw the largest as a waterfall that ends at the mean metric."""
        from circuits.graph_figures import waterfall_figure

        means = self.values.mean(0)
        order = np.argsort(-np.abs(means), kind="stable")
        names = [self.names[k] for k in order[:n]]
        others = f"{max(0, len(means) - n)} others"
        return waterfall_figure(
            [*names, others],
            [*means[order[:n]].tolist(), float(means[order[n:]].sum())],
            metric=self.metric_name,
            total=True,
        )


def residual_decompose(
    model: VisionModel,
    images: ImageSet | Float[Tensor, "image channel height width"],
    metric: Measurable,
    *,
    saes: Sequence[FeatureEncoder] = (),
    batch: int = 32,
) -> Decomposition:
    """Split a metric into what every part of a model adds to it directly.

    For a ViT: the embedding, every head, every MLP, the attentions' biases, and what is constant. For a CNN: the channels of
    its last stage. SAEs of a component (``hook_mlp_out``, ``hook_attn_out``, the last stage) split it further, into features
    and an error.

    Parameters
    ----------
    model, images
        The model and what it looks at.
    metric
        A logit or a difference of logits; another metric is not affine, and leaves a remainder.
    saes
        Encoders of components.
    batch
        Images at once.

    Raises
    ------
    SiteError
        If the model has neither blocks whose branches add up nor stages, or an SAE's site is no component.

    """
    known, measured = as_batch(model, images), as_metric(metric, model)
    final, branches = _components(model)
    encoders = {sae.site: sae for sae in saes}
    for site in encoders:
        if site not in branches and site != final:
            raise SiteError(
                f"site '{site}' is no summand of the last residual stream: give SAEs of hook_attn_out, hook_mlp_out, or {final}"
            )
    wiring = Wiring(model, [whole(model, final)], measured, known.x, frozenset({"norm"}))
    rows: list[dict[str, Tensor]] = []
    metrics = []
    for part in slices(len(known.x), batch):
        state = wiring.state(known.x[part], first=part.start)
        gradient, constant = readout(wiring, state, first=part.start)
        found = {"constant": constant}
        if branches:
            found |= _branch_values(model, state, branches, encoders, gradient)
        else:
            found |= _split(final, state.acts[final], gradient, encoders.get(final))
        rows.append(found)
        metrics.append(state.metric)
    names = tuple(rows[0])
    values = torch.cat([torch.stack([row[n].double() for n in names], 1) for row in rows]).cpu().numpy()
    return Decomposition(names, values, torch.cat(metrics).double().cpu().numpy(), measured.name, known)


def readout(
    wiring: Wiring, state: State, *, first: int = 0
) -> tuple[Float[Tensor, "image token width"], Float[Tensor, " image"]]:
    """Return the metric's gradient at the last site under held normalisation, and the metric when that site is 0."""
    site = wiring.sites[-1]
    acts = state.acts[site].clone().requires_grad_()
    with torch.enable_grad():
        metric, _ = wiring.run(state, {site: acts}, first=first)
        gradient = torch.autograd.grad(metric.sum(), acts)[0]
    with torch.no_grad():
        constant, _ = wiring.run(state, {site: torch.zeros_like(acts)}, first=first)
    return gradient, constant


def _components(model: VisionModel) -> tuple[str, dict[str, str]]:
    """Return the last site, and what is added on the way: branch → the site of its heads (or nothing)."""
    blocks = sorted(
        {int(n.split(".")[1]) for n in model.sites if n.startswith("blocks.") and n.endswith(".hook_resid_post")}
    )
    branches: dict[str, str] = {}
    for i in blocks:
        for place in ("hook_attn_out", "hook_mlp_out"):
            name = f"blocks.{i}.{place}"
            if name not in model.sites:
                raise SiteError(
                    f"'{model.spec}' has no site '{name}': its blocks do not add up what their branches write"
                )
            z = f"blocks.{i}.attn.hook_z"
            branches[name] = z if place == "hook_attn_out" and z in model.sites else ""
    if blocks:
        return f"blocks.{blocks[-1]}.hook_resid_post", branches
    stages = [n for n in model.sites if n.startswith("stages.") and n.removeprefix("stages.").isdigit()]
    if not stages:
        raise SiteError(f"'{model.spec}' has neither blocks nor stages: its logit cannot be taken apart")
    return stages[-1], {}


def _branch_values(
    model: VisionModel,
    state: State,
    branches: Mapping[str, str],
    encoders: Mapping[str, FeatureEncoder],
    gradient: Float[Tensor, "image token width"],
) -> dict[str, Tensor]:
    """Return what every branch adds, its heads one by one."""
    leaves: dict[str, Tensor] = {}

    def cut(acts: Tensor, site: str) -> Tensor:
        # what a head writes depends on its own output alone: everything before it is constant here
        leaves[site] = acts.detach().clone().requires_grad_()
        return leaves[site]

    heads = [z for z in branches.values() if z]
    put = {z: (lambda acts, site=z: cut(acts, site)) for z in heads}
    seen: dict[str, Tensor] = {}
    with (
        torch.enable_grad(),
        state.frozen.replaying(),
        holding(model, put, ["blocks.0.hook_resid_pre", *branches], seen),
    ):
        model.run(state.x)
        outcome = [(seen[branch] * gradient).sum() for branch, z in branches.items() if z]
        pulled = torch.autograd.grad(outcome, [leaves[z] for z in heads]) if heads else ()
    at_heads = dict(zip(heads, pulled, strict=True))
    found = {"embedding": (seen["blocks.0.hook_resid_pre"].detach() * gradient).sum((1, 2))}
    for branch, z in branches.items():
        acts = seen[branch].detach()
        n = getattr(model.site(z), "heads", 0) if z else 0
        if branch in encoders or not n:
            found |= _split(branch, acts, gradient, encoders.get(branch))
            continue
        parts = (leaves[z].detach() * at_heads[z]).sum(1).reshape(len(acts), n, -1).sum(2)
        name = branch.removesuffix(".hook_attn_out")
        found |= {f"{name} head {h}": parts[:, h] for h in range(n)}
        found[f"{name} attention bias"] = (acts * gradient).sum((1, 2)) - parts.sum(1)
    return found


def _split(site: str, acts: Tensor, gradient: Tensor, encoder: FeatureEncoder | None) -> dict[str, Tensor]:
    """Return what one component adds: as a whole, by channel, or by feature."""
    total = (acts * gradient).sum((1, 2))
    if encoder is None:
        if not site.startswith("stages."):
            return {site: total}
        channels = (acts * gradient).sum(1)
        return {f"{site} channel {k}": channels[:, k] for k in range(channels.shape[1])}
    with torch.no_grad():
        codes = encoder.encode(acts)
        features = (codes * (gradient @ encoder.directions.to(gradient).T)).sum(1)
    found = {f"{site} feature {k}": features[:, k] for k in range(features.shape[1])}
    return found | {f"{site} error": total - features.sum(1)}
