"""TransformerLens' names for the blocks of a ViT, found by a table of attribute names and checked by arithmetic.

A name is given only where the numbers of the probe agree: ``resid_pre + attn_out = resid_mid`` and
``resid_mid + mlp_out = resid_post``. A block of another wiring (parallel, post-norm) keeps the names that hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from mechinterp.models.tracing import Passed, Trace
from mechinterp.sites import Site

Take = Literal["output", "input"]
Candidates = tuple[tuple[str, Take], ...]

# Where the parts of a block stand, relative to it. The first candidate that exists and fits is taken; what is *added* to
# the residual stream stands before what is computed, so that layer scale is included.
ATTN_OUT: Candidates = (
    ("drop_path1", "output"),
    ("ls1", "output"),
    ("layer_scale1", "output"),
    ("attn.proj", "output"),
    ("attention.o_proj", "output"),
    ("attention.output.dense", "output"),
    ("self_attn.out_proj", "output"),
    ("dropout", "output"),
    ("attn", "output"),
)
MLP_OUT: Candidates = (
    ("drop_path2", "output"),
    ("ls2", "output"),
    ("layer_scale2", "output"),
    ("mlp", "output"),
    ("output.dense", "output"),
)
RESID_MID: Candidates = (
    ("norm2", "input"),
    ("layernorm_after", "input"),
    ("layer_norm2", "input"),
    ("ln_2", "input"),
)
Z: Candidates = (
    ("attn.proj", "input"),
    ("attention.o_proj", "input"),
    ("attention.output.dense", "input"),
    ("self_attn.out_proj", "input"),
)
PRE: Candidates = (("mlp.fc1", "output"), ("intermediate.dense", "output"), ("mlp.0", "output"))
POST: Candidates = (("mlp.fc2", "input"), ("output.dense", "input"), ("mlp.3", "input"))
FINAL_NORM = ("norm", "fc_norm", "layernorm", "ln", "post_layernorm")


@dataclass(frozen=True)
class Place:
    """A module and which side of it."""

    path: str
    take: Take


def find_blocks(trace: Trace) -> list[str]:
    """Return the paths of a ViT's blocks in order; empty where there is no single stack of them.

    A block maps tokens to tokens of the same shape and holds an attention; the stack is the one parent whose children do.
    """
    stacks: dict[str, list[str]] = {}
    for path, part in trace.parts.items():
        parent, _, name = path.rpartition(".")
        if not part.input or not part.output or part.calls != 1 or not name.split("_")[-1].isdigit():
            continue
        if (
            len(part.output.shape) == 3
            and part.input.shape == part.output.shape
            and _first(trace, path, Z + ATTN_OUT[-1:])
        ):
            stacks.setdefault(parent, []).append(path)
    return next(iter(stacks.values())) if len(stacks) == 1 else []


def block_sites(trace: Trace) -> dict[str, Site]:
    """Return the sites of a ViT's blocks by their TransformerLens names; empty for other models."""
    blocks = find_blocks(trace)
    places: dict[str, Place] = {}
    if blocks:
        places["hook_embed"] = Place(blocks[0], "input")
    for i, block in enumerate(blocks):
        places |= {f"blocks.{i}.{name}": place for name, place in _block_places(trace, block).items()}
    if blocks:
        root = blocks[0].rpartition(".")[0].rpartition(".")[0]
        last = trace.parts[blocks[-1]].order
        for name in FINAL_NORM:
            path = f"{root}.{name}" if root else name
            part = trace.parts.get(path)
            if part and part.calls == 1 and part.order > last and part.output and len(part.output.shape) == 3:
                places["ln_final.hook_normalized"] = Place(path, "output")
                break
    return {name: _site(trace, name, place) for name, place in places.items()}


def _block_places(trace: Trace, block: str) -> dict[str, Place]:
    places = {"hook_resid_pre": Place(block, "input"), "hook_resid_post": Place(block, "output")}
    pre, post = (_passed(trace, places[n]) for n in ("hook_resid_pre", "hook_resid_post"))
    for mid_place in _fitting(trace, block, RESID_MID):
        mid = _passed(trace, mid_place)
        attn = next((p for p in _fitting(trace, block, ATTN_OUT) if _adds_up(pre, _passed(trace, p), mid)), None)
        mlp = next((p for p in _fitting(trace, block, MLP_OUT) if _adds_up(mid, _passed(trace, p), post)), None)
        if attn and mlp:
            places |= {"hook_resid_mid": mid_place, "hook_attn_out": attn, "hook_mlp_out": mlp}
            break
    z = _first(trace, block, Z)
    if z:
        places["attn.hook_z"] = z
    hidden_pre, hidden_post = _first(trace, block, PRE), _first(trace, block, POST)
    if hidden_post:
        places["mlp.hook_post"] = hidden_post
        # a gated unit's two halves come out of one layer: what is wider than its output is no pre-activation of it
        if hidden_pre and _passed(trace, hidden_pre).shape == _passed(trace, hidden_post).shape:
            places["mlp.hook_pre"] = hidden_pre
    return places


def _fitting(trace: Trace, block: str, candidates: Candidates) -> list[Place]:
    places = [Place(f"{block}.{path}", take) for path, take in candidates]
    return [p for p in places if (part := trace.parts.get(p.path)) and part.calls == 1 and getattr(part, p.take)]


def _first(trace: Trace, block: str, candidates: Candidates) -> Place | None:
    return next(iter(_fitting(trace, block, candidates)), None)


def _passed(trace: Trace, place: Place) -> Passed:
    passed = getattr(trace.parts[place.path], place.take)
    assert isinstance(passed, Passed)
    return passed


def _adds_up(start: Passed, added: Passed, end: Passed) -> bool:
    if start.print is None or added.print is None or end.print is None or not start.shape == added.shape == end.shape:
        return False
    scale = float(end.print.abs().max())
    return bool(torch.allclose(start.print + added.print, end.print, rtol=0, atol=1e-4 * max(scale, 1e-12)))


def _site(trace: Trace, name: str, place: Place) -> Site:
    shape = _passed(trace, place).shape
    return Site(name, place.path, place.take, "tokens", shape[-1], shape[1])
