r"""Exact top-k of an encoder's pre-activations from a product in bfloat16.

A product in bfloat16 costs a tenth of one in float32 where the processor has the instructions for it, but orders close values wrongly.
So it only *preselects*: with :math:`\hat h` the coarse and :math:`h` the exact value, rounding errors are bounded by Cauchy–Schwarz,

.. math:: |\hat h_{bj} - h_{bj}| \le \|x_b - \hat x_b\| \max_j \|w_j\| + \|\hat x_b\| \max_j \|w_j - \hat w_j\| + \text{(rounding of the result)}
          =: \varepsilon_b,

where both differences are computed and not estimated. Whatever may belong to the k largest lies within :math:`2 \varepsilon_b` of the
k-th coarse value; those few are scored again in float32. The selection is that of float32 arithmetic, always.

A scan passes over blocks whose largest value is below a threshold that earlier batches suggest; where the guess was too high, the row
is scanned again.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sparse_autoencoders.fused.threads import REORDER, SharedLoop

BLOCK = 32


@njit(fastmath=REORDER, inline="always")
def dot(a, b):  # type: ignore[no-untyped-def]
    """Return the inner product of two float32 rows."""
    total = a.dtype.type(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@njit
def _kth_largest(values, n, k):  # type: ignore[no-untyped-def]
    """Return the k-th largest of the first n values, which are reordered (Hoare's selection)."""
    low, high, wanted = 0, n - 1, k - 1
    while low < high:
        pivot = values[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if wanted <= j:
            high = j
        elif wanted >= i:
            low = i
        else:
            break
    return values[wanted]


@njit
def _key(value):  # type: ignore[no-untyped-def]
    """Return a positive float32 as the bits of a bfloat16 that is not above it: they are ordered as the values are."""
    return np.int16(np.float32(value).view(np.int32) >> 16)


@njit
def _value(key):  # type: ignore[no-untyped-def]
    return np.int32(np.int32(key) << 16).view(np.float32)


@njit
def _scan(keys, least, found):  # type: ignore[no-untyped-def]
    """Write where keys are at least `least`, in ascending order; return how many."""
    n = 0
    width = len(keys)
    whole = width - width % BLOCK
    for begin in range(0, whole, BLOCK):
        largest = keys[begin]
        for i in range(begin + 1, begin + BLOCK):
            largest = max(largest, keys[i])
        if largest >= least:
            for i in range(begin, begin + BLOCK):
                found[n] = i
                n += keys[i] >= least
    for i in range(whole, width):
        found[n] = i
        n += keys[i] >= least
    return n


@SharedLoop
def topk_of_rows(from_row, to_row, keys, x, weights, bias, slack, relative, guess, k, columns, values, thresholds):  # type: ignore[no-untyped-def]
    """Keep the k largest pre-activations of each row.

    Parameters
    ----------
    from_row, to_row
        Which rows.
    keys
        int16 (row, latent): the bits of the coarse pre-activations in bfloat16.
    x
        float32 (row, d_in).
    weights, bias
        float32 (latent, d_in) and (latent,): the encoder.
    slack
        float32 (row,): the bound on a coarse value's error that does not depend on the value.
    relative
        The bound that does, as a share of the value: the rounding of the result.
    guess
        float32 (row,): where to look first; must be positive.
    k
        How many to keep.
    columns, values
        int32 and float32 (row, k), written: which latents in ascending order, and their values after the ReLU.
    thresholds
        float32 (row,), written: the guess that would have sufficed; zero where every latent was scored.

    """
    width = keys.shape[1]
    found = np.empty(width + 1, np.int32)
    scores = np.empty(width, np.float32)
    ordered = np.empty(width, np.float32)
    for row in range(from_row, to_row):
        least = guess[row]
        n = width
        everything = False
        while True:
            n = _scan(keys[row], _key(least), found)
            if n >= k:
                for i in range(n):
                    ordered[i] = _value(keys[row, found[i]])
                coarse = _kth_largest(ordered, n, k)
                needed = coarse - np.float32(2) * (slack[row] + relative * coarse)
                # an exact value above the k-th exact one has a coarse value above `needed`
                if needed > 0 and _value(_key(least)) <= needed:
                    kept = 0
                    for i in range(n):
                        if _value(keys[row, found[i]]) >= needed:
                            found[kept] = found[i]
                            kept += 1
                    n = kept
                    break
                least = needed
            else:
                least = least * np.float32(0.5)
            if not least > np.float32(1e-30):
                everything = True
                break
        if everything:
            n = width
            for i in range(width):
                found[i] = i
            thresholds[row] = 0
        else:
            thresholds[row] = needed
        for i in range(n):
            scores[i] = dot(x[row], weights[found[i]]) + bias[found[i]]
            ordered[i] = scores[i]
        last = _kth_largest(ordered, n, k)
        above = 0
        for i in range(n):
            above += scores[i] > last
        ties = k - above
        kept = 0
        # a NaN is above nothing: what is not kept must still name a latent
        columns[row] = width - 1
        values[row] = last
        for i in range(n):
            if scores[i] > last or (scores[i] == last and ties > 0):
                ties -= scores[i] == last
                columns[row, kept] = found[i]
                values[row, kept] = max(scores[i], np.float32(0))
                kept += 1


@SharedLoop
def count_above(from_row, to_row, keys, least, counts):  # type: ignore[no-untyped-def]
    """Write how many of each row's keys are at least the row's bound (int16 (row,))."""
    for row in range(from_row, to_row):
        n = 0
        for i in range(keys.shape[1]):
            n += keys[row, i] >= least[row]
        counts[row] = n


@SharedLoop
def score_above(from_row, to_row, keys, least, x, weights, bias, starts, columns, values):  # type: ignore[no-untyped-def]
    """Score in float32 what :func:`count_above` counted: compressed rows from `starts` on."""
    width = keys.shape[1]
    found = np.empty(width + 1, np.int32)
    for row in range(from_row, to_row):
        n = _scan(keys[row], least[row], found)
        for i in range(n):
            columns[starts[row] + i] = found[i]
            values[starts[row] + i] = dot(x[row], weights[found[i]]) + bias[found[i]]


@njit(cache=True)
def keep_largest(starts, columns, values, threshold, ties):  # type: ignore[no-untyped-def]
    """Compact compressed rows in place to the values above a threshold and the first `ties` that equal it; return their number."""
    kept = 0
    begin = starts[0]
    for row in range(len(starts) - 1):
        end = starts[row + 1]
        starts[row] = kept
        for i in range(begin, end):
            equal = values[i] == threshold and ties > 0
            if values[i] > threshold or equal:
                ties -= equal
                columns[kept] = columns[i]
                values[kept] = max(values[i], np.float32(0))
                kept += 1
        begin = end
    starts[-1] = kept
    return kept


def bits(values: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return positive float32 values as the bits of the bfloat16 next below."""
    return (np.ascontiguousarray(values, np.float32).view(np.int32) >> 16).astype(np.int16)
