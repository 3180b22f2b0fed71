r"""Value and gradient of a sparse decoder, and Adam's step, on active latents only.

Codes are compressed rows (CSR). With :math:`e = t - z W_{dec}` and the loss :math:`\frac1B \sum_b \|e_b\|^2`, the gradients are

.. math:: \partial W_{dec} = -\tfrac2B z^\top e, \quad \partial z = -\tfrac2B e W_{dec}^\top, \quad
          \partial W_{enc} = (\partial z)^\top x, \quad \partial b_{enc} = \textstyle\sum_b \partial z_b,

all taken where :math:`z > 0` only. For nested prefixes of latents (Matryoshka) the loss is a weighted mean over prefixes, and a latent's
error is the weighted sum of the errors of those prefixes that hold it.

A latent's gradient is summed over its rows in ascending order by one thread and used at once, so weights do not depend on the
number of threads, and no gradient is ever stored. Rows are taken four at a time, so that a sum is loaded and stored once for four.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sparse_autoencoders.fused.selection import bfloat16, dot, dots
from sparse_autoencoders.fused.threads import REORDER, SharedLoop

# what is summed over all rows or latents is summed over so many first, whatever the number of threads
ROWS_OF_SUM, LATENTS_OF_SUM = 64, 16
# whose gradients are gathered before any of them takes its step
LATENTS = 512


@SharedLoop
def decode(from_row, to_row, starts, columns, values, decoder, prefixes, shares, target, error, code_gradient, losses, sums):  # type: ignore[no-untyped-def]  # fmt: skip
    """Decode, and take the gradient of the codes.

    Parameters
    ----------
    from_row, to_row
        Which rows; the first a multiple of :data:`ROWS_OF_SUM`.
    starts, columns, values
        The codes as compressed rows, columns ascending in a row.
    decoder
        float32 (latent, d_out).
    prefixes
        int64 (level,), ascending, the last one the number of latents: a loss is taken for each.
    shares
        float32 (level,): what each one's loss counts; 1 together.
    target
        float32 (row, d_out): what shall be reconstructed, the decoder's bias taken off.
    error
        float32 (level, row, d_out), written: for a latent of that level, the sum of the errors that it takes part in, times their shares
        and ``-2 / rows``.
    code_gradient
        float32 (entry,), written.
    losses
        float32 (row, 2), written: squared error with all latents, and the loss.
    sums
        float32 (rows / ROWS_OF_SUM, d_out), written: sums over so many rows of the first level's error.

    """
    n_levels, n_rows, width = error.shape
    scale = error.dtype.type(-2.0 / n_rows)
    for row in range(from_row, to_row):
        current = error[n_levels - 1, row]
        for i in range(width):
            current[i] = target[row, i]
        entry = starts[row]
        mean_loss = error.dtype.type(0)
        for level in range(n_levels):
            end = starts[row + 1]
            if level < n_levels - 1:
                end = entry
                while end < starts[row + 1] and columns[end] < prefixes[level]:
                    end += 1
            _subtract(current, decoder, columns, values, entry, end)
            entry = end
            loss = dot(current, current)
            mean_loss += loss * shares[level]
            if level < n_levels - 1:
                for i in range(width):
                    error[level, row, i] = current[i]
        losses[row, 0] = loss
        losses[row, 1] = mean_loss
        own = scale * shares[n_levels - 1]
        for i in range(width):
            current[i] *= own
        # a latent of an early prefix takes part in every later one
        for level in range(n_levels - 2, -1, -1):
            own = scale * shares[level]
            for i in range(width):
                error[level, row, i] = error[level, row, i] * own + error[level + 1, row, i]
        entry = starts[row]
        for level in range(n_levels):
            end = starts[row + 1]
            if level < n_levels - 1:
                end = entry
                while end < starts[row + 1] and columns[end] < prefixes[level]:
                    end += 1
            _slopes(error[level, row], decoder, columns, values, entry, end, code_gradient)
            entry = end
        total = sums[row // ROWS_OF_SUM]
        if row % ROWS_OF_SUM == 0:
            total[:] = 0
        for i in range(width):
            total[i] += error[0, row, i]


@njit(fastmath=REORDER)
def _subtract(current, decoder, columns, values, entry, end):  # type: ignore[no-untyped-def]
    """Take what some entries write off a row, four at a time."""
    while entry + 4 <= end:
        a, b = decoder[columns[entry]], decoder[columns[entry + 1]]
        c, d = decoder[columns[entry + 2]], decoder[columns[entry + 3]]
        of_a, of_b, of_c, of_d = values[entry], values[entry + 1], values[entry + 2], values[entry + 3]
        for i in range(len(current)):
            current[i] -= of_a * a[i] + of_b * b[i] + of_c * c[i] + of_d * d[i]
        entry += 4
    for at in range(entry, end):
        a, of_a = decoder[columns[at]], values[at]
        for i in range(len(current)):
            current[i] -= of_a * a[i]


@njit(fastmath=REORDER)
def _slopes(error, decoder, columns, values, entry, end, code_gradient):  # type: ignore[no-untyped-def]
    """Write the gradient of some entries of a row; the ReLU lets none through where a value is zero."""
    nothing = error.dtype.type(0)
    while entry + 4 <= end:
        found = dots(
            error,
            decoder[columns[entry]],
            decoder[columns[entry + 1]],
            decoder[columns[entry + 2]],
            decoder[columns[entry + 3]],
        )
        code_gradient[entry] = found[0] if values[entry] > 0 else nothing
        code_gradient[entry + 1] = found[1] if values[entry + 1] > 0 else nothing
        code_gradient[entry + 2] = found[2] if values[entry + 2] > 0 else nothing
        code_gradient[entry + 3] = found[3] if values[entry + 3] > 0 else nothing
        entry += 4
    for at in range(entry, end):
        code_gradient[at] = dot(error, decoder[columns[at]]) if values[at] > 0 else nothing


@njit(cache=True)
def transpose(starts, columns, width):  # type: ignore[no-untyped-def]
    """Return where each latent's entries begin, their rows, and their places in the compressed rows."""
    begins = np.zeros(width + 1, np.int64)
    n = starts[-1]
    for entry in range(n):
        begins[columns[entry] + 1] += 1
    for latent in range(width):
        begins[latent + 1] += begins[latent]
    rows = np.empty(n, np.int32)
    places = np.empty(n, np.int32)
    cursor = begins[:-1].copy()
    for row in range(len(starts) - 1):
        for entry in range(starts[row], starts[row + 1]):
            at = cursor[columns[entry]]
            rows[at] = row
            places[at] = entry
            cursor[columns[entry]] = at + 1
    return begins, rows, places


