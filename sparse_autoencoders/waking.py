"""Let features that fell silent be heard again, where they have something to say: on a cluster of tokens that share what is left over.

Of the TopK family a feature that is never among the k largest has no gradient. A loss on what the others left over (AuxK) cannot
help it where that is far smaller than the k-th code: what the feature then says of it is too quiet. Nor does it help to make it
louder where it points: most silent features are near-duplicates of others, what they write adds nothing, and the gradient silences
them again. So a silent feature gets a new place: its decoder is what some alike tokens have left over, the weakest code that it
displaces included; its encoder tells these tokens from all others (Fisher's discriminant) and just reaches the bar on as many. It
is useful from its first step, and on so many tokens that it keeps a gradient. Now and then a silent feature takes over what another
one holds beside its own (:mod:`~sparse_autoencoders.merged`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

UNTIL = 0.985  # share of the steps: what is heard last needs some to settle
ROWS = 1 << 13  # that places are looked for on
# norm of a new encoder, as a multiple of the mean of those that are heard; no more than that, since many of these may have been new
# ones themselves: with more, each is louder than the last, and what they say of rows that move a little has no bound
LOUDEST, QUIETEST = 1.0, 0.3
_VALUES = 1 << 25  # pre-activations at once
_CLUSTER = 0.002  # share of the rows that a new feature is to be heard on
_APART = 4  # looks of which one takes merged features apart
_HEARD = 16  # times that such a feature is to be heard, on average, before its silence means anything
_TAKEN = 0.5  # share of the rows that new features may take together
_RIDGE = 0.1  # of the discriminant, as a share of the mean variance of a unit
_OVER = 1e-4  # how far over the bar, as a share of it


@runtime_checkable
class Waking(Protocol):
    """A learner whose features can be woken."""

    def wake(
        self,
        silent: Bool[Tensor, " feature"],
        x: Float[Tensor, "row width"],
        generator: torch.Generator,
        *,
        apart: bool,
    ) -> int:
        """Give silent features new places among some rows, and return how many there was room for.

        With `apart` the first places are at what others hold beside their own.
        """
        ...


@dataclass(frozen=True)
class Look:
    """A look for silent features.

    Parameters
    ----------
    silent_for
        Steps for which a feature must have been silent to be woken.
    apart
        Whether features that are merged are taken apart.

    """

    silent_for: int
    apart: bool


@dataclass(frozen=True)
class Places:
    """Where some features start again.

    Parameters
    ----------
    features
        Which, by their positions.
    encoder, bias, decoder
        Their weights; decoder rows of unit norm.

    """

    features: Int[Tensor, " place"]
    encoder: Float[Tensor, "place d_in"]
    bias: Float[Tensor, " place"]
    decoder: Float[Tensor, "place d_out"]


def due(step: int, steps: int, steps_per_epoch: int, batch_size: int, wake: float) -> Look | None:
    """Return the look for silent features that is due after a step, counted from 0; none: none is.

    There is one in as many steps as the silence must last.

    Parameters
    ----------
    step, steps
        Of the training.
    steps_per_epoch, batch_size
        Steps in one pass, and rows in a step.
    wake
        Epochs of silence; 0: features are never woken. On small sets it takes longer: in so few steps a feature that is heard on
        as many rows as a woken one may be silent by chance.

    """
    patience = max(1, round(wake * steps_per_epoch), math.ceil(_HEARD / (_CLUSTER * batch_size)))
    number, within = divmod(step + 1, patience)
    if wake == 0 or step >= UNTIL * steps or within:
        return None
    return Look(patience, number % _APART == 0)


def rows_for(width: int) -> int:
    """Return on how many rows places for a dictionary of some width are looked for: fewer where it is very wide."""
    return max(1, min(ROWS, _VALUES // width))


def longest(silent_for: Int[Tensor, " feature"], silent: Bool[Tensor, " feature"]) -> Int[Tensor, " silent"]:
    """Return the positions of the silent features, those that have been silent longest first."""
    at = silent.nonzero().flatten()
    return at[silent_for[at].argsort(descending=True, stable=True)]


def moments_of_new(rows: int, codes: int, heard: int) -> float:
    """Return Adam's second moments of a new feature, as a share of the mean of those that are heard: it is heard on fewer rows.

    Parameters
    ----------
    rows
        On which places are looked for.
    codes
        That these rows have.
    heard
        Features that are heard.

    """
    return min(1.0, _size(rows) * heard / max(1, codes))


def bar_of_rows(values: Float[Tensor, "row k"]) -> Float[Tensor, " row"]:
    """Return what a pre-activation must reach in each row to be one of its k codes."""
    # what is not positive is no code
    return values.amin(1).clamp_min(torch.finfo(values.dtype).eps)


def bar_of_batch(values: Float[Tensor, " code"], rows: int) -> Float[Tensor, " row"]:
    """Return the same for codes that were chosen over a whole batch (BatchTopK), whose rows have one bar.

    It is so high that new features have room: as many codes as they may take, up to a tenth of all.
    """
    kept = len(values) - min(len(values) // 10, int(_TAKEN * rows))
    bar = values.topk(kept, sorted=False).values.min() if kept else values.new_zeros(())
    return bar.clamp_min(torch.finfo(values.dtype).eps).expand(rows)


def displaced(
    values: Float[Tensor, "row k"], columns: Int[Tensor, "row k"], decoder: Float[Tensor, "feature d_out"]
) -> Float[Tensor, "row d_out"]:
    """Return what each row's weakest code writes: a feature that is heard there too takes its place."""
    weakest, at = values.min(1, keepdim=True)
    return weakest * decoder[columns.gather(1, at).flatten()]


