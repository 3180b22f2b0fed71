"""How the cells of a tensor's axes lie in the image: the arithmetic behind :mod:`mechinterp.receptive_field`.

Along one image axis, cell ``i`` of a regular row of cells sees the interval ``[low + i step, high + i step)``. A tensor's
axis is a row-major product of such rows and of axes without a place (batch, channels). Every operation on them returns
intervals that hold the true ones: where cells stop being regular, the smallest regular row that covers them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Span:
    """A regular row of cells along one axis of the image.

    Parameters
    ----------
    axis
        0 for an image's rows, 1 for its columns; 0, 1, 2 for a volume's depth, rows, columns.
    n
        Number of cells.
    step
        Distance from cell to cell, in pixels.
    low, high
        What cell 0 sees, in pixels; may reach beyond the image's edges.

    """

    axis: int
    n: int
    step: float
    low: float
    high: float

    def gathered(self, first: ArrayLike, last: ArrayLike, ratio: float) -> Span:
        """Return the row whose cell ``i`` reads this row's cells ``first[i]`` to ``last[i]``, about ``ratio`` apart."""
        first, last = np.asarray(first, dtype=float), np.asarray(last, dtype=float)
        ideal = ratio * np.arange(len(first))
        low = self.low + self.step * float((first - ideal).min())
        high = self.high + self.step * float((last - ideal).max())
        return Span(self.axis, len(first), self.step * ratio, low, high)

    def windowed(self, n: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> Span:
        """Return the row of a sliding window."""
        start = np.arange(n) * stride - padding
        return self.gathered(start, start + (kernel - 1) * dilation, stride)

    def coarsened(self, by: int) -> Span:
        """Return the row of every `by` neighbouring cells taken together."""
        return Span(self.axis, self.n // by, self.step * by, self.low, self.high + (by - 1) * self.step)

    def refined(self, by: int) -> Span:
        """Return the row in which every cell stands `by` times, each seeing what the whole cell saw."""
        return Span(self.axis, self.n * by, self.step / by, self.low - self.step * (by - 1) / by, self.high)

    def hull(self, other: Span) -> Span:
        """Return the row that sees what both see; it steps like the one that sees less."""
        a, b = (self, other) if self.high - self.low <= other.high - other.low else (other, self)
        drift = (self.n - 1) * (b.step - a.step)
        return Span(a.axis, a.n, a.step, min(a.low, b.low, b.low + drift), max(a.high, b.high, b.high + drift))


@dataclass(frozen=True)
class Factor:
    """One factor of a tensor's axis.

    Parameters
    ----------
    n
        Its size.
    spans
        None: a size without a place. One: a row of cells. With a `prefix`, a row-major product of rows.
    prefix
        Leading entries without a place, such as a CLS token.

    """

    n: int
    spans: tuple[Span, ...] = ()
    prefix: int = 0

    @property
    def axes(self) -> frozenset[int]:
        """The image's axes that are laid out here."""
        return frozenset(s.axis for s in self.spans)

    def split(self, outer: int) -> tuple[Factor, Factor] | None:
        """Return this factor as an outer one of the given size and an inner one without a place, if that is possible."""
        if self.prefix or self.n % outer:
            return None
        inner = self.n // outer
        spans = tuple(s.coarsened(inner) for s in self.spans)
        return Factor(outer, spans), Factor(inner)


Dim = tuple[Factor, ...]


def plain(n: int) -> Dim:
    """Return an axis without a place."""
    return (Factor(n),)


def row(span: Span) -> Dim:
    """Return an axis that is one row of cells."""
    return (Factor(span.n, (span,)),)


def size_of(dim: Dim) -> int:
    """Return the size of a tensor's axis."""
    return math.prod(factor.n for factor in dim)


def axes_of(dim: Dim) -> frozenset[int]:
    """Return the image's axes that are laid out along a tensor's axis."""
    return frozenset().union(*(f.axes for f in dim))


def simplified(dim: Dim) -> Dim:
    """Return an axis without factors of size 1, rows that are followed by a size without a place made finer."""
    out: list[Factor] = []
    for factor in dim:
        if factor.n == 1 and not factor.spans:
            continue
        if not factor.spans and out and len(out[-1].spans) == 1 and not out[-1].prefix:
            out[-1] = Factor(out[-1].n * factor.n, (out[-1].spans[0].refined(factor.n),))
        else:
            out.append(factor)
    return tuple(out)


def single_row(dim: Dim) -> Span | None:
    """Return the row of cells that an axis is, if it is just that."""
    dim = simplified(dim)
    return dim[0].spans[0] if len(dim) == 1 and len(dim[0].spans) == 1 and not dim[0].prefix else None


def rows_and_prefix(dim: Dim) -> tuple[tuple[Span, ...], int] | None:
    """Return an axis as a row-major product of rows behind a prefix, if it is just that."""
    dim = simplified(dim)
    if len(dim) == 1 and dim[0].prefix:
        return dim[0].spans, dim[0].prefix
    if dim and all(f.spans and not f.prefix for f in dim):
        return tuple(f.spans[0] for f in dim), 0
    return None


@dataclass(frozen=True)
class Geometry:
    """Where the entries of a tensor lie in the image.

    Parameters
    ----------
    dims
        One per axis of the tensor.
    everywhere
        The image's axes along which every entry depends on every position.

    """

    dims: tuple[Dim, ...]
    everywhere: frozenset[int] = frozenset()

    @property
    def axes(self) -> frozenset[int]:
        """The image's axes the tensor depends on at all."""
        return self.everywhere.union(*(axes_of(d) for d in self.dims))

    def lost(self, shape: Iterable[int]) -> Geometry:
        """Return what is known of a tensor of this shape that depends on this one in an unknown way."""
        return Geometry(tuple(plain(n) for n in shape), self.axes)

    def mixed(self, dims: Iterable[int]) -> Geometry:
        """Return the geometry after entries along some axes were mixed, every entry keeping its place."""
        found = [axes_of(self.dims[d]) for d in dims]
        return replace(self, everywhere=self.everywhere.union(*found))

    def with_dims(self, new: dict[int, Dim]) -> Geometry:
        """Return the geometry with some axes replaced; what was laid out there and is no more is seen everywhere."""
        dims = tuple(new.get(i, d) for i, d in enumerate(self.dims))
        return self.relaid(dims)

    def relaid(self, dims: tuple[Dim, ...]) -> Geometry:
        """Return the geometry with other axes; what is laid out no more is seen everywhere, what is twice, once."""
        everywhere = self.everywhere | (self.axes - frozenset().union(*(axes_of(d) for d in dims)))
        return Geometry(dims, everywhere).settled()

    def settled(self) -> Geometry:
        """Return the geometry with every image axis laid out along one axis of the tensor only, the first."""
        taken: frozenset[int] = frozenset()
        twice: frozenset[int] = frozenset()
        dims = []
        for dim in self.dims:
            again = axes_of(dim) & taken
            twice |= again
            taken |= axes_of(dim)
            dims.append(tuple(Factor(f.n) if f.axes & again else f for f in dim) if again else dim)
        return Geometry(tuple(dims), self.everywhere | twice) if twice else self


def union(geometries: Sequence[Geometry], shape: Shape) -> Geometry:
    """Return the geometry of a tensor whose entries depend on the same entries of several, all of its shape."""
    everywhere: frozenset[int] = frozenset().union(*(g.everywhere for g in geometries))
    dims = []
    for i, n in enumerate(shape):
        dim: Dim | None = plain(n)
        for g in geometries:
            joined = _joined(dim, g.dims[i]) if dim is not None else None
            if joined is None:
                everywhere |= frozenset().union(*(axes_of(h.dims[i]) for h in geometries))
            dim = joined
        dims.append(plain(n) if dim is None else dim)
    return Geometry(tuple(dims), everywhere).settled()


def _joined(a: Dim, b: Dim) -> Dim | None:
    """Return the axis that sees what both see; ``None`` where the two are laid out differently."""
    if not axes_of(a) or a == b:
        return b
    if not axes_of(b):
        return a
    a, b = simplified(a), simplified(b)
    if len(a) != len(b) or any(x.n != y.n or x.prefix != y.prefix for x, y in zip(a, b, strict=True)):
        return None
    out = []
    for x, y in zip(a, b, strict=True):
        if [(s.axis, s.n) for s in x.spans] != [(s.axis, s.n) for s in y.spans]:
            return None
        out.append(replace(x, spans=tuple(s.hull(t) for s, t in zip(x.spans, y.spans, strict=True))))
    return tuple(out)


def broadcast(geometry: Geometry, shape: Shape, to: Shape) -> Geometry:
    """Return the geometry of a tensor of `shape` repeated to the shape `to`, axes aligned at the end."""
    missing = len(to) - len(shape)
    dims = [plain(n) for n in to[:missing]]
    dims += [d if n == m else plain(m) for d, n, m in zip(geometry.dims, shape, to[missing:], strict=True)]
    return geometry.relaid(tuple(dims))


def regrouped(geometry: Geometry, shape: Shape, to: Shape) -> Geometry:
    """Return the geometry after the entries, in row-major order, were given another shape."""
    dims: list[Dim] = []
    for source, target in _groups(shape, to):
        if [shape[i] for i in source] == [to[j] for j in target]:
            dims += [geometry.dims[i] for i in source]
        elif not target:  # axes of size 1 at the end that are no more: a single cell keeps its place beside other cells
            single = [f for i in source for f in geometry.dims[i] if f.spans]
            if dims and _all_laid(dims[-1]):
                dims[-1] = (*dims[-1], *single)
        elif not source:  # new axes of size 1 at the end
            last = dims[-1] if dims else ()
            if len(target) == 1 and len(last) > 1 and last[-1].n == 1 and last[-1].spans:
                dims[-1:] = [last[:-1], last[-1:]]
            else:
                dims += [plain(1) for _ in target]
        else:
            factors = [f for i in source for f in geometry.dims[i] if f.n > 1 or f.spans]
            dims += _distributed(factors, [to[j] for j in target])
    return geometry.relaid(tuple(dims))


def _all_laid(dim: Dim) -> bool:
    return bool(dim) and all(f.spans and not f.prefix for f in dim)


def _groups(shape: Shape, to: Shape) -> Iterable[tuple[list[int], list[int]]]:
    """Pair the shortest runs of axes whose sizes have the same product."""
    i = j = 0
    while i < len(shape) or j < len(to):
        source: list[int] = []
        target: list[int] = []
        have = want = 0
        while not (source or target) or have != want:
            if (have <= want and i < len(shape)) or j == len(to):
                source.append(i)
                i += 1
            else:
                target.append(j)
                j += 1
            have = math.prod(shape[k] for k in source) if source else 0
            want = math.prod(to[k] for k in target) if target else 0
            if i == len(shape) and j == len(to):
                break
        yield source, target


def _distributed(factors: list[Factor], sizes: list[int]) -> list[Dim]:
    """Deal factors out to axes of the given sizes, splitting rows where an axis ends inside one."""
    queue = list(factors)
    dims: list[Dim] = []
    for i, size in enumerate(sizes):
        dim: list[Factor] = []
        need = size
        while queue and (need > 1 or (queue[0].n == 1 and (not dim or 1 not in sizes[i + 1 : i + 2]))):
            factor = queue.pop(0)
            if need % factor.n == 0:
                dim.append(factor)
                need //= factor.n
                continue
            halves = factor.split(need) if factor.n % need == 0 else None
            if halves is None:
                return [plain(n) for n in sizes]
            dim.append(halves[0])
            queue.insert(0, halves[1])
            need = 1
        # a single cell among channels has no place of its own
        placeless = any(not f.spans for f in dim)
        dims.append(tuple(f for f in dim if f.n > 1 or not placeless) or plain(size))
    return dims


def sliced(dim: Dim, size: int, start: int, stop: int, step: int = 1) -> Dim:
    """Return an axis of the given size after ``[start:stop:step]``; without a place where that is no regular row."""
    index = np.arange(start, stop, step)
    if len(index) == size:
        return dim
    span = single_row(dim)
    if span is not None and len(index):
        return row(span.gathered(index, index, step))
    laid = rows_and_prefix(dim)
    if laid is not None and step == 1 and stop == size and start <= laid[1] and laid[1]:
        spans, prefix = laid
        if start == prefix:
            return tuple(Factor(s.n, (s,)) for s in spans)
        return (Factor(len(index), spans, prefix - start),)
    return plain(len(index))


def joined_along(dims: Sequence[Dim | None], sizes: Sequence[int]) -> Dim:
    """Return the axis along which tensors were concatenated: a prefix before one that is laid out, or no place."""
    laid = [i for i, d in enumerate(dims) if d is not None and axes_of(d)]
    if laid == [len(dims) - 1]:
        found = rows_and_prefix(dims[-1] or ())
        if found is not None:
            spans, prefix = found
            return (Factor(sum(sizes), spans, prefix + sum(sizes[:-1])),)
    return plain(sum(sizes))
