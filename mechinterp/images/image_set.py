"""A set of images with everything that must not get lost: spacing, intensities, labels, patients, splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import ImagesError, LeakageError
from mechinterp.images.findings import Flag, SetAside

if TYPE_CHECKING:
    from mechinterp.images.volume import Axis

Masks = Mapping[str, NDArray[np.bool_]]
_PER_IMAGE = ("spacing_mm", "labels", "groups", "splits", "cases", "intensity_ranges", "pixel_units")


@dataclass(frozen=True)
class MedicalImage:
    """One image as it was recorded.

    Parameters
    ----------
    id
        Name of the image in its set; never a patient's.
    pixels
        Height × width, or height × width × channel, in the recording's own units; depth × height × width for a volume.
    intensity_range
        The values shown as black and as white.
    spacing_mm
        Millimetres per pixel, (row, column), or per voxel, (z, y, x); ``None`` when unknown.
    label, group, split
        Class, patient, and ``train``/``validation``/``test``; ``None`` when unknown.
    case
        The examination it belongs to, where one has several views or slices; ``None`` when unknown.
    unit
        Unit of the pixels, such as ``HU``; ``None`` when unknown.
    axes
        2 for a picture, 3 for a volume.

    """

    id: str
    pixels: Float[NDArray[np.float32], "*space_and_channel"]
    intensity_range: tuple[float, float] = (0.0, 1.0)
    spacing_mm: tuple[float, ...] | None = None
    label: str | None = None
    group: str | None = None
    split: str | None = None
    case: str | None = None
    unit: str | None = None
    axes: int = 2

    def scaled(self) -> Float[NDArray[np.float32], "*space_and_channel"]:
        """Return the pixels scaled so that black is 0 and white is 1, clipped."""
        low, high = self.intensity_range
        scaled: NDArray[np.float32] = np.clip((self.pixels.astype(np.float32) - low) / max(high - low, 1e-12), 0, 1)
        return scaled


def own_patient(image: str) -> str:
    """Return what an image counts as a patient by that names none, among images that do."""
    return f"image {image}"


def each_of_somebody(ids: Sequence[str], groups: Sequence[str | None] | None) -> tuple[str, ...] | None:
    """Return the patient of each image, one that names none being its own; ``None`` where nobody names any."""
    if groups is None or all(group is None for group in groups):
        return None
    return tuple(own_patient(name) if group is None else group for name, group in zip(ids, groups, strict=True))


@dataclass(frozen=True)
class ImageSet:
    """Images in a fixed order, read one by one.

    Parameters
    ----------
    ids
        Unique names.
    read
        Returns the pixels of image ``i``; called whenever an image is needed, so memory stays bounded.
    intensity_range
        The values shown as black and as white, for all images.
    spacing_mm
        Per image, (row, column), or (z, y, x) of volumes, or ``None``.
    labels, groups, splits
        Per image, or ``None``. Groups are patients (or blocks of a volume): none may straddle two splits. Where some images
        name theirs, one that does not is a patient of its own (:func:`own_patient`), so that the others stay together; where
        none does, there are no groups.
    attributes
        Physical quantities of the images.
    source
        JSON from which :func:`mechinterp.images.open_images` opens the same set again; empty when it cannot.
    name, licence
        What is shown on pages.
    units_are_patients
        False where the groups are parts of one subject: no interval over patients can be given then.
    axes
        2 for pictures, 3 for volumes of depth × height × width.
    cases
        Per image, the examination it belongs to, or ``None``; see :mod:`mechinterp.images.cases`.
    intensity_ranges
        Black and white per image, where they differ; they go before `intensity_range`.
    pixel_units
        Unit of the pixels per image, such as ``HU``, or ``None``.
    read_masks
        Returns the masks of image ``i`` by name, each of the image's height × width (× depth, first).
    set_aside
        Files that are no images of this set, each with its reason.
    flags
        Images that may show who the patient is.
    notes
        What a reader should know about how they were read, one sentence each; no path, no patient.

    """

    ids: tuple[str, ...]
    read: Callable[[int], NDArray[Any]]
    intensity_range: tuple[float, float] = (0.0, 1.0)
    spacing_mm: tuple[tuple[float, ...] | None, ...] | None = None
    labels: tuple[str | None, ...] | None = None
    groups: tuple[str | None, ...] | None = None
    splits: tuple[str | None, ...] | None = None
    attributes: AttributeTable = field(default_factory=lambda: AttributeTable.empty(0))
    source: Mapping[str, Any] = field(default_factory=dict)
    name: str = "images"
    licence: str | None = None
    units_are_patients: bool = True
    axes: int = 2
    cases: tuple[str | None, ...] | None = None
    intensity_ranges: tuple[tuple[float, float], ...] | None = None
    pixel_units: tuple[str | None, ...] | None = None
    read_masks: Callable[[int], Masks] | None = None
    set_aside: tuple[SetAside, ...] = ()
    flags: tuple[Flag, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.ids)
        if n == 0:
            raise ImagesError(f"'{self.name}' holds no image")
        if len(set(self.ids)) != n:
            raise ImagesError(f"'{self.name}' names an image twice: ids must be unique")
        for what in _PER_IMAGE:
            values = getattr(self, what)
            if values is not None and len(values) != n:
                raise ImagesError(f"'{self.name}' has {n} images but {len(values)} {what}")
        object.__setattr__(self, "groups", each_of_somebody(self.ids, self.groups))
        if len(self.attributes) == 0 and not self.attributes.attributes:
            object.__setattr__(self, "attributes", AttributeTable.empty(n))
        if len(self.attributes) != n:
            raise ImagesError(f"'{self.name}' has {n} images but attributes of {len(self.attributes)}")
        self._check_leakage()

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[MedicalImage]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> MedicalImage:
        return MedicalImage(
            id=self.ids[i],
            pixels=np.asarray(self.read(i), dtype=np.float32),
            intensity_range=self.intensity_ranges[i] if self.intensity_ranges else self.intensity_range,
            spacing_mm=self.spacing_mm[i] if self.spacing_mm else None,
            label=self.labels[i] if self.labels else None,
            group=self.groups[i] if self.groups else None,
            split=self.splits[i] if self.splits else None,
            case=self.cases[i] if self.cases else None,
            unit=self.pixel_units[i] if self.pixel_units else None,
            axes=self.axes,
        )

    def masks(self, i: int) -> Masks:
        """Return the masks of image `i` by name: true where a pixel belongs to what the name says.

        Raises
        ------
        ImagesError
            If the set comes without masks, or one cannot be read or is of another size than its image.

        """
        if self.read_masks is None:
            raise ImagesError(
                f"'{self.name}' comes without masks: see docs/images.md for where a reader looks for them"
            )
        return self.read_masks(i)

    def mask(self, i: int, *names: str) -> NDArray[np.bool_]:
        """Return where any of some structures is in image `i`; nowhere where the image has no mask of theirs.

        Raises
        ------
        ImagesError
            As :meth:`masks`.

        """
        masks = self.masks(i)
        held = [np.asarray(masks[name], dtype=bool) for name in names if name in masks]
        shape = np.shape(self.read(i))[: self.axes] if not held else held[0].shape
        found: NDArray[np.bool_] = np.logical_or.reduce([np.zeros(shape, dtype=bool), *held])
        return found

    def subset(self, images: Sequence[int] | NDArray[np.int64]) -> ImageSet:
        """Return some of the images, in the given order. The subset cannot be opened again from its source."""
        chosen = [int(i) for i in images]
        kept = {self.ids[i] for i in chosen}
        read_masks = self.read_masks

        def pick(values: tuple[Any, ...] | None) -> Any:
            return None if values is None else tuple(values[i] for i in chosen)

        per_image: dict[str, Any] = {what: pick(getattr(self, what)) for what in _PER_IMAGE}
        return replace(
            self,
            ids=tuple(self.ids[i] for i in chosen),
            read=lambda i: self.read(chosen[i]),
            attributes=self.attributes.select(chosen),
            source={},
            read_masks=None if read_masks is None else lambda i: read_masks(chosen[i]),
            flags=tuple(f for f in self.flags if f.image in kept),
            **per_image,
        )

    def of_split(self, split: str) -> ImageSet:
        """Return the images of a split; it can be opened again where the whole set can.

        Raises
        ------
        ImagesError
            If the set has no such split.

        """
        return replace(self.subset(self.where(split)), source={**self.source, "of_split": split} if self.source else {})

    def tested_on(self, patients: Iterable[str]) -> ImageSet:
        """Return the set with the images of some patients as the split `test` and all others as `train`.

        It can be opened again where the set can. Where no patients are named, each image counts as one.
        """
        held = set(patients)
        splits = tuple("test" if patient in held else "train" for patient in self.groups or self.ids)
        return replace(self, splits=splits, source={**self.source, "tested_on": sorted(held)} if self.source else {})

    def without(self, ids: Iterable[str]) -> ImageSet:
        """Return the set without some images; it can be opened again where the whole set can."""
        gone = set(ids)
        if not gone & set(self.ids):
            return self
        subset = self.subset([i for i, name in enumerate(self.ids) if name not in gone])
        if not self.source:
            return subset
        return replace(subset, source={**self.source, "without": sorted(gone.union(self.source.get("without", ())))})

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        name: str | None = None,
        intensity_range: tuple[float, float] | None = None,
        spacing_mm: float | tuple[float, float] | None = None,
        licence: str | None = None,
        key: str | Path | None = None,
    ) -> ImageSet:
        """Open a folder of images; see :func:`mechinterp.images.image_folder.from_folder`."""
        from mechinterp.images.image_folder import from_folder

        return from_folder(
            path, name=name, intensity_range=intensity_range, spacing_mm=spacing_mm, licence=licence, key=key
        )

    @classmethod
    def from_arrays(cls, arrays: NDArray[Any] | Sequence[NDArray[Any]], **settings: Any) -> ImageSet:
        """Make a set of arrays in memory; see :func:`mechinterp.images.arrays.from_arrays`."""
        from mechinterp.images.arrays import from_arrays

        return from_arrays(arrays, **settings)

    @classmethod
    def from_nifti(cls, path: str | Path, axis: Axis = "axial", step_mm: float = 2.0, **settings: Any) -> ImageSet:
        """Open slices of a volume; see :func:`mechinterp.images.nifti.from_nifti`."""
        from mechinterp.images.nifti import from_nifti

        return from_nifti(path, axis=axis, step_mm=step_mm, **settings)

    @classmethod
    def from_dicom(cls, path: str | Path, **settings: Any) -> ImageSet:
        """Open DICOM files; see :func:`mechinterp.images.dicom.reading.from_dicom`."""
        from mechinterp.images.dicom.reading import from_dicom

        return from_dicom(path, **settings)

    def mapped(
        self,
        change: Callable[[MedicalImage], NDArray[Any]],
        name: str,
        spacing_mm: Callable[[tuple[float, ...]], tuple[float, ...]] | None = None,
    ) -> ImageSet:
        """Return the same images with other pixels and no masks. It cannot be opened again from a source.

        Parameters
        ----------
        change
            Returns an image's new pixels, in its intensity range.
        name
            What is appended to the set's name.
        spacing_mm
            What the change does to millimetres per pixel; nothing when left out. The attributes stay those measured
            on the images before the change.

        """
        spacings = self.spacing_mm
        if spacing_mm is not None and spacings is not None:
            spacings = tuple(None if s is None else spacing_mm(s) for s in spacings)
        return replace(
            self,
            read=lambda i: change(self[i]),
            read_masks=None,
            spacing_mm=spacings,
            source={},
            name=f"{self.name}, {name}",
        )

    def where(self, split: str) -> NDArray[np.int64]:
        """Return the positions of the images of one split.

        Raises
        ------
        ImagesError
            If the set has no such split.

        """
        found = [i for i, s in enumerate(self.splits or ()) if s == split]
        if not found:
            known = sorted({s for s in self.splits or () if s})
            raise ImagesError(f"'{self.name}' has no split '{split}': it has {known or 'none'}")
        return np.asarray(found)

    @property
    def scale(self) -> list[Any]:
        """What pixels are shown as and how large they are: the values a store's ``scale_hash`` is made of."""
        known: list[Any] = [self.intensity_range, self.spacing_mm]
        return known if self.intensity_ranges is None else [*known, self.intensity_ranges]

    @property
    def hash(self) -> str:
        """SHA-256 over ids and pixels: reads every image once."""
        digest = hashlib.sha256()
        for i, name in enumerate(self.ids):
            pixels = np.ascontiguousarray(self.read(i))
            digest.update(f"{name} {pixels.shape} {pixels.dtype}\n".encode())
            digest.update(pixels.tobytes())
        return digest.hexdigest()

    def _check_leakage(self) -> None:
        if self.groups is None or self.splits is None:
            return
        split_of: dict[str, str] = {}
        for group, split in zip(self.groups, self.splits, strict=True):
            if group is None or split is None:
                continue
            if split_of.setdefault(group, split) != split:
                raise LeakageError(
                    f"'{self.name}': a group stands in both split '{split_of[group]}' and split '{split}': "
                    "put all images of a patient into one split"
                )
