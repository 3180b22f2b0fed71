"""A set of phantoms: patients, splits, labels, attributes with units, and every structure's mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import ImagesError, nearest
from mechinterp.images.image_set import ImageSet
from mechinterp.phantoms.kinds import PhantomKind, Renderer
from mechinterp.phantoms.phantom import PhantomImage
from mechinterp.phantoms.random_streams import Identity
from mechinterp.progress import SILENT, Progress

KEPT_IN_MEMORY_MIB = 256


@dataclass(frozen=True)
class PhantomSet:
    """Phantoms with all that is known about them; images are rendered when they are asked for.

    Parameters
    ----------
    kind
        What they show.
    study
        What they were drawn from.
    parameters, identities, splits
        One an image.
    renderer
        Size and extent of the images.

    """

    kind: PhantomKind[Any]
    study: Any
    parameters: tuple[Any, ...]
    identities: tuple[Identity, ...]
    splits: tuple[str, ...]
    renderer: Renderer[Any]

    def __len__(self) -> int:
        return len(self.parameters)

    @property
    def ids(self) -> tuple[str, ...]:
        """Name of each image: patient and number of the image."""
        return tuple(f"p{w.patient:05d}-{w.image:02d}" for w in self.identities)

    @property
    def groups(self) -> tuple[str, ...]:
        """Patient of each image."""
        return tuple(f"p{w.patient:05d}" for w in self.identities)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class of each image by the known rule."""
        return tuple(self.kind.class_names[self.kind.label(p)] for p in self.parameters)

    @cached_property
    def example(self) -> PhantomImage[Any]:
        """The first image, rendered once: all images share its shape and spacing."""
        return self.phantom(0)

    def phantom(self, i: int) -> PhantomImage[Any]:
        """Render image `i` with its masks; its counterfactuals are one call away."""
        return self.renderer(self.parameters[i], self.identities[i])

    def masks(self, i: int) -> dict[str, Bool[NDArray[np.bool_], "height width"]]:
        """Return every structure's mask in image `i`."""
        phantom = self.phantom(i)
        return {name: phantom.mask(name) for name in phantom.coverage}

    def attributes(self) -> AttributeTable:
        """Return all that is known of the images, with units; what is not there is missing (NaN)."""
        return self.kind.attributes(self.parameters)

    @property
    def images(self) -> ImageSet:
        """The set as every other part of the toolkit takes it; the last images read are kept in memory."""
        kept = max(1, KEPT_IN_MEMORY_MIB * 2**20 // self.example.pixels.nbytes)
        read = lru_cache(maxsize=kept)(lambda i: self.phantom(i).pixels)
        return ImageSet(
            ids=self.ids,
            read=lambda i: read(int(i)),
            intensity_range=(0.0, 1.0),
            spacing_mm=(self.example.spacing_mm,) * len(self),
            labels=self.labels,
            groups=self.groups,
            splits=self.splits,
            attributes=self.attributes(),
            source={"kind": f"{self.kind.name}_phantom", **asdict(self.study)},
            name=self.kind.title,
            licence="CC0-1.0",
            read_masks=lambda i: self.masks(int(i)),
        )

    def where(self, split: str) -> NDArray[np.int64]:
        """Return the positions of the images of one split."""
        return np.flatnonzero(np.array(self.splits) == split)

    def rendered(
        self, structures: Sequence[str] = (), *, progress: Progress = SILENT
    ) -> tuple[
        Float[NDArray[np.float32], "image height width *channel"],
        Float[NDArray[np.float32], "image structure height width"],
    ]:
        """Render all images at once, with the coverage of some structures.

        Parameters
        ----------
        structures
            Names of masks; see the kind's ``structures``.
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
            if name not in self.kind.structures:
                raise ImagesError(f"the phantom has no structure '{name}': {nearest(name, self.kind.structures)}")
        n, shape = len(self), self.example.pixels.shape
        pixels = np.empty((n, *shape), dtype=np.float32)
        coverage = np.empty((n, len(structures), *shape[:2]), dtype=np.float32)
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
