"""Which tokens lie on a lesion, which on background, and which have no place: metrics by what a token sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from mechinterp.attributes.token_level import token_attributes
from mechinterp.errors import ImagesError, SiteError
from mechinterp.images.preparation import Preparation
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from mechinterp.images.image_set import ImageSet
    from mechinterp.models.vision_model import InputContract
    from mechinterp.sites import Site

LEAST_SHARE = 0.1
TokenTypes = Mapping[str, Bool[NDArray[np.bool_], "image token"]]


def token_types(
    site: Site,
    images: ImageSet,
    chosen: Sequence[int] | NDArray[np.int64],
    contract: InputContract,
    structures: Sequence[str],
    *,
    preparation: Preparation | None = None,
    least_share: float = LEAST_SHARE,
    progress: Progress = SILENT,
) -> dict[str, Bool[NDArray[np.bool_], "image token"]]:
    """Say of every token of some images what it is, from the images' masks.

    Parameters
    ----------
    site
        Whose tokens; of a model or a store's manifest.
    images
        With masks.
    chosen
        Positions of the images.
    contract, preparation
        What the model is fed, and how images become that; needed to find a token's place in the image.
    structures
        Names of the masks that together are the lesion.
    least_share
        Least share of its tile that lesions cover on a lesion token. Tokens with less, but some, are of neither type.
    progress
        Sees one step per image.

    Returns
    -------
    dict
        ``lesion``, ``background`` (no lesion at all), and ``CLS`` for the first and ``registers`` for further prefix tokens: image ×
        token each. Types that no token is of are left out.

    Raises
    ------
    SiteError
        If the site's tokens have no place in the image.
    ImagesError
        If an image has no mask of any of the structures.

    """
    if site.grid is None:
        raise SiteError(f"tokens of site '{site.name}' have no place in the image: they cannot be told by a mask")
    prepared = preparation or Preparation()
    found = {
        name: np.zeros((len(chosen), site.tokens), dtype=bool) for name in ("lesion", "background", "CLS", "registers")
    }
    for row, i in enumerate(progress.track(list(map(int, chosen)), "finding lesion tokens", total=len(chosen))):
        masks = images.masks(i)
        present = [np.asarray(masks[name], dtype=bool) for name in structures if name in masks]
        if not present:
            raise ImagesError(
                f"image '{images.ids[i]}' has no mask of {', '.join(structures)}: it has {', '.join(masks) or 'none'}"
            )
        spacing = None if images.spacing_mm is None else images.spacing_mm[i]
        placement = prepared.placement(present[0].shape, spacing, contract)
        lesion = np.logical_or.reduce(present)
        table = token_attributes({"lesion": lesion}, site.grid, placement, (1.0, 1.0))
        share = np.nan_to_num(table.column("lesion_share"), nan=-1.0)  # -1: outside the image, of no type
        found["lesion"][row, site.prefix_tokens :] = share >= least_share
        found["background"][row, site.prefix_tokens :] = share == 0
    found["CLS"][:, : min(1, site.prefix_tokens)] = True
    found["registers"][:, 1 : site.prefix_tokens] = True
    return {name: marks for name, marks in found.items() if marks.any()}
