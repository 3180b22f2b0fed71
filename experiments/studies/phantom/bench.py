"""What all parts of a study share: the model, its untrained twin, and what it did on either half of the patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from experiments.analysis.sites import default_site
from experiments.run_directory import Run
from experiments.studies.phantom.case import StudyCase
from experiments.studies.phantom.config import PhantomStudyConfig
from experiments.studies.phantom.patients import Side, StudyPatients
from mechinterp.capturing import CaptureConfig, capture
from mechinterp.errors import ConfigError
from mechinterp.images.image_set import MedicalImage
from mechinterp.models.vision_model import VisionModel
from mechinterp.objectives import Objective, logit_difference
from mechinterp.phantoms.phantom import PhantomImage
from mechinterp.progress import Progress
from mechinterp.store.reader import ActivationStore

UNTRAINED_SEED = 1000
_MOST_MASKS = 200


@dataclass
class StudyBench:
    """A study while it runs."""

    case: StudyCase
    config: PhantomStudyConfig
    run: Run
    model: VisionModel
    patients: StudyPatients
    progress: Progress

    @cached_property
    def sites(self) -> tuple[str, str]:
        """Where features are looked for, and the last site before the answer."""
        if self.config.model is None:
            return self.case.sites[self.config.architecture]
        return default_site(self.model), _last_site(self.model)

    @cached_property
    def primary(self) -> str | None:
        """The attribute that a probe must read; ``None`` where a user's folder has no such column and names no other."""
        table = self.patients.discovery.images.attributes
        if self.config.attribute is not None:
            return table[self.config.attribute].name  # refuses an unknown one with the nearest names
        return self.case.primary if self.case.primary in table.names else None

    @cached_property
    def structures(self) -> tuple[str, ...]:
        """What the answer should rest on, as far as the images explored have masks of it."""
        images = self.patients.discovery.images
        if images.read_masks is None:
            return ()
        # one image seldom shows all of them, and a thousand masks need not be read to know which there are
        seen: set[str] = set()
        for i in range(min(len(images), _MOST_MASKS)):
            seen |= set(images.masks(i))
            if seen >= set(self.case.structures):
                break
        return tuple(name for name in self.case.structures if name in seen)

    @cached_property
    def objective(self) -> Objective:
        """The answer as one number: target's logit over the reference's."""
        names = self.model.class_names
        if self.case.target in names and self.case.reference in names:
            return logit_difference(self.case.target, self.case.reference).resolve(self.model)
        if len(names) != 2:
            raise ConfigError(
                f"the model answers {', '.join(names[c] for c in range(min(6, len(names))))}: a "
                f"screening study needs '{self.case.target}' and '{self.case.reference}', or two classes of which the second is "
                "the one asked about"
            )
        return logit_difference(1, 0).resolve(self.model)

    @cached_property
    def untrained(self) -> VisionModel:
        """The same architecture with random weights: a control."""
        from mechinterp.models.loading import load_model

        names = tuple(self.model.class_names)
        return load_model(self.model.spec, "random", class_names=names, seed=UNTRAINED_SEED + self.config.seed)

    def captured(
        self, side: Side, name: str, model: VisionModel | None = None, sites: tuple[str, ...] = ()
    ) -> ActivationStore:
        """Run a model over some patients, and keep what both sites (or those named) hold; a store that is there is taken over."""
        sites = sites or tuple(dict.fromkeys(self.sites))
        settings = CaptureConfig(sites=sites, outputs=model is None)
        return capture(
            model or self.model, side.images, out=self.run.folder / "activations" / name, config=settings,
            progress=self.progress,
        )  # fmt: skip

    def prepared(self, rendered: Sequence[PhantomImage[Any]]) -> Float[Tensor, "image channel height width"]:
        """Return phantoms as the model's input."""
        return self.model.prepare([MedicalImage("phantom", p.pixels, spacing_mm=p.spacing_mm) for p in rendered])

    def answers(self, rendered: Sequence[PhantomImage[Any]]) -> Float[NDArray[np.float64], " image"]:
        """Return the answer of every phantom."""
        with torch.inference_mode():
            found: NDArray[np.float64] = (
                self.objective(self.model.logits(self.prepared(rendered))).double().cpu().numpy()
            )
        return found

    def margins(self, store: ActivationStore) -> Float[NDArray[np.float64], " image"]:
        """Return the answer of every captured image."""
        found: NDArray[np.float64] = self.objective(store.logits()).double().numpy()
        return found


def _last_site(model: VisionModel) -> str:
    """Return the deepest site that has a grid: a CNN's last stage, a transformer's last block."""
    with_grid = [
        name for name, site in model.sites.items()
        if site.grid is not None and (name.endswith(".hook_resid_post") or name.startswith("stages."))
    ]  # fmt: skip
    return with_grid[-1] if with_grid else default_site(model)
