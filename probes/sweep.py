"""One attribute, or several, read from every site of a store: each site's activations are read from disk once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import ConfigError, HashMismatchError, ShapeError, nearest
from mechinterp.images.image_set import ImageSet
from mechinterp.progress import SILENT, Progress
from mechinterp.store.reader import ActivationStore
from probes.linear import fit_probe, kind_of
from probes.pixels import pixel_baseline
from probes.pooling import Pooling, patients_of, pooled_activations
from probes.regions import MaskOf, region_activations, token_areas, token_rows
from probes.results import ProbeResult

Level = Literal["image", "region", "token"]
LEVELS: tuple[Level, ...] = ("image", "region", "token")


@dataclass(frozen=True)
class ProbeSweep:
    """Probes of some attributes at some sites, beside their controls.

    Parameters
    ----------
    level
        What a row of the activations was.
    results
        (attribute, site) → result, in the order given.

    """

    level: Level
    results: dict[tuple[str, str], ProbeResult]

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes."""
        return tuple(dict.fromkeys(a for a, _ in self.results))

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites."""
        return tuple(dict.fromkeys(s for _, s in self.results))

    def of(self, attribute: str) -> tuple[ProbeResult, ...]:
        """Return one attribute's results, site by site.

        Raises
        ------
        ConfigError
            If it was not probed.

        """
        if attribute not in self.attributes:
            raise ConfigError(f"'{attribute}' was not probed: {nearest(attribute, self.attributes)}")
        return tuple(r for (a, _), r in self.results.items() if a == attribute)

    def best(self, attribute: str) -> ProbeResult:
        """Return the result with the highest score; chosen on the very images that score it, so it flatters."""
        return max(self.of(attribute), key=lambda r: r.score)

    def to_json(self) -> dict[str, Any]:
        """Return all results as plain JSON, attribute by attribute, site by site."""
        return {
            "level": self.level,
            "attributes": {a: {r.site: r.to_json() for r in self.of(a)} for a in self.attributes},
        }


def probe_sites(
    store: ActivationStore,
    attributes: AttributeTable,
    names: str | Sequence[str],
    *,
    sites: Sequence[str] | None = None,
    pooling: Pooling = "mean",
    mask_of: MaskOf | None = None,
    chosen: Sequence[int] | NDArray[np.int64] | None = None,
    images: ImageSet | None = None,
    untrained: ActivationStore | None = None,
    progress: Progress = SILENT,
    **settings: Any,
) -> ProbeSweep:
    """Probe attributes at every site, on whole images or on a region of each.

    Parameters
    ----------
    store
        Activations of the images; groups and what they are come from it.
    attributes, names
        The table of the store's images, and which of its columns.
    sites
        Which sites, in the order of the results; all of the store by default, numbers in their names counted.
    pooling
        How the tokens of a whole image become one vector.
    mask_of
        The region of each image: its tokens alone are pooled, weighted by how much of each the region covers.
    chosen
        Positions of the images to use; all by default.
    images
        The images themselves: gives the pixel baseline, and the spacing for the regions.
    untrained
        A store of the same images and sites under random weights, the other control.
    progress
        Counts what is done.
    **settings
        Of :func:`~probes.linear.fit_probe`.

    Raises
    ------
    ShapeError
        If the table is not that of the store's images.
    HashMismatchError
        If the other store holds other images.

    """
    wanted = (names,) if isinstance(names, str) else tuple(names)
    if len(attributes) != len(store.images):
        raise ShapeError(
            f"the store has {len(store.images)} images, the attributes {len(attributes)}: take one image set"
        )
    columns = {name: attributes.column(name) for name in wanted}
    of_images = np.arange(len(store.images)) if chosen is None else np.asarray(chosen, dtype=np.int64)
    if untrained is not None and untrained.images["id"].tolist() != store.images["id"].tolist():
        raise HashMismatchError(f"{untrained.folder} holds other images than {store.folder}: capture the same ones")
    spacing = None if images is None else images.spacing_mm

    def vectors(of: ActivationStore, site: str) -> Float[NDArray[Any], "image width"]:
        if mask_of is None:
            return pooled_activations(of, site, images=of_images, pooling=pooling)
        return region_activations(of, site, mask_of, spacing_mm=spacing, images=of_images)  # type: ignore[arg-type]

    baseline = None if images is None else pixel_baseline(images, mask_of=mask_of, chosen=of_images, progress=progress)
    shared = _of_store(store, of_images, settings)
    results = {}
    there = tuple(sites or in_order(store.sites))
    for site in progress.track(there, "probing sites", total=len(there)):
        x = vectors(store, site)
        other = vectors(untrained, site) if untrained is not None and site in untrained.sites else None
        for name in wanted:
            about = attributes[name]
            found = fit_probe(
                x, columns[name][of_images], baseline=baseline, untrained=other, name=name, unit=about.unit, site=site,
                **{"kind": kind_of(about), **shared},
            )  # fmt: skip
            results[name, site] = replace(found, images=of_images[found.images])
    ordered = {(name, site): results[name, site] for name in wanted for site in there}
    return ProbeSweep("image" if mask_of is None else "region", ordered)


def probe_tokens(
    store: ActivationStore,
    structure: str,
    mask_of: MaskOf,
    *,
    sites: Sequence[str] | None = None,
    chosen: Sequence[int] | NDArray[np.int64] | None = None,
    images: ImageSet | None = None,
    untrained: ActivationStore | None = None,
    per_image: int = 16,
    progress: Progress = SILENT,
    seed: int = 0,
    **settings: Any,
) -> ProbeSweep:
    """Probe how much of a structure each token's tile holds, token by token; patients stay together throughout.

    Parameters
    ----------
    store, sites, chosen, images, untrained, progress
        As for :func:`probe_sites`. Sites whose tokens have no place are left out. With `images` the attribute is an area
        in mm² where the spacing is known, else a share of the tile.
    structure
        Its name, for texts.
    mask_of
        The structure in each image.
    per_image
        Tokens drawn of each image, half of them where the structure is, if it is.
    seed
        Of draws and folds.
    **settings
        Of :func:`~probes.linear.fit_probe`. Control tasks give every cell of the grid a random label: position is what
        a token's type is.

    Raises
    ------
    ConfigError
        If no site has tokens with a place.

    """
    of_images = np.arange(len(store.images)) if chosen is None else np.asarray(chosen, dtype=np.int64)
    there = [s for s in (sites or in_order(store.sites)) if store.manifest.sites[s].grid is not None]
    if not there:
        raise ConfigError("no site asked for has tokens with a place in the image: choose one with a grid")
    shared = _of_store(store, of_images, settings)
    if shared.get("order") is not None:
        raise ConfigError("tokens are probed over patients: one subject's slices have none to hold out")
    groups = shared.pop("groups")
    results = {}
    spacing: Any = None if images is None else images.spacing_mm
    for site in progress.track(there, "probing tokens", total=len(there)):
        areas, unit = token_areas(store, site, mask_of, spacing_mm=spacing, images=of_images)
        rows = token_rows(store, site, images=of_images, per_image=per_image, prefer=areas, seed=seed)
        at = np.repeat(np.arange(len(of_images)), per_image)
        other = None
        if untrained is not None and site in untrained.sites:
            other = token_rows(untrained, site, images=of_images, per_image=per_image, prefer=areas, seed=seed).x
        patients = at if groups is None else np.asarray(groups, dtype=object)[at]
        found = fit_probe(
            rows.x, areas[at, rows.cell], groups=patients, types=rows.cell, untrained=other, name=structure, unit=unit,
            site=site, seed=seed, **shared,
        )  # fmt: skip
        results[structure, site] = replace(found, images=rows.image[found.images])
    return ProbeSweep("token", results)


def in_order(sites: Sequence[str]) -> list[str]:
    """Return the names of sites with the numbers in them counted: block 2 comes before block 10.

    Examples
    --------
    >>> in_order(["blocks.10", "blocks.2"])
    ['blocks.2', 'blocks.10']

    """
    return sorted(sites, key=lambda name: [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", name)])


def _of_store(store: ActivationStore, chosen: NDArray[np.int64], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with patients, and the order along a volume where the groups are parts of one subject."""
    groups, are_patients = patients_of(store)
    found = dict(settings)
    if not are_patients:
        found.setdefault("order", chosen)
    found.setdefault("groups", None if groups is None else groups[chosen])
    found.setdefault("units_are_patients", are_patients)
    return found
