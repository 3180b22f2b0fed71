r"""Exact top-k of an encoder's pre-activations from a product in bfloat16.

A product in bfloat16 costs a tenth of one in float32 where the processor has the instructions for it, but orders close values wrongly.
So it only *preselects*: with :math:`\hat h` the coarse and :math:`h` the exact value, rounding errors are bounded by Cauchy–Schwarz,

.. math:: |\hat h_{bj} - h_{bj}| \le \|x_b - \hat x_b\| \max_j \|w_j\| + \|\hat x_b\| \max_j \|w_j - \hat w_j\| + \text{(rounding of the result)}
          =: \varepsilon_b,

where both differences are computed and not estimated. Whatever may belong to the k largest lies within :math:`2 \varepsilon_b` of the
k-th coarse value; those few are scored again in float32. The selection is that of float32 arithmetic, always.

A scan walks over the keys that reach a threshold which earlier batches suggest; where the guess was too high, the row is scanned again.
A score does not depend on what is scored beside it, nor a row on which others are handled with it.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sparse_autoencoders.fused.lanes import LANES, at_least, how_many, lowest
from sparse_autoencoders.fused.threads import REORDER, SharedLoop

# scored at once, and so the room that lists of latents have beyond the last
TOGETHER = 4


@njit(fastmath=REORDER, inline="always")
def dot(a, b):  # type: ignore[no-untyped-def]
    """Return the inner product of two rows."""
    total = a.dtype.type(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@njit(fastmath=REORDER)
def dots(a, b, c, d, e):  # type: ignore[no-untyped-def]
    """Return the inner products of one row with four."""
    with_b = with_c = with_d = with_e = a.dtype.type(0)
    for i in range(len(a)):
        with_b += a[i] * b[i]
        with_c += a[i] * c[i]
        with_d += a[i] * d[i]
        with_e += a[i] * e[i]
    return with_b, with_c, with_d, with_e


@njit
def _dividing(ordered, n, k):  # type: ignore[no-untyped-def]
    """Return a bound that k of the first n int32 values reach; where values are equal, the least that more than k reach."""
    low, high = np.int64(ordered[0]), np.int64(ordered[0])
    for i in range(n):
        low, high = min(low, np.int64(ordered[i])), max(high, np.int64(ordered[i]))
    high += 1
    while high - low > 1:
        middle = np.int32((low + high) >> 1)
        reached = np.int32(0)
        for i in range(n):
            reached += np.int32(ordered[i] >= middle)
        if reached == k:
            return middle
        if reached > k:
            low = np.int64(middle)
        else:
            high = np.int64(middle)
    return np.int32(low)


@njit
def _ordered(value):  # type: ignore[no-untyped-def]
    """Return a float32 as an int32 that is ordered as the values are."""
    raw = np.float32(value).view(np.int32)
    return raw ^ ((raw >> np.int32(31)) & np.int32(0x7FFFFFFF))


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
    whole = width - width % LANES
    for begin in range(0, whole, LANES):
        mask = at_least(keys, begin, least)
        while mask:
            found[n] = begin + lowest(mask)
            n += 1
            mask &= mask - np.uint32(1)
    for i in range(whole, width):
        if keys[i] >= least:
            found[n] = i
            n += 1
    return n


@njit(fastmath=REORDER)
def _score(x, weights, bias, found, n, scores):  # type: ignore[no-untyped-def]
    """Write the pre-activations of the first n latents found; `found` and `scores` have room for some more."""
    for i in range(n, n + TOGETHER - 1):
        found[i] = found[n - 1]
    for i in range(0, n, TOGETHER):
        a, b, c, d = found[i], found[i + 1], found[i + 2], found[i + 3]
        of_a, of_b, of_c, of_d = dots(x, weights[a], weights[b], weights[c], weights[d])
        scores[i], scores[i + 1], scores[i + 2], scores[i + 3] = (
            of_a + bias[a],
            of_b + bias[b],
            of_c + bias[c],
            of_d + bias[d],
        )


@SharedLoop
def round_rows(from_row, to_row, x, shift, centred, rounded, lengths):  # type: ignore[no-untyped-def]
    """Take `shift` off rows and round them.

    Parameters
    ----------
    from_row, to_row
        Which rows.
    x, shift
        float32 (row, d_in) and (d_in,).
    centred
        float32 (row, d_in), written: the difference.
    rounded
        int16 (row, d_in + 2), written: its bits in bfloat16, and ones, which stand for the two parts of the bias; of no rows where
        it is not wanted.
    lengths
        float32 (row, 3), written: the norms of the difference, of the rounded one, and of what rounding took away.

    """
    one = np.int16(0x3F80)
    width = x.shape[1]
    for row in range(from_row, to_row):
        whole = kept = lost = np.float32(0)
        for i in range(width):
            value = x[row, i] - shift[i]
            centred[row, i] = value
            whole += value * value
        if len(rounded):
            for i in range(width):
                value = centred[row, i]
                coarse = bfloat16(value)
                rounded[row, i] = np.int16(coarse >> np.uint32(16))
                near = np.uint32(coarse).view(np.float32)
                kept += near * near
                lost += (value - near) * (value - near)
            rounded[row, width] = one
            rounded[row, width + 1] = one
        lengths[row, 0], lengths[row, 1], lengths[row, 2] = np.sqrt(whole), np.sqrt(kept), np.sqrt(lost)


@njit(inline="always")
def bfloat16(value):  # type: ignore[no-untyped-def]
    """Return the bits of a float32 rounded to the nearest bfloat16, ties to even."""
    raw = np.float32(value).view(np.uint32)
    return (raw + np.uint32(0x7FFF) + ((raw >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)


@SharedLoop
def topk_of_rows(from_row, to_row, keys, x, weights, bias, slack, relative, guess, k, columns, values, thresholds):  # type: ignore[no-untyped-def]
    """Keep the k largest pre-activations of each row.

    Parameters
    ----------
    from_row, to_row
        Which rows.
    keys
        int16 (row, latent), the first that of `from_row`: the bits of the coarse pre-activations in bfloat16.
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
    found = np.empty(width + TOGETHER, np.int32)
    scores = np.empty(width + TOGETHER, np.float32)
    ordered = np.empty(width, np.int32)
    for row in range(from_row, to_row):
        own = keys[row - from_row]
        least = guess[row]
        n = width
        everything = False
        while True:
            n = _scan(own, _key(least), found)
            if n >= k:
                for i in range(n):
                    ordered[i] = own[found[i]]
                # at least k coarse values reach this one, so it is not above the k-th
                coarse = _value(_dividing(ordered, n, k))
                needed = coarse - np.float32(2) * (slack[row] + relative * coarse)
                # an exact value above the k-th exact one has a coarse value above `needed`
                if needed > 0 and _value(_key(least)) <= needed:
                    kept = 0
                    for i in range(n):
                        found[kept] = found[i]
                        kept += ordered[i] >= _key(needed)
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
        _score(x[row], weights, bias, found, n, scores)
        for i in range(n):
            ordered[i] = _ordered(scores[i])
        bound = _dividing(ordered, n, k)
        reached = 0
        for i in range(n):
            reached += ordered[i] >= bound
        # of equal values the first are kept
        too_many = reached - k
        kept = k
        for i in range(n - 1, -1, -1):
            if ordered[i] >= bound:
                if ordered[i] == bound and too_many > 0:
                    too_many -= 1
                    continue
                kept -= 1
                columns[row, kept] = found[i]
                values[row, kept] = max(scores[i], np.float32(0))


