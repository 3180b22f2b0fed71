"""The same patients without and with a burnt-in mark, and as two hospitals show them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from experiments.studies.phantom.bench import StudyBench
from experiments.studies.phantom.patients import Side
from mechinterp.errors import ConfigError
from mechinterp.images.image_set import MedicalImage

if TYPE_CHECKING:
    from mechinterp.attributes.table import AttributeTable

ENVIRONMENTS = ("the mark goes with the label", "the mark goes with nothing")
RHO = 0.9
"""Correlation (phi) of mark and label at the first hospital."""


@dataclass(frozen=True, eq=False)
class MarkedPairs:
    """One image of each patient of a side, without and with the mark.

    Parameters
    ----------
    inputs
        As the model takes them: without (0) and with (1).
    positive, patients
        Of each image.
    attributes
        Of each image.

    """

    inputs: Float[Tensor, "marked image channel height width"]
    positive: Bool[NDArray[np.bool_], " image"]
    patients: NDArray[np.object_]
    attributes: AttributeTable

    @classmethod
    def of(cls, bench: StudyBench, side: Side) -> MarkedPairs:
        """Render each patient's first image once more: the set has it with the mark or without."""
        if side.phantoms is None:
            raise ConfigError("photographs cannot be rendered without and with a mark: take phantoms")
        mark, most = bench.case.marks[0], bench.config.sizes.paired
        firsts = np.unique(side.groups, return_index=True)[1][:most]
        phantoms, inputs = side.phantoms, []
        for there in (0, 1):
            shown = []
            for k, position in zip(firsts.tolist(), side.positions[firsts].tolist(), strict=True):
                parameters = phantoms.parameters[position]
                kept = getattr(parameters, mark) == there
                other = replace(parameters, **{mark: there})
                pixels = side.images.read(k) if kept else phantoms.renderer(other, phantoms.identities[position]).pixels
                shown.append(MedicalImage("phantom", pixels, spacing_mm=phantoms.example.spacing_mm))
            inputs.append(bench.model.prepare(shown))
        return cls(
            torch.stack(inputs), side.positive[firsts], side.groups[firsts], side.images.attributes.select(firsts)
        )

    def __len__(self) -> int:
        return len(self.positive)

    def dealt(self, seed: int) -> tuple[Float[Tensor, "image channel height width"], NDArray[np.str_]]:
        """Return the images as two hospitals show them, and the hospital of each."""
        from mechinterp.phantoms.planted_shortcut import assign_mark

        random = np.random.default_rng([seed, 11])
        half = np.zeros(len(self), dtype=bool)
        for ill in (False, True):  # as many ill patients at either
            of_class = random.permutation(np.flatnonzero(self.positive == ill))
            half[of_class[: len(of_class) // 2]] = True
        marks = np.empty(len(self), dtype=np.int64)
        for there, rho in ((True, RHO), (False, 0.0)):
            marks[half == there] = assign_mark(self.positive[half == there], rho, random)
        shown = self.inputs[torch.from_numpy(marks), torch.arange(len(self))]
        return shown, np.where(half, *ENVIRONMENTS)

    def moved(self, bench: StudyBench) -> Float[NDArray[np.float64], " image"]:
        """Return what burning the mark in does to each answer, by the true counterfactual."""
        with torch.inference_mode():
            without, marked = (bench.objective(bench.model.logits(x)).double().cpu().numpy() for x in self.inputs)
        found: NDArray[np.float64] = marked - without
        return found

    def both(self) -> tuple[Float[Tensor, "image channel height width"], dict[str, Any]]:
        """Return the images without and with the mark as one stack, and what an edit must know of each."""
        known = {
            "shortcut": np.repeat([False, True], len(self)),
            "labels": np.tile(self.positive, 2),
            "groups": np.tile(self.patients, 2),
        }
        return self.inputs.flatten(0, 1), known