def places(
    candidates: Int[Tensor, " candidate"],
    read: Float[Tensor, "row d_in"],
    left_over: Float[Tensor, "row d_out"],
    bar: Float[Tensor, " row"],
    norm: float,
    generator: torch.Generator,
    beside: Float[Tensor, "known d_out"] | None = None,
) -> Places:
    """Find a place for each candidate, the first ones where there is no room for all.

    A place begins at a row, drawn with probability proportional to what is left over of it, squared; its cluster are the rows of
    which most alike is left over.

    Parameters
    ----------
    candidates
        Features, by their positions.
    read
        Rows as the encoder reads them, its own bias taken off.
    left_over
        What a new feature is to write.
    bar
        What a pre-activation must reach in each row.
    norm
        Mean norm of the encoders of features that are heard.
    generator
        Draws the rows.
    beside
        What the first candidates are to write, where that is known: what others hold beside their own. Of an encoder that reads
        what is written.

    References
    ----------
    Fisher. The use of multiple measurements in taxonomic problems. Annals of Eugenics 7, 1936.

    """
    size = _size(len(read))
    squared = left_over.square().sum(1)
    room = min(int(_TAKEN * len(read) / size), int((squared > 0).sum()))
    features = candidates[:room]
    if not len(features):
        return Places(features, read[:0], bar[:0], left_over[:0])
    beside = left_over[:0] if beside is None else beside[:room]
    clusters = _alike(left_over, squared, len(features) - len(beside), size, generator)
    meant = torch.cat([beside, left_over[clusters].mean(1)])
    decoder = torch.nn.functional.normalize(meant, dim=1)
    shifts = read[clusters].mean(1) - read.mean(0)
    encoder = _discriminants(read, torch.cat([beside, shifts]) if len(beside) else shifts)
    # a row's code is to be as large as what it is to say, where the encoder's norm allows that
    score = encoder @ read.T
    best = score.topk(size, dim=1, sorted=False).values
    typical = bar.mean()
    wanted = (meant.norm(dim=1) - typical).clamp_min(_RIDGE * typical)
    spread = (best.mean(1) - best.amin(1)).clamp_min(torch.finfo(read.dtype).eps)
    gain = (wanted / spread).clamp(QUIETEST * norm, LOUDEST * norm)
    missing = (1 + _OVER) * bar - gain[:, None] * score
    bias = missing.topk(size, dim=1, largest=False, sorted=False).values.amax(1)
    return Places(features, gain[:, None] * encoder, bias, decoder)


def _size(rows: int) -> int:
    """Return how many of some rows a cluster has."""
    return max(1, round(_CLUSTER * rows))


def _alike(
    left_over: Float[Tensor, "row d_out"], squared: Float[Tensor, " row"], n: int, size: int, generator: torch.Generator
) -> Int[Tensor, "n size"]:
    """Return the rows of `n` clusters of that size."""
    if not n:
        return torch.zeros(0, size, dtype=torch.long, device=left_over.device)
    anchors = torch.multinomial(squared.cpu(), n, generator=generator).to(left_over.device)
    directions = torch.nn.functional.normalize(left_over, dim=1)
    return (directions[anchors] @ directions.T).topk(size, dim=1, sorted=False).indices


def _discriminants(read: Float[Tensor, "row d_in"], shifts: Float[Tensor, "place d_in"]) -> Float[Tensor, "place d_in"]:
    """Return the unit directions along which rows that are shifted stand farthest from all rows, measured by their spread."""
    centred = read - read.mean(0)
    covariance = centred.T @ centred / len(read)
    covariance.diagonal().add_(_RIDGE * covariance.diagonal().mean().clamp_min(torch.finfo(read.dtype).eps))
    apart = torch.cholesky_solve(shifts.T, torch.linalg.cholesky(covariance)).T
    return torch.nn.functional.normalize(apart, dim=1)
