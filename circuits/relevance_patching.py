"""Attribution whose backward pass follows rules of relevance: coefficient × change, for all sites in one pass.

A coefficient is what layer-wise relevance propagation multiplies an activation with to get its relevance; with a change in the
activation's place it estimates the change's effect [1]_. It is a property of the unchanged run alone, so any ablation can be
put in place; under ``zero`` an effect is the relevance that goes missing.

References
----------
.. [1] Rezaei Jafari et al. RelP: faithful and efficient circuit discovery via relevance patching. 2025 (arXiv 2508.21258),
   section 3; the rules are those of :mod:`circuits.localization.lrp_rules`.

"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from circuits.frozen import FrozenCalls
from circuits.localization.lrp_rules import LrpRules, RelevanceMode
from circuits.node_scores import site_gradients
from circuits.wiring import State, Wiring

PATCHING_RULES = LrpRules(conv_gamma=0, linear_gamma=0)
"""RelP's: linear maps and convolutions without gamma, which would send relevance where a change does not go."""


def relevance_coefficients(
    wiring: Wiring, base: State, *, first: int = 0, rules: LrpRules = PATCHING_RULES
) -> dict[str, Float[Tensor, "image token width"]]:
    """Return the coefficient of relevance of every site's activation, from one backward pass.

    The metric itself is differentiated as it is: only the model's calls have rules.

    Parameters
    ----------
    wiring, base
        The sites, and the run that coefficients are of; nothing in it is frozen.
    first
        Number of the first image.
    rules
        Of relevance propagation.

    Raises
    ------
    SiteError
        If the model's attention masks or mixes tensors in a way that has no rule.

    """
    return site_gradients(wiring, replace(base, frozen=_Rules(frozenset(), rules=rules)), first=first)


@dataclass(eq=False)
class _Rules(FrozenCalls):
    """Rules in the place of held calls: they are at work exactly while the model runs."""

    rules: LrpRules = PATCHING_RULES

    @contextmanager
    def replaying(self, repeats: int = 1) -> Iterator[None]:
        """Let gradients of the forward pass inside be coefficients of relevance."""
        del repeats
        with RelevanceMode(self.rules):
            yield
