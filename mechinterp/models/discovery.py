"""Find every site of a model from one forward pass: each module's output, and the field's names for ViT blocks and stages."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from torch import nn

from mechinterp.models.tracing import Trace, trace_module
from mechinterp.models.vision_model import InputContract
from mechinterp.models.vit_blocks import block_places
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
            places = {f"stages.{i}": (path, "output") for i, path in enumerate(chosen)}
    aliases = {name: site_of(trace, name, path, take) for name, (path, take) in places.items()}
    return {name: site for name, site in aliases.items() if site is not None and name not in plain} | plain


def site_of(trace: Trace, name: str, path: str, take: str = "output") -> Site | None:
    """Return the site at one module's output or input, or ``None`` where there is none."""
    part = trace.parts[path]
    passed = part.output if take == "output" else part.input
    if part.calls != 1 or passed is None or passed.misplaced:
        return None
    shape, laid = passed.shape, passed.laid
    if not 2 <= len(shape) <= trace.x.dim() or shape[0] != len(trace.x) or 0 in shape:
        return None
    layout: Layout = laid.layout if laid else LAYOUTS[len(shape)]
    return Site(
        name=name,
        module=path,
        take="output" if take == "output" else "input",
        layout=layout,
        width=shape[1] if layout == "map" else shape[-1],
        tokens=math.prod({"vector": (), "tokens": shape[1:2], "map": shape[2:], "channels_last": shape[1:-1]}[layout]),
        prefix_tokens=laid.prefix if laid else 0,
        grid=laid.grid if laid else None,
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
