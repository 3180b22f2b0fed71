"""The images a reference model is trained on, rendered once per process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from mechinterp.phantoms.datasets import PhantomSet, fundus_phantoms
from mechinterp.phantoms.fundus_parameters import REFERABLE_AREA_MM2
from mechinterp.phantoms.fundus_population import FundusStudy
from mechinterp.progress import Progress
from mechinterp.reference.networks import MEAN, STD

LESIONS = ("haemorrhages", "exudates")
CELL_PX = 8
FULL_CELL_MM2 = 0.25


@dataclass(frozen=True)
class TrainingData:
    """Rendered phantoms, compact in memory.

    Parameters
    ----------
    phantoms
        What was rendered.
    pixels
        Image × 3 × height × width, 8 bit: as a PNG would hold them.
    lesions_mm2
        Image × lesion × row × column: area of haemorrhages and exudates in every cell of 8 × 8 pixels.
    referable
        The label.
    clearness
        How far the lesions' area is from the rule's threshold, in factors of e; infinite without lesions.

    """

    phantoms: PhantomSet
    pixels: UInt8[Tensor, "image 3 height width"]
    lesions_mm2: Float[Tensor, "image lesion row column"]
    referable: Bool[Tensor, " image"]
    clearness: Float[Tensor, " image"]

    def where(self, split: str) -> Int[Tensor, " chosen"]:
        """Return the positions of the images of one split."""
        return torch.from_numpy(self.phantoms.where(split))

    def inputs(self, images: Int[Tensor, " batch"]) -> Float[Tensor, "batch 3 height width"]:
        """Return some images as the networks want them."""
        x = self.pixels[images].float() / 255
        return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


_KEPT: dict[FundusStudy, TrainingData] = {}


def training_data(study: FundusStudy, progress: Progress) -> TrainingData:
    """Render a study, or return it if it was the last one rendered in this process."""
    if study not in _KEPT:
        data = _rendered(study, progress)
        _KEPT.clear()
        _KEPT[study] = data
    return _KEPT[study]


def _rendered(study: FundusStudy, progress: Progress) -> TrainingData:
    phantoms = fundus_phantoms(study)
    n, size, cells = len(phantoms), study.size_px, study.size_px // CELL_PX
    pixels = np.empty((n, 3, size, size), dtype=np.uint8)
    lesions = np.empty((n, len(LESIONS), cells, cells), dtype=np.float32)
    for i in progress.track(range(n), "rendering phantoms", total=n):
        phantom = phantoms.phantom(i)
        pixels[i] = np.round(phantom.pixels * 255).astype(np.uint8).transpose(2, 0, 1)
        for k, name in enumerate(LESIONS):
            by_cell = phantom.coverage[name].reshape(cells, CELL_PX, cells, CELL_PX).sum((1, 3))
            lesions[i, k] = by_cell * phantom.spacing_mm[0] * phantom.spacing_mm[1]
    area = np.array([p.lesion_area_mm2 for p in phantoms.parameters])
    with np.errstate(divide="ignore"):
        clearness = np.abs(np.log(area / REFERABLE_AREA_MM2))
    return TrainingData(
        phantoms,
        torch.from_numpy(pixels),
        torch.from_numpy(lesions),
        torch.tensor([p.referable for p in phantoms.parameters]),
        torch.from_numpy(clearness).float(),
    )
