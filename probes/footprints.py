"""Where a growing structure changes a feature: on the tiles that it gains, on those around them, and everywhere.

What follows a structure in a network is seldom changed on its own tiles alone. Receptive fields carry it to the tiles
around, and attention or normalisation changes all tokens a little, often against the sign of the first. The mean over all
tokens adds the three up, and may be anything; moved on the structure's tiles, it says nothing of the structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.ndimage import convolve

from mechinterp.errors import ConfigError, SiteError, nearest
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.phantoms.phantom import PhantomImage
from mechinterp.statistics.bootstrap import Interval, bootstrap_groups
from mechinterp.token_grid import TokenGrid
from probes.regions import cell_coverage

Values = NDArray[np.float64]
PARTS = ("own", "ring", "everywhere")


@dataclass(frozen=True)
class Footprint:
    """How a feature's mean over the tokens follows an attribute, in parts; each per unit of the attribute.

    Parameters
    ----------
    own
        What comes about on the tiles that the structure gains.
    ring
        What comes about on the eight tiles around each of those.
    everywhere
        What all tokens share alike.
    local_interval
        95 % interval of :attr:`local`, over patients.

    """

    own: float
    ring: float
    everywhere: float
    local_interval: Interval

    @property
    def local(self) -> float:
        """What comes about on the tiles that the structure gains and on those around them."""
        return self.own + self.ring

    @property
    def total(self) -> float:
        """The three together: how far the mean over the tokens moves."""
        return self.own + self.ring + self.everywhere

    def predicted(self, bases: Float[Values, "image step token part"]) -> Float[Values, "image step token"]:
        """Return the change of every token, from the bases of images whose structure grows."""
        found: Values = bases @ np.array([self.own, self.ring, self.everywhere])
        return found


def footprint_bases(
    gained: Float[Values, "image step cell"], steps: Sequence[float], shape: tuple[int, int], prefix_tokens: int
) -> Float[Values, "image step token part"]:
    """Share each step out over the tokens in three ways: own tiles, the ring around them, and everywhere.

    Parameters
    ----------
    gained
        How much of the structure every tile gains; in each image and step it must add up to something.
    steps
        Changes of the attribute, in its unit.
    shape
        Rows and columns of tiles.
    prefix_tokens
        Tokens without a place, which come first and take part in `everywhere` alone.

    Returns
    -------
    NDArray
        The mean over the tokens of every part is the step. The ring is 0 where there are no other tiles.

    """
    around = np.ones((1, 3, 3))
    around[0, 1, 1] = 0
    maps = gained.reshape(-1, *shape)
    rings = convolve(maps, around, mode="constant").reshape(gained.shape)
    images, n_steps, cells = gained.shape
    found = np.zeros((images, n_steps, prefix_tokens + cells, len(PARTS)))
    of_step = np.asarray(steps, dtype=np.float64)[:, None] * found.shape[2]
    for part, laid in enumerate((gained, rings)):
        whole = laid.sum(2, keepdims=True)
        found[:, :, prefix_tokens:, part] = of_step * np.divide(laid, whole, out=np.zeros_like(laid), where=whole != 0)
    found[..., 2] = of_step / found.shape[2]
    return found


def fit_footprint(
    bases: Float[Values, "image step token part"],
    changes: Float[Values, "image step token"],
    patients: Sequence[Any],
) -> Footprint:
    """Fit the three parts to the changes of single tokens, by least squares in which patients count alike.

    The fit keeps the total: over the images that it was made on, the parts add up to the slope of the mean over tokens.

    Parameters
    ----------
    bases
        Of :func:`footprint_bases`.
    changes
        Of the feature, token by token, under the true counterfactuals.
    patients
        Patient of each image.

    """
    images = len(bases)
    x, y = bases.reshape(images, -1, len(PARTS)), changes.reshape(images, -1)
    _, unit, counts = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True, return_counts=True)
    weight = 1 / counts[unit]
    moments = np.einsum("i,ina,inb->iab", weight, x, x, optimize=True)
    products = np.einsum("i,ina,in->ia", weight, x, y, optimize=True)

    def parts(chosen: NDArray[np.int64]) -> Values:
        # least squares of least norm: with one tile alone, own and everywhere are the same
        found: Values = np.linalg.lstsq(moments[chosen].sum(0), products[chosen].sum(0), rcond=1e-10)[0]
        return found

    own, ring, everywhere = (float(v) for v in parts(np.arange(images)))
    # on coarse tiles neighbours see the same pixels: own and ring are told apart badly, their sum is not
    local = bootstrap_groups(lambda chosen: float(parts(chosen)[:2].sum()), list(patients))
    return Footprint(own, ring, everywhere, local)


@dataclass(frozen=True)
class StructureTiles:
    """Where a phantom's structure lies on a site's tokens.

    Parameters
    ----------
    grid, prefix_tokens
        The site's tiles, and how many tokens without a place come before them.
    contract
        What the model takes, which decides how an image lies in its input.
    structure
        Name of the structure.

    """

    grid: TokenGrid
    prefix_tokens: int
    contract: InputContract
    structure: str

    @classmethod
    def of(cls, model: VisionModel, name: str, phantom: PhantomImage[Any], structure: str) -> StructureTiles:
        """Look up the site `name` and the structure.

        Raises
        ------
        SiteError
            If the site's tokens have no place in the image.
        ConfigError
            If the phantom has no such structure.

        """
        site = model.site(name)
        if site.grid is None:
            raise SiteError(f"the tokens of site '{name}' have no place in the image: give no structure")
        if structure not in phantom.coverage:
            raise ConfigError(f"the phantom has no structure '{structure}': {nearest(structure, phantom.coverage)}")
        return cls(site.grid, site.prefix_tokens, model.contract, structure)

    def gained(
        self, rendered: Sequence[PhantomImage[Any]], preparation: Preparation, parameter: str
    ) -> Float[Values, "step cell"]:
        """Return the share of every tile that the structure gains from the first image to each of the others.

        Raises
        ------
        ConfigError
            If it gains nothing; `parameter` says what was raised.

        """
        before, *grown = (p.coverage[self.structure] for p in rendered)
        placement = preparation.placement(before.shape, rendered[0].spacing_mm, self.contract)
        found = np.stack([cell_coverage(mask - before, self.grid, placement) for mask in grown])
        whole = np.abs(found.sum(1))
        if (whole == 0).any() or (whole < 1e-6 * np.abs(found).sum(1)).any():
            raise ConfigError(f"'{self.structure}' do not grow with '{parameter}': name the structure that does")
        return found

    def bases(
        self, gained: Float[Values, "image step cell"], steps: Sequence[float]
    ) -> Float[Values, "image step token part"]:
        """Return :func:`footprint_bases` on this site's tokens."""
        return footprint_bases(gained, steps, (self.grid.rows, self.grid.columns), self.prefix_tokens)
