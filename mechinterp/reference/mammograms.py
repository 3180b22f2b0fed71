"""The reference CNN of mammograms: learns from crops around findings first, which takes a third of the time.

Every cell of 8 pixels is asked whether it holds a mass or calcifications, suspicious or not, or spicules; where the
processor multiplies bfloat16 itself, it does so in training. Let the study's marks lie on half of the images, whatever
they show (``mark_share``): a network that never saw a mark cannot know that it means nothing.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.errors import ConfigError
from mechinterp.files import sha256_json
from mechinterp.phantoms.datasets import draw_phantoms, phantom_kind
from mechinterp.phantoms.mammogram.parameters import CLUSTER_FROM, CLUSTER_WITHIN_MM, SPICULATED_FROM
from mechinterp.phantoms.mammogram.population import MammogramStudy
from mechinterp.phantoms.phantom import PhantomImage
from mechinterp.progress import SILENT, Progress
from mechinterp.reference.radiograph_networks import PATCH_PX, SIZES_PX
from mechinterp.reference.recipes import Recipe
from mechinterp.reference.training import (
    DECIDING_SOURCES,
    REPORT,
    TrainedReference,
    cache_folder,
    cached,
    code_version,
    fit_and_save,
)

if TYPE_CHECKING:
    from mechinterp.reference.radiograph_fitting import RadiographData

PHANTOM = "mammogram"
FINDINGS = ("spiculated mass", "smooth mass", "spicules", "cluster of calcifications", "other calcifications")
"""What every cell is asked for, in the order of :func:`findings_by_cell`."""
_SOURCES = (
    *DECIDING_SOURCES,
    __name__,
    *(f"mechinterp.reference.{name}" for name in ("mammogram_fitting", "radiograph_fitting", "radiograph_networks")),
    *(f"mechinterp.phantoms.{name}" for name in ("curves", "lettering", "textures")),
    *(
        f"mechinterp.phantoms.mammogram.{name}"
        for name in ("lesions", "outline", "parameters", "population", "renderer", "tissue")
    ),
)


@dataclass(frozen=True, kw_only=True)
class MammogramRecipe:
    """Images and training of the reference CNN.

    Raises
    ------
    ConfigError
        If a number cannot be meant, or the images are not of the size that the network takes.

    """

    study: Annotated[MammogramStudy, "which phantoms; the test split's patients are never trained on"]
    crop_epochs: Annotated[int, "passes over one crop of each image, before those over whole images"] = 0
    training: Annotated[
        Recipe, "passes over whole images, batches, rate, what the cells weigh; its own study is not used"
    ] = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        if self.crop_epochs < 0:
            raise ConfigError(f"crop_epochs is {self.crop_epochs}: it must be at least 0")
        if self.study.size_px != SIZES_PX[PHANTOM][0]:
            raise ConfigError(
                f"size_px is {self.study.size_px}: the reference CNN takes mammograms of {SIZES_PX[PHANTOM][0]} pixels"
            )


def train_mammogram_reference(
    recipe: MammogramRecipe, *, seed: int = 0, cache_dir: str | Path | None = None, progress: Progress = SILENT
) -> TrainedReference:
    """Train the reference CNN on mammograms, unless the cache holds it.

    Parameters
    ----------
    recipe
        Images and training; its ``token_loss`` weighs what the cells are asked.
    seed
        Of initial weights and order of the images.
    cache_dir
        Where models are kept; see :func:`mechinterp.reference.training.train_reference`.
    progress
        Told of every image rendered and every step.

    Raises
    ------
    DamagedFileError
        If the cached weights are not those that were trained.

    """
    training = {name: value for name, value in asdict(recipe.training).items() if name != "study"}
    described: dict[str, Any] = {
        "phantom": PHANTOM,
        "recipe": {"study": asdict(recipe.study), "crop_epochs": recipe.crop_epochs, "training": training},
        "code": code_version(_SOURCES),
    }
    folder = cache_folder(cache_dir) / "reference" / f"{PHANTOM}-cnn-{sha256_json([described, seed])[:16]}"
    if (folder / REPORT).is_file():
        return cached("cnn", folder)
    from mechinterp.reference.mammogram_fitting import fit, multiplies_bfloat16

    progress.note(f"training the reference cnn of {PHANTOM} phantoms into {folder}")
    start = time.perf_counter()
    data = _rendered(recipe.study, progress)
    described["rendering_seconds"] = time.perf_counter() - start
    described["arithmetic"] = "bfloat16" if multiplies_bfloat16() else "float32"
    return fit_and_save(
        "cnn", recipe.training, data, seed, folder, described, progress,
        trained=lambda: fit(recipe.training, recipe.crop_epochs, data, seed, progress),
    )  # fmt: skip


def findings_by_cell(image: PhantomImage[Any]) -> NDArray[np.float32]:
    """Return how much of each finding lies in every cell of 8 × 8 pixels, 0 to 1: finding × row × column.

    Spicules and calcifications are thin: a third of a cell of the ones and a fortieth of the others count as all of it.
    """
    p = image.parameters
    mass, spicules, specks = (
        image.coverage[name].reshape(-1, PATCH_PX, image.pixels.shape[1] // PATCH_PX, PATCH_PX).mean((1, 3))
        for name in ("mass", "spicules", "calcifications")
    )
    spiculated = p.mass_spiculation >= SPICULATED_FROM
    cluster = p.calcification_count >= CLUSTER_FROM and p.calcification_extent_mm <= CLUSTER_WITHIN_MM
    found = np.stack([
        mass * spiculated, mass * (not spiculated), 3 * spicules, 40 * specks * cluster, 40 * specks * (not cluster)
    ])  # fmt: skip
    shares: NDArray[np.float32] = np.clip(found, 0, 1).astype(np.float32)
    return shares


def _rendered(study: MammogramStudy, progress: Progress) -> RadiographData:
    import torch

    from mechinterp.reference.radiograph_fitting import RadiographData

    phantoms = draw_phantoms(phantom_kind(PHANTOM), study)
    n, (height, width) = len(phantoms), SIZES_PX[PHANTOM]
    pixels = np.empty((n, height, width), dtype=np.uint8)
    findings = np.empty((n, len(FINDINGS), height // PATCH_PX, width // PATCH_PX), dtype=np.float32)
    for i in progress.track(range(n), "rendering mammogram phantoms", total=n):
        image = phantoms.phantom(i)
        pixels[i], findings[i] = np.round(image.pixels * 255), findings_by_cell(image)
    grey = torch.from_numpy(pixels)[:, None].expand(-1, 3, -1, -1)
    suspicious = torch.tensor([p.suspicious for p in phantoms.parameters])
    return RadiographData(phantoms, grey, torch.from_numpy(findings), suspicious, torch.zeros(n))
