"""A volume in millimetres, and its slices the way they are looked at."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Shaped
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ImagesError, MissingDependencyError, nearest

Axis = Literal["axial", "coronal", "sagittal"]
_NORMAL: dict[str, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
_UNITS_MM = {"meter": 1e3, "mm": 1.0, "micron": 1e-3}


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume whose array axes run to the patient's right, front and top (RAS).

    Parameters
    ----------
    array
        Values, (left → right, posterior → anterior, inferior → superior).
    affine
        From voxel index to millimetres in the same axes.
    name
        What to call it in an error.
    unit_mm
        Millimetres of the unit of length that its file states (the affine is in millimetres already); ``None`` where it states
        none and millimetres were taken.

    Notes
    -----
    Slices are upright, and the image's left is the patient's left (the neurological convention):

    ========  ====================  ===================
    slice     rows, top → bottom    columns, left → right
    ========  ====================  ===================
    axial     anterior → posterior  left → right
    coronal   superior → inferior   left → right
    sagittal  superior → inferior   anterior → posterior
    ========  ====================  ===================

    """

    array: Shaped[NDArray[Any], "x y z"]
    affine: Float[NDArray[np.float64], "4 4"]
    name: str = "volume"
    unit_mm: float | None = None

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Size of a voxel along the three array axes."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    def positions_mm(self, axis: Axis) -> Float[NDArray[np.float64], " slice"]:
        """Return where every slice lies along its normal, in millimetres, measured at the slice's centre.

        In an oblique volume it is the world coordinate that is nearest to the normal.
        """
        normal = _normal(axis)
        centre = (np.asarray(self.array.shape) - 1) / 2
        return np.asarray(
            self.affine[normal, 3]
            + sum(self.affine[normal, a] * centre[a] for a in range(3) if a != normal)
            + self.affine[normal, normal] * np.arange(self.array.shape[normal])
        )

    def plane(self, axis: Axis, index: int) -> Shaped[NDArray[Any], "row column"]:
        """Return one slice, upright."""
        taken = np.moveaxis(self.array, _normal(axis), 0)[index]  # (x, y), (x, z) or (y, z); a view, no copy
        if axis == "sagittal":
            taken = taken[::-1]  # the nose looks to the image's left
        return np.ascontiguousarray(taken.T[::-1])

    def plane_spacing_mm(self, axis: Axis) -> tuple[float, float]:
        """Return millimetres per pixel of a slice, (row, column)."""
        x, y, z = self.voxel_mm
        return {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)}[_checked(axis)]

    def every(self, axis: Axis, step_mm: float) -> list[int]:
        """Return the slices that lie about `step_mm` apart, from the first on.

        The step is rounded to whole slices, and is at least one: slices are never interpolated.
        """
        if not (np.isfinite(step_mm) and step_mm > 0):
            raise ConfigError(f"step_mm is {step_mm}: it must be a positive number of millimetres")
        normal = _normal(axis)
        step = max(1, round(step_mm / self.voxel_mm[normal]))
        return list(range(0, self.array.shape[normal], step))

    def midline_column(self, axis: Axis) -> float | None:
        """Return the continuous column of the plane x = 0 mm in a slice; ``None`` where x is not along the columns."""
        if _checked(axis) == "sagittal":
            return None
        centre = (np.asarray(self.array.shape) - 1) / 2
        away = self.affine[0, 3] + self.affine[0, 1] * centre[1] + self.affine[0, 2] * centre[2]
        return float(-away / self.affine[0, 0] + 0.5)  # pixel i covers [i, i + 1)

    @property
    def stated_in(self) -> str | None:
        """Unit of the file's lengths, where millimetres had to be made of it."""
        if self.unit_mm is None or self.unit_mm == 1:
            return None
        return "metres" if self.unit_mm > 1 else "micrometres"

    def require_same_grid(self, other: Volume) -> None:
        """Check that another volume has this one's voxels.

        Lengths of one that states no unit, as masks often do, are taken to be in this one's unit.

        Raises
        ------
        ImagesError
            If its shape or affine differs.

        """
        theirs = other.affine
        if other.unit_mm is None and self.unit_mm is not None:
            theirs = _in_mm(theirs, self.unit_mm)
        nearby = min(1e-3, 0.01 * min(self.voxel_mm))
        if self.array.shape != other.array.shape or not np.allclose(self.affine, theirs, atol=nearby):
            raise ImagesError(
                f"'{other.name}' of shape {other.array.shape} does not lie on the grid of '{self.name}' of shape "
                f"{self.array.shape}: resample it first"
            )


