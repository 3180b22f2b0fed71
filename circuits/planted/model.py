"""A planted model: the module, its images, and everything that is true about its circuit."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import nn

from circuits.planted.pictures import PlantedImages, draw_images, shown_with
from circuits.planted.plan import LOGIT, CircuitPlan
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.models.discovery import discover_sites
from mechinterp.models.vision_model import InputContract, VisionModel

CLASS_NAMES = ("without", "with")

Place = tuple[str, int]
SINK: Place = (LOGIT, 0)


@dataclass(frozen=True, eq=False)
class PlantedModel:
    """A module whose circuit is known.

    Parameters
    ----------
    model
        The module with its sites, as every finder gets it. Class 1 has the planted logit, class 0 has 0.
    plan
        What it computes.
    shapes
        The patterns of its images.
    cells
        Cells of an image along each side.
    sites
        The sites on which the circuit lies, in order of the forward pass.
    places
        Where every unit is found: (site, feature); a unit that shows at two sites in a row has two.
    dictionaries
        Encoders of the sites where features are in superposition; at the others the neurons are the features.
    seeking
        Patterns that a head looks for by its keys, with the sharpness of its attention; the others are added up.

    """

    model: VisionModel
    plan: CircuitPlan
    shapes: Float[NDArray[np.float64], "pattern size size"]
    cells: int
    sites: tuple[str, ...]
    places: Mapping[str, tuple[Place, ...]]
    dictionaries: Mapping[str, FeatureEncoder] = field(default_factory=dict)
    seeking: Mapping[str, float] = field(default_factory=dict)

    def images(self, n: int, seed: int = 0, *, present: float = 0.5) -> PlantedImages:
        """Draw images that exercise the circuit; see :func:`circuits.planted.pictures.draw_images`."""
        drawn = draw_images(self.shapes, self.cells, n, seed, present=present)
        parameter = next(self.model.module.parameters())
        return PlantedImages(drawn.x.to(parameter), drawn.amplitudes, drawn.cells, drawn.groups)

    def counterfactual(self, images: PlantedImages) -> PlantedImages:
        """Return the same images with every pattern taken away that was there, and shown where it lies if it was not."""
        return shown_with(images, self.shapes, np.where(images.amplitudes > 0, 0.0, 1.0))

    def logit(self, images: PlantedImages) -> Float[NDArray[np.float64], " image"]:
        """Return the logit of class 1 in closed form."""
        return self.plan.logit(self.gathered(images.amplitudes))

    def gathered(
        self, amplitudes: Float[NDArray[np.float64], "image input"]
    ) -> Float[NDArray[np.float64], "image input"]:
        """Return what of the patterns' amplitudes reaches the gates: of a sought one, its share of the attention."""
        seen = np.array(amplitudes, dtype=np.float64)
        others = self.cells * self.cells  # the other patches and CLS, where the pattern is not
        for name, sharpness in self.seeking.items():
            at = self.plan.inputs.index(name)
            weight = np.exp(sharpness * seen[:, at])
            seen[:, at] *= weight / (weight + others)
        return seen

    @property
    def true_nodes(self) -> frozenset[Place]:
        """Where the units of the circuit are."""
        return frozenset(place for name in self.plan.used for place in self.places[name])

    @property
    def true_edges(self) -> dict[tuple[Place, Place], int]:
        """The edges of the circuit with their signs: within the plan, and from a unit's first place to its next."""
        found: dict[tuple[Place, Place], int] = {}
        for (source, target), sign in self.plan.edges.items():
            to = SINK if target == LOGIT else self.places[target][0]
            found[self.places[source][-1], to] = sign
        for name in self.plan.used:
            found |= dict.fromkeys(zip(self.places[name], self.places[name][1:], strict=False), 1)
        return found


def wrapped(module: nn.Module, name: str, cells: int, cell_px: int) -> VisionModel:
    """Return a planted module with its sites, which are found on a single-precision copy as images usually are."""
    contract = InputContract(cells * cell_px, cells * cell_px, 1, mean=(0.0,), std=(1.0,))
    sites = discover_sites(copy.deepcopy(module).float(), contract)
    return VisionModel(module, f"planted:{name}", contract, CLASS_NAMES, "logits", sites, weights="planted")
