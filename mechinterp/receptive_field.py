"""Where in the image every cell of a module's output lies, and how much of the image it sees: by analysis, for any module.

While the module runs once, every operator's effect on the places of its cells is followed: convolutions and pooling widen and
thin them, reshapes and transpositions move them between axes, concatenation puts tokens without a place in front. The arithmetic is
that of Araujo et al. [1]_, generalised from chains of layers to any program, and conservative: what a cell is said to see
always holds what it sees.

References
----------
.. [1] Araujo, Norris, Sim. Computing Receptive Fields of Convolutional Neural Networks. Distill, 2019.
   https://distill.pub/2019/computing-receptive-fields

"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from mechinterp.geometry.call import Call
from mechinterp.geometry.rules import geometry_after, is_pointwise
from mechinterp.geometry.spans import Geometry, Span, plain, row, rows_and_prefix, single_row
from mechinterp.token_grid import TokenGrid

MapLayout = Literal["map", "channels_last", "tokens"]


@dataclass(frozen=True)
class Seen:
    """What is known of one tensor.

    Parameters
    ----------
    geometry
        Where its entries lie.
    passed
        Bit set of the marks (see :meth:`ReceptiveFields.mark`) that lie on *every* path from the image to it.
    maker
        Name of the operator that computed it, views not counted.

    """

    geometry: Geometry
    passed: int = 0
    maker: str = ""


@dataclass(frozen=True)
class Laid:
    """How a tensor is laid out over the image.

    Parameters
    ----------
    layout
        ``map``, ``channels_last`` or ``tokens``.
    grid
        Where its cells lie.
    prefix
        Leading tokens without a place.

    """

    layout: MapLayout
    grid: TokenGrid
    prefix: int = 0


class ReceptiveFields(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Follows the places of cells through everything that is computed inside this context.

    Parameters
    ----------
    image
        The batch of images, or of volumes, that a module is about to be given.
    layout
        Order of its axes: channels first (NCHW, NCDHW) or last.

    Examples
    --------
    >>> x = torch.rand(1, 3, 32, 32)
    >>> with torch.no_grad(), ReceptiveFields(x) as fields:
    ...     y = torch.nn.Conv2d(3, 8, 5, stride=2, padding=2)(x)
    >>> fields.laid_out(y).grid.extent
    (5.0, 5.0)

    """

    def __init__(self, image: Tensor, layout: Literal["NCHW", "NHWC"] = "NCHW") -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self._seen: MutableMapping[Tensor, Seen] = WeakTensorKeyDictionary()  # type: ignore[no-untyped-call, unused-ignore]
        self._overwritten: dict[int, tuple[Any, Seen]] = {}
        first = 2 if layout == "NCHW" else 1
        self.size = tuple(int(n) for n in image.shape[first : first + image.dim() - 2])
        dims = [plain(int(n)) for n in image.shape]
        for axis, n in enumerate(self.size):
            dims[first + axis] = row(Span(axis, n, 1.0, 0.0, 1.0))
        self._seen[image] = Seen(Geometry(tuple(dims)))

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = [s for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and (s := self.seen(t)) is not None]
        result = operator(*args, **kwargs)
        if inputs:
            self._follow(operator, args, kwargs, result, inputs)
        return result

    def seen(self, tensor: Tensor) -> Seen | None:
        """Return what is known of a tensor; ``None`` if it does not depend on the image."""
        if self._overwritten:
            entry = self._overwritten.get(tensor.untyped_storage().data_ptr())
            if entry is not None:
                return Seen(entry[1].geometry.lost(tensor.shape), entry[1].passed)
        return self._seen.get(tensor)

    def geometry(self, tensor: Tensor) -> Geometry | None:
        """Return where a tensor's entries lie; ``None`` if it does not depend on the image."""
        seen = self.seen(tensor)
        return None if seen is None else seen.geometry

    def mark(self, tensor: Tensor, bit: int) -> None:
        """Put a mark on a tensor: what is computed from it alone carries the mark on."""
        seen = self.seen(tensor)
        if seen is not None:
            self._seen[tensor] = Seen(seen.geometry, seen.passed | 1 << bit, seen.maker)

    def laid_out(self, tensor: Tensor) -> Laid | None:
        """Return how a tensor of tokens or a map lies over the image; ``None`` where its cells have no regular place.

        Where a map's cells have been mixed over the whole image (a gate from a global mean, attention, group norm), their
        extent holds the whole image. Tokens keep the place of their patch whatever was mixed into them.
        """
        geometry = self.geometry(tensor)
        if geometry is None:
            return None
        rank = len(self.size)
        axes = list(range(rank))
        if tensor.dim() == rank + 2:
            layouts: tuple[tuple[MapLayout, int], ...] = (("map", 2), ("channels_last", 1))
            for layout, first in layouts:
                spans = [s for d in axes if (s := single_row(geometry.dims[first + d])) is not None]
                if [s.axis for s in spans] == axes:
                    return Laid(layout, self._grid(spans, geometry.everywhere))
        if tensor.dim() == 3:
            found = rows_and_prefix(geometry.dims[1])
            if found is not None and [s.axis for s in found[0]] == axes:
                return Laid("tokens", self._grid(found[0], frozenset()), found[1])
        return None

    def misplaced(self, tensor: Tensor) -> bool:
        """Whether a tensor holds cells along other axes than a site's layouts have them (windows, heads, transposed tokens)."""
        geometry = self.geometry(tensor)
        return geometry is not None and self.laid_out(tensor) is None and bool(_laid_axes(geometry))

    def _grid(self, spans: Sequence[Span], everywhere: frozenset[int]) -> TokenGrid:
        # from any centre inside the image, twice its size reaches beyond both edges
        extent = [2.0 * self.size[s.axis] if s.axis in everywhere else s.high - s.low for s in spans]
        return TokenGrid(
            rows=spans[-2].n,
            columns=spans[-1].n,
            stride=tuple(s.step for s in spans),
            first_centre=tuple((s.low + s.high) / 2 for s in spans),
            extent=tuple(extent),
            depth=spans[0].n if len(spans) == 3 else None,
        )

    def _follow(
        self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any, inputs: list[Seen]
    ) -> None:
        outputs = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        given, written = _bound(operator, args, kwargs)
        name = operator.overloadpacket.__name__
        name = name[:-1] if name.endswith("_") and not name.endswith("__") else name
        passed = inputs[0].passed
        for seen in inputs[1:]:
            passed &= seen.passed
        if outputs:
            call = Call(name, given, self.geometry, outputs)
            maker = inputs[0].maker if name in _VIEWS else name
            found = geometry_after(call, is_pointwise(operator))
            for tensor, geometry in zip(outputs, found, strict=True):
                if any(tensor is w for w in written):
                    self._note_write(tensor, Seen(geometry, passed, maker))
                self._seen[tensor] = Seen(geometry, passed, maker)

    def _note_write(self, tensor: Tensor, seen: Seen) -> None:
        """Give up on the other tensors in this tensor's memory where a write changes what they depend on."""
        before = self._seen.get(tensor)
        if before is not None and before.geometry == seen.geometry:
            return
        storage = tensor.untyped_storage()
        whole = storage.nbytes() == tensor.numel() * tensor.element_size()
        address = storage.data_ptr()
        shared = any(t is not tensor and t.untyped_storage().data_ptr() == address for t in self._seen)
        if not whole or shared:
            self._overwritten[address] = (storage, seen)  # the storage is kept, so that its address stays its own


@contextmanager
def following(image: Tensor, layout: Literal["NCHW", "NHWC"] = "NCHW") -> Iterator[ReceptiveFields]:
    """Follow what is computed from `image`, without gradients."""
    with torch.no_grad(), ReceptiveFields(image, layout) as fields:
        yield fields


_VIEWS = frozenset(
    {"view", "_unsafe_view", "alias", "detach", "clone", "squeeze", "unsqueeze", "_to_copy", "contiguous"}
)


def _laid_axes(geometry: Geometry) -> frozenset[int]:
    return frozenset(s.axis for dim in geometry.dims for factor in dim for s in factor.spans)


def _bound(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], list[Tensor]]:
    """Return an operator's arguments by name, and those it writes to."""
    given: dict[str, Any] = {}
    written: list[Tensor] = []
    for i, argument in enumerate(operator._schema.arguments):
        value = args[i] if i < len(args) else kwargs.get(argument.name, argument.default_value)
        given[argument.name] = value
        if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor):
            written.append(value)
    return given, written
