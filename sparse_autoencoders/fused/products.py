r"""Value and gradient of a sparse decoder, and Adam's step, on active latents only.

Codes are compressed rows (CSR). With :math:`e = t - z W_{dec}` and the loss :math:`\frac1B \sum_b \|e_b\|^2`, the gradients are

.. math:: \partial W_{dec} = -\tfrac2B z^\top e, \quad \partial z = -\tfrac2B e W_{dec}^\top, \quad
          \partial W_{enc} = (\partial z)^\top x, \quad \partial b_{enc} = \textstyle\sum_b \partial z_b,

all taken where :math:`z > 0` only. For nested prefixes of latents (Matryoshka) the loss is the mean over prefixes, and a latent's
error is the mean of the errors of those prefixes that hold it.

A latent's gradient is summed over its rows in ascending order by one thread and used at once, so weights do not depend on the
number of threads, and no gradient is ever stored.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sparse_autoencoders.fused.selection import dot
from sparse_autoencoders.fused.threads import SharedLoop


@SharedLoop
def decode(from_row, to_row, starts, columns, values, decoder, prefixes, target, error, code_gradient, losses):  # type: ignore[no-untyped-def]
    """Decode, and take the gradient of the codes.

    Parameters
    ----------
    from_row, to_row
        Which rows.
    starts, columns, values
        The codes as compressed rows, columns ascending in a row.
    decoder
        float32 (latent, d_out).
    prefixes
        int64 (level,), ascending, the last one the number of latents: a loss is taken for each.
    target
        float32 (row, d_out): what shall be reconstructed, the decoder's bias taken off.
    error
        float32 (level, row, d_out), written: for a latent of that level, the mean over levels of the errors that it shares in, scaled
        by ``-2 / rows``.
    code_gradient
        float32 (entry,), written.
    losses
        float32 (row, 2), written: squared error with all latents, and its mean over the levels.

    """
    n_levels, n_rows, width = error.shape
    scale = error.dtype.type(-2.0 / (n_rows * n_levels))
    for row in range(from_row, to_row):
        current = error[n_levels - 1, row]
        for i in range(width):
            current[i] = target[row, i]
        entry = starts[row]
        mean_loss = error.dtype.type(0)
        for level in range(n_levels):
            while entry < starts[row + 1] and columns[entry] < prefixes[level]:
                z = values[entry]
                if z > 0:
                    direction = decoder[columns[entry]]
                    for i in range(width):
                        current[i] -= z * direction[i]
                entry += 1
            mean_loss += dot(current, current) / error.dtype.type(n_levels)
            if level < n_levels - 1:
                for i in range(width):
                    error[level, row, i] = current[i]
        losses[row, 0] = dot(current, current)
        losses[row, 1] = mean_loss
        for i in range(width):
            current[i] *= scale
        # a latent of an early prefix takes part in every later one
        for level in range(n_levels - 2, -1, -1):
            for i in range(width):
                error[level, row, i] = error[level, row, i] * scale + error[level + 1, row, i]
        level = 0
        for entry in range(starts[row], starts[row + 1]):
            while columns[entry] >= prefixes[level]:
                level += 1
            code_gradient[entry] = (
                dot(error[level, row], decoder[columns[entry]]) if values[entry] > 0 else error.dtype.type(0)
            )


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


@njit(inline="always")
def _bfloat16(value):  # type: ignore[no-untyped-def]
    """Return the bits of the nearest bfloat16, ties to even."""
    raw = np.float32(value).view(np.int32)
    return np.int16((raw + 0x7FFF + ((raw >> 16) & 1)) >> 16)


@njit(inline="always")
def _gather(entries, rows, places, values, code_gradient, error, x, to_decoder, to_encoder):  # type: ignore[no-untyped-def]
    """Sum a latent's gradients over its rows; return that of its bias."""
    to_decoder[:] = 0
    to_encoder[:] = 0
    to_bias = x.dtype.type(0)
    for at in entries:
        z, slope = values[places[at]], code_gradient[places[at]]
        if z > 0:
            of_row, with_row = error[rows[at]], x[rows[at]]
            for i in range(len(to_decoder)):
                to_decoder[i] += z * of_row[i]
            for i in range(len(to_encoder)):
                to_encoder[i] += slope * with_row[i]
            to_bias += slope
    return to_bias


