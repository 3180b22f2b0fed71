"""A set of images from a NIfTI volume, sliced along an axis with its spacing kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mechinterp.attributes.measuring import area_mm2
from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import ImagesError
from mechinterp.images.block_splits import split_blocks
from mechinterp.images.findings import Flag
from mechinterp.images.image_set import ImageSet, Masks
from mechinterp.images.intensity import checked_range, range_of
from mechinterp.images.mask_files import label_masks
from mechinterp.images.volume import Axis, Volume, load_volume


def from_nifti(
    path: str | Path,
    *,
    axis: Axis = "axial",
    step_mm: float = 2.0,
    frame: int | None = None,
    min_area_mm2: float = 0.0,
    foreground_above: float = 0.0,
    intensity_range: tuple[float, float] | None = None,
    block_mm: float = 20.0,
    gap_mm: float = 4.0,
    pattern: Sequence[str] | None = None,
    label: str | None = None,
    name: str | None = None,
    licence: str | None = None,
    mask: str | Path | None = None,
    look_for_faces: bool = False,
) -> ImageSet:
    """Open the slices of one volume.

    The slices of one subject are not independent: groups are blocks of neighbouring slices, not patients
    (`units_are_patients` is false), and splits have gaps between them.

    Parameters
    ----------
    path
        A ``.nii`` or ``.nii.gz`` file.
    axis
        Along which to slice. Slices are upright with the patient's left at the image's left (see
        :class:`mechinterp.images.volume.Volume` for rows and columns).
    step_mm
        Distance of the slices, rounded to whole slices; nothing is interpolated.
    frame
        Which volume of a series, counted from 0.
    min_area_mm2
        Slices with less foreground are left out; 0 keeps all.
    foreground_above
        Values above this count as foreground.
    intensity_range
        The values shown as black and as white; by default 0 (or the smallest value, if that is below) and the
        largest value of the volume. It is one for all slices: scaling each on its own would make a slice's brightness
        depend on its anatomy.
    block_mm, gap_mm, pattern
        See :func:`mechinterp.images.block_splits.split_blocks`; without a pattern there are groups but no splits.
    label
        Class of all slices.
    name, licence
        What is shown on pages; the name is the file's when left out.
    mask
        A volume of labels on the same grid: its slices become the images' masks, ``mask`` for 1 alone, otherwise one
        for each whole number.
    look_for_faces
        Flag a head that still has its face, which slices can be put together to show.

    Returns
    -------
    ImageSet
        The slices from first to last, named by axis and position, with the attributes ``slice_position`` [mm] and
        ``foreground_area`` [mm²].

    Raises
    ------
    ImagesError
        If the file cannot be read, or no slice has enough foreground.
    MissingDependencyError
        If nibabel is not installed.

    """
    path = Path(path)
    volume = load_volume(path, frame)
    spacing_mm = volume.plane_spacing_mm(axis)
    positions, areas = volume.positions_mm(axis), {}
    for index in volume.every(axis, step_mm):
        area = area_mm2(volume.plane(axis, index) > foreground_above, spacing_mm)
        if area >= min_area_mm2:
            areas[index] = area
    if not areas:
        raise ImagesError(f"no {axis} slice of {path} has {min_area_mm2:g} mm² above {foreground_above:g}: lower one")
    kept = tuple(areas)
    blocks = split_blocks(positions[list(kept)], block_mm, gap_mm, pattern or ("train",))
    labels = None if mask is None else load_volume(mask)
    if labels is not None:
        volume.require_same_grid(labels)
    face = look_for_faces and _has_face(volume)
    names = slice_names(axis, positions[list(kept)].tolist())

    def masks(i: int) -> Masks:
        assert labels is not None
        found = label_masks(labels.array, labels.name)
        return {name: Volume(inside, labels.affine).plane(axis, kept[i]) for name, inside in found.items()}

    settings = {
        "axis": axis,
        "step_mm": float(step_mm),
        "frame": frame,
        "min_area_mm2": float(min_area_mm2),
        "foreground_above": float(foreground_above),
        "intensity_range": None if intensity_range is None else [float(v) for v in intensity_range],
        "block_mm": float(block_mm),
        "gap_mm": float(gap_mm),
        "pattern": None if pattern is None else list(pattern),
        "label": label,
        "name": name,
        "licence": licence,
        "mask": None if mask is None else Path(mask).resolve().as_posix(),
    }
    return ImageSet(
        ids=names,
        read=lambda i: volume.plane(axis, kept[i]),
        intensity_range=checked_range(intensity_range, "intensity_range")
        if intensity_range is not None
        else range_of([np.array([volume.array.min(), volume.array.max()], dtype=np.float32)], path.name),
        spacing_mm=(spacing_mm,) * len(kept),
        labels=None if label is None else (label,) * len(kept),
        groups=blocks.groups,
        splits=None if pattern is None else blocks.splits,
        attributes=AttributeTable.from_columns(
            [
                (
                    Attribute("slice_position", "mm", measured=f"{axis} coordinate of the slice's centre"),
                    positions[list(kept)],
                ),
                (
                    Attribute("foreground_area", "mm²", measured=f"pixels above {foreground_above:g} times their area"),
                    np.array(list(areas.values())),
                ),
            ]
        ),
        source={
            "kind": "nifti",
            "path": path.resolve().as_posix(),
            **{k: v for k, v in settings.items() if v is not None},
        },
        name=name or path.name.removesuffix(".gz").removesuffix(".nii"),
        licence=licence,
        units_are_patients=False,
        notes=() if volume.stated_in is None else (f"lengths stated in {volume.stated_in}, turned into mm",),
        read_masks=None if labels is None else masks,
        flags=(Flag("face", names[0], "the profile of the volume's head goes on below its forehead"),) if face else (),
    )


def _has_face(volume: Volume) -> bool:
    from mechinterp.images.flags.head_volumes import has_face  # scipy: not before it is needed

    return bool(has_face(volume.array, volume.voxel_mm))


def slice_names(axis: Axis, positions_mm: Sequence[float]) -> tuple[str, ...]:
    """Name slices by axis and position, unique to the decimals that needs: ``axial-006mm``, ``axial+010mm``."""
    for decimals in range(4):
        width = 4 + (decimals + 1 if decimals else 0)
        names = tuple(f"{axis}{round(p, decimals) + 0.0:+0{width}.{decimals}f}mm" for p in positions_mm)
        exact = all(abs(p - round(p, decimals)) < 1e-6 for p in positions_mm)
        if len(set(names)) == len(names) and (exact or decimals >= 2):
            return names
    return tuple(f"{axis}-{i:04d}" for i in range(len(positions_mm)))
