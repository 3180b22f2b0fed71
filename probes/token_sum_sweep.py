"""An area read off the tokens of every site of a store and added up over each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import AttributeTableError, ConfigError, HashMismatchError, ShapeError
from mechinterp.images.image_set import ImageSet
from mechinterp.progress import SILENT, Progress
from mechinterp.store.reader import ActivationStore
from probes.pixel_tiles import tile_pixels
from probes.pooling import patients_of
from probes.regions import MaskOf, Places, cell_areas_mm2
from probes.sweep import ProbeSweep, in_order
from probes.token_sum_probe import fit_token_sum, of_every_image
from probes.token_sums import Tokens


def probe_token_sums(
    store: ActivationStore,
    attributes: AttributeTable,
    name: str,
    structures: Mapping[str, MaskOf],
    *,
    images: ImageSet,
    sites: Sequence[str] | None = None,
    chosen: Sequence[int] | NDArray[np.int64] | None = None,
    untrained: ActivationStore | None = None,
    pixel_baseline: bool = True,
    progress: Progress = SILENT,
    **settings: Any,
) -> ProbeSweep:
    """Read an attribute of whole images as a sum over their tokens; see :func:`~probes.token_sum_probe.fit_token_sum`.

    Parameters
    ----------
    store
        Activations of the images; groups come from it.
    attributes, name
        The table of the store's images, and the column that the areas must add up to.
    structures
        Name → mask of each image, by its position: what the attribute is the area of. Each is read by a direction of its
        own.
    images
        The images themselves: their spacing gives the tiles' area, their pixels the baseline. Where an image has no
        spacing, tiles count as they are, and the line to the attribute brings the unit.
    sites
        Which sites, in the order of the results; by default all whose tokens have a place.
    chosen
        Positions of the images to use; all by default.
    untrained
        A store of the same images and sites under random weights: a control.
    pixel_baseline
        Whether to read what is plain in the pixels of the tiles by the same procedure: another control.
    progress
        Counts the sites.
    **settings
        Of :func:`~probes.token_sum_probe.fit_token_sum`; `folds`, where they are given, of every image of the store.

    Returns
    -------
    ProbeSweep
        At the level of images, since an image is what is read.

    Raises
    ------
    ConfigError
        If no structure is given, no site has tokens with a place, or the groups are parts of one subject.
    AttributeTableError
        If the attribute is not continuous.
    ShapeError, HashMismatchError
        If the table, or the other store, is not of the store's images.

    """
    if len(attributes) != len(store.images):
        raise ShapeError(
            f"the store has {len(store.images)} images, the attributes {len(attributes)}: take one image set"
        )
    about, values = attributes[name], attributes.column(name)
    if about.kind != "continuous":
        raise AttributeTableError(f"'{name}' is {about.kind}: what tokens add up to is an area, hence continuous")
    if not structures:
        raise ConfigError(f"no structure is given that '{name}' is the area of: name at least one mask")
    if untrained is not None and untrained.images["id"].tolist() != store.images["id"].tolist():
        raise HashMismatchError(f"{untrained.folder} holds other images than {store.folder}: capture the same ones")
    there = [s for s in (sites or in_order(store.sites)) if store.manifest.sites[s].grid is not None]
    if not there:
        raise ConfigError("no site asked for has tokens with a place in the image: choose one with a grid")
    groups, are_patients = patients_of(store)
    if not are_patients:
        raise ConfigError("sums over tokens are read over patients: one subject's slices have none to hold out")
    at = np.arange(len(values)) if chosen is None else np.asarray(chosen, dtype=np.int64)
    of_images = at[~np.isnan(values[at])]
    settings.setdefault("groups", None if groups is None else groups[of_images])
    folds = settings.get("folds", 0)
    if not isinstance(folds, int):
        settings["folds"] = of_every_image(folds, len(values))[of_images]
    tiles = _tiles(store, there, structures, images, of_images, progress)
    results = {}
    for site in progress.track(there, f"summing {name} over tokens", total=len(there)):
        found = fit_token_sum(
            _tokens(store, site, of_images), tiles[site].shares, values[of_images], tiles[site].area, name=name,
            unit=about.unit, site=site, baseline=_of_array(tiles[site].pixels) if pixel_baseline else None,
            untrained=_tokens(untrained, site, of_images) if untrained and site in untrained.sites else None, **settings,
        )  # fmt: skip
        results[name, site] = replace(found, images=of_images[found.images])
    return ProbeSweep("image", results)


@dataclass(frozen=True)
class _Tiles:
    """What the tiles of a site hold in each image: share of every structure, what is plain in the pixels, and their area."""

    shares: Float[NDArray[np.float32], "image cell structure"]
    pixels: Float[NDArray[np.float32], "image cell measure"]
    area: Float[NDArray[np.float64], " image"]


def _tiles(
    store: ActivationStore,
    sites: Sequence[str],
    structures: Mapping[str, MaskOf],
    images: ImageSet,
    chosen: NDArray[np.int64],
    progress: Progress,
) -> dict[str, _Tiles]:
    """Look at every image once, for all sites: a phantom is rendered whenever it is asked for."""
    places = {site: Places(store, site) for site in sites}
    known = images.spacing_mm is not None and all(images.spacing_mm[int(i)] is not None for i in chosen)
    shares: dict[str, list[Any]] = {site: [] for site in sites}
    plain: dict[str, list[Any]] = {site: [] for site in sites}
    area: dict[str, list[float]] = {site: [] for site in sites}
    for i in progress.track(chosen, "measuring tiles", total=len(chosen)):
        image, masks = images[int(i)], [mask_of(int(i)) for mask_of in structures.values()]
        spacing: Any = image.spacing_mm
        pixels = image.scaled()
        for site, place in places.items():
            placement = place.placement(masks[0], spacing)
            covered = [np.clip(place.coverage(mask, spacing), 0, 1) for mask in masks]
            shares[site].append(np.stack(covered, axis=1).astype(np.float32))
            plain[site].append(tile_pixels(pixels, place.grid, placement))
            area[site].append(cell_areas_mm2(place.grid, placement, spacing) if known else 1.0)
    return {s: _Tiles(np.stack(shares[s]), np.stack(plain[s]), np.array(area[s])) for s in sites}


def _of_array(values: NDArray[np.float32]) -> Tokens:
    return lambda positions: values[positions]


def _tokens(store: ActivationStore, site: str, chosen: NDArray[np.int64]) -> Tokens:
    prefix = store.manifest.sites[site].prefix_tokens

    def read(positions: NDArray[np.int64]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = store.read(site, chosen[positions])[:, prefix:].float().numpy()
        return found

    return read
