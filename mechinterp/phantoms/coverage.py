"""Anti-aliased coverage masks: the share of every pixel that a structure covers, 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ConfigError
from mechinterp.phantoms.view import View

Image = NDArray[np.float64]


@dataclass(frozen=True)
class Blobs:
    """Star-shaped spots: around a centre, the outline's distance is ``size * profile(angle)``.

    Parameters
    ----------
    centres_mm
        (row, column) of each in the anatomy.
    sizes
        Relative sizes; the absolute ones follow from the area that is asked for.
    waves, phases
        Amplitude and phase of the outline's second, third and fourth harmonic.
    elongations, directions
        Length over width, and the direction of the length in radians.

    """

    centres_mm: Float[Image, "blob 2"]
    sizes: Float[Image, " blob"]
    waves: Float[Image, "blob 3"]
    phases: Float[Image, "blob 3"]
    elongations: Float[Image, " blob"]
    directions: Float[Image, " blob"]

    def __len__(self) -> int:
        return len(self.sizes)

    def profile(self, offsets_mm: Float[Image, "blob n 2"]) -> Float[Image, "blob n"]:
        """Return the outline's distance from the centre in the direction of each offset, for a scale of 1."""
        angle = np.arctan2(offsets_mm[..., 0], offsets_mm[..., 1])
        shape = np.ones_like(angle)
        for k in range(3):
            shape += self.waves[:, k, None] * np.cos((k + 2) * angle + self.phases[:, k, None])
        along = np.cos(angle - self.directions[:, None])
        length = np.sqrt(self.elongations)[:, None]
        ellipse = 1.0 / np.sqrt((along / length) ** 2 + (1 - along**2) * length**2)
        outline: Image = self.sizes[:, None] * shape * ellipse
        return outline


def blobs_of_area(view: View, blobs: Blobs, area_mm2: float, within: Float[Image, "height width"]) -> Image:
    """Draw all blobs, scaled together so that their union covers just `area_mm2`.

    One scale for all is found by bisection on the coverage itself, so the area is right to 1e-6 of it whatever
    overlaps, is cut by `within`, or is smaller than a pixel; and of two areas the smaller's blobs lie inside the
    larger's.

    Parameters
    ----------
    view
        How the anatomy is seen.
    blobs
        What to draw.
    area_mm2
        Sum of the coverage times a pixel's area.
    within
        Coverage of the region that can be seen.

    Returns
    -------
    ndarray
        Coverage, height × width.

    Raises
    ------
    ConfigError
        If the region has no room for so large an area.

    """
    covered = np.zeros((view.height, view.width))
    if area_mm2 <= 0 or len(blobs) == 0:
        return covered
    target = area_mm2 / view.spacing_mm**2
    guess = float(np.sqrt(area_mm2 / (np.pi * np.square(blobs.sizes).sum()))) / view.spacing_mm
    reach = float((blobs.sizes * np.sqrt(blobs.elongations) * (1 + np.abs(blobs.waves).sum(1))).max())
    largest = 1.5 * guess
    while True:
        near = _near(view, blobs, int(np.ceil(largest * reach)) + 2)
        seen = within.ravel()[near.pixels]
        if float(near.drawn(largest) @ seen) >= target:
            break
        if largest * reach > view.height + view.width:
            room = within.sum() * view.spacing_mm**2
            raise ConfigError(f"an area of {area_mm2:g} mm² does not fit into the {room:.3g} mm² that can be seen")
        largest *= 1.6
    # below 0 a spot fades: an anti-aliased one of radius 0 still covers half a pixel where its centre lies
    low, high = -0.5 / float(near.outline.min()), largest
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if float(near.drawn(middle) @ seen) < target else (low, middle)
        if high - low < 1e-7 * abs(high):
            break
    covered.ravel()[near.pixels] = near.drawn(high) * seen
    return covered


def ellipse(
    view: View, centre_mm: tuple[float, float], area_mm2: float, aspect: float, within: Float[Image, "height width"]
) -> Image:
    """Draw an ellipse of a given area, `aspect` times as high as wide; see :func:`blobs_of_area`."""
    upright = Blobs(
        centres_mm=np.array([centre_mm]),
        sizes=np.ones(1),
        waves=np.zeros((1, 3)),
        phases=np.zeros((1, 3)),
        elongations=np.array([aspect]),
        directions=np.array([np.pi / 2]),
    )
    return blobs_of_area(view, upright, area_mm2, within)


def disc_of_pixels(view: View, radius_mm: float) -> Image:
    """Draw the round field of view around the image's middle."""
    drawn: Image = np.clip(radius_mm / view.spacing_mm - view.radius_px + 0.5, 0.0, 1.0)
    return drawn


