"""Which part of an image a model's input shows, at which size and where: the geometry of a preparation, without any pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mechinterp.errors import ImagesError
from mechinterp.token_grid import Placement

if TYPE_CHECKING:
    from mechinterp.models.vision_model import InputContract

Fit = Literal["pad", "stretch", "crop", "model"]


@dataclass(frozen=True)
class Fitted:
    """How an image lies in a model's input; one entry for each axis, (row, column) or (depth, row, column).

    Parameters
    ----------
    start, stop
        The box of the image that is shown, in image pixels.
    size
        At which size, in input pixels.
    corner
        The input pixel from which on it is shown.

    """

    start: tuple[float, ...]
    stop: tuple[float, ...]
    size: tuple[int, ...]
    corner: tuple[int, ...]

    @property
    def placement(self) -> Placement:
        """The exact map from input to image."""
        scale = tuple((b - a) / n for a, b, n in zip(self.start, self.stop, self.size, strict=True))
        offset = tuple(a - c * s for a, c, s in zip(self.start, self.corner, scale, strict=True))
        return Placement(scale, offset)


def fitted(
    fit: Fit,
    margin: float,
    shape: Sequence[int],
    spacing_mm: Sequence[float] | None,
    contract: InputContract,
    name: str = "the image",
) -> Fitted:
    """Return how an image is fitted to a model's input.

    Parameters
    ----------
    fit, margin
        See :class:`mechinterp.images.preparation.Preparation`.
    shape
        Of the image, (height, width) or (depth, height, width).
    spacing_mm
        Millimetres per pixel along the same axes; ``None``: pixels are as long as they are wide.
    contract
        What the model wants to be fed.
    name
        What messages call the image.

    Raises
    ------
    ImagesError
        If the image has other axes than the model's input, or the spacing has.

    """
    if len(shape) != len(contract.size):
        takes, remedy = ("volumes", "give whole volumes") if contract.depth else ("pictures", "give its slices")
        raise ImagesError(f"{name} of {len(shape)} axes cannot be given to a model of {takes}: {remedy}")
    if spacing_mm is not None and len(spacing_mm) != len(shape):
        raise ImagesError(f"{name} of {len(shape)} axes has a spacing of {len(spacing_mm)}: give one for each axis")
    borders = [round(margin * n) for n in contract.size]
    window = [max(n - 2 * b, 1) for n, b in zip(contract.size, borders, strict=True)]
    if fit == "model":
        start, stop, size = _as_the_model(shape, window, contract)
    else:
        start, stop, size = _in_proportion(fit, shape, spacing_mm or [1.0] * len(shape), window)
    corner = tuple(b + (w - n) // 2 for b, w, n in zip(borders, window, size, strict=True))
    return Fitted(tuple(start), tuple(stop), tuple(size), corner)


_Box = tuple[list[float], list[float], list[int]]


def _in_proportion(fit: Fit, shape: Sequence[int], spacing_mm: Sequence[float], window: Sequence[int]) -> _Box:
    """Return start, stop and size of an image in its physical proportions, or stretched."""
    whole = [0.0] * len(shape), [float(n) for n in shape]
    if fit == "stretch":
        return *whole, list(window)
    lengths = [n * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    # input pixels per unit of length that would fit each axis exactly
    fits = [w / length for w, length in zip(window, lengths, strict=True)]
    if fit == "pad":
        zoom = min(fits)
        return *whole, [min(max(round(length * zoom), 1), w) for length, w in zip(lengths, window, strict=True)]
    zoom = max(fits)
    shown = [min(w / zoom / mm, n) for w, mm, n in zip(window, spacing_mm, shape, strict=True)]
    start = [(n - s) / 2 for n, s in zip(shape, shown, strict=True)]
    return start, [a + s for a, s in zip(start, shown, strict=True)], list(window)


def _as_the_model(shape: Sequence[int], window: Sequence[int], contract: InputContract) -> _Box:
    """Return start, stop and size as the model's own processor has them: resized in whole pixels, then the centre cut out.

    The rules, rounding included, are those of torchvision's ``Resize`` and ``CenterCrop``, which timm's and transformers'
    processors follow to within a pixel. They know no spacing.
    """
    # a fraction such as 224/256 need not be exact
    target = [math.floor(w / contract.crop_fraction + 1e-6) for w in window]
    ratios = [t / n for t, n in zip(target, shape, strict=True)]
    if contract.resize == "stretch":
        resized = target
    else:
        zoom = max(ratios) if contract.resize == "crop" else min(ratios)
        cut = int if len(set(target)) == 1 and contract.resize == "crop" else round
        resized = [
            t if ratio == zoom else max(cut(n * zoom + 1e-9), 1)
            for t, n, ratio in zip(target, shape, ratios, strict=True)
        ]
    start, stop, size = [], [], []
    for n, r, w in zip(shape, resized, window, strict=True):
        first = round((r - w) / 2) if r > w else 0
        shown = min(r, w)
        start.append(first * n / r)
        stop.append((first + shown) * n / r)
        size.append(shown)
    return start, stop, size
