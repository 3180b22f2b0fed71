"""The sites inside a ViT's attention: queries, keys, values, pattern, what each head puts out, and what it adds.

Where they are reached is a table of attribute names, as for the other places of a block; whether they are what their names say
is decided by arithmetic on one image. A name is given only where ``pattern @ v = z`` head by head, and a ``result`` only where
the heads' contributions and the projection's bias add up to the attention's output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from mechinterp.hooks import hook_site
from mechinterp.models.tracing import Trace
from mechinterp.models.vit_blocks import find_blocks
from mechinterp.sites import Layout, Site, Take

# Relative to the block: the module that computes the attention.
ATTENTIONS = ("attn", "attention", "self_attn", "self_attention", "attention.attention")
# Relative to the attention: one linear map for queries, keys and values (in this order), or one for each.
PACKED = ("qkv", "in_proj", "query_key_value")
SEPARATE = (("q_proj", "k_proj", "v_proj"), ("to_q", "to_k", "to_v"), ("query", "key", "value"), ("q", "k", "v"))
# What reads the heads' outputs: the output projection, or a norm before it.
PROJECTIONS = ("proj", "o_proj", "out_proj")
READERS = (*PROJECTIONS, "norm", "inner_attn_ln")
# Relative to the block: factors on the attention's output.
SCALES = ("ls1.gamma", "ls_1.gamma", "layer_scale1.lambda1", "lambda_1", "gamma_1")
_PARTS = ("q", "k", "v")
_TOLERANCE = 1e-4


def attention_sites(trace: Trace, named: Mapping[str, Site]) -> dict[str, Site]:
    """Return the sites of every block's attention that hold, by name, from one more forward pass over one image.

    Parameters
    ----------
    trace
        A trace of the model.
    named
        The sites of its blocks that are found already.

    """
    blocks = [
        _Block(trace, i, path, named)
        for i, path in enumerate(find_blocks(trace))
        if f"blocks.{i}.hook_resid_pre" in named
    ]
    with ExitStack() as undo, torch.no_grad():
        for block in blocks:
            for key, site in block.candidates():
                undo.callback(hook_site(trace.module, site, block.note(key)).remove)
            undo.callback(trace.module.get_submodule(block.path).register_forward_hook(block.judge).remove)
        if blocks:
            x = trace.x[:1]
            trace.module(x.movedim(1, -1).contiguous() if trace.layout == "NHWC" else x)
    return {f"blocks.{block.number}.{name}": site for block in blocks for name, site in block.found.items()}


@dataclass
class _Block:
    """One block: where its attention may be reached, and what was seen of it on one image."""

    trace: Trace
    number: int
    path: str
    named: Mapping[str, Site]
    found: dict[str, Site] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seen: dict[str, Tensor] = {}
        self._sites: dict[str, Site] = {}
        self._attention = next(
            (f"{self.path}.{a}" for a in ATTENTIONS if self._called(f"{self.path}.{a}")), f"{self.path}.{ATTENTIONS[0]}"
        )

    def _called(self, path: str) -> bool:
        part = self.trace.parts.get(path)
        return part is not None and part.calls == 1

    def _site(self, module: str, take: Take, *, layout: Layout = "tokens", weight: str | None = None) -> Site:
        base = self.named[f"blocks.{self.number}.hook_resid_pre"]
        return replace(base, module=module, take=take, layout=layout, weight=weight)

    def candidates(self) -> Iterator[tuple[str, Site]]:
        """Give every place to look at, under a key."""
        if not self._called(self._attention):
            return
        for key, site in self._listed():
            self._sites[key] = site
            yield key, site
        attn_out = self.named.get(f"blocks.{self.number}.hook_attn_out")
        if attn_out is not None:
            yield "attn_out", attn_out

    def _listed(self) -> Iterator[tuple[str, Site]]:
        yield "pattern", self._site(self._attention, "pattern", layout="pattern")
        for name in PACKED:
            yield from self._linear(f"packed {name}", name, "output")
        if isinstance(self.trace.module.get_submodule(self._attention), nn.MultiheadAttention):
            weight = f"{self._attention}.in_proj_weight"
            if getattr(self.trace.module.get_submodule(self._attention), "in_proj_weight", None) is not None:
                yield "packed in_proj_weight", self._site(self._attention, "output", weight=weight)
        for names in SEPARATE:
            for part, name in zip(_PARTS, names, strict=True):
                yield from self._linear(f"{part} {name}", name, "output")
        for name in READERS:
            yield from self._linear(f"z {name}", name, "input")

    def _linear(self, key: str, name: str, take: Take) -> Iterator[tuple[str, Site]]:
        """Give a part of the attention: the module where it is called, what is computed with its weight where it is not."""
        path = f"{self._attention}.{name}"
        if self._called(path):
            yield key, self._site(path, take)
        elif (weight := _weight(self.trace.module, path)) is not None and weight.dim() == 2:
            yield key, self._site(self._attention, take, weight=f"{path}.weight")

    def note(self, key: str) -> Callable[[Tensor], None]:
        """Return a visit that keeps a tensor until the block is judged; what is seen twice is not what is meant."""

        def visit(raw: Tensor) -> None:
            self._seen[key] = raw[:0] if key in self._seen else raw.detach().clone()

        return visit

    def judge(self, *_: object) -> None:
        """Find out which names hold, and forget what was seen."""
        seen, self._seen = self._seen, {}
        pattern = seen.get("pattern")
        base = self.named[f"blocks.{self.number}.hook_resid_pre"]
        if pattern is None or pattern.shape[:1] + pattern.shape[2:] != (1, base.tokens, base.tokens):
            return
        heads, tokens = int(pattern.shape[1]), base.tokens
        by_head = {
            key: raw[0].reshape(tokens, -1, heads, raw.shape[-1] // heads // (3 if key.startswith("packed") else 1))
            for key, raw in seen.items()
            if key.partition(" ")[0] in {"packed", "q", "k", "v", "z"} and _fits(raw, tokens, heads, key)
        }
        outputs = {key: by_head[key][:, 0] for name in READERS if (key := f"z {name}") in by_head}
        for names in self._projections(by_head):
            values = by_head[names["v"][0]][:, names["v"][1]]
            z = next(
                (k for k, o in outputs.items() if _agree(torch.einsum("hqk,khd->qhd", pattern[0], values), o)), None
            )
            if z is None:
                continue
            self._name(heads, {key: acts.shape[-1] for key, acts in by_head.items()}, names, z)
            self._name_result(seen, heads, z)
            return

    def _projections(self, by_head: Mapping[str, Tensor]) -> Iterator[dict[str, tuple[str, int]]]:
        """Give for q, k and v where they stand: a key and which part of it."""
        for key in by_head:
            if key.startswith("packed"):
                yield {part: (key, i) for i, part in enumerate(_PARTS)}
        for names in SEPARATE:
            keys = [f"{part} {name}" for part, name in zip(_PARTS, names, strict=True)]
            if all(key in by_head for key in keys):
                yield {part: (key, 0) for part, key in zip(_PARTS, keys, strict=True)}

    def _name(self, heads: int, per_head: Mapping[str, int], names: Mapping[str, tuple[str, int]], z: str) -> None:
        tokens = self._sites["pattern"].tokens
        self.found["attn.hook_pattern"] = replace(self._sites["pattern"], width=heads * tokens, heads=heads)
        for part, (key, i) in names.items():
            width = heads * per_head[key]
            columns = (i * width, (i + 1) * width) if key.startswith("packed") else None
            self.found[f"attn.hook_{part}"] = replace(self._sites[key], width=width, heads=heads, columns=columns)
        self.found["attn.hook_z"] = replace(self._sites[z], width=heads * per_head[z], heads=heads)
        for name, site in self.found.items():
            self.found[name] = site.renamed(f"blocks.{self.number}.{name}")

    def _name_result(self, seen: Mapping[str, Tensor], heads: int, z: str) -> None:
        """Name what each head adds, where the projection reads the heads' outputs as they are and is all that follows."""
        added, source = self.named.get(f"blocks.{self.number}.hook_attn_out"), self.found["attn.hook_z"]
        name = z.partition(" ")[2]
        weight = _weight(self.trace.module, f"{self._attention}.{name}") if name in PROJECTIONS else None
        if added is None or weight is None or "attn_out" not in seen or weight.shape[1:] != (source.width,):
            return
        bias = getattr(self.trace.module.get_submodule(f"{self._attention}.{name}"), "bias", None)
        projected = nn.functional.linear(source.to_tokens(seen[z]), weight, bias)
        for scale in (*(f"{self.path}.{s}" for s in SCALES), None):
            factors = 1.0 if scale is None else _parameter(self.trace.module, scale)
            if factors is not None and _agree(projected * factors, seen["attn_out"]):
                self.found["attn.hook_result"] = replace(
                    added,
                    name=f"blocks.{self.number}.attn.hook_result",
                    take="result",
                    width=heads * added.width,
                    heads=heads,
                    weight=f"{self._attention}.{name}.weight",
                    scale=scale,
                    source=source,
                )
                return


def _fits(raw: Tensor, tokens: int, heads: int, key: str) -> bool:
    parts = 3 if key.startswith("packed") else 1
    return raw.shape[:2] == (1, tokens) and raw.dim() == 3 and raw.shape[2] % (heads * parts) == 0


def _agree(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    scale = float(b.abs().max())
    return bool(torch.allclose(a, b, rtol=0, atol=_TOLERANCE * max(scale, 1e-12)))


def _weight(module: nn.Module, path: str) -> Tensor | None:
    return _parameter(module, f"{path}.weight")


def _parameter(module: nn.Module, path: str) -> Tensor | None:
    owner, _, name = path.rpartition(".")
    try:
        found = getattr(module.get_submodule(owner), name, None)
    except AttributeError:
        return None
    return found if isinstance(found, Tensor) else None
