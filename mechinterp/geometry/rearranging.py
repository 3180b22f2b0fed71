"""Rules of operators that move cells without computing: views, transpositions, slices, concatenation."""

from __future__ import annotations

from mechinterp.geometry.call import Call
from mechinterp.geometry.spans import (
    Dim,
    Geometry,
    broadcast,
    joined_along,
    plain,
    regrouped,
    row,
    single_row,
    sliced,
    union,
)


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


def _with_axis(geometry: Geometry, axis: int, dim: Dim) -> Geometry:
    return geometry.with_dims({axis: dim})
