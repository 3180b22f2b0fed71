"""Which latents a step keeps: a coarse product of the batch with the encoder, and the exact selection from it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sparse_autoencoders.fused import selection
from sparse_autoencoders.fused.threads import share

# a unit in the last place of bfloat16, which cutting off a float32 loses at most; rounding to the nearest loses half of it
CUT_OFF, ROUNDED = 2.0**-7, 2.0**-8
# float32 sums of up to some thousand terms
SUMMATION = 2.0**-14
# two bfloat16 hold a bias to this share of it
BIAS = 2.0**-16
# rows whose coarse pre-activations are held at once by a thread
_ROWS = 1024
_EVERY_KEY = np.int16(-(2**15))


@dataclass(frozen=True)
class Codes:
    """Active latents as compressed rows, their values after the ReLU; an entry may be zero."""

    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """What an encoder reads, as :func:`~sparse_autoencoders.fused.selection.round_rows` writes it.

    Parameters
    ----------
    x
        The rows.
    rounded
        In bfloat16, with two ones at the end; of no rows where the processor has no bfloat16 products.
    lengths
        The norm of each row, of the rounded one, and of what rounding took away.

    """

    x: Float[Tensor, "row d_in"]
    rounded: Float[Tensor, "row_or_none d_in+2"]
    lengths: NDArray[np.float32]

    @classmethod
    def of(cls, x: Float[Tensor, "row d_in"], shift: Float[Tensor, " d_in"] | None = None) -> Rows:
        """Take `shift` off rows, and round them."""
        n, width = x.shape
        centred = torch.empty((n, width), dtype=torch.float32)
        rounded = torch.empty((n if has_bfloat16() else 0, width + 2), dtype=torch.bfloat16)
        lengths = np.empty((n, 3), np.float32)
        off = np.zeros(width, np.float32) if shift is None else shift.numpy()
        selection.round_rows(
            n, x.contiguous().numpy(), off, centred.numpy(), rounded.view(torch.int16).numpy(), lengths
        )
        return cls(centred, rounded, lengths)

    @property
    def finite(self) -> bool:
        """Whether every value is finite."""
        return bool(np.isfinite(self.lengths[:, 0]).all())


class CoarseEncoder:
    """The encoder in bfloat16 and the bound on its error, for :mod:`sparse_autoencoders.fused.selection`.

    The bias is two further columns, its nearest bfloat16 and what that leaves over. Where the processor has no bfloat16 products
    the float32 product's upper halves serve as the coarse values.
    """

    def __init__(self, encoder: Float[Tensor, "latent d_in"], bias: Float[Tensor, " latent"]) -> None:
        self.fast = has_bfloat16()
        self.encoder, self.bias = encoder, bias
        width, d_in = encoder.shape
        self.rounded = torch.empty((width if self.fast else 0, d_in + 2), dtype=torch.bfloat16)
        self.norms = np.zeros((width, 2), np.float32)
        # the largest share of a coarse value that its own rounding may be
        self.relative = np.float32(ROUNDED if self.fast else CUT_OFF)
        self._rooms: list[Tensor] = []
        self.refresh()

    def refresh(self) -> None:
        """Round the encoder anew; :func:`sparse_autoencoders.fused.products.update` does so itself."""
        self.norms[:, 0] = self.encoder.norm(dim=1).numpy()
        if self.fast:
            d_in = self.encoder.shape[1]
            self.rounded[:, :d_in] = self.encoder
            self.rounded[:, d_in] = self.bias
            self.rounded[:, d_in + 1] = self.bias - self.rounded[:, d_in].float()
            self.norms[:, 1] = (self.encoder - self.rounded[:, :d_in].float()).norm(dim=1).numpy()

    def slack(self, rows: Rows) -> NDArray[np.float32]:
        """Return for each row the bound on its coarse values' error that does not depend on the value."""
        largest, lost = self.norms.max(0)
        whole, kept, taken = rows.lengths.T
        of_bias = float(self.bias.abs().max())
        slack = whole * (largest * np.float32(SUMMATION)) + np.float32(of_bias * SUMMATION)
        if self.fast:
            slack += taken * largest + kept * lost + np.float32(BIAS * of_bias)
        return np.asarray(slack, np.float32)

    def keys(self, rows: Rows, first: int, last: int, room: Tensor) -> NDArray[np.int16]:
        """Return the bits of some rows' coarse pre-activations, written into a room of :meth:`room`."""
        into = room[: last - first]
        if self.fast:
            torch.mm(rows.rounded[first:last], self.rounded.t(), out=into)
            return into.view(torch.int16).numpy()
        torch.addmm(self.bias, rows.x[first:last], self.encoder.t(), out=into)
        # the upper half of a float32 is a bfloat16 cut off
        return np.ascontiguousarray(into.view(torch.int16).numpy()[:, 1::2])

    def room(self, rows: int) -> Tensor:
        """Return room for some rows' coarse pre-activations, to be given back to :meth:`give_back`."""
        while self._rooms:
            room = self._rooms.pop()
            if len(room) >= rows:
                return room
        return torch.empty((rows, len(self.encoder)), dtype=torch.bfloat16 if self.fast else torch.float32)

    def give_back(self, room: Tensor) -> None:
        """Keep room for the next batch."""
        self._rooms.append(room)