def boxes(view: View, boxes_mm: Float[Image, "box 4"]) -> Image:
    """Draw boxes given as (top, left, bottom, right) in mm from the image's upper left corner."""
    drawn = np.zeros((view.height, view.width))
    rows, columns = np.arange(view.height), np.arange(view.width)
    for top, left, bottom, right in np.asarray(boxes_mm) / view.spacing_mm:
        down = np.clip(np.minimum(rows + 1, bottom) - np.maximum(rows, top), 0, 1)
        across = np.clip(np.minimum(columns + 1, right) - np.maximum(columns, left), 0, 1)
        drawn += down[:, None] * across[None, :]
    return np.minimum(drawn, 1.0)


def tubes(
    view: View,
    starts_mm: Float[Image, "segment 2"],
    ends_mm: Float[Image, "segment 2"],
    radii_mm: Float[Image, " segment"],
    weights: Float[Image, "segment layer"],
) -> tuple[Image, Image]:
    """Draw segments of tubes.

    Parameters
    ----------
    view
        How the anatomy is seen.
    starts_mm, ends_mm, radii_mm
        The segments' axes and half widths.
    weights
        Any number of values per segment.

    Returns
    -------
    coverage
        Height × width.
    layers
        Layer × height × width: the largest ``coverage * weight`` of any segment.

    Notes
    -----
    A pixel's coverage is the overlap of a box one pixel wide with the tube's cross-section, so a tube thinner than a
    pixel covers its true share of it.

    """
    height, width = view.height, view.width
    coverage = np.zeros(height * width, dtype=np.float32)
    layers = np.zeros((weights.shape[1], height * width), dtype=np.float32)
    starts, ends = view.to_pixels(starts_mm), view.to_pixels(ends_mm)
    radii = (radii_mm / view.spacing_mm).astype(np.float32)
    axes = ends - starts
    window = np.ceil(radii + np.hypot(*axes.T) / 2 + 0.5).astype(int)
    corner = np.floor((starts + ends) / 2).astype(int)
    near = ((corner + window[:, None] >= 0) & (corner - window[:, None] < (height, width))).all(1)
    for reach in np.unique(window[near]):
        mine = near & (window == reach)
        r, weight = radii[mine, None, None], weights[mine].astype(np.float32)
        steps = np.arange(-reach, reach + 1)
        rows, columns = corner[mine, 0, None] + steps, corner[mine, 1, None] + steps
        down = (rows + 0.5 - starts[mine, 0, None]).astype(np.float32)[:, :, None]
        right = (columns + 0.5 - starts[mine, 1, None]).astype(np.float32)[:, None, :]
        axis_down, axis_right = axes[mine].astype(np.float32).T[:, :, None, None]
        squared = np.maximum(axis_down**2 + axis_right**2, 1e-12)
        t = np.clip((down * (axis_down / squared)) + (right * (axis_right / squared)), 0, 1)
        distance = np.sqrt(np.square(down - t * axis_down) + np.square(right - t * axis_right))
        overlap = np.minimum(distance + r, 0.5) - np.maximum(distance - r, -0.5)
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        hit = np.flatnonzero((overlap > 0) & inside)
        value = np.minimum(overlap.ravel()[hit], np.float32(1.0))
        pixels = (rows[:, :, None] * width + columns[:, None, :]).ravel()[hit]
        np.maximum.at(coverage, pixels, value)
        for layer, own in zip(layers, weight.T, strict=True):
            np.maximum.at(layer, pixels, value * own[hit // (2 * reach + 1) ** 2])
    shape = (height, width)
    return coverage.reshape(shape).astype(float), layers.reshape(-1, *shape).astype(float)


@dataclass(frozen=True)
class _Near:
    """All pairs of a blob and a pixel near it, those of one pixel side by side."""

    pixels: NDArray[np.int64]
    starts: NDArray[np.int64]
    distance: Image
    outline: Image

    def drawn(self, scale: float) -> Image:
        """Return the coverage of each pixel by the union of the blobs."""
        edge = np.maximum.reduceat(scale * self.outline - self.distance, self.starts)
        return np.clip(edge + 0.5, 0.0, 1.0)


def _near(view: View, blobs: Blobs, reach: int) -> _Near:
    """Pair blobs with pixels: distance from the centre, and the outline's for a scale of 1, in pixels."""
    centres = view.to_pixels(blobs.centres_mm)
    steps = np.arange(-reach, reach + 1)
    offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    cells = np.floor(centres).astype(int)[:, None] + offsets
    inside = (cells >= 0).all(-1) & (cells[..., 0] < view.height) & (cells[..., 1] < view.width)
    from_centre = cells + 0.5 - centres[:, None]
    outline = blobs.profile(view.offsets_to_mm(from_centre))[inside]
    distance = np.linalg.norm(from_centre, axis=-1)[inside]
    pixels = cells[inside] @ np.array([view.width, 1])
    order = np.argsort(pixels, kind="stable")
    pixels = pixels[order]
    starts = np.flatnonzero(np.r_[True, pixels[1:] != pixels[:-1]][: len(pixels)])
    return _Near(pixels[starts], starts, distance[order], outline[order])
