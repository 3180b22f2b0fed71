"""A set of images from DICOM files: slices and views, or whole series as volumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.attributes.acquisition import acquisition_table
from mechinterp.attributes.table import Attribute
from mechinterp.errors import ConfigError, ImagesError, UnreadableImageError, nearest
from mechinterp.images.dicom.frames import Frame, Listing, list_frames
from mechinterp.images.dicom.headers import Found, find_files
from mechinterp.images.dicom.pixels import read_frame
from mechinterp.images.dicom.segmentation import SegmentFrame, read_segments
from mechinterp.images.dicom.stacks import Stack, stacks_of
from mechinterp.images.dicom.table_rows import DicomTable
from mechinterp.images.findings import Flag, SetAside
from mechinterp.images.image_set import ImageSet, Masks
from mechinterp.images.pseudonyms import key_setting, pseudonyms
from mechinterp.images.windows import NAMED_WINDOWS, window_range
from mechinterp.progress import SILENT, Progress

ADDED = (
    Attribute("slice_position", "mm", measured="position along the normal of the slice's plane"),
    Attribute("spacing_from", "", kind="categorical", measured="which header element gave the millimetres per pixel"),
)


def from_dicom(
    path: str | Path,
    *,
    window: str | None = None,
    volumes: bool = False,
    label: str | None = None,
    key: str | Path | None = None,
    name: str | None = None,
    licence: str | None = None,
    look_for_faces: bool = False,
    progress: Progress = SILENT,
) -> ImageSet:
    """Open a DICOM file, or all those at and below a folder.

    Pixels are physical: the modality's rescale or look-up table is applied (HU in CT, Gy, Bq/mL), ``MONOCHROME1`` is
    turned round so that large is bright, palettes and YCbCr become RGB. Every frame is an image, in the order of
    patient, examination, series and position along the series. Segmentations in the folder become their images' masks.

    A ``metadata.csv`` or ``metadata.parquet`` in the folder gives what no header holds, label, split and attributes, by
    file, by folder of a series or by patient (:class:`mechinterp.images.dicom.table_rows.DicomTable`); then its rows are
    the images, as in a folder of pictures.

    No identifying tag leaves the reader. Group (patient), case (study) and the images' names are keyed hashes
    (:mod:`mechinterp.images.pseudonyms`); dates and free text are never read, and files are called by number.

    Parameters
    ----------
    path
        The file or folder.
    window
        Black and white: a name of :data:`mechinterp.images.windows.NAMED_WINDOWS` for all images in HU, or
        ``CENTRE,WIDTH`` for all that are not in colour. By default the header's own; without one, the type's range for
        8 bits and colour, and the extremes of its series otherwise.
    volumes
        Stack the slices of each series into one volume, depth × height × width: from the feet up, each plane with the
        front at its top and the patient's left at the image's left, whatever plane it was taken in.
    label
        Class of all images; without it, the table's.
    key
        See :func:`mechinterp.images.pseudonyms.pseudonyms`.
    name, licence
        What is shown on pages; without them, what ``dataset.yaml`` says. The folder's name is not taken: it is often a
        patient's.
    look_for_faces
        Flag series of slices from which a head with its face can be put together; reads all of them.
    progress
        Sees one step per file.

    Returns
    -------
    ImageSet
        Pixels are read when they are needed, one frame at a time; only those of series without any window are read
        once to find their extremes. What holds no image is in `set_aside`.

    Raises
    ------
    ImagesError
        If there is no DICOM file, none with an image, or the table's rows are not of these files.
    ConfigError
        If there is no such window, or it is in HU and no image is.
    MissingDependencyError
        If pydicom is not installed.

    """
    root = Path(path)
    if not root.exists():
        siblings = [p.name for p in root.parent.iterdir()] if root.parent.is_dir() else []
        raise ImagesError(f"DICOM folder {root} is not there: {nearest(root.name, siblings)}")
    chosen = None if window is None else window_range(window)
    found = find_files(root)
    if not found.files:
        raise ImagesError(f"{root} holds no DICOM file (looked for 'DICM' after 128 bytes, and for .dcm, .dicom, .ima)")
    names = pseudonyms(key)
    table = DicomTable.beside(root, names)
    if chosen is None and table is not None:
        chosen = table.description.intensity_range
    listing = list_frames(found, names, progress)
    if not listing.frames:
        said = [f"{s.name}: {s.reason}" for s in listing.set_aside[:1]] or ["only segmentations, of images not here"]
        raise ImagesError(f"none of the {len(found.files)} DICOM files of {root} holds an image ({said[0]})")
    every, gaps = stacks_of(listing.frames, volumes=volumes)
    stacks = every if table is None else table.kept(every)
    left_out = len(every) - len(stacks)
    ranges, unread, unreadable = _ranges(stacks, chosen, window, found)
    kept = [(s, r) for s, r in zip(stacks, ranges, strict=True) if r is not None]
    if not kept:
        raise ImagesError(f"no image of {root} can be read ({[*unreadable, *gaps][0].reason})")
    stacks = [s for s, _ in kept]
    settings = {"window": window, "volumes": volumes or None, "label": label, "name": name, "licence": licence}
    frames = [s.frames[0] for s in stacks]
    images = ImageSet(
        ids=tuple(s.name for s in stacks),
        read=partial(_read, tuple(stacks)),
        spacing_mm=tuple(s.spacing_mm for s in stacks),
        labels=None if label is None else (label,) * len(stacks),
        groups=_if_any([f.identity.group for f in frames]),
        cases=_if_any([f.identity.case for f in frames]),
        intensity_ranges=tuple(r for _, r in kept if r is not None),
        pixel_units=_if_any([f.scale.unit for f in frames]),
        attributes=acquisition_table([f.acquisition for f in frames], ADDED),
        read_masks=_masks(stacks, listing) if listing.segments else None,
        axes=3 if volumes else 2,
        set_aside=(*listing.set_aside, *unreadable, *gaps),
        flags=(*_flags(stacks), *(_faces(stacks, listing) if look_for_faces and not volumes else ())),
        notes=_notes(stacks, found, window, unread),
        source={
            "kind": "dicom",
            "path": root.resolve().as_posix(),
            **{k: v for k, v in settings.items() if v is not None},
            **key_setting(key),
        },
        name=name or (None if table is None else table.description.name) or "DICOM",
        licence=licence or (None if table is None else table.description.licence),
    )
    return images if table is None else table.described(images, stacks, left_out, names)


def _read(stacks: Sequence[Stack], i: int) -> NDArray[Any]:
    stack = stacks[i]
    planes = [read_frame(f.path, stack.name, f.frame, f.frames, f.scale) for f in stack.frames]
    return planes[0] if stack.turn is None else stack.turn(np.stack(planes))


def _if_any(values: Sequence[str | None]) -> tuple[str | None, ...] | None:
    return tuple(values) if any(v is not None for v in values) else None


def _ranges(
    stacks: Sequence[Stack], chosen: tuple[float, float] | None, window: str | None, found: Found
) -> tuple[list[tuple[float, float] | None], int, list[SetAside]]:
    """Return black and white of every image, how many were read for it, and those that could not be."""
    in_hu = window is not None and "," not in window
    if in_hu and not any(s.frames[0].scale.unit == "HU" for s in stacks):
        raise ConfigError(
            f"window '{window}' is in HU, but no image is: give CENTRE,WIDTH (named: {', '.join(NAMED_WINDOWS)})"
        )
    ranges: list[tuple[float, float] | None] = []
    by_pixels: dict[Any, list[int]] = {}
    for i, stack in enumerate(stacks):
        first = stack.frames[0]
        fits = not first.scale.colour and (not in_hu or first.scale.unit == "HU")
        said = chosen if chosen is not None and fits else first.window or first.type_range
        ranges.append(said)
        if said is None:
            by_pixels.setdefault(first.series, []).append(i)
    unreadable: list[SetAside] = []
    for members in by_pixels.values():
        extremes = _extremes([stacks[i] for i in members])
        low = min([0.0, *(e[0] for e in extremes if not isinstance(e, SetAside))])
        high = max([0.0, *(e[1] for e in extremes if not isinstance(e, SetAside))])
        for i, extreme in zip(members, extremes, strict=True):
            if isinstance(extreme, SetAside):
                path = stacks[i].frames[0].path
                unreadable.append(SetAside(found.number(path), extreme.reason, True, path))
            else:
                ranges[i] = (low, high if high > low else low + 1.0)
    return ranges, sum(len(m) for m in by_pixels.values()), unreadable


def _extremes(stacks: Sequence[Stack]) -> list[tuple[float, float] | SetAside]:
    def of(i: int) -> tuple[float, float] | SetAside:
        try:
            pixels = _read(stacks, i)
        except UnreadableImageError as error:
            return SetAside("", error.reason)
        return float(pixels.min()), float(pixels.max())

    with ThreadPoolExecutor(max_workers=4) as readers:
        return list(readers.map(of, range(len(stacks))))


def _masks(stacks: Sequence[Stack], listing: Listing) -> Callable[[int], Masks]:
    """Return the reader of masks: per frame those that name it, stacked as the image is."""
    of_stack: list[list[list[SegmentFrame]]] = [
        [listing.segments.get((f.identity.instance, f.frame), []) for f in s.frames] for s in stacks
    ]

    def read(i: int) -> Masks:
        stack = stacks[i]
        planes = [
            read_segments(frames, f.shape, stack.name) for frames, f in zip(of_stack[i], stack.frames, strict=True)
        ]
        names = dict.fromkeys(name for plane in planes for name in plane)
        empty = np.zeros(stack.frames[0].shape, dtype=bool)
        if stack.turn is None:
            return planes[0]
        return {name: stack.turn(np.stack([plane.get(name, empty) for plane in planes])) for name in names}

    return read


def _flags(stacks: Sequence[Stack]) -> tuple[Flag, ...]:
    text = [Flag("burned-in text", s.name, "the header says so") for s in stacks if any(f.text_said for f in s.frames)]
    faces = [Flag("face", s.name, "the header says so") for s in stacks if any(f.face_said for f in s.frames)]
    return (*text, *faces)


def _faces(stacks: Sequence[Stack], listing: Listing) -> Iterator[Flag]:
    """Look for heads with a face in the volumes that the slices make; the first slice of each is flagged."""
    from mechinterp.images.flags.head_volumes import has_face  # scipy: not before it is needed

    names = {(s.frames[0].path, s.frames[0].frame): s.name for s in stacks}
    for volume in stacks_of(listing.frames, volumes=True)[0]:
        first = names.get((volume.frames[0].path, volume.frames[0].frame))
        if first is None or volume.spacing_mm is None:
            continue
        try:
            voxels = _read([volume], 0)
        except UnreadableImageError:  # said of the slice itself
            continue
        z, y, x = volume.spacing_mm
        if has_face(voxels.transpose(2, 1, 0)[:, ::-1], (x, y, z)):
            yield Flag("face", first, "the profile of its series' head goes on below the forehead")


def _notes(stacks: Sequence[Stack], found: Found, window: str | None, by_pixels: int) -> tuple[str, ...]:
    """Say what a reader of results should know, without naming anybody."""
    frames: list[Frame] = [s.frames[0] for s in stacks]
    units = Counter(f.scale.unit or "no known unit" for f in frames)
    what = "volume" if stacks[0].turn is not None else "image"
    counts = {
        "{} in the folder that are no DICOM passed over": found.others,
        "{} stored as MONOCHROME1 and turned round: large is bright": sum(f.scale.inverted for f in frames),
        "{} without a window: black and white are the extremes of their series"
        + ("" if window else " (or --window)"): (by_pixels),
        "{} with millimetres measured at the detector: what is seen is smaller, by a magnification not in the header": sum(
            f.spacing is not None and f.spacing.source == "detector" for f in frames
        ),
        "{} without spacing": sum(f.spacing is None for f in frames),
        "{} whose pixels are not square by PixelAspectRatio, but without millimetres: shown and fitted to the model's input as if "
        "they were, so out of proportion; write PixelSpacing into the header": sum(
            f.spacing is None and not f.square for f in frames
        ),
        "{} that name no patient: the study stands for the patient": sum(not f.patient_known for f in frames),
    }
    said = [
        f"{_n(len(stacks), what)} from {_n(len(found.files), 'DICOM file')}, in "
        + ", ".join(f"{unit} ({n})" for unit, n in sorted(units.items()))
    ]
    return (*said, *(text.format(_n(n, "file" if "folder" in text else what)) for text, n in counts.items() if n))


def _n(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