@SharedLoop
def count_above(from_row, to_row, keys, least, counts):  # type: ignore[no-untyped-def]
    """Write how many of each row's keys are at least the row's bound (int16 (row,)); `keys` begin with `from_row`."""
    width = keys.shape[1]
    whole = width - width % LANES
    for row in range(from_row, to_row):
        own, n = keys[row - from_row], 0
        for begin in range(0, whole, LANES):
            n += how_many(at_least(own, begin, least[row]))
        for i in range(whole, width):
            n += own[i] >= least[row]
        counts[row] = n


@SharedLoop
def score_above(from_row, to_row, keys, least, x, weights, bias, starts, columns, values):  # type: ignore[no-untyped-def]
    """Score in float32 what :func:`count_above` counted: compressed rows; `keys` and `starts` begin with `from_row`."""
    width = keys.shape[1]
    found = np.empty(width + TOGETHER, np.int32)
    scores = np.empty(width + TOGETHER, np.float32)
    for row in range(from_row, to_row):
        n = _scan(keys[row - from_row], least[row], found)
        begin = starts[row - from_row]
        if n:
            _score(x[row], weights, bias, found, n, scores)
        for i in range(n):
            columns[begin + i] = found[i]
            values[begin + i] = scores[i]


@njit(cache=True)
def keep_largest(starts, columns, values, threshold, ties):  # type: ignore[no-untyped-def]
    """Compact compressed rows in place to the values above a threshold and the first `ties` that equal it; return their number."""
    kept = 0
    begin = starts[0]
    for row in range(len(starts) - 1):
        end = starts[row + 1]
        starts[row] = kept
        for i in range(begin, end):
            value = values[i]
            equal = (value == threshold) & (ties > 0)
            ties -= equal
            columns[kept] = columns[i]
            values[kept] = max(value, np.float32(0))
            kept += (value > threshold) | equal
        begin = end
    starts[-1] = kept
    return kept


def bits(values: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return positive float32 values as the bits of the bfloat16 next below."""
    return (np.ascontiguousarray(values, np.float32).view(np.int32) >> 16).astype(np.int16)