@SharedLoop
def gradients(  # type: ignore[no-untyped-def]
    from_latent, to_latent, begins, rows, places, values, code_gradient, error, x, to_decoder, to_encoder, to_bias
):
    """Write each latent's gradients; parameters are those of :func:`update`, `error` of one level."""
    for latent in range(from_latent, to_latent):
        entries = range(begins[latent], begins[latent + 1])
        to_bias[latent] = _gather(
            entries, rows, places, values, code_gradient, error, x, to_decoder[latent], to_encoder[latent]
        )


@SharedLoop
def squared_gradient(from_latent, to_latent, begins, rows, places, values, code_gradient, prefixes, error, x, extra_of, extra_decoder, extra_encoder, extra_bias, squares):  # type: ignore[no-untyped-def]  # fmt: skip
    """Write each latent's squared gradient norm, for clipping; parameters are those of :func:`update`."""
    to_decoder = np.empty(error.shape[2], x.dtype)
    to_encoder = np.empty(x.shape[1], x.dtype)
    for latent in range(from_latent, to_latent):
        level = np.searchsorted(prefixes, latent, side="right")
        entries = range(begins[latent], begins[latent + 1])
        to_bias = _gather(entries, rows, places, values, code_gradient, error[level], x, to_decoder, to_encoder)
        extra = extra_of[latent]
        if extra >= 0:
            to_decoder += extra_decoder[extra]
            to_encoder += extra_encoder[extra]
            to_bias += extra_bias[extra]
        squares[latent] = dot(to_decoder, to_decoder) + dot(to_encoder, to_encoder) + to_bias * to_bias


@SharedLoop
def update(  # type: ignore[no-untyped-def]
    from_latent, to_latent, begins, rows, places, values, code_gradient, prefixes, error, x, extra_of, extra_decoder,
    extra_encoder, extra_bias, factor, encoder, encoder_first, encoder_second, bias, bias_first, bias_second, decoder, decoder_first, decoder_second,
    coarse, norms, rate, correction, beta1, beta2, epsilon, unit_norm, fired,
):  # fmt: skip
    """Gather each latent's gradient over the rows it was active in, and take Adam's step with it.

    Parameters
    ----------
    from_latent, to_latent
        Which latents.
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
        int16 (latent, d_in), written: the encoder's bits in bfloat16; of no rows where it is not wanted.
    norms
        float32 (latent, 2), written: the norm of the encoder's row, and of what bfloat16 rounds away.
    rate, correction, beta1, beta2, epsilon
        ``lr / (1 - beta1 ** step)``, ``1 / sqrt(1 - beta2 ** step)`` and Adam's constants, float32.
    unit_norm
        Whether each decoder row is scaled to unit norm afterwards.
    fired
        bool (latent,), written.
    """
    to_decoder = np.empty(decoder.shape[1], x.dtype)
    to_encoder = np.empty(encoder.shape[1], x.dtype)
    for latent in range(from_latent, to_latent):
        level = np.searchsorted(prefixes, latent, side="right")
        entries = range(begins[latent], begins[latent + 1])
        to_bias = _gather(entries, rows, places, values, code_gradient, error[level], x, to_decoder, to_encoder)
        active = False
        for at in entries:
            active = active or values[places[at]] > 0
        fired[latent] = active
        extra = extra_of[latent]
        if extra >= 0:
            to_decoder += extra_decoder[extra]
            to_encoder += extra_encoder[extra]
            to_bias += extra_bias[extra]
        if factor != 1:
            to_decoder *= factor
            to_encoder *= factor
            to_bias *= factor
        _adam(
            encoder[latent],
            to_encoder,
            encoder_first[latent],
            encoder_second[latent],
            rate,
            correction,
            beta1,
            beta2,
            epsilon,
        )
        _adam(
            decoder[latent],
            to_decoder,
            decoder_first[latent],
            decoder_second[latent],
            rate,
            correction,
            beta1,
            beta2,
            epsilon,
        )
        to_encoder[0] = to_bias
        _adam(
            bias[latent : latent + 1],
            to_encoder[:1],
            bias_first[latent : latent + 1],
            bias_second[latent : latent + 1],
            rate,
            correction,
            beta1,
            beta2,
            epsilon,
        )
        if unit_norm:
            decoder[latent] /= max(np.sqrt(dot(decoder[latent], decoder[latent])), x.dtype.type(1e-30))
        norms[latent, 0] = np.sqrt(dot(encoder[latent], encoder[latent]))
        if len(coarse):
            lost = np.float32(0)
            for i in range(encoder.shape[1]):
                rounded = _bfloat16(encoder[latent, i])
                coarse[latent, i] = rounded
                difference = encoder[latent, i] - np.int32(np.int32(rounded) << 16).view(np.float32)
                lost += difference * difference
            norms[latent, 1] = np.sqrt(lost)
