"""A set of images with everything that must not get lost: spacing, intensities, labels, patients, splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import ImagesError, LeakageError

if TYPE_CHECKING:
    from mechinterp.images.volume import Axis


@dataclass(frozen=True)
class MedicalImage:
    """One image as it was recorded.

    Parameters
    ----------
    id
        Name of the image in its set; never a patient's.
    pixels
        Height × width, or height × width × channel, in the recording's own units.
    intensity_range
        The values shown as black and as white.
    spacing_mm
        Millimetres per pixel, (row, column); ``None`` when unknown.
    label, group, split
        Class, patient, and ``train``/``validation``/``test``; ``None`` when unknown.

    """

    id: str
    pixels: Float[NDArray[np.float32], "height width *channel"]
    intensity_range: tuple[float, float] = (0.0, 1.0)
    spacing_mm: tuple[float, float] | None = None
    label: str | None = None
    group: str | None = None
    split: str | None = None

    def scaled(self) -> Float[NDArray[np.float32], "height width *channel"]:
        """Return the pixels scaled so that black is 0 and white is 1, clipped."""
        low, high = self.intensity_range
        scaled: NDArray[np.float32] = np.clip((self.pixels.astype(np.float32) - low) / max(high - low, 1e-12), 0, 1)
        return scaled


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
        Per image, (row, column), or ``None``.
    labels, groups, splits
        Per image, or ``None``. Groups are patients (or blocks of a volume): none may straddle two splits.
    attributes
        Physical quantities of the images.
    source
        JSON from which :func:`mechinterp.images.open_images` opens the same set again; empty when it cannot.
    name, licence
        What is shown on pages.
    units_are_patients
        False where the groups are parts of one subject: no interval over patients can be given then.

    """

    ids: tuple[str, ...]
    read: Callable[[int], NDArray[Any]]
    intensity_range: tuple[float, float] = (0.0, 1.0)
    spacing_mm: tuple[tuple[float, float] | None, ...] | None = None
    labels: tuple[str | None, ...] | None = None
    groups: tuple[str | None, ...] | None = None
    splits: tuple[str | None, ...] | None = None
    attributes: AttributeTable = field(default_factory=lambda: AttributeTable.empty(0))
    source: Mapping[str, Any] = field(default_factory=dict)
    name: str = "images"
    licence: str | None = None
    units_are_patients: bool = True

    def __post_init__(self) -> None:
        n = len(self.ids)
        if n == 0:
            raise ImagesError(f"'{self.name}' holds no image")
        if len(set(self.ids)) != n:
            raise ImagesError(f"'{self.name}' names an image twice: ids must be unique")
        for what in ("spacing_mm", "labels", "groups", "splits"):
            values = getattr(self, what)
            if values is not None and len(values) != n:
                raise ImagesError(f"'{self.name}' has {n} images but {len(values)} {what}")
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
            intensity_range=self.intensity_range,
            spacing_mm=self.spacing_mm[i] if self.spacing_mm else None,
            label=self.labels[i] if self.labels else None,
            group=self.groups[i] if self.groups else None,
            split=self.splits[i] if self.splits else None,
        )

    def subset(self, images: Sequence[int] | NDArray[np.int64]) -> ImageSet:
        """Return some of the images, in the given order. The subset cannot be opened again from its source."""
        chosen = [int(i) for i in images]

        def pick(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
            return None if values is None else tuple(values[i] for i in chosen)

        return replace(
            self,
            ids=tuple(self.ids[i] for i in chosen),
            read=lambda i: self.read(chosen[i]),
            spacing_mm=pick(self.spacing_mm),
            labels=pick(self.labels),
            groups=pick(self.groups),
            splits=pick(self.splits),
            attributes=self.attributes.select(chosen),
            source={},
        )

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        name: str | None = None,
        intensity_range: tuple[float, float] | None = None,
        spacing_mm: float | tuple[float, float] | None = None,
        licence: str | None = None,
    ) -> ImageSet:
        """Open a folder of images; see :func:`mechinterp.images.image_folder.from_folder`."""
        from mechinterp.images.image_folder import from_folder

        return from_folder(path, name=name, intensity_range=intensity_range, spacing_mm=spacing_mm, licence=licence)

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

    def mapped(
        self,
        change: Callable[[MedicalImage], NDArray[Any]],
        name: str,
        spacing_mm: Callable[[tuple[float, float]], tuple[float, float]] | None = None,
    ) -> ImageSet:
        """Return the same images with other pixels. It cannot be opened again from a source.

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
            self, read=lambda i: change(self[i]), spacing_mm=spacings, source={}, name=f"{self.name}, {name}"
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
