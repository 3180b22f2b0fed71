"""Changes of how images are prepared that leave the anatomy as it is, to see whether an answer depends on them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from mechinterp.errors import ConfigError
from mechinterp.images.image_set import ImageSet, MedicalImage

Pixels = Float[NDArray[np.float32], "height width *channel"]


@dataclass(frozen=True)
class Perturbation:
    """A named change of pixels.

    Parameters
    ----------
    name
        What it is called in a table.
    change
        Returns an image's new pixels, in its intensity range.
    swaps_axes
        Whether rows become columns, so that the spacing is swapped too.

    """

    name: str
    change: Callable[[MedicalImage], Pixels]
    swaps_axes: bool = False

    def __call__(self, image: MedicalImage) -> Pixels:
        """Return the changed pixels of one image."""
        return self.change(image)

    def of(self, images: ImageSet) -> ImageSet:
        """Return a set of images, changed when they are read."""
        return images.mapped(self.change, self.name, _swapped if self.swaps_axes else None)


def rotated(quarter_turns: int) -> Perturbation:
    """Turn images counter-clockwise by quarter turns: no pixel is interpolated."""
    turns = int(quarter_turns) % 4
    return Perturbation(
        f"rotated by {90 * turns}°",
        lambda image: np.ascontiguousarray(np.rot90(image.pixels, turns)),
        swaps_axes=turns % 2 == 1,
    )


def flipped(axis: str) -> Perturbation:
    """Flip images ``left-right`` or ``up-down``.

    Raises
    ------
    ConfigError
        If `axis` is neither.

    """
    axes = {"left-right": 1, "up-down": 0}
    if axis not in axes:
        raise ConfigError(f"cannot flip '{axis}': valid are 'left-right', 'up-down'")
    return Perturbation(f"flipped {axis}", lambda image: np.ascontiguousarray(np.flip(image.pixels, axes[axis])))


def gain(factor: float) -> Perturbation:
    """Multiply the distance from black by a factor, clipped at white."""
    if not (np.isfinite(factor) and factor > 0):
        raise ConfigError(f"gain is {factor}: it must be a positive number")

    def change(image: MedicalImage) -> Pixels:
        return _recorded(np.clip(image.scaled() * np.float32(factor), 0, 1), image)

    return Perturbation(f"gain {factor:g}", change)


def margin(fraction: float) -> Perturbation:
    """Surround images with black: a border of this fraction of the height above and below, of the width on the sides."""
    if not (np.isfinite(fraction) and fraction >= 0):
        raise ConfigError(f"margin is {fraction}: it must be 0 or more (a fraction of the image's size)")

    def change(image: MedicalImage) -> Pixels:
        height, width = image.pixels.shape[:2]
        borders = [(round(fraction * height),) * 2, (round(fraction * width),) * 2]
        borders += [(0, 0)] * (image.pixels.ndim - 2)
        return np.pad(image.pixels, borders, constant_values=image.intensity_range[0])

    return Perturbation(f"margin {fraction:.0%}", change)


def skull_ring(
    *, gap_mm: float = 4.0, thickness_mm: float = 8.0, brightness: float = 0.9, above: float = 0.05
) -> Perturbation:
    """Draw a bright ring around the head, as a skull with its fat would stand there, with a dark gap like CSF.

    Parameters
    ----------
    gap_mm
        Width of the dark gap between the head's outline and the ring.
    thickness_mm
        Width of the ring.
    brightness
        Of the ring, as a fraction of white.
    above
        What is brighter, as a fraction of white, belongs to the head; specks smaller than 2 % of its largest part do
        not. Images without any stay as they are.

    Notes
    -----
    The ring follows the convex hull of the head, as a skull does, not its folds. Widths are in pixels where an image
    has no spacing. Where the picture ends before the ring does, the ring is cut.

    """
    if not (gap_mm >= 0 and thickness_mm > 0):
        raise ConfigError(
            f"a ring of {thickness_mm:g} mm at {gap_mm:g} mm: the gap is at least 0, the ring wider than 0"
        )
    if not (0 <= brightness <= 1 and 0 <= above < 1):
        raise ConfigError(f"brightness {brightness:g} and above {above:g} are fractions of white, 0 to 1")

    def change(image: MedicalImage) -> Pixels:
        scaled = image.scaled()
        grey = scaled if scaled.ndim == 2 else scaled.mean(axis=-1)
        bright = grey > above
        if not bright.any():
            return image.pixels
        head = _hull(bright)
        ndimage: Any = importlib.import_module("scipy.ndimage")
        away = ndimage.distance_transform_edt(~head, sampling=image.spacing_mm or (1.0, 1.0))
        drawn = scaled.copy()
        drawn[~head & (away <= gap_mm + thickness_mm)] = brightness
        drawn[~head & (away <= gap_mm)] = 0
        return _recorded(drawn, image)

    return Perturbation("skull ring", change)


def standard_perturbations() -> tuple[Perturbation, ...]:
    """Return the changes whose influence a study reports: skull, orientation, gain, margin."""
    return (
        skull_ring(),
        rotated(1),
        rotated(2),
        rotated(3),
        flipped("left-right"),
        flipped("up-down"),
        gain(0.8),
        gain(1.2),
        margin(0.1),
    )


def _hull(bright: Bool[NDArray[np.bool_], "row column"]) -> Bool[NDArray[np.bool_], "row column"]:
    """Return the convex hull of all parts that are no specks; convex in pixels is convex in millimetres too."""
    ndimage, morphology = (importlib.import_module(m) for m in ("scipy.ndimage", "skimage.morphology"))
    parts, _ = ndimage.label(bright)
    sizes = np.bincount(parts.ravel())[1:]
    large = np.isin(parts, 1 + np.flatnonzero(sizes >= 0.02 * sizes.max()))
    hull: NDArray[np.bool_] = morphology.convex_hull_image(large)
    return hull


def _recorded(scaled: Pixels, image: MedicalImage) -> Pixels:
    """Undo :meth:`MedicalImage.scaled`."""
    low, high = image.intensity_range
    result: Pixels = (scaled * np.float32(high - low) + np.float32(low)).astype(np.float32)
    return result


def _swapped(spacing_mm: tuple[float, ...]) -> tuple[float, ...]:
    return spacing_mm[1], spacing_mm[0]
