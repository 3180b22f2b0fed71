r"""AtP*'s correction for saturated attention: the softmax of a changed query or key is computed, not extrapolated.

A head that looks at one token with weight near 1 has a vanishing gradient with respect to its queries and keys, however much
they matter. The pattern that a changed query or key makes costs one softmax, so it is computed exactly, and only what follows
the pattern is linearised [1]_:

.. math:: \hat e = \sum_k \frac{\partial m}{\partial A_{qk}} (A'_{qk} - A_{qk})

References
----------
.. [1] Kramár et al. AtP*. 2024 (arXiv 2403.00745), section 3.1.1.

"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attention import AttentionWatch, watching_attention
from circuits.metrics import Measurable, as_metric
from mechinterp.errors import ShapeError, SiteError
from mechinterp.models.vision_model import VisionModel


@dataclass(frozen=True, eq=False)
class QueryKeyEffects:
    """Effects of every head's queries and keys, taken from another image.

    Parameters
    ----------
    query, key
        With the softmax computed exactly.
    query_linear, key_linear
        Plain gradient × change, for comparison: near 0 where attention is saturated.

    """

    query: Float[Tensor, "image block head"]
    key: Float[Tensor, "image block head"]
    query_linear: Float[Tensor, "image block head"]
    key_linear: Float[Tensor, "image block head"]


def query_key_effects(
    model: VisionModel,
    metric: Measurable,
    x: Float[Tensor, "image channel height width"],
    reference: Float[Tensor, "image channel height width"],
) -> QueryKeyEffects:
    """Estimate what replacing each head's queries, or keys, by another image's does to a metric.

    Parameters
    ----------
    model
        A ViT that attends by ``scaled_dot_product_attention``.
    metric
        What is measured.
    x, reference
        Images, and the partner of each.

    Raises
    ------
    ShapeError
        If there are not as many partners as images.
    SiteError
        If no attention could be caught.

    """
    if len(x) != len(reference):
        raise ShapeError(f"{len(x)} images and {len(reference)} partners: give each image one")
    measured = as_metric(metric, model)
    with torch.no_grad(), watching_attention() as others:
        model.run(reference)
    watch = _Leaves()
    with torch.enable_grad():
        with watch:
            logits = model.logits(x)
        if not watch.calls:
            raise SiteError(
                f"'{model.spec}' does not call scaled_dot_product_attention: its patterns cannot be reached"
            )
        value = measured.at(logits, torch.arange(len(x), device=logits.device)).sum()
        gradients = torch.autograd.grad(value, watch.leaves)
    found: dict[str, list[Tensor]] = {name: [] for name in ("query", "key", "query_linear", "key_linear")}
    for call, other, gradient in zip(watch.calls, others, gradients, strict=True):
        q, k, pattern = call.query.detach(), call.key.detach(), call.pattern.detach()
        dq, dk = other.query.detach() - q, other.key.detach() - k
        ways = {
            "query": ((q + dq) @ k.transpose(-2, -1), dq @ k.transpose(-2, -1)),
            "key": (q @ (k + dk).transpose(-2, -1), q @ dk.transpose(-2, -1)),
        }
        for name, (scores, moved) in ways.items():
            after = (scores * call.scale).softmax(-1)
            found[name].append(((after - pattern) * gradient).sum((2, 3)))
            linear = pattern * call.scale * (moved - (pattern * moved).sum(-1, keepdim=True))
            found[f"{name}_linear"].append((linear * gradient).sum((2, 3)))
    return QueryKeyEffects(**{name: torch.stack(values, 1) for name, values in found.items()})


class _Leaves(AttentionWatch):
    """Give every pattern a leaf of zeros, so that its gradient can be had."""

    def __init__(self) -> None:
        super().__init__()
        self.leaves: list[Tensor] = []

    def used(self, pattern: Tensor) -> Tensor:
        """Return the pattern and its leaf."""
        self.leaves.append(torch.zeros_like(pattern, requires_grad=True))
        return pattern + self.leaves[-1]