def load_volume(path: str | Path, frame: int | None = None) -> Volume:
    """Read a NIfTI file and turn its axes to RAS (a flip or swap of axes: no value is interpolated).

    Parameters
    ----------
    path
        A ``.nii`` or ``.nii.gz`` file.
    frame
        Which volume of a series to take; needed where there are several.

    Returns
    -------
    Volume
        Values in the file's units (scale slope and intercept applied), NaN as 0. Whole numbers stay what they are. Lengths that
        the header states in metres or micrometres (``xyzt_units``) become millimetres; without a unit they are millimetres.

    Raises
    ------
    ImagesError
        If the file is missing, no NIfTI, cut short, or holds several volumes and `frame` is not given.
    MissingDependencyError
        If nibabel is not installed.

    """
    try:
        nibabel: Any = importlib.import_module("nibabel")
    except ImportError as error:
        raise MissingDependencyError("nibabel", "nifti") from error
    path = Path(path)
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ImagesError(f"NIfTI file {path} is not there: {nearest(path.name, siblings)}")
    try:
        image = nibabel.load(path)
        if len(image.shape) < 3 or min(image.shape) < 1:
            raise ImagesError(f"{path} has shape {image.shape}: a volume has three axes")
        array = np.asanyarray(image.dataobj)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise ImagesError(f"{path} cannot be read as NIfTI ({' '.join(str(error).split())}): replace it") from error
    array = _one_frame(array, frame, path)
    ras = nibabel.as_closest_canonical(nibabel.Nifti1Image(array, image.affine, dtype=array.dtype))
    values = np.asanyarray(ras.dataobj)
    if np.issubdtype(values.dtype, np.floating):
        values = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    unit = _unit_mm(image.header)
    return Volume(values, _in_mm(np.asarray(ras.affine, dtype=np.float64), unit or 1.0), path.name, unit)


def _unit_mm(header: Any) -> float | None:
    """Return millimetres of the unit that a header states; ``None`` for none, and for a code that NIfTI does not know."""
    try:
        return _UNITS_MM.get(header.get_xyzt_units()[0])
    except (AttributeError, KeyError):  # other formats than NIfTI have no such field
        return None


def _in_mm(affine: Float[NDArray[np.float64], "4 4"], unit_mm: float) -> Float[NDArray[np.float64], "4 4"]:
    return np.diag([unit_mm, unit_mm, unit_mm, 1.0]) @ affine


def _one_frame(array: NDArray[Any], frame: int | None, path: Path) -> NDArray[Any]:
    frames = array.reshape(*array.shape[:3], -1)
    n = frames.shape[3]
    if frame is None and n > 1:
        raise ImagesError(f"{path} holds {n} volumes: choose one with frame=0 … frame={n - 1}")
    if not 0 <= (frame or 0) < n:
        raise ImagesError(f"{path} has no frame {frame}: it holds {n}, counted from 0")
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise ImagesError(f"{path} holds {array.dtype} values: only volumes of one number per voxel can be read")
    chosen: NDArray[Any] = frames[..., frame or 0]
    # nibabel writes no 64-bit whole numbers unless told to, and masks are no numbers at all.
    return chosen.astype(np.float64) if chosen.dtype.itemsize == 8 else chosen


def _checked(axis: str) -> str:
    if axis not in _NORMAL:
        raise ConfigError(f"axis is '{axis}': {nearest(str(axis), get_args(Axis))}")
    return axis


def _normal(axis: str) -> int:
    return _NORMAL[_checked(axis)]
