"""Rows of a matrix by their numbers, copied by the threads that take the steps."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparse_autoencoders.fused.threads import SharedLoop


@SharedLoop
def _copy(from_row, to_row, source, order, taken):  # type: ignore[no-untyped-def]
    for row in range(from_row, to_row):
        wanted = source[order[row]]
        for i in range(len(wanted)):
            taken[row, i] = wanted[i]


def rows_at(source: Float[Tensor, "row width"], order: Int[Tensor, " taken"]) -> Float[Tensor, "taken width"]:
    """Return ``source[order]``.

    Torch's own indexing wakes threads of OpenMP, which then keep a core busy while the step that wants the rows runs.

    Parameters
    ----------
    source
        Contiguous, on the CPU.
    order
        Numbers of rows, none negative.

    Raises
    ------
    IndexError
        If `source` has no such row.

    """
    numbers = order.numpy()
    if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(source):
        raise IndexError(f"rows {numbers.min()} to {numbers.max()} of {len(source)}")
    taken = torch.empty((len(numbers), source.shape[1]), dtype=source.dtype)
    _copy(len(numbers), source.numpy(), numbers, taken.numpy())
    return taken
