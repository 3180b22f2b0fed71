"""Find faces in photographs, with the detector that comes with scikit-image."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

_LARGEST = 160  # pixels of the longer side that is searched: a face that matters is large
_SMALLEST_SHARE = 0.2  # of the shorter side: smaller faces are not looked for
_BORDER = 0.2  # of the shorter side
_WINDOW = 24  # pixels of a face in the detector's training


def faces(picture: Float[NDArray[np.float32], "height width channel"]) -> list[tuple[int, int, int, int]]:
    """Return the boxes (top, left, bottom, right) of upright frontal faces in a colour photograph.

    A cascade of local binary patterns [1]_, trained by OpenCV's authors and shipped with scikit-image.

    Parameters
    ----------
    picture
        Black 0 to white 1, three channels. Grey images are no photographs and are not looked at.

    Notes
    -----
    It sees upright, frontal faces that fill at least a fifth of the picture's shorter side. Profiles, covered or turned faces, and
    parts of a face (an eye, a mouth) are not seen, though a person may be recognised by them.

    References
    ----------
    .. [1] Liao, Zhu, Lei, Zhang, Li. Learning multi-scale block local binary patterns for face recognition. ICB 2007.

    """
    if picture.ndim != 3 or picture.shape[2] != 3 or min(picture.shape[:2]) < _WINDOW:
        return []
    step = max(1, -(-max(picture.shape[:2]) // _LARGEST))
    small = np.ascontiguousarray(picture[::step, ::step])
    if min(small.shape[:2]) < _WINDOW:
        return []
    # The detector wants some surroundings: of faces that fill the picture it finds two thirds without, most with.
    border = int(_BORDER * min(small.shape[:2]))
    framed = np.pad(small, ((border, border), (border, border), (0, 0)), mode="edge")
    found = _cascade().detect_multi_scale(
        img=(framed * 255).astype(np.uint8),
        scale_factor=1.2,
        step_ratio=1,
        min_size=(max(_WINDOW, int(_SMALLEST_SHARE * min(small.shape[:2]))),) * 2,
        max_size=(min(framed.shape[:2]),) * 2,
    )

    def box(f: Any) -> tuple[int, int, int, int]:
        top, left = int(f["r"]) - border, int(f["c"]) - border
        ends = (top, 0), (left, 1), (top + int(f["height"]), 0), (left + int(f["width"]), 1)
        clipped = [min(max(at, 0), small.shape[axis]) * step for at, axis in ends]
        return clipped[0], clipped[1], clipped[2], clipped[3]

    return [box(f) for f in found]


@lru_cache(maxsize=1)
def _cascade() -> Any:
    data: Any = importlib.import_module("skimage.data")
    feature: Any = importlib.import_module("skimage.feature")
    return feature.Cascade(data.lbp_frontal_face_cascade_filename())
