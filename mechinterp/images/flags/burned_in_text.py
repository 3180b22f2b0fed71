"""Find text that was drawn into an image: a name or a date that no header's removal takes away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage

Grey = Float[NDArray[np.float32], "height width"]

_LEAST_GLYPHS = 4
_HEIGHTS = (6, 48)  # pixels of a glyph
_WIDEST = 2.2  # of a glyph's height: small print runs together
_STROKE = 9  # pixels: what is wider is anatomy
_CONTRAST = 0.22  # of the range from black to white, between a stroke and its surroundings
_MOST_SHAPES = 3000  # a texture, not a text: comparing all of them with all would take seconds


@dataclass(frozen=True)
class TextLine:
    """A row of shapes that look like glyphs.

    Parameters
    ----------
    box
        (top, left, bottom, right) in pixels.
    glyphs
        How many shapes.

    """

    box: tuple[int, int, int, int]
    glyphs: int


def text_lines(grey: Grey) -> list[TextLine]:
    """Find rows of glyphs, bright on dark and dark on bright.

    Text that a device draws differs from anatomy in four ways, and a row must show them all: thin strokes of strong
    contrast (a top-hat finds them), each glyph of the size of its neighbours, one base line, and one intensity
    throughout, since it is drawn with one pen. At least four glyphs of 6 to 48 pixels height are asked for, written
    horizontally: a lone ``L`` or ``R``, handwriting and small or faint print are not seen.

    Parameters
    ----------
    grey
        Black 0 to white 1.

    Returns
    -------
    list of TextLine
        From the longest on.

    """
    found: list[TextLine] = []
    for plane in (grey, 1 - grey):
        found += _bright_lines(np.ascontiguousarray(plane, dtype=np.float32))
    return sorted(found, key=lambda line: (-line.glyphs, line.box))


def _bright_lines(grey: Grey) -> list[TextLine]:
    strokes = grey - ndimage.grey_opening(grey, size=(_STROKE + 2, _STROKE + 2)) > _CONTRAST
    labels, n = ndimage.label(strokes, structure=np.ones((3, 3)))
    if n < _LEAST_GLYPHS:
        return []
    shapes = _shapes(grey, labels)
    if not _LEAST_GLYPHS <= len(shapes) <= _MOST_SHAPES:
        return []
    rows = _rows(shapes)
    return [
        TextLine(_box(members), len(members))
        for members in (shapes[rows == row] for row in np.unique(rows))
        if _is_line(members) and _stands_alone(members, strokes)
    ]


def _shapes(grey: Grey, labels: NDArray[np.int32]) -> Float[NDArray[np.float64], "shape 7"]:
    """Return top, left, bottom, right, fill, brightness and spread of brightness of what may be a glyph."""
    found = []
    for i, box in enumerate(ndimage.find_objects(labels), start=1):
        height, width = (s.stop - s.start for s in box)
        if not (_HEIGHTS[0] <= height <= _HEIGHTS[1] and width <= _WIDEST * height):
            continue
        inside = labels[box] == i
        fill = float(inside.mean())
        if not 0.12 <= fill <= 0.97:
            continue
        values = grey[box][inside]
        bright = float(np.percentile(values, 85))
        found.append((box[0].start, box[1].start, box[0].stop, box[1].stop, fill, bright, float(values.std())))
    return np.array(found, dtype=np.float64).reshape(-1, 7)


def _rows(shapes: Float[NDArray[np.float64], "shape 7"]) -> NDArray[np.int64]:
    """Return for each shape the row it stands in: neighbours of like height on one line, close together."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    top, left, bottom, right = shapes[:, :4].T
    height = bottom - top
    taller = np.maximum(height[:, None], height[None])
    alike = np.minimum(height[:, None], height[None]) >= 0.5 * taller
    level = np.minimum(np.abs(bottom[:, None] - bottom[None]), np.abs(top[:, None] - top[None])) <= 0.2 * taller
    gap = np.maximum(left[:, None], left[None]) - np.minimum(right[:, None], right[None])
    beside = (gap <= 0.9 * taller) & (gap > -0.4 * taller)
    _, rows = connected_components(csr_array(alike & level & beside), directed=False)
    return np.asarray(rows, dtype=np.int64)


def _is_line(members: Float[NDArray[np.float64], "shape 7"]) -> bool:
    if len(members) < _LEAST_GLYPHS:
        return False
    top, left, bottom, right, fill, bright, spread = members.T
    height = float(np.median(bottom - top))
    on_base = np.abs(bottom - np.median(bottom)) <= max(1.0, 0.12 * height)
    few = len(members) < 6  # fewer glyphs must agree more, since fewer come together by chance
    one_pen = float(np.median(np.abs(bright - np.median(bright)))) <= 0.03 and float(np.std(bright)) <= (
        0.04 if few else 0.08
    )
    flat = float(bottom.max() - top.min()) <= 2.0 * height
    long = float(right.max() - left.min()) >= 1.5 * height
    glyph_like = 0.2 <= float(np.median(fill)) <= 0.85 and float(np.median(spread)) <= 0.36
    return bool(on_base.mean() >= (0.75 if few else 0.7) and one_pen and flat and long and glyph_like)


def _stands_alone(members: Float[NDArray[np.float64], "shape 7"], strokes: NDArray[np.bool_]) -> bool:
    """Say whether there is less ink above and below a row than in it: in a texture there is as much everywhere."""
    top, left, bottom, right = _box(members)
    height = int(np.median(members[:, 2] - members[:, 0]))
    columns = slice(left, right)
    above, below = (
        strokes[max(top - height, 0) : max(top - 1, 0), columns],
        strokes[bottom + 1 : bottom + height, columns],
    )
    inside = float(strokes[top:bottom, columns].mean())
    # another line of text may stand on one side
    return min(float(part.mean()) if part.size else 0.0 for part in (above, below)) <= 0.35 * inside


def _box(members: Float[NDArray[np.float64], "shape 7"]) -> tuple[int, int, int, int]:
    top, left, bottom, right = members[:, :4].T
    return int(top.min()), int(left.min()), int(bottom.max()), int(right.max())
