"""The sites a circuit lies on, in the order in which a model reaches them, and runs with some of them held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import InitVar, dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.frozen import LIVE, Frozen, FrozenCalls
from circuits.metrics import Metric
from circuits.nodes import NodeSet, Parts
from mechinterp.capturing import run_with_cache
from mechinterp.errors import ConfigError, SiteError
from mechinterp.hooks import hook_site
from mechinterp.models.vision_model import VisionModel
from mechinterp.sites import Site

Put: TypeAlias = Mapping[str, Tensor | Callable[[Tensor], Tensor]]
"""Site → what it holds, or what becomes of what it holds."""


@dataclass(frozen=True, eq=False)
class State:
    """One consistent run of some images: what every site holds, and the metric.

    Parameters
    ----------
    x
        Prepared images.
    acts
        Site → activation.
    parts
        Site → the same taken apart.
    metric
        One number per image.
    frozen
        Attention, normalisation and gates of this run, where they are held.
    start
        What was put at the first site to get here; ``None`` for the images as they are.

    """

    x: Float[Tensor, "image channel height width"]
    acts: Mapping[str, Float[Tensor, "image token width"]]
    parts: Mapping[str, Parts]
    metric: Float[Tensor, " image"]
    frozen: FrozenCalls
    start: Float[Tensor, "image token width"] | None = None

    def __len__(self) -> int:
        return len(self.x)


@dataclass(eq=False)
class Wiring:
    """A model and the nodes of some of its sites.

    Parameters
    ----------
    model
        The model.
    layers
        Nodes, one set per site; they are put into the order in which the model reaches their sites.
    metric
        What effects are measured on.
    x
        A prepared image or more, to find that order with.
    freeze
        What is held at what it is in the run that is changed: ``attention``, ``norm``, ``gates``; nothing by default.

    Raises
    ------
    ConfigError
        If two sets of nodes share a site.
    SiteError
        If a site does not exist or is not reached.

    """

    model: VisionModel
    layers: Sequence[NodeSet]
    metric: Metric
    x: InitVar[Float[Tensor, "image channel height width"]]
    freeze: frozenset[Frozen] = LIVE

    def __post_init__(self, x: Tensor) -> None:
        self.layers = in_order(self.model, self.layers, x[:1])

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites in order."""
        return tuple(layer.site for layer in self.layers)

    def layer(self, site: str) -> NodeSet:
        """Return the nodes of one site."""
        return self.layers[self.sites.index(site)]

    def run(
        self, state: State, put: Put, read: Sequence[str] = (), *, repeats: int = 1, first: int = 0
    ) -> tuple[Float[Tensor, " row"], dict[str, Float[Tensor, "row token width"]]]:
        """Run a state's images with some sites holding given activations.

        Parameters
        ----------
        state
            Whose images, and whose frozen calls; what it put at the first site is put there again.
        put
            What other sites hold: all images in turn, `repeats` times over. Gradients flow if they are enabled.
        read
            Sites whose activation is wanted.
        repeats
            How often the images are run.
        first
            Number of the first image, for metrics that know something of each.

        Returns
        -------
        tuple
            The metric of every row, and the activations read.

        """
        if state.start is not None and self.sites[0] not in put:
            put = {self.sites[0]: state.start.repeat(repeats, 1, 1), **put}
        x = state.x if repeats == 1 else state.x.repeat(repeats, *(1,) * (state.x.dim() - 1))
        seen: dict[str, Tensor] = {}
        with state.frozen.replaying(repeats), holding(self.model, put, read, seen):
            logits = self.model.logits(x)
        images = torch.arange(first, first + len(state), device=logits.device).repeat(repeats)
        return self.metric.at(logits, images), seen

    def state(
        self,
        x: Float[Tensor, "image channel height width"],
        start: Float[Tensor, "image token width"] | None = None,
        *,
        first: int = 0,
    ) -> State:
        """Run images as they are, or with the first site holding `start`, and note what every site holds."""
        frozen, put = FrozenCalls(self.freeze), {} if start is None else {self.sites[0]: start}
        seen: dict[str, Tensor] = {}
        with torch.no_grad(), frozen.recording(), holding(self.model, put, self.sites, seen):
            logits = self.model.logits(x)
        with torch.no_grad():
            metric = self.metric.at(logits, torch.arange(first, first + len(x), device=logits.device))
            parts = {layer.site: layer.split(seen[layer.site]) for layer in self.layers}
        return State(x, seen, parts, metric, frozen, start)


def in_order(model: VisionModel, layers: Sequence[NodeSet], x: Tensor) -> tuple[NodeSet, ...]:
    """Return sets of nodes in the order in which the model reaches their sites.

    Raises
    ------
    ConfigError
        If there is none, or two share a site.

    """
    if not layers:
        raise ConfigError("a circuit needs nodes: give at least one site")
    by_site = {layer.site: layer for layer in layers}
    if len(by_site) < len(layers):
        doubled = next(s for s in by_site if sum(layer.site == s for layer in layers) > 1)
        raise ConfigError(f"site '{doubled}' is given twice: one set of nodes a site")
    with torch.no_grad():
        reached = run_with_cache(model, x, list(by_site))
    return tuple(by_site[name] for name in reached)


@contextmanager
def holding(model: VisionModel, put: Put, read: Sequence[str], seen: dict[str, Tensor]) -> Iterator[None]:
    """Let sites hold given activations, and note others, in the forward pass inside."""

    def visitor(name: str, site: Site) -> Callable[[Tensor], Tensor | None]:
        def visit(raw: Tensor) -> Tensor | None:
            if name in reached:
                raise SiteError(
                    f"site '{name}' was reached twice in a forward pass of '{model.spec}': take another site"
                )
            reached.add(name)
            value, changed = put.get(name), None
            if value is not None:
                tokens = value(site.to_tokens(raw)) if callable(value) else value
                # a copy in the memory order it had: the next module may work in place on it
                changed = torch.empty_like(raw).copy_(site.from_tokens(tokens, raw))
            if name in read:
                # what is read must be part of what goes on, and must survive work in place on it
                kept = raw.clone() if changed is None else changed
                seen[name] = site.to_tokens(kept)
                return kept.clone()
            return changed

        return visit

    reached: set[str] = set()
    with ExitStack() as undo:
        for name in dict.fromkeys((*put, *read)):
            site = model.site(name)
            undo.callback(hook_site(model.module, site, visitor(name, site)).remove)
        yield
        missing = {*put, *read} - reached
        if missing:
            raise SiteError(f"site '{sorted(missing)[0]}' was not reached in a forward pass of '{model.spec}'")
