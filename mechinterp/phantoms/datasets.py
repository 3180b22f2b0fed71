"""Sets of fundus phantoms: patients, splits, labels, attributes with units, and every structure's mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import ImagesError, nearest
from mechinterp.images.image_set import ImageSet
from mechinterp.phantoms.fundus import STRUCTURES, FundusRenderer
from mechinterp.phantoms.fundus_parameters import GRADES, REFERABLE_AREA_MM2, FundusParameters
from mechinterp.phantoms.fundus_population import FundusStudy, sample_population
from mechinterp.phantoms.phantom import PhantomImage
from mechinterp.phantoms.planted_shortcut import PlantedShortcut
from mechinterp.phantoms.quantities import parameter_table
from mechinterp.phantoms.random_streams import Identity
from mechinterp.progress import SILENT, Progress

CLASS_NAMES = ("not referable", "referable")
KEPT_IN_MEMORY_MIB = 256


@dataclass(frozen=True)
class PhantomSet:
    """Fundus phantoms with all that is known about them; images are rendered when they are asked for.

    Parameters
    ----------
    study
        What they were drawn from.
    parameters, identities, splits
        One an image.
    renderer
        Size and extent of the images.

    """

    study: FundusStudy
    parameters: tuple[FundusParameters, ...]
    identities: tuple[Identity, ...]
    splits: tuple[str, ...]
    renderer: FundusRenderer = field(default_factory=FundusRenderer)

    def __len__(self) -> int:
        return len(self.parameters)

    @property
    def ids(self) -> tuple[str, ...]:
        """Name of each image: patient and photograph."""
        return tuple(f"p{w.patient:05d}-{w.image:02d}" for w in self.identities)

    @property
    def groups(self) -> tuple[str, ...]:
        """Patient of each image."""
        return tuple(f"p{w.patient:05d}" for w in self.identities)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class of each image by the known rule."""
        return tuple(CLASS_NAMES[p.referable] for p in self.parameters)

    def phantom(self, i: int) -> PhantomImage[FundusParameters]:
        """Render image `i` with its masks; its counterfactuals are one call away."""
        return self.renderer(self.parameters[i], self.identities[i])

    def masks(self, i: int) -> dict[str, Bool[NDArray[np.bool_], "height width"]]:
        """Return every structure's mask in image `i`."""
        phantom = self.phantom(i)
        return {name: phantom.mask(name) for name in phantom.coverage}

    def attributes(self) -> AttributeTable:
        """Return all parameters, the lesions' area, the grade and the label, with units.

        A lesion that is not there has a count and an area of 0; its contrast and position are missing (NaN).
        """
        table = parameter_table(self.parameters)
        values = table.values.copy()
        for lesion in ("microaneurysm", "haemorrhage", "exudate"):
            absent = table.column(f"{lesion}_area_mm2") == 0
            for k, name in enumerate(table.names):
                if name.startswith(lesion) and not name.endswith("area_mm2"):
                    values[absent, k] = 0.0 if name.endswith("count") else np.nan
        rule = f"known rule: referable from {REFERABLE_AREA_MM2} mm² of haemorrhages and exudates"
        derived: list[tuple[Attribute, Sequence[float]]] = [
            (
                Attribute("lesion_area_mm2", "mm²", measured="sum of the phantom's haemorrhage and exudate area"),
                [p.lesion_area_mm2 for p in self.parameters],
            ),
            (Attribute("grade", "1", kind="ordinal", measured=rule), [p.grade for p in self.parameters]),
            (Attribute("referable", "1", kind="binary", measured=rule), [p.referable for p in self.parameters]),
        ]
        more = AttributeTable.from_columns(derived)
        more = AttributeTable(more.attributes, more.values, {"grade": GRADES})
        return AttributeTable(table.attributes, values, table.categories).joined(more)

    @property
    def images(self) -> ImageSet:
        """The set as every other part of the toolkit takes it; the last images read are kept in memory."""
        kept = max(1, KEPT_IN_MEMORY_MIB * 2**20 // (12 * self.renderer.size_px**2))
        read = lru_cache(maxsize=kept)(lambda i: self.phantom(i).pixels)
        spacing = self.renderer.extent_mm / self.renderer.size_px
        return ImageSet(
            ids=self.ids,
            read=lambda i: read(int(i)),
            intensity_range=(0.0, 1.0),
            spacing_mm=((spacing, spacing),) * len(self),
            labels=self.labels,
            groups=self.groups,
            splits=self.splits,
            attributes=self.attributes(),
            source={"kind": "fundus_phantom", **asdict(self.study)},
            name="fundus phantom",
            licence="CC0-1.0",
        )

    def where(self, split: str) -> NDArray[np.int64]:
        """Return the positions of the images of one split."""
        return np.flatnonzero(np.array(self.splits) == split)

    def rendered(
        self, structures: Sequence[str] = (), *, progress: Progress = SILENT
    ) -> tuple[Float[NDArray[np.float32], "image height width 3"], Float[NDArray[np.float32], "image structure h w"]]:
        """Render all images at once, with the coverage of some structures.

        Parameters
        ----------
        structures
            Names of masks; see :data:`mechinterp.phantoms.fundus.STRUCTURES`.
        progress
            Told of every image.

        Returns
        -------
        pixels, coverage

        Raises
        ------
        ImagesError
            If there is no such structure.

        """
        for name in structures:
            if name not in STRUCTURES:
                raise ImagesError(f"the phantom has no structure '{name}': {nearest(name, STRUCTURES)}")
        n, size = len(self), self.renderer.size_px
        pixels = np.empty((n, size, size, 3), dtype=np.float32)
        coverage = np.empty((n, len(structures), size, size), dtype=np.float32)
        for i in progress.track(range(n), "rendering phantoms", total=n):
            phantom = self.phantom(i)
            pixels[i] = phantom.pixels
            for k, name in enumerate(structures):
                coverage[i, k] = phantom.coverage[name]
        return pixels, coverage

    def write_image_folder(self, out: str | Path, *, masks: bool = True, progress: Progress = SILENT) -> Path:
        """Write the set as files; see :func:`mechinterp.phantoms.image_folder.write_image_folder`."""
        from mechinterp.phantoms.image_folder import write_image_folder

        return write_image_folder(self, Path(out), masks=masks, progress=progress)


def fundus_phantoms(study: FundusStudy | None = None) -> PhantomSet:
    """Draw a study's patients.

    Examples
    --------
    >>> eyes = fundus_phantoms(FundusStudy(patients=4, images_per_patient=1))
    >>> eyes.images[0].pixels.shape
    (96, 96, 3)

    """
    chosen = study or FundusStudy()
    parameters, identities, splits = sample_population(chosen)
    renderer = FundusRenderer(chosen.size_px, chosen.extent_mm)
    return PhantomSet(chosen, tuple(parameters), tuple(identities), tuple(splits), renderer)


def fundus_images(*, shortcut: Mapping[str, Any] | None = None, **settings: Any) -> ImageSet:
    """Return the images of a study given as plain settings: what an image set's source holds."""
    planted = None if shortcut is None else PlantedShortcut(**shortcut)
    return fundus_phantoms(FundusStudy(shortcut=planted, **settings)).images
