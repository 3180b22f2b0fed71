"""Rules of operators that compute with entries: one by one, by matrix products, means, norms and attention."""

from __future__ import annotations

from torch import Tensor

from mechinterp.geometry.call import Call
from mechinterp.geometry.spans import Geometry, broadcast, plain, union


def unknown(call: Call) -> list[Geometry]:
    """Take every entry to depend on all that any argument depends on."""
    axes: frozenset[int] = frozenset().union(*(g.axes for _, g in call.tensors()))
    return [Geometry(tuple(plain(n) for n in t.shape), axes) for t in call.outputs]


def elementwise(call: Call) -> Geometry:
    """Entry by entry, shapes broadcast."""
    return union([broadcast(g, tuple(t.shape), call.shape) for t, g in call.tensors()], call.shape)


def overwritten(call: Call) -> Geometry:
    """``copy_``: what was there before no longer counts."""
    source = call.given["src"]
    known = call.known(source)
    if known is None:
        return Geometry(tuple(plain(n) for n in call.shape))
    return broadcast(known, tuple(source.shape), call.shape)


def independent(call: Call) -> Geometry:
    """Only the argument's shape counts, as in ``zeros_like``."""
    return Geometry(tuple(plain(n) for n in call.shape))


def batch_norm(call: Call) -> Geometry:
    """Scale and shift each channel in evaluation; mix the whole batch in training."""
    _, geometry = call.first()
    if call.given.get("training", False):
        return geometry.mixed(range(len(geometry.dims)))
    return geometry


def layer_norm(call: Call) -> Geometry:
    """Mixes the last axes it is given."""
    _, geometry = call.first()
    last = len(call.given["normalized_shape"])
    return geometry.mixed(range(len(geometry.dims) - last, len(geometry.dims)))


def group_norm(call: Call) -> Geometry:
    """Mixes everything but the batch: after it, every cell has seen the whole image."""
    _, geometry = call.first()
    return geometry.mixed(range(1, len(geometry.dims)))


def mixing_along_dim(call: Call) -> Geometry:
    """Softmax, cumulative sums: entries along one axis depend on each other and keep their places."""
    _, geometry = call.first()
    return geometry.mixed([int(call.given["dim"]) % len(geometry.dims)])


def rolled(call: Call) -> Geometry:
    """Cells that leave at one edge enter at the other: what the rolled axes hold is seen everywhere."""
    _, geometry = call.first()
    return geometry.mixed([int(d) % len(geometry.dims) for d in call.given["dims"]])


def reduced(call: Call) -> Geometry:
    """Means, sums and maxima over axes."""
    tensor, geometry = call.first()
    rank = tensor.dim()
    chosen = call.given.get("dim")
    chosen = [chosen] if isinstance(chosen, int) else list(chosen or range(rank))
    axes = {int(d) % rank for d in chosen} if rank else set()
    keep = bool(call.given.get("keepdim", False))
    dims = [plain(1) if i in axes else d for i, d in enumerate(geometry.dims) if keep or i not in axes]
    return geometry.relaid(tuple(dims))


def contraction(call: Call) -> Geometry:
    """Products of matrices: rows and columns stay, what is summed over is mixed."""
    names = (
        ("mat1", "mat2")
        if "mat1" in call.given
        else ("batch1", "batch2")
        if "batch1" in call.given
        else ("self", "mat2")
    )
    a, b = (call.given[n] for n in names)
    left = call.known(a) or Geometry(tuple(plain(n) for n in a.shape))
    right = call.known(b) or Geometry(tuple(plain(n) for n in b.shape))
    n, m = (int(t.shape[i]) for t, i in ((a, -2), (b, -1)))
    batch = tuple(int(s) for s in a.shape[:-2])
    out = (*batch, n, m)
    parts = [
        left.relaid((*left.dims[:-2], left.dims[-2], plain(m))),
        right.relaid((*right.dims[:-2], plain(n), right.dims[-1])),
    ]
    bias = call.given.get("self") if names[0] != "self" else None
    if isinstance(bias, Tensor) and (known := call.known(bias)) is not None:
        parts.append(broadcast(known, tuple(bias.shape), out))
    return union(parts, out)


def attention(call: Call) -> Geometry:
    """Every query reads all keys and values, and keeps its own place."""
    query = call.given["query"]
    blank = Geometry(tuple(plain(n) for n in query.shape))
    out = tuple(call.outputs[0].shape)
    geometry = call.known(query) or blank
    kept = geometry.with_dims({len(out) - 1: plain(out[-1])})
    others = [g for name in ("key", "value", "attn_mask", "attn_bias") if (g := _known(call, name)) is not None]
    # keys and values of the same batch entry and head: only what lies along their tokens and widths is mixed
    seen = frozenset().union(*(Geometry(g.dims[-2:]).axes | g.everywhere for g in others))
    return Geometry(kept.dims, kept.everywhere | seen).settled()


def multi_head_attention(call: Call) -> Geometry:
    """Attention as one operator, tokens along axis 1."""
    _, geometry = call.first()
    return Geometry(geometry.dims, geometry.axes)


def _known(call: Call, name: str) -> Geometry | None:
    tensor = call.given.get(name)
    return call.known(tensor) if isinstance(tensor, Tensor) else None