@dataclass
class Selector:
    """Keep the k largest pre-activations of each row, or k a row over the whole batch; remembers where to look.

    Parameters
    ----------
    k
        How many.
    whole_batch
        Whether they are shared out over the batch (BatchTopK).

    """

    k: int
    whole_batch: bool = False
    remembered: float | None = field(default=None, init=False)

    def __call__(self, rows: Rows, coarse: CoarseEncoder) -> Codes:
        """Select."""
        return self._of_batch(rows, coarse) if self.whole_batch else self._of_rows(rows, coarse)

    def _of_rows(self, rows: Rows, coarse: CoarseEncoder) -> Codes:
        n, slack = len(rows.x), coarse.slack(rows)
        norms = np.maximum(rows.lengths[:, 0], np.float32(1e-12))
        if self.remembered is None:
            last = _first_hidden(rows, coarse).topk(self.k, dim=1).values[:, -1].numpy() - 2 * slack[:64]
            self.remembered = float(np.median(last / norms[:64]))
        columns, values = np.empty((n, self.k), np.int32), np.empty((n, self.k), np.float32)
        thresholds = np.empty(n, np.float32)
        guess = np.maximum(self.remembered * norms, np.float32(1e-6)).astype(np.float32)
        x, encoder, bias = rows.x.numpy(), coarse.encoder.numpy(), coarse.bias.numpy()

        def some(first: int, last: int) -> None:
            room = coarse.room(last - first)
            keys = coarse.keys(rows, first, last, room)
            selection.topk_of_rows.part(
                first, last, keys, x, encoder, bias, slack, coarse.relative, guess, self.k, columns, values, thresholds
            )
            coarse.give_back(room)

        share(n, some, largest=_ROWS)
        # where one row in twenty is scanned twice, few candidates are looked at in vain
        self.remembered = float(np.quantile(thresholds / norms, 0.05))
        return Codes(np.arange(0, n * self.k + 1, self.k), columns.ravel(), values.ravel())

    def _of_batch(self, rows: Rows, coarse: CoarseEncoder) -> Codes:
        wanted, slack = self.k * len(rows.x), coarse.slack(rows)
        if self.remembered is None:
            hidden = _first_hidden(rows, coarse)
            self.remembered = float(hidden.flatten().topk(self.k * len(hidden)).values[-1])
        low = max(0.95 * self.remembered, 0.0)
        smallest = low / 8
        while True:
            # an exact value above `low` has a coarse one above this; where that says nothing, a whole row is scored
            needed = low - slack - coarse.relative * np.float32(low)
            starts, columns, values = _above(rows, coarse, np.where(needed > 0, selection.bits(needed), _EVERY_KEY))
            if len(values) >= wanted:
                threshold = np.partition(values, len(values) - wanted)[len(values) - wanted]
                if threshold >= low or low == 0:
                    self.remembered = float(threshold)
                    ties = wanted - int((values > threshold).sum())
                    n = selection.keep_largest(starts, columns, values, threshold, ties)
                    return Codes(starts, columns[:n], values[:n])
            low = 0.8 * low if low > smallest else 0.0


def _first_hidden(rows: Rows, coarse: CoarseEncoder) -> Tensor:
    """Return the first rows' pre-activations, to guess from where there was no batch before."""
    return torch.addmm(coarse.bias, rows.x[:64], coarse.encoder.t())


def _above(
    rows: Rows, coarse: CoarseEncoder, least: NDArray[np.int16]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Return as compressed rows the exact pre-activations whose coarse keys are at least each row's bound."""
    n = len(rows.x)
    x, encoder, bias = rows.x.numpy(), coarse.encoder.numpy(), coarse.bias.numpy()
    counts = np.empty(n, np.int64)
    parts: dict[int, tuple[NDArray[np.int32], NDArray[np.float32]]] = {}

    def some(first: int, last: int) -> None:
        room = coarse.room(last - first)
        keys = coarse.keys(rows, first, last, room)
        selection.count_above.part(first, last, keys, least, counts)
        starts = np.concatenate([[0], counts[first:last].cumsum()])
        columns, values = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
        selection.score_above.part(first, last, keys, least, x, encoder, bias, starts, columns, values)
        parts[first] = columns, values
        coarse.give_back(room)

    share(n, some, largest=_ROWS)
    in_order = [parts[first] for first in sorted(parts)]
    starts = np.concatenate([[0], counts.cumsum()])
    return starts, np.concatenate([c for c, _ in in_order]), np.concatenate([v for _, v in in_order])


def has_bfloat16() -> bool:
    """Tell whether the processor multiplies matrices in bfloat16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and bool(torch.cpu._is_avx512_bf16_supported())
