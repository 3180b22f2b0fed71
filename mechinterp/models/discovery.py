"""Find every site of a model from one forward pass: each module's output, and the field's names for ViT blocks and stages."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mechinterp.models.tracing import Trace, trace_module
from mechinterp.models.vision_model import InputContract
from mechinterp.models.vit_blocks import block_sites
from mechinterp.sites import Layout, Site


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
        Sites by name: TransformerLens names of ViT blocks, ``stages.0`` and so on, and every module's dotted path. A
        module that runs more than once in a forward pass is no site: its name would not say which run is meant.

    """
    return sites_of(trace_module(module, contract))


def sites_of(trace: Trace, stages: Sequence[str] = ()) -> dict[str, Site]:
    """Return the sites of a traced model; `stages` are the paths of its stages, where its source knows them."""
    plain = {path: site for path in trace.parts if (site := site_of(trace, path)) is not None}
    aliases = block_sites(trace)
    stages = stages or ()
    for i, path in enumerate(stages):
        if path in plain:
            aliases[f"stages.{i}"] = plain[path].renamed(f"stages.{i}")
    # a module's own path always wins: an alias must not hide it
    return {**{k: v for k, v in aliases.items() if k not in plain}, **plain}


LAYOUTS: dict[int, Layout] = {2: "vector", 3: "tokens", 4: "map"}


def site_of(trace: Trace, path: str) -> Site | None:
    """Return the site at one module's output, or ``None`` where there is none."""
    part = trace.parts[path]
    if part.calls != 1 or part.output is None or not path:
        return None
    shape = part.output.shape
    if len(shape) not in LAYOUTS or shape[0] != len(trace.x):
        return None
    layout = LAYOUTS[len(shape)]
    tokens = {"vector": 1, "tokens": shape[1], "map": shape[-1] * shape[-2]}[layout]
    width = shape[1] if layout == "map" else shape[-1]
    return Site(path, path, "output", layout, width, tokens)
