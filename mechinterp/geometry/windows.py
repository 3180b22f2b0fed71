"""Rules of operators that read cells in windows: convolution, pooling, resampling, padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mechinterp.geometry.call import Call
from mechinterp.geometry.spans import Dim, Geometry, plain, row, single_row


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
    rank = _rank(call)
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


def _rank(call: Call) -> int:
    """Return how many axes an operator slides over, as its name says: ``avg_pool3d``."""
    return next(rank for rank in (1, 2, 3) if f"{rank}d" in call.name)


def _each(value: Any, rank: int) -> list[int]:
    values = [int(value)] if isinstance(value, int) else [int(v) for v in value]
    return values * rank if len(values) == 1 else values


def _resampled(call: Call, geometry: Geometry, source: Callable[[Any, int, int], tuple[Any, Any]]) -> Geometry:
    """Return the geometry after the last axes were resampled; `source` gives the first and last cell read."""
    new = {}
    for axis in range(len(call.shape) - _rank(call), len(call.shape)):
        span, m = single_row(geometry.dims[axis]), call.shape[axis]
        if span is None:
            new[axis] = plain(m)
            continue
        first, last = source(np.arange(m), span.n, m)
        new[axis] = row(span.gathered(first, last, span.n / m))
    return geometry.with_dims(new)
