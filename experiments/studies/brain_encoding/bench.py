"""What all parts of the study share: the network, what it shows of every stimulus, and the encoding models fitted to that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from experiments.analysis.sites import default_site
from experiments.run_directory import Run
from experiments.studies.brain_encoding.config import BrainEncodingConfig
from experiments.studies.brain_encoding.experiment import Experiment
from experiments.studies.phantom.config import Architecture
from mechinterp.capturing import CaptureConfig, capture, run_with_cache
from mechinterp.errors import SiteError
from mechinterp.images.image_set import MedicalImage
from mechinterp.images.preparation import Preparation
from mechinterp.interventions import intervene
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import Progress
from mechinterp.store.reader import ActivationStore
from probes.encoding import EncodingModel, Places, fit_encoding
from probes.noise_ceiling import NoiseCeiling, noise_ceiling
from probes.receptive_fields import ReceptiveFields

Maps = dict[str, Float[NDArray[np.float32], "image token width"]]
Edit = Callable[[Tensor], Tensor]
REFERENCE_SITES: dict[Architecture, tuple[str, ...]] = {
    "cnn": ("stages.1", "stages.2"), "vit": ("patch_embed.proj.1", "blocks.2.hook_resid_post"),
}  # fmt: skip
"""Cells of 0.7° and 1.4°; those of the CNN's last stage are 2.8° apart and place fields too coarsely."""
UNTRAINED_SEED = 1000
SIZES_DEG = (0.7, 1.2, 2.0, 3.0)
STEP_DEG = 1.0
"""Of the lattice of candidate receptive fields, for images of 17 degrees; in proportion for others. Fields found lie between them."""
_BATCH = 64


@dataclass
class EncodingBench:
    """The study while it runs."""

    config: BrainEncodingConfig
    run: Run
    model: VisionModel
    experiment: Experiment
    progress: Progress
    _inputs: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Whose channels predict responses: two of the reference model, three of increasing depth of a user's own."""
        if self.config.model is None:
            return REFERENCE_SITES[self.config.architecture]
        deep = [
            name for name, site in self.model.sites.items()
            if site.grid is not None and site.grid.cells > 3 and (name.startswith("stages.") or name.endswith("hook_resid_post"))
        ] or [default_site(self.model)]  # fmt: skip
        at = np.unique(np.round(np.linspace(0.25, 1.0, 3) * (len(deep) - 1)).astype(int))
        return tuple(deep[i] for i in at)

    @cached_property
    def feature_site(self) -> str:
        """Where features are looked for: the middle one, so that what they do later in the network counts too."""
        return self.sites[len(self.sites) // 2]

    @cached_property
    def ceiling(self) -> NoiseCeiling | None:
        """How well the mean responses can be predicted, by the stimuli explored; ``None`` without repeats."""
        if self.experiment.responses.shape[1] < 2:
            return None
        return noise_ceiling(self.experiment.responses[self.experiment.explored])

    @cached_property
    def untrained(self) -> VisionModel:
        """The same architecture with random weights: a control."""
        from mechinterp.models.loading import load_model

        names = tuple(self.model.class_names)
        return load_model(self.model.spec, "random", class_names=names, seed=UNTRAINED_SEED + self.config.seed)

    @cached_property
    def places(self) -> Places:
        """Where each site's tokens lie: (up, right) of fixation, the image's middle [°]."""
        found = {}
        for name in self.sites:
            grid = self.model.site(name).grid
            if grid is None:
                raise SiteError(
                    f"site '{name}' of '{self.model.spec}' has no grid: nothing can be placed in the visual field"
                )
            found[name] = self.in_degrees(grid.centres())
        return found

    def in_degrees(self, points: Float[NDArray[np.float64], "*n 2"]) -> Float[NDArray[np.float64], "*n 2"]:
        """Turn points of the network's input, (row, column) in pixels, into (up, right) of fixation [°]."""
        first = self.experiment.images[0]
        height, width = first.pixels.shape[:2]
        at = Preparation().placement(first.pixels.shape[:2], first.spacing_mm, self.model.contract).to_image(points)
        degrees: NDArray[np.float64] = (at - (height / 2, width / 2)) * (-1, 1) * self.experiment.extent_deg / width
        return degrees

    @cached_property
    def candidates(self) -> ReceptiveFields:
        """Receptive fields to choose from, out to a third of the image's side."""
        scale = self.experiment.extent_deg / 17.0
        return ReceptiveFields.candidates(
            self.experiment.extent_deg / 3, STEP_DEG * scale, tuple(s * scale for s in SIZES_DEG)
        )

    def inputs(self, images: Sequence[int] | NDArray[np.int64]) -> Float[Tensor, "image channel height width"]:
        """Prepare some stimuli."""
        return self.model.prepare([self.experiment.images[int(i)] for i in images])

    def maps(
        self, x: Float[Tensor, "image channel height width"], model: VisionModel | None = None, edit: Edit | None = None
    ) -> Maps:
        """Return what stimuli do at every site, prefix tokens left out; with an edit of the features' site while they pass."""
        network = model or self.model
        edits = {} if edit is None else {self.feature_site: edit}
        parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in self.sites}
        with torch.inference_mode(), intervene(network, edits):
            for start in range(0, len(x), _BATCH):
                batch = x[start : start + _BATCH]
                # with an edit the pass must reach the end, where it is checked that the site was reached once
                seen = run_with_cache(network, batch, self.sites, logits=edit is not None)
                for name in self.sites:
                    parts[name].append(seen[name][:, network.site(name).prefix_tokens :].cpu().numpy())
        return {name: np.concatenate(found) for name, found in parts.items()}

    def maps_of(self, images: NDArray[np.int64], model: VisionModel | None = None) -> Maps:
        """Return what some of the experiment's stimuli do at every site, prepared a batch at a time."""
        parts = [self.maps(self.inputs(images[at : at + _BATCH]), model) for at in range(0, len(images), _BATCH)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.sites}

    def fitted(self, maps: Maps, responses: Float[NDArray[np.float64], "image voxel"], what: str) -> EncodingModel:
        """Fit encoding models to the stimuli of the first part."""
        self.progress.note(f"fitting receptive fields: {what}")
        return fit_encoding(maps, self.places, responses, self.candidates, progress=self.progress)

    def stored(self) -> ActivationStore:
        """Capture the features' site for the stimuli explored and for those confirmed on, in this order.

        The store says where they come from and which were confirmed on, so that whoever looks at its features can open them again.
        """
        order, divided = np.concatenate([self.experiment.explored, self.experiment.confirm]), self.experiment.divided
        images = replace(divided.subset(order), source=divided.source)
        return capture(
            self.model, images, out=self.run.folder / "activations",
            config=CaptureConfig(sites=(self.feature_site,), outputs=True), progress=self.progress,
        )  # fmt: skip


def as_input(model: VisionModel, pixels: Sequence[NDArray[np.float32]]) -> Float[Tensor, "image channel height width"]:
    """Prepare rendered stimuli."""
    return model.prepare([MedicalImage("stimulus", p) for p in pixels])


def region_mean(
    values: Float[NDArray[np.float64], "image voxel"], voxels: Int[NDArray[np.int64], " chosen"]
) -> NDArray[np.float64]:
    """Return the mean over some voxels."""
    mean: NDArray[np.float64] = values[:, voxels].mean(1)
    return mean
