"""From frames to images: one each, or the frames of a series stacked into a volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.images.dicom.frames import Frame
from mechinterp.images.findings import SetAside

_UNEVEN = 0.05  # of the distance between slices: rounding in headers stays below, a missing slice is at 1
_UNEVEN_SAID = "its slices are missing, doubled or unevenly spaced"
_SHOWN = 8  # hex digits of a patient's and of a series' hash in an image's name


@dataclass(frozen=True)
class Stack:
    """The frames that make one image.

    Parameters
    ----------
    name
        Id of the image.
    frames
        One, or those of a volume in the order of their positions.
    spacing_mm
        (row, column), or (z, y, x) of a volume; ``None`` where the header does not say.
    turn
        How the stacked frames become a volume in upright order; ``None`` where the image is one frame.

    """

    name: str
    frames: tuple[Frame, ...]
    spacing_mm: tuple[float, ...] | None
    turn: Turn | None = None


@dataclass(frozen=True)
class Turn:
    """The swaps and flips that bring a stack's axes in order: upwards, front to back, left to right.

    That is the order of volumes from NIfTI too, with the patient's left at the image's left.

    Parameters
    ----------
    axes
        Which axis of the stack (frame, row, column) becomes the first, second and third.
    flipped
        Whether each of the three runs the other way.

    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    @classmethod
    def of(cls, orientation: tuple[float, ...]) -> Turn:
        """Return the turn for a plane's directions: those of its rows and columns in the patient, left–back–up."""
        along_row, along_column = np.array(orientation[:3]), np.array(orientation[3:])
        directions = np.stack([np.cross(along_row, along_column), along_column, along_row])  # frame, row, column
        wanted = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
        agreement = wanted @ directions.T  # wanted axis × stack axis
        axes = max(permutations(range(3)), key=lambda p: sum(abs(agreement[i, a]) for i, a in enumerate(p)))
        flipped = tuple(bool(agreement[i, a] < 0) for i, a in enumerate(axes))
        return cls((axes[0], axes[1], axes[2]), (flipped[0], flipped[1], flipped[2]))

    def __call__(self, stack: NDArray[Any]) -> NDArray[Any]:
        """Turn a stack; no value is interpolated."""
        turned = stack.transpose(self.axes)
        return np.ascontiguousarray(turned[tuple(slice(None, None, -1 if f else 1) for f in self.flipped)])


def stacks_of(frames: Sequence[Frame], *, volumes: bool) -> tuple[list[Stack], list[SetAside]]:
    """Make images of frames.

    Names are ``PATIENT-SERIES-NUMBER``, hashes of the first two and the place in the series; adding other patients to
    the folder changes none. Of volumes the number is that of the stack: a localiser in two planes is two.

    Returns
    -------
    stacks
        In the order of the frames.
    set_aside
        Series that make no volume, because slices are missing or have no position.

    """
    by_series: dict[tuple[str, str], list[Frame]] = {}
    for frame in frames:
        who = frame.identity
        by_series.setdefault((who.group or "", who.series), []).append(frame)
    stacks: list[Stack] = []
    set_aside: list[SetAside] = []
    for (group, series), members in by_series.items():
        start = f"{(group or 'unknown')[:_SHOWN]}-{(series or 'noseries')[:_SHOWN]}"
        if not volumes:
            stacks += [
                Stack(f"{start}-{i:04d}", (f,), None if f.spacing is None else f.spacing.mm)
                for i, f in enumerate(members)
            ]
            continue
        planes: dict[object, list[Frame]] = {}
        for frame in members:
            planes.setdefault(frame.series, []).append(frame)
        for i, plane in enumerate(planes.values()):
            depth = _depth_mm(plane)
            if isinstance(depth, str):
                set_aside.append(SetAside(f"{start}-{i:04d}", depth, damaged=depth == _UNEVEN_SAID))
                continue
            first, turn = plane[0].spacing, Turn.of(plane[0].orientation)
            millimetres = None if first is None else (depth, *first.mm)
            turned = None if millimetres is None else tuple(millimetres[a] for a in turn.axes)
            stacks.append(Stack(f"{start}-{i:04d}", tuple(plane), turned, turn))
    return stacks, set_aside


def _depth_mm(frames: Sequence[Frame]) -> float | str:
    """Return the distance of neighbouring slices, or why they make no volume."""
    if len(frames) < 2:
        return "its series has one slice"
    if any(f.scale.colour for f in frames):
        return "its series is in colour"
    sizes = [(math.nan,) * 2 if f.spacing is None else f.spacing.mm for f in frames]
    if not np.allclose(sizes, sizes[0], rtol=1e-3, atol=0, equal_nan=True):
        return "its slices have pixels of different sizes"
    positions = [f.position_mm for f in frames]
    known = [p for p in positions if p is not None]
    if len(known) < len(positions):
        return "its slices have no position"
    steps = np.diff(known)
    step = float(np.median(steps))
    if step <= 0 or np.abs(steps - step).max() > _UNEVEN * step:
        return _UNEVEN_SAID
    return step