@njit(inline="always")
def _adam(weights, gradient, first, second, rate, correction, beta1, beta2, epsilon):  # type: ignore[no-untyped-def]
    for i in range(len(weights)):
        first[i] += (gradient[i] - first[i]) * (weights.dtype.type(1) - beta1)
        second[i] = second[i] * beta2 + gradient[i] * gradient[i] * (weights.dtype.type(1) - beta2)
        weights[i] -= rate * first[i] / (np.sqrt(second[i]) * correction + epsilon)


@njit(fastmath=REORDER)
def _gather(first, last, begins, rows, places, values, code_gradient, prefixes, error, x, to_decoder, to_encoder, to_bias):  # type: ignore[no-untyped-def]  # fmt: skip
    """Write the gradients of the latents from `first` to `last`, which is where the last three begin.

    First of all decoder rows, then of all encoder rows: what is read then, for dozens of latents each, is half as large.
    """
    base = begins[first]
    n = begins[last] - base
    codes, slopes, at_rows = np.empty(n, x.dtype), np.empty(n, x.dtype), rows[base : base + n]
    for at in range(n):
        place = places[base + at]
        codes[at], slopes[at] = values[place], code_gradient[place]
    for latent in range(first, last):
        level = np.searchsorted(prefixes, latent, side="right")
        _sum(begins[latent] - base, begins[latent + 1] - base, at_rows, codes, error[level], to_decoder[latent - first])
    for latent in range(first, last):
        _sum(begins[latent] - base, begins[latent + 1] - base, at_rows, slopes, x, to_encoder[latent - first])
    for latent in range(first, last):
        total = x.dtype.type(0)
        for at in range(begins[latent] - base, begins[latent + 1] - base):
            total += slopes[at]
        to_bias[latent - first] = total


