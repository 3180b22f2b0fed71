"""TransformerLens' names for the blocks of a ViT, found by a table of attribute names and checked by arithmetic.

A name is given only where the numbers of the probe agree: ``resid_pre + attn_out = resid_mid`` and
``resid_mid + mlp_out = resid_post``. A block of another wiring (parallel, post-norm) keeps the names that hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeVar

import torch

from mechinterp.models.tracing import Part, Passed, Trace

Take = Literal["output", "input"]
Candidates = tuple[tuple[str, Take] | tuple[str, Take, int], ...]
T = TypeVar("T")


class Place(NamedTuple):
    """Where a module hands over what has a name: its path, which side of it, and which of its calls, if there are several."""

    path: str
    take: Take
    call: int | None = None


# Where the parts of a block stand, relative to it. The first candidate that exists and fits is taken; what is *added* to
# the residual stream stands before what is computed, so that layer scale is included.
ATTN_OUT: Candidates = (
    ("drop_path1", "output"),
    ("ls1", "output"),
    ("ls_1", "output"),
    ("layer_scale1", "output"),
    ("drop_path", "output", 0),
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
    ("ls_2", "output"),
    ("layer_scale2", "output"),
    ("drop_path", "output", 1),
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
    ("attn.out_proj", "input"),
)
# A gated unit multiplies what is activated (``pre``) with what is not (``pre_linear``).
PRE: Candidates = (
    ("mlp.fc1", "output"),
    ("mlp.fc1_g", "output"),
    ("mlp.gate_proj", "output"),
    ("mlp.up_proj", "output"),
    ("mlp.c_fc", "output"),
    ("mlp.linear1", "output"),
    ("intermediate.dense", "output"),
    ("mlp.0", "output"),
)
PRE_LINEAR: Candidates = (("mlp.fc1_x", "output"), ("mlp.up_proj", "output"))
POST: Candidates = (
    ("mlp.fc2", "input"),
    ("mlp.down_proj", "input"),
    ("mlp.weights_out", "input"),
    ("mlp.c_proj", "input"),
    ("mlp.linear2", "input"),
    ("output.dense", "input"),
    ("mlp.3", "input"),
)
FINAL_NORM = ("norm", "fc_norm", "layernorm", "ln", "post_layernorm", "ln_post")


def block_places(trace: Trace) -> dict[str, Place]:
    """Return module and side of every named place of a ViT's blocks; empty for other models."""
    blocks = find_blocks(trace)
    if not blocks:
        return {}
    places: dict[str, Place] = {"hook_embed": Place(blocks[0], "input")}
    for i, block in enumerate(blocks):
        places |= {f"blocks.{i}.{name}": place for name, place in _places_in(trace, block).items()}
    norm = _final_norm(trace, blocks)
    if norm is not None:
        places["ln_final.hook_normalized"] = Place(norm, "output")
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
    places = {"hook_resid_pre": Place(block, "input"), "hook_resid_post": Place(block, "output")}
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
                for beside in _existing(trace, block, PRE_LINEAR)[:1]:
                    if beside != before:
                        places["mlp.hook_pre_linear"] = beside
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
    places = [Place(f"{block}.{path}", *rest) for path, *rest in candidates]
    return [p for p in places if (part := trace.parts.get(p.path)) and _is_called(part, p) and _passed(part, p)]


def _is_called(part: Part, place: Place) -> bool:
    return part.calls == 1 if place.call is None else place.call < part.calls


def _passed(part: Part, place: Place) -> Passed | None:
    given, gave = part.each[place.call or 0]
    return gave if place.take == "output" else given


def _at(trace: Trace, place: Place) -> Passed:
    passed = _passed(trace.parts[place.path], place)
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


_ORDER = (
    "hook_resid_pre",
    "attn.hook_q",
    "attn.hook_k",
    "attn.hook_v",
    "attn.hook_pattern",
    "attn.hook_z",
    "attn.hook_result",
    "hook_attn_out",
    "hook_resid_mid",
    "mlp.hook_pre",
    "mlp.hook_pre_linear",
    "mlp.hook_post",
    "hook_mlp_out",
    "hook_resid_post",
)


def in_order(named: Mapping[str, T]) -> dict[str, T]:
    """Return what has a name of a block in the order in which the model computes it, everything else where it was."""

    def key(name: str) -> tuple[int, int, int]:
        found = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        if found and found[2] in _ORDER:
            return 1, int(found[1]), _ORDER.index(found[2])
        return (0 if name == "hook_embed" else 2), 0, 0

    return {name: named[name] for name in sorted(named, key=key)}
