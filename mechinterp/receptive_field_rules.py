"""What every operator does to the places of its input's cells: one rule per family of ATen operators.

An operator without a rule is taken to mix everything, so that a wrong place is never claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mechinterp.receptive_field_spans import (
    Dim,
    Geometry,
    Shape,
    broadcast,
    joined_along,
    plain,
    regrouped,
    row,
    single_row,
    size_of,
    sliced,
    union,
)


@dataclass(frozen=True)
class Call:
    """One call of an operator.

    Parameters
    ----------
    name
        The operator's name without overload and in-place mark.
    given
        Its arguments by name, defaults included.
    known
        Looks up what is known of a tensor; ``None`` for what does not depend on the image.
    outputs
        The tensors it returned.

    """

    name: str
    given: Mapping[str, Any]
    known: Callable[[Tensor], Geometry | None]
    outputs: Sequence[Tensor]

    @property
    def shape(self) -> Shape:
        """Shape of the first output."""
        return tuple(self.outputs[0].shape)

    def first(self) -> tuple[Tensor, Geometry]:
        """Return the first tensor argument that depends on the image, and its geometry."""
        return self.tensors()[0]

    def tensors(self) -> list[tuple[Tensor, Geometry]]:
        """Return all tensor arguments that depend on the image, lists of tensors included."""
        flat = [t for v in self.given.values() for t in (v if isinstance(v, (list, tuple)) else (v,))]
        pairs = [(t, self.known(t)) for t in flat if isinstance(t, Tensor)]
        return [(t, g) for t, g in pairs if g is not None]


Rule = Callable[[Call], "Geometry | list[Geometry]"]


def geometry_after(call: Call, pointwise: bool) -> list[Geometry]:
    """Return the geometry of every output of a call with at least one argument that depends on the image."""
    rule = RULES.get(call.name)
    if rule is None and "scaled_dot_product" in call.name:
        rule = attention
    if rule is None and pointwise:
        rule = elementwise
    try:
        found = (rule or unknown)(call)
    except (KeyError, IndexError, TypeError, ValueError):
        found = unknown(call)  # an overload with other arguments than the rule was written for
    if isinstance(found, Geometry):
        # further outputs are statistics, indices or states of random numbers
        found = [found] + [found.lost(t.shape) for t in call.outputs[1:]]
    shapes = [tuple(size_of(dim) for dim in g.dims) for g in found]
    return found if shapes == [tuple(t.shape) for t in call.outputs] else unknown(call)


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


def convolution(call: Call) -> Geometry:
    """Sliding windows over the last axes; transposed convolutions spread instead."""
    tensor, geometry = call.first()
    if tensor is not call.given["input"]:
        return geometry.lost(call.shape)
    kernel = [int(k) for k in call.given["weight"].shape[2:]]
    stride, padding, dilation = (_each(call.given[n], len(kernel)) for n in ("stride", "padding", "dilation"))
    shape = call.shape
    new: dict[int, Dim] = {1: plain(shape[1])}
    for i, k in enumerate(kernel):
        axis = 2 + i
        span = single_row(geometry.dims[axis])
        n = shape[axis]
        if span is None:
            new[axis] = plain(n)
        elif not call.given.get("transposed", False):
            new[axis] = row(span.windowed(n, k, stride[i], padding[i], dilation[i]))
        else:
            # output o reads inputs i with o = i stride - padding + j dilation, 0 <= j < k
            o = np.arange(n) + padding[i]
            first = np.maximum(np.ceil((o - (k - 1) * dilation[i]) / stride[i]), 0)
            last = np.minimum(np.floor(o / stride[i]), span.n - 1)
            new[axis] = row(span.gathered(np.minimum(first, last), np.maximum(first, last), 1 / stride[i]))
    return geometry.with_dims(new)


def pooling(call: Call) -> Geometry:
    """Maxima or means in sliding windows over the last axes."""
    _, geometry = call.first()
    rank = 1 if call.name.endswith("1d") else 2
    kernel = _each(call.given["kernel_size"], rank)
    stride = _each(call.given["stride"] or kernel, rank)
    padding = _each(call.given["padding"], rank)
    dilation = _each(call.given.get("dilation", 1), rank)
    new = {}
    for i, axis in enumerate(range(len(call.shape) - rank, len(call.shape))):
        span, n = single_row(geometry.dims[axis]), call.shape[axis]
        new[axis] = plain(n) if span is None else row(span.windowed(n, kernel[i], stride[i], padding[i], dilation[i]))
    return geometry.with_dims(new)


def adaptive_pooling(call: Call) -> Geometry:
    """Cell ``i`` of ``m`` pools the cells from ``floor(i n / m)`` to before ``ceil((i + 1) n / m)`` of ``n``."""
    _, geometry = call.first()
    return _resampled(call, geometry, lambda i, n, m: (np.floor(i * n / m), np.ceil((i + 1) * n / m) - 1))


def nearest(call: Call) -> Geometry:
    """Upsampling by repetition."""
    _, geometry = call.first()
    return _resampled(call, geometry, lambda i, n, m: (np.floor(i * n / m), np.floor(i * n / m)))


def interpolated(call: Call) -> Geometry:
    """Linear or cubic resampling; the anti-aliased kinds widen their kernel when they shrink."""
    _, geometry = call.first()
    reach = 2 if "bicubic" in call.name else 1

    def source(i: np.ndarray[Any, Any], n: int, m: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        if call.given.get("align_corners"):
            centre, widen = i * (n - 1) / max(m - 1, 1), 1.0
        else:
            centre, widen = (i + 0.5) * n / m - 0.5, max(1.0, n / m) if "_aa" in call.name else 1.0
        first, last = np.floor(centre - reach * widen + 1), np.ceil(centre + reach * widen - 1)
        return np.clip(np.minimum(first, np.floor(centre)), 0, n - 1), np.clip(
            np.maximum(last, np.ceil(centre)), 0, n - 1
        )

    return _resampled(call, geometry, source)


def padded(call: Call) -> Geometry:
    """Cells without content around the others, or copies of edge cells, or mirrored ones."""
    _, geometry = call.first()
    pad = [int(p) for p in (call.given["pad"] if "pad" in call.given else call.given["padding"])]
    new = {}
    for i in range(len(pad) // 2):
        axis = len(geometry.dims) - 1 - i
        before, after = pad[2 * i], pad[2 * i + 1]
        if before == after == 0:
            continue
        span, n = single_row(geometry.dims[axis]), call.shape[axis]
        if span is None:
            new[axis] = plain(n)
            continue
        index = np.arange(n) - before
        if call.name.startswith("replication"):
            index = index.clip(0, span.n - 1)
        elif call.name.startswith("reflection"):
            index = span.n - 1 - np.abs(span.n - 1 - np.abs(index))
        new[axis] = row(span.gathered(index, index, 1))
    return geometry.with_dims(new)


def reshaped(call: Call) -> Geometry:
    """Give the same entries, in row-major order, another shape."""
    tensor, geometry = call.first()
    if call.name == "view" and "dtype" in call.given:
        return geometry if tensor.shape == call.outputs[0].shape else geometry.lost(call.shape)
    return regrouped(geometry, tuple(tensor.shape), call.shape)


def restrided(call: Call) -> Geometry:
    """Keep what has the same shape: only the order in memory is another."""
    tensor, geometry = call.first()
    return geometry if tuple(tensor.shape) == call.shape else geometry.lost(call.shape)


def expanded(call: Call) -> Geometry:
    """Axes of size 1 repeated."""
    tensor, geometry = call.first()
    return broadcast(geometry, tuple(tensor.shape), call.shape)


def repeated(call: Call) -> Geometry:
    """Whole tensors side by side: fine along axes that hold no place."""
    tensor, geometry = call.first()
    times = [int(r) for r in call.given["repeats"]]
    if len(times) != tensor.dim():
        return geometry.lost(call.shape)
    return geometry.with_dims({i: plain(call.shape[i]) for i, r in enumerate(times) if r != 1})


def permuted(call: Call) -> Geometry:
    """Axes in another order."""
    _, geometry = call.first()
    rank = len(geometry.dims)
    if call.name == "permute":
        order = [int(d) % rank for d in call.given["dims"]]
    else:
        a, b = (0, 1) if call.name == "t" else (int(call.given["dim0"]) % rank, int(call.given["dim1"]) % rank)
        order = list(range(rank))
        if rank > 1:
            order[a], order[b] = order[b], order[a]
    return Geometry(tuple(geometry.dims[i] for i in order), geometry.everywhere)


def slicing(call: Call) -> Geometry:
    """Keep a part of one axis."""
    tensor, geometry = call.first()
    axis = int(call.given["dim"]) % tensor.dim()
    size = int(tensor.shape[axis])
    start, stop, step = slice(call.given["start"], call.given["end"], call.given["step"]).indices(size)
    return geometry.with_dims({axis: sliced(geometry.dims[axis], size, start, stop, step)})


def selecting(call: Call) -> list[Geometry]:
    """One entry of an axis, or every one on its own."""
    tensor, geometry = call.first()
    axis = int(call.given["dim"]) % tensor.dim()
    dims = tuple(d for i, d in enumerate(geometry.dims) if i != axis)
    return [geometry.relaid(dims)] * len(call.outputs)


def splitting(call: Call) -> list[Geometry]:
    """Consecutive parts of one axis."""
    tensor, geometry = call.first()
    axis = int(call.given["dim"]) % tensor.dim()
    size, start, found = int(tensor.shape[axis]), 0, []
    for part in call.outputs:
        stop = start + int(part.shape[axis])
        found.append(geometry.with_dims({axis: sliced(geometry.dims[axis], size, start, stop)}))
        start = stop
    return found


def concatenated(call: Call) -> Geometry:
    """Tensors one after another along an axis."""
    tensors = [t for t in call.given["tensors"] if t.dim() == len(call.shape)]
    axis = int(call.given["dim"]) % len(call.shape)
    known = [call.known(t) for t in tensors]
    along = joined_along([g.dims[axis] if g else None for g in known], [int(t.shape[axis]) for t in tensors])
    parts = [_with_axis(g, axis, along) for g in known if g is not None]
    return union(parts, call.shape)


def stacked(call: Call) -> Geometry:
    """Tensors side by side along a new axis."""
    axis = int(call.given["dim"]) % len(call.shape)
    parts = []
    for tensor in call.given["tensors"]:
        geometry = call.known(tensor)
        if geometry is not None:
            dims = (*geometry.dims[:axis], plain(call.shape[axis]), *geometry.dims[axis:])
            parts.append(Geometry(dims, geometry.everywhere))
    return union(parts, call.shape)


def shuffled(call: Call) -> Geometry:
    """``pixel_shuffle``: channels become finer cells, and back."""
    tensor, geometry = call.first()
    new: dict[int, Dim] = {}
    for axis in range(len(call.shape)):
        span = single_row(geometry.dims[axis])
        n, m = int(tensor.shape[axis]), call.shape[axis]
        if axis < len(call.shape) - 2 or span is None:
            new[axis] = geometry.dims[axis] if n == m else plain(m)
        else:
            new[axis] = row(span.refined(m // n) if m >= n else span.coarsened(n // m))
    return geometry.with_dims(new)


def _known(call: Call, name: str) -> Geometry | None:
    tensor = call.given.get(name)
    return call.known(tensor) if isinstance(tensor, Tensor) else None


def _each(value: Any, rank: int) -> list[int]:
    values = [int(value)] if isinstance(value, int) else [int(v) for v in value]
    return values * rank if len(values) == 1 else values


def _with_axis(geometry: Geometry, axis: int, dim: Dim) -> Geometry:
    return geometry.with_dims({axis: dim})


def _resampled(call: Call, geometry: Geometry, source: Callable[[Any, int, int], tuple[Any, Any]]) -> Geometry:
    """Return the geometry after the last two axes were resampled; `source` gives the first and last cell read."""
    new = {}
    for axis in (len(call.shape) - 2, len(call.shape) - 1):
        span, m = single_row(geometry.dims[axis]), call.shape[axis]
        if span is None:
            new[axis] = plain(m)
            continue
        first, last = source(np.arange(m), span.n, m)
        new[axis] = row(span.gathered(first, last, span.n / m))
    return geometry.with_dims(new)


_FAMILIES: tuple[tuple[Rule, str], ...] = (
    (elementwise, "clone _to_copy detach alias lift_fresh native_dropout hardswish _prelu_kernel tril triu"),
    (overwritten, "copy"),
    (
        independent,
        "zeros_like ones_like full_like empty_like rand_like randn_like new_empty new_zeros new_ones new_full fill zero",
    ),
    (batch_norm, "native_batch_norm _native_batch_norm_legit cudnn_batch_norm _batch_norm_with_update"),
    (elementwise, "_native_batch_norm_legit_no_training _batch_norm_no_update"),
    (layer_norm, "native_layer_norm _fused_rms_norm"),
    (group_norm, "native_group_norm"),
    (
        mixing_along_dim,
        "_softmax _log_softmax cumsum cumprod logcumsumexp cummax cummin _safe_softmax",
    ),
    (rolled, "roll"),
    (
        reduced,
        "mean sum amax amin max min var std var_mean std_mean prod any all logsumexp linalg_vector_norm norm argmax argmin",
    ),
    (contraction, "mm bmm addmm baddbmm"),
    (attention, "_scaled_dot_product_attention_math"),
    (multi_head_attention, "_native_multi_head_attention _transformer_encoder_layer_fwd"),
    (convolution, "convolution mkldnn_convolution cudnn_convolution"),
    (pooling, "max_pool2d_with_indices max_pool2d avg_pool2d avg_pool1d mkldnn_max_pool2d"),
    (adaptive_pooling, "_adaptive_avg_pool2d adaptive_max_pool2d adaptive_avg_pool2d"),
    (nearest, "upsample_nearest2d _upsample_nearest_exact2d"),
    (interpolated, "upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"),
    (padded, "constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d"),
    (reshaped, "view _unsafe_view reshape _reshape_copy _reshape_alias view_copy unsqueeze squeeze"),
    (restrided, "as_strided"),
    (expanded, "expand"),
    (repeated, "repeat"),
    (permuted, "permute transpose t"),
    (slicing, "slice"),
    (selecting, "select unbind"),
    (splitting, "split split_with_sizes unsafe_split unsafe_chunk"),
    (concatenated, "cat"),
    (stacked, "stack"),
    (shuffled, "pixel_shuffle pixel_unshuffle"),
)
RULES: dict[str, Rule] = {name: rule for rule, names in _FAMILIES for name in names.split()}


def is_pointwise(operator: torch._ops.OpOverload) -> bool:
    """Whether PyTorch itself marks an operator as working entry by entry."""
    return torch.Tag.pointwise in operator.tags
