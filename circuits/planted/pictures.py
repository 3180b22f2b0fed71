"""Images for planted models: orthogonal visual patterns at random cells over a background that no detector sees."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.planted.plan import STRONGEST
from mechinterp.errors import ConfigError

NAMED = ("blob", "vertical edge", "horizontal edge", "tag", "diagonal edge", "ring")


def pattern_names(n: int) -> tuple[str, ...]:
    """Return the names of `n` patterns: a blob, edges, a tag, a ring, then textures."""
    return (NAMED + tuple(f"texture {i}" for i in range(1, 1 + max(0, n - len(NAMED)))))[:n]


def patterns(n: int, size: int) -> Float[NDArray[np.float64], "pattern row column"]:
    """Return `n` orthonormal patterns of `size` pixels: detectors that do not see each other's pattern.

    The drawn ones are made orthogonal one after the other, so each still looks like its name.

    Raises
    ------
    ConfigError
        If there are more patterns than pixels.

    """
    if n >= size * size:
        raise ConfigError(f"{n} patterns do not fit a cell of {size} × {size} pixels: take fewer, or larger cells")
    row, column = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    radius = np.hypot(row, column)
    drawn = [
        np.exp(-4 * radius**2),
        np.sign(column + 1e-9),
        np.sign(row + 1e-9),
        np.where((np.abs(row) < 0.25) | (np.abs(column) < 0.25), 1.0, -0.3) * (row < 0.5),
        np.sign(row - column + 1e-9),
        np.exp(-12 * (radius - 0.8) ** 2),
    ][:n]
    textures = np.random.default_rng(7).standard_normal((max(0, n - len(drawn)), size * size))
    columns = np.concatenate([np.stack(drawn).reshape(len(drawn), -1), textures]).T
    q, r = np.linalg.qr(columns)
    result: NDArray[np.float64] = (q * np.sign(np.diag(r))).T.reshape(n, size, size)
    return result


@dataclass(frozen=True, eq=False)
class PlantedImages:
    """Images with what they show.

    Parameters
    ----------
    x
        The prepared images.
    amplitudes
        With what strength each pattern is shown; 0 where it is absent.
    cells
        In which cell (row, column) each pattern lies.
    groups
        Patient of each image, two images a patient.

    """

    x: Float[Tensor, "image 1 height width"]
    amplitudes: Float[NDArray[np.float64], "image pattern"]
    cells: NDArray[np.int64]
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.x)


def draw_images(
    shapes: Float[NDArray[np.float64], "pattern size size"],
    cells: int,
    n: int,
    seed: int,
    *,
    present: float = 0.5,
    background: float = 0.1,
) -> PlantedImages:
    """Draw images in which every pattern is present or not, each in a cell of its own.

    Parameters
    ----------
    shapes
        Orthonormal patterns.
    cells
        The image has ``cells × cells`` cells.
    n
        How many images.
    seed
        The same seed gives the same images.
    present
        Probability of each pattern.
    background
        Standard deviation of a background that is orthogonal to every pattern.

    Raises
    ------
    ConfigError
        If there are more patterns than cells.

    """
    k, size = shapes.shape[:2]
    if k > cells * cells:
        raise ConfigError(f"{k} patterns do not fit {cells} × {cells} cells: take a larger grid")
    rng = np.random.default_rng([seed, n, k])
    amplitudes = np.where(rng.random((n, k)) < present, rng.uniform(0.7, STRONGEST, (n, k)), 0.0)
    places = np.argsort(rng.random((n, cells * cells)), axis=1)[:, :k]
    flat = shapes.reshape(k, -1)
    canvas = background * rng.standard_normal((n, cells * cells, size * size))
    canvas -= canvas @ flat.T @ flat
    np.add.at(canvas, (np.arange(n)[:, None], places), amplitudes[:, :, None] * flat[None])
    image = (
        canvas.reshape(n, cells, cells, size, size).transpose(0, 1, 3, 2, 4).reshape(n, 1, cells * size, cells * size)
    )
    where = np.stack([places // cells, places % cells], axis=-1)
    return PlantedImages(torch.from_numpy(image), amplitudes, where, np.arange(n) // 2)


def shown_with(
    images: PlantedImages,
    shapes: Float[NDArray[np.float64], "pattern size size"],
    amplitudes: Float[NDArray[np.float64], "image pattern"],
) -> PlantedImages:
    """Return the same images, places and background, with the patterns shown with other strengths.

    Parameters
    ----------
    images
        From :func:`draw_images`.
    shapes
        The patterns they were drawn with.
    amplitudes
        New strength of each pattern; 0 takes it away.

    """
    size = shapes.shape[1]
    n, _, height, width = images.x.shape
    canvas = images.x.double().cpu().numpy().reshape(n, height // size, size, width // size, size).copy()
    more = (amplitudes - images.amplitudes)[:, :, None, None] * shapes[None]
    rows, columns = images.cells[..., 0], images.cells[..., 1]
    np.add.at(canvas.transpose(0, 1, 3, 2, 4), (np.arange(n)[:, None], rows, columns), more)
    x = torch.from_numpy(canvas.reshape(n, 1, height, width)).to(images.x)
    return replace(images, x=x, amplitudes=np.array(amplitudes, dtype=np.float64))
