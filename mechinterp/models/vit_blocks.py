"""TransformerLens' names for the blocks of a ViT, found by a table of attribute names and checked by arithmetic.

A name is given only where the numbers of the probe agree: ``resid_pre + attn_out = resid_mid`` and
``resid_mid + mlp_out = resid_post``. A block of another wiring (parallel, post-norm) keeps the names that hold.
"""

from __future__ import annotations

import re
from typing import Literal

import torch

from mechinterp.models.tracing import Passed, Trace

Take = Literal["output", "input"]
Place = tuple[str, Take]
Candidates = tuple[Place, ...]

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


def block_places(trace: Trace) -> dict[str, Place]:
    """Return module and side of every named place of a ViT's blocks; empty for other models."""
    blocks = find_blocks(trace)
    if not blocks:
        return {}
    places: dict[str, Place] = {"hook_embed": (blocks[0], "input")}
    for i, block in enumerate(blocks):
        places |= {f"blocks.{i}.{name}": place for name, place in _places_in(trace, block).items()}
    norm = _final_norm(trace, blocks)
    if norm is not None:
        places["ln_final.hook_normalized"] = (norm, "output")
    return places


def find_blocks(trace: Trace) -> list[str]:
    """Return the paths of a ViT's blocks in order; empty where there is no single stack of them.

    A block maps tokens to tokens of the same shape and holds an attention; the stack is the one parent whose children do.
    """
    stacks: dict[str, list[str]] = {}
    for path, part in trace.parts.items():
        if part.calls != 1 or part.input is None or part.output is None:
            continue
        tokens = len(part.output.shape) == 3 and part.input.shape == part.output.shape and not part.output.misplaced
        if tokens and re.search(r"(^|[._])\d+$", path) and _attends(trace, path):
            stacks.setdefault(path.rpartition(".")[0], []).append(path)
    return next(iter(stacks.values())) if len(stacks) == 1 else []


def _attends(trace: Trace, block: str) -> bool:
    return any(path.startswith(f"{block}.") and re.search("attn|attention", path[len(block) :]) for path in trace.parts)


def _places_in(trace: Trace, block: str) -> dict[str, Place]:
    places: dict[str, Place] = {"hook_resid_pre": (block, "input"), "hook_resid_post": (block, "output")}
    pre, post = (_at(trace, place) for place in places.values())
    for middle in _existing(trace, block, RESID_MID):
        mid = _at(trace, middle)
        attn = next((p for p in _existing(trace, block, ATTN_OUT) if _adds_up(pre, _at(trace, p), mid)), None)
        mlp = next((p for p in _existing(trace, block, MLP_OUT) if _adds_up(mid, _at(trace, p), post)), None)
        if attn and mlp:
            places |= {"hook_resid_mid": middle, "hook_attn_out": attn, "hook_mlp_out": mlp}
            break
    for z in _existing(trace, block, Z)[:1]:
        places["attn.hook_z"] = z
    for hidden in _existing(trace, block, POST)[:1]:
        places["mlp.hook_post"] = hidden
        # a gated unit's two halves come out of one layer: what is wider than its output is no pre-activation of it
        for before in _existing(trace, block, PRE)[:1]:
            if _at(trace, before).shape == _at(trace, hidden).shape:
                places["mlp.hook_pre"] = before
    return places


def _final_norm(trace: Trace, blocks: list[str]) -> str | None:
    order = list(trace.parts)
    above = blocks[0].split(".")[:-2]
    roots = [".".join(above[:n]) for n in range(len(above), -1, -1)]
    for path in (f"{root}.{name}".lstrip(".") for root in roots for name in FINAL_NORM):
        part = trace.parts.get(path)
        if part is None or part.calls != 1 or part.input is None or part.output is None:
            continue
        if len(part.output.shape) == 3 and order.index(path) > order.index(blocks[-1]):
            # an Identity stands where a model normalises after pooling
            return None if _same(part.input, part.output) else path
    return None


def _existing(trace: Trace, block: str, candidates: Candidates) -> list[Place]:
    places: list[Place] = [(f"{block}.{path}", take) for path, take in candidates]
    return [p for p in places if (part := trace.parts.get(p[0])) and part.calls == 1 and getattr(part, p[1])]


def _at(trace: Trace, place: Place) -> Passed:
    path, take = place
    passed = trace.parts[path].output if take == "output" else trace.parts[path].input
    assert passed is not None
    return passed


def _same(a: Passed, b: Passed) -> bool:
    return a.projection is not None and b.projection is not None and torch.equal(a.projection, b.projection)


def _adds_up(start: Passed, added: Passed, end: Passed) -> bool:
    if start.projection is None or added.projection is None or end.projection is None:
        return False
    if not start.shape == added.shape == end.shape:
        return False
    scale = float(end.projection.abs().max())
    return bool(
        torch.allclose(start.projection + added.projection, end.projection, rtol=0, atol=1e-4 * max(scale, 1e-12))
    )
