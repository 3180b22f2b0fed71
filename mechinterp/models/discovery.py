"""Find every site of a model from one forward pass: each module's output, and the field's names for ViT blocks and stages."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

from torch import nn

from mechinterp.models.attention_sites import attention_sites
from mechinterp.models.tracing import Trace, trace_module
from mechinterp.models.vision_model import InputContract
from mechinterp.models.vit_blocks import Place, block_places, in_order
from mechinterp.sites import Layout, Site

LAYOUTS: dict[int, Layout] = {2: "vector", 3: "tokens", 4: "map", 5: "map"}


def discover_sites(module: nn.Module, contract: InputContract) -> dict[str, Site]:
    """Run the module once and describe every place that can be captured.

    Parameters
    ----------
    module
        The model, in evaluation mode.
    contract
        What it wants to be fed.

    Returns
    -------
    dict
        Sites by name: TransformerLens' names for the blocks of a ViT, ``stages.0`` and so on for a CNN, and every module's
        dotted path. A module that runs more than once in a forward pass is no site: its name would not say which run is
        meant. Neither is one whose output holds an image's cells in other axes than a site's layouts (attention windows,
        heads).

    Raises
    ------
    ModelError
        If the module fails on random images.

    """
    return sites_of(trace_module(module, contract))


def sites_of(trace: Trace, stages: Sequence[str] = ()) -> dict[str, Site]:
    """Return the sites of a traced model; `stages` are the paths of its stages, where its source knows them."""
    plain = {path: site for path in trace.parts if path and (site := site_of(trace, path, path)) is not None}
    places = block_places(trace)
    if not places:
        chosen = [path for path in stages if path in plain] or find_stages(trace, plain)
        # a model's own ``stages.1`` keeps its name, and then no other place may be called a stage
        if not any(re.fullmatch(r"stages\.\d+", path) for path in plain):
            places = {f"stages.{i}": Place(path, "output") for i, path in enumerate(chosen)}
    pooled = find_pooled(trace)
    if pooled is not None:
        places["hook_pooled"] = pooled
    named = {name: site_of(trace, name, *place) for name, place in places.items()}
    aliases = {name: site for name, site in named.items() if site is not None}
    aliases = in_order(aliases | attention_sites(trace, aliases))
    return {name: site for name, site in aliases.items() if name not in plain} | plain


def site_of(
    trace: Trace, name: str, path: str, take: Literal["output", "input"] = "output", call: int | None = None
) -> Site | None:
    """Return the site at one module's output or input, or ``None`` where there is none."""
    part = trace.parts[path]
    given, gave = part.each[call or 0]
    passed = gave if take == "output" else given
    if (call is None and part.calls != 1) or passed is None or passed.misplaced:
        return None
    shape, laid = passed.shape, passed.laid
    if not 2 <= len(shape) <= trace.x.dim() or shape[0] != len(trace.x) or 0 in shape:
        return None
    layout: Layout = laid.layout if laid else LAYOUTS[len(shape)]
    return Site(
        name=name,
        module=path,
        take=take,
        layout=layout,
        width=shape[1] if layout == "map" else shape[-1],
        tokens=math.prod({"vector": (), "tokens": shape[1:2], "map": shape[2:], "channels_last": shape[1:-1]}[layout]),
        prefix_tokens=laid.prefix if laid else 0,
        grid=laid.grid if laid else None,
        call=call,
    )


def find_stages(trace: Trace, sites: dict[str, Site]) -> list[str]:
    """Return the last module at each resolution through which everything flows, in order.

    Inside a residual branch nothing is on every path, so a stage ends where its last block does; in a VGG it ends with the
    last activation before the pooling.
    """
    stages: list[str] = []
    resolution: tuple[int, ...] = ()
    for path, part in trace.parts.items():
        site = sites.get(path)
        if site is None or site.grid is None or site.grid.cells == 1 or not trace.on_every_path >> part.bit & 1:
            continue
        if not stages or resolution != site.grid.shape:
            stages.append(path)
            resolution = site.grid.shape
        elif site.layout in {
            sites[stages[-1]].layout,
            "tokens",
        }:  # a map with its axes in another order is no new place
            stages[-1] = path
    # tokens of one resolution throughout are no stages
    return [] if len(stages) == 1 and sites[stages[0]].layout == "tokens" else stages


def find_pooled(trace: Trace) -> Place | None:
    """Return the place of the one vector per image that the model makes of its tokens or cells.

    It is what the classifier, the one linear map whose output has the model's shape, reads; without a classifier, the last
    vector that a module gives. ``None`` where several could be meant (two heads), or no module hands it over.
    """
    parts = [p for path, p in trace.parts.items() if path and p.calls == 1]
    classifiers = [
        p
        for p in parts
        if p.input is not None
        and p.output is not None
        and len(p.input.shape) == 2
        and p.output.shape == tuple(trace.output.shape)
        and isinstance(trace.module.get_submodule(p.path), nn.Linear)
    ]
    if classifiers:
        return Place(classifiers[0].path, "input") if len(classifiers) == 1 else None
    vectors = [p for p in parts if p.output is not None and len(p.output.shape) == 2]
    if trace.output.dim() == 2:  # then a last vector may be classes; what is pooled comes straight from tokens or cells
        vectors = [
            p for p in vectors if p.input is not None and p.input.laid is not None and p.input.laid.grid.cells > 1
        ]
    return Place(vectors[-1].path, "output") if vectors else None
