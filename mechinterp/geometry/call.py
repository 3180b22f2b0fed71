"""One call of an operator, as the rules see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mechinterp.geometry.spans import Geometry, Shape


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