@njit(fastmath=REORDER)
def _sum(begin, end, rows, factors, source, total):  # type: ignore[no-untyped-def]
    """Write the sum of some rows times their factors."""
    total[:] = 0
    at = begin
    while at + 4 <= end:
        a, b, c, d = source[rows[at]], source[rows[at + 1]], source[rows[at + 2]], source[rows[at + 3]]
        of_a, of_b, of_c, of_d = factors[at], factors[at + 1], factors[at + 2], factors[at + 3]
        for i in range(len(total)):
            total[i] += of_a * a[i] + of_b * b[i] + of_c * c[i] + of_d * d[i]
        at += 4
    for last in range(at, end):
        row, factor = source[rows[last]], factors[last]
        for i in range(len(total)):
            total[i] += factor * row[i]


@SharedLoop
def gradients(  # type: ignore[no-untyped-def]
    from_latent,
    to_latent,
    begins,
    rows,
    places,
    values,
    code_gradient,
    prefixes,
    error,
    x,
    to_decoder,
    to_encoder,
    to_bias,
):
    """Write each latent's gradients; parameters are those of :func:`update`."""
    own = slice(from_latent, to_latent)
    _gather(
        from_latent, to_latent, begins, rows, places, values, code_gradient, prefixes, error, x, to_decoder[own],
        to_encoder[own], to_bias[own],
    )  # fmt: skip


@SharedLoop
def squared_gradient(from_latent, to_latent, begins, rows, places, values, code_gradient, prefixes, error, x, extra_of, extra_decoder, extra_encoder, extra_bias, squares):  # type: ignore[no-untyped-def]  # fmt: skip
    """Write each latent's squared gradient norm, for clipping; parameters are those of :func:`update`."""
    n = to_latent - from_latent
    of_decoder, of_encoder = np.empty((n, error.shape[2]), x.dtype), np.empty((n, x.shape[1]), x.dtype)
    of_bias = np.empty(n, x.dtype)
    _gather(
        from_latent, to_latent, begins, rows, places, values, code_gradient, prefixes, error, x, of_decoder, of_encoder,
        of_bias,
    )  # fmt: skip
    for at in range(n):
        to_decoder, to_encoder = of_decoder[at], of_encoder[at]
        extra = extra_of[from_latent + at]
        if extra >= 0:
            to_decoder += extra_decoder[extra]
            to_encoder += extra_encoder[extra]
            of_bias[at] += extra_bias[extra]
        squares[from_latent + at] = (
            dot(to_decoder, to_decoder) + dot(to_encoder, to_encoder) + of_bias[at] * of_bias[at]
        )


