"""Which latents a step keeps: a coarse product of the batch with the encoder, and the exact selection from it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sparse_autoencoders.fused import selection

# half a unit in the last place of bfloat16, for the product and for the addition of the bias
ROUNDING = 2.0**-7
# float32 sums of up to some thousand terms
SUMMATION = 2.0**-14
_EVERY_KEY = np.int16(-(2**15))


@dataclass(frozen=True)
class Codes:
    """Active latents as compressed rows, their values after the ReLU; an entry may be zero."""

    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[np.float32]


class CoarseEncoder:
    """The encoder in bfloat16 and the bound on its error, for :mod:`sparse_autoencoders.fused.selection`.

    Where the processor has no bfloat16 products the float32 product's upper halves serve as the coarse values.
    """

    def __init__(self, encoder: Float[Tensor, "latent d_in"], bias: Float[Tensor, " latent"]) -> None:
        self.fast = has_bfloat16()
        self.encoder, self.bias = encoder, bias
        self.rounded = torch.empty_like(encoder if self.fast else encoder[:0], dtype=torch.bfloat16)
        self.norms = np.zeros((len(encoder), 2), np.float32)
        self._room: Tensor | None = None
        self.refresh()

    def refresh(self) -> None:
        """Round the encoder anew; :func:`sparse_autoencoders.fused.products.update` does so itself."""
        self.norms[:, 0] = self.encoder.norm(dim=1).numpy()
        if self.fast:
            self.rounded.copy_(self.encoder)
            self.norms[:, 1] = (self.encoder - self.rounded.float()).norm(dim=1).numpy()

    def keys(self, x: Float[Tensor, "row d_in"]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """Return the coarse pre-activations' bits and, for each row, the bound on their error."""
        largest = float(self.norms[:, 0].max())
        norms = x.norm(dim=1)
        slack = norms * (largest * SUMMATION)
        shape = (len(x), len(self.encoder))
        dtype = torch.bfloat16 if self.fast else torch.float32
        if self._room is None or self._room.shape != shape:
            self._room = torch.empty(shape, dtype=dtype)
        if not self.fast:
            torch.addmm(self.bias, x, self.encoder.t(), out=self._room)
            # the upper half of a float32 is a bfloat16 cut off
            return self._room.view(torch.int16).numpy()[:, 1::2], slack.numpy()
        coarse, bias = x.bfloat16(), self.bias.bfloat16()
        torch.addmm(bias, coarse, self.rounded.t(), out=self._room)
        slack += (x - coarse.float()).norm(dim=1) * largest + coarse.float().norm(dim=1) * float(self.norms[:, 1].max())
        slack += float((self.bias - bias.float()).abs().max()) + ROUNDING * float(bias.float().abs().max())
        return self._room.view(torch.int16).numpy(), slack.numpy()


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

    def __call__(self, x: Float[Tensor, "row d_in"], coarse: CoarseEncoder) -> Codes:
        """Select."""
        keys, slack = coarse.keys(x)
        return self._of_batch(x, coarse, keys, slack) if self.whole_batch else self._of_rows(x, coarse, keys, slack)

    def _of_rows(self, x: Tensor, coarse: CoarseEncoder, keys: NDArray[np.int16], slack: NDArray[np.float32]) -> Codes:
        norms = x.norm(dim=1).clamp_min(1e-12).numpy()
        if self.remembered is None:
            hidden = torch.addmm(coarse.bias, x[:64], coarse.encoder.t())
            last = hidden.topk(self.k, dim=1).values[:, -1].numpy() - 2 * slack[:64]
            self.remembered = float(np.median(last / norms[:64]))
        n = len(x)
        columns, values = np.empty((n, self.k), np.int32), np.empty((n, self.k), np.float32)
        thresholds = np.empty(n, np.float32)
        guess = np.maximum(self.remembered * norms, np.float32(1e-6)).astype(np.float32)
        selection.topk_of_rows(
            n, keys, x.numpy(), coarse.encoder.numpy(), coarse.bias.numpy(), slack, np.float32(ROUNDING), guess, self.k,
            columns, values, thresholds,
        )  # fmt: skip
        # where one row in twenty is scanned twice, few candidates are looked at in vain
        self.remembered = float(np.quantile(thresholds / norms, 0.05))
        return Codes(np.arange(0, n * self.k + 1, self.k), columns.ravel(), values.ravel())

    def _of_batch(self, x: Tensor, coarse: CoarseEncoder, keys: NDArray[np.int16], slack: NDArray[np.float32]) -> Codes:
        n, wanted = len(x), self.k * len(x)
        if self.remembered is None:
            hidden = torch.addmm(coarse.bias, x[:64], coarse.encoder.t())
            self.remembered = float(hidden.flatten().topk(self.k * len(hidden)).values[-1])
        low = max(0.95 * self.remembered, 0.0)
        smallest, counts = low / 8, np.empty(n, np.int64)
        while True:
            # an exact value above `low` has a coarse one above this; where that says nothing, a whole row is scored
            needed = low - slack - ROUNDING * low
            least = np.where(needed > 0, selection.bits(needed), _EVERY_KEY)
            selection.count_above(n, keys, least, counts)
            starts = np.concatenate([[0], counts.cumsum()])
            if starts[-1] >= wanted:
                columns, values = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
                selection.score_above(
                    n, keys, least, x.numpy(), coarse.encoder.numpy(), coarse.bias.numpy(), starts, columns, values
                )
                threshold = np.partition(values, len(values) - wanted)[len(values) - wanted]
                if threshold >= low or low == 0:
                    self.remembered = float(threshold)
                    return self._kept(starts, columns, values, threshold, wanted)
            low = 0.8 * low if low > smallest else 0.0

    @staticmethod
    def _kept(
        starts: NDArray[np.int64],
        columns: NDArray[np.int32],
        values: NDArray[np.float32],
        threshold: np.float32,
        wanted: int,
    ) -> Codes:
        ties = wanted - int((values > threshold).sum())
        n = selection.keep_largest(starts, columns, values, threshold, ties)
        return Codes(starts, columns[:n].copy(), values[:n].copy())


def has_bfloat16() -> bool:
    """Tell whether the processor multiplies matrices in bfloat16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and bool(torch.cpu._is_avx512_bf16_supported())
