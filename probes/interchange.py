"""How much of a true counterfactual's effect goes through a direction: its part is swapped, token by token.

Moving activations by as much as a quantity moves them *on average* says what the average image does: where what follows is not
linear, a mean amount laid evenly over a structure does less than the amounts that one image has in some tokens and not in others.
Swapping asks for the direction alone: every token keeps what it holds, but for its part along the direction, which it takes over
from the same image with more of the quantity.

References
----------
.. [1] Geiger, Lu, Icard, Potts. Causal abstractions of neural networks. 2021 (arXiv 2106.02997): interchange interventions; Geiger et
   al. Finding alignments between interpretable causal variables and distributed neural representations. 2024 (arXiv 2303.02536),
   of directions in place of neurons.

"""

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

from mechinterp.capturing import run_with_cache
from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.images.image_set import MedicalImage
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import VisionModel
from mechinterp.objectives import Objective
from mechinterp.phantoms.phantom import PhantomImage
from mechinterp.phantoms.quantities import check_name
from mechinterp.progress import SILENT, Progress
from mechinterp.statistics.bootstrap import Interval, bootstrap_groups
from mechinterp.tails import Tail
from probes.random_directions import random_directions
from probes.usage_result import Effects, slopes

FEWEST_RANDOM = 20
_BATCH = 16


@dataclass(frozen=True, eq=False)
class Interchange:
    """What goes through a direction of what the true counterfactuals do.

    Parameters
    ----------
    steps
        Changes of the attribute, in its unit.
    patients
        Patient of each image.
    true, swapped
        Change of the objective for each image and step: of the re-rendered image; with the part along the direction alone taken
        over from it.
    random
        Direction × image × step: as `swapped`, along random directions.

    """

    steps: tuple[float, ...]
    patients: tuple[Any, ...]
    true: Effects
    swapped: Effects
    random: Float[NDArray[np.float64], "direction image step"]

    @property
    def share(self) -> float:
        """Slope of the swapped effects over that of the true ones; NaN where those do nothing."""
        return self._share(self.swapped, np.arange(len(self.patients)))

    @cached_property
    def interval(self) -> Interval:
        """95 % interval of :attr:`share`, by drawing patients."""
        return bootstrap_groups(lambda images: self._share(self.swapped, images), self.patients)

    @cached_property
    def random_shares(self) -> Float[NDArray[np.float64], " direction"]:
        """The same of every random direction."""
        every = np.arange(len(self.patients))
        return np.array([self._share(effects, every) for effects in self.random])

    @property
    def p_random(self) -> float:
        """Share of random directions, this one among them, that carry as much."""
        reached = int((np.abs(self.random_shares) >= abs(self.share)).sum())
        return (reached + 1) / (len(self.random_shares) + 1)

    def _share(self, effects: Effects, images: NDArray[np.int64]) -> float:
        carried, whole = (float(slopes(e[images], self.steps).mean()) for e in (effects, self.true))
        return carried / whole if whole != 0 else float("nan")


def swap_along(
    model: VisionModel,
    encoder: FeatureEncoder,
    feature: int,
    phantoms: Sequence[PhantomImage[Any]],
    *,
    parameter: str,
    steps: Sequence[float],
    objective: Objective,
    n_random: int = 100,
    preparation: Preparation | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Interchange:
    """Swap a direction's part of the activations for that of the same images with more of a quantity.

    Parameters
    ----------
    model
        The model.
    encoder, feature
        The direction; see :func:`probes.validate_used`.
    phantoms
        Images of patients that the direction was not chosen on.
    parameter, steps
        What is changed, and by how much; each step must be possible for every image.
    objective
        What the model's answer is measured by, on logits.
    n_random
        Random directions, drawn with the activations' covariance and orthogonal to the chosen one.
    preparation
        How images become the model's input.
    seed
        Of the random directions.
    progress
        Sees the rendering and the random directions.

    Raises
    ------
    ConfigError
        If there is no image, no such parameter, no step or too few random directions.

    """
    chosen = tuple(float(s) for s in steps)
    if not len(phantoms) or not chosen:
        raise ConfigError(f"{len(phantoms)} phantoms and {len(chosen)} steps: give at least one of either")
    check_name(phantoms[0].parameters, parameter)
    if n_random < FEWEST_RANDOM:
        raise ConfigError(f"n_random is {n_random}: fewer than {FEWEST_RANDOM} cannot show anything at 0.05")
    resolved, ready = objective.resolve(model), preparation or Preparation()
    inputs, acts, answers = [], [], []
    with torch.no_grad():
        for phantom in progress.track(phantoms, "true counterfactuals", total=len(phantoms)):
            value = getattr(phantom.parameters, parameter)
            # a count stays a whole number, which is what a renderer takes
            changed = [phantom.counterfactual(**{parameter: type(value)(value + s)}) for s in chosen]
            shown = [MedicalImage("phantom", p.pixels, spacing_mm=p.spacing_mm) for p in (phantom, *changed)]
            x = model.prepare(shown, ready)
            found = run_with_cache(model, x, [encoder.site], logits=True)
            inputs.append(x[0])
            acts.append(found[encoder.site].float())
            answers.append(resolved(found["logits"][:, 0]).double())
        acts_isnd, answer_is, x = torch.stack(acts), torch.stack(answers), torch.stack(inputs)
        tail = Tail(model, encoder.site, x[:2])
        before, after = acts_isnd[:, :1], acts_isnd[:, 1:]
        codes = encoder.encode(after)[..., feature] - encoder.encode(before)[..., feature]
        direction = encoder.directions[feature].detach().float().to(model.device)

        def effects(moved: Float[Tensor, "image step token width"]) -> Effects:
            there = (before + moved).transpose(0, 1)
            parts = [
                resolved(tail.logits(step[i : i + _BATCH], None if tail.exact else x[i : i + _BATCH])).double()
                for step in there
                for i in range(0, len(x), _BATCH)
            ]
            found: Effects = (torch.cat(parts).view(len(chosen), -1).T - answer_is[:, :1]).cpu().numpy()
            return found

        swapped = effects(codes[..., None] * direction)
        rivals = random_directions(acts_isnd.flatten(0, 2), direction, n_random, seed=seed)
        random = np.stack([
            effects(((after - before) @ rival)[..., None] * rival)
            for rival in progress.track(rivals, "random directions", total=n_random)
        ])  # fmt: skip
    patients = tuple(f"{p.identity.seed}-{p.identity.patient}" for p in phantoms)
    return Interchange(chosen, patients, (answer_is[:, 1:] - answer_is[:, :1]).cpu().numpy(), swapped, random)