@SharedLoop
def update(  # type: ignore[no-untyped-def]
    from_latent, to_latent, begins, rows, places, values, code_gradient, prefixes, error, x, extra_of, extra_decoder,
    extra_encoder, extra_bias, factor, encoder, encoder_first, encoder_second, bias, bias_first, bias_second, decoder, decoder_first, decoder_second,
    coarse, norms, rate, correction, beta1, beta2, epsilon, unit_norm, fired, through,
):  # fmt: skip
    """Gather each latent's gradient over the rows it was active in, and take Adam's step with it.

    Parameters
    ----------
    from_latent, to_latent
        Which latents; the first a multiple of :data:`LATENTS_OF_SUM`.
    begins, rows, places
        Of :func:`transpose`.
    values, code_gradient, prefixes, error
        Of :func:`decode`.
    x
        float32 (row, d_in): what the encoder read.
    extra_of, extra_decoder, extra_encoder, extra_bias
        Further gradients: for each latent the row in the other three, or -1.
    factor
        What every gradient is multiplied by: one, or less where it is clipped.
    encoder, bias, decoder and their ``_first`` and ``_second``
        Weights (latent, width) and Adam's moments, changed in place.
    coarse
        int16 (latent, d_in + 2), written: the encoder's bits in bfloat16, and the two parts of the bias; of no rows where it is not
        wanted.
    norms
        float32 (latent, 2), written: the norm of the encoder's row, and of what bfloat16 rounds away.
    rate, correction, beta1, beta2, epsilon
        ``lr / (1 - beta1 ** step)``, ``1 / sqrt(1 - beta2 ** step)`` and Adam's constants, float32.
    unit_norm
        Whether each decoder row is scaled to unit norm afterwards.
    fired
        bool (latent,), written.
    through
        float32 (latents / LATENTS_OF_SUM, d_in), written: sums over so many latents of the bias's gradient, but for the further ones,
        times the encoder's row before the step.

    """
    n, d_in = to_latent - from_latent, encoder.shape[1]
    of_decoder, of_encoder = np.empty((n, decoder.shape[1]), x.dtype), np.empty((n, d_in), x.dtype)
    of_bias = np.empty(n, x.dtype)
    _gather(
        from_latent, to_latent, begins, rows, places, values, code_gradient, prefixes, error, x, of_decoder, of_encoder,
        of_bias,
    )  # fmt: skip
    for latent in range(from_latent, to_latent):
        to_decoder, to_encoder = of_decoder[latent - from_latent], of_encoder[latent - from_latent]
        to_bias = of_bias[latent - from_latent]
        active = False
        for at in range(begins[latent], begins[latent + 1]):
            active |= values[places[at]] > 0
        fired[latent] = active
        reads, writes = encoder[latent], decoder[latent]
        total = through[latent // LATENTS_OF_SUM]
        if latent % LATENTS_OF_SUM == 0:
            total[:] = 0
        for i in range(d_in):
            total[i] += to_bias * reads[i]
        extra = extra_of[latent]
        if extra >= 0:
            to_decoder += extra_decoder[extra]
            to_encoder += extra_encoder[extra]
            to_bias += extra_bias[extra]
        if factor != 1:
            to_decoder *= factor
            to_encoder *= factor
            to_bias *= factor
        _adam(reads, to_encoder, encoder_first[latent], encoder_second[latent], rate, correction, beta1, beta2, epsilon)
        _adam(
            writes, to_decoder, decoder_first[latent], decoder_second[latent], rate, correction, beta1, beta2, epsilon
        )
        to_encoder[0] = to_bias
        own = slice(latent, latent + 1)
        _adam(bias[own], to_encoder[:1], bias_first[own], bias_second[own], rate, correction, beta1, beta2, epsilon)
        if unit_norm:
            scale = x.dtype.type(1) / max(np.sqrt(dot(writes, writes)), x.dtype.type(1e-30))
            for i in range(len(writes)):
                writes[i] *= scale
        norms[latent, 0] = np.sqrt(dot(reads, reads))
        if len(coarse):
            norms[latent, 1] = _round(reads, bias[latent], coarse[latent])


@njit(fastmath=REORDER)
def _round(reads, bias, coarse):  # type: ignore[no-untyped-def]
    """Write the bits of an encoder's row and of its bias in bfloat16; return the norm of what the row lost."""
    lost = np.float32(0)
    d_in = len(reads)
    for i in range(d_in):
        kept = bfloat16(reads[i])
        coarse[i] = np.int16(kept >> np.uint32(16))
        difference = reads[i] - np.uint32(kept).view(np.float32)
        lost += difference * difference
    upper = bfloat16(bias)
    coarse[d_in] = np.int16(upper >> np.uint32(16))
    coarse[d_in + 1] = np.int16(bfloat16(bias - np.uint32(upper).view(np.float32)) >> np.uint32(16))
    return np.sqrt(lost)
