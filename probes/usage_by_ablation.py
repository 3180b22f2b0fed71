"""Used or not, where there is no counterfactual: remove a direction from real images, beside matched random ones."""

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
from mechinterp.claims import Claim, Control
from mechinterp.errors import ConfigError, ShapeError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.models.vision_model import VisionModel
from mechinterp.objectives import Objective
from mechinterp.progress import SILENT, Progress
from mechinterp.statistics.equivalence import Equivalence, equivalence_test, patient_means
from mechinterp.tails import Tail
from probes.random_directions import random_directions

_BATCH = 16


@dataclass(frozen=True)
class AblationUsage:
    """What removing a direction does to the answer, whichever way it goes.

    Parameters
    ----------
    site, feature
        Where the direction is, and what it is called.
    objective
        Name of what was measured.
    change
        Absolute change of the objective of each image when every token's feature is set to its mean.
    random
        Direction × image: the same when as much is moved, token by token, along random directions.
    patients
        Patient of each image; ``None`` where every image is one.
    margin
        Mean absolute change that still counts as nothing. Set beforehand.
    units_are_patients
        False where the images are parts of one subject: nothing can be shown of patients then.
    alpha, trained
        Level of all tests; False when the model has random weights.

    """

    site: str
    feature: str
    objective: str
    change: Float[NDArray[np.float64], " image"]
    random: Float[NDArray[np.float64], "direction image"]
    patients: tuple[Any, ...] | None
    margin: float
    units_are_patients: bool = True
    alpha: float = 0.05
    trained: bool = True

    @cached_property
    def effect(self) -> Equivalence:
        """Mean absolute change, over patients."""
        return equivalence_test(
            self.change, self.patients, margin=self.margin, alpha=self.alpha, units_are_patients=self.units_are_patients
        )

    @cached_property
    def random_effects(self) -> Float[NDArray[np.float64], " direction"]:
        """Mean absolute change along each random direction, over patients."""
        return np.array([patient_means(r, self.patients).mean() for r in self.random])

    @property
    def p_random(self) -> float:
        """Share of random directions, this one among them, that change the objective as much."""
        return (int((self.random_effects >= self.effect.mean).sum()) + 1) / (len(self.random_effects) + 1)

    @property
    def verdict(self) -> str:
        """``used`` beyond the margin and more than random directions, ``unused`` within it, ``undecided`` otherwise."""
        if self.effect.beyond and self.p_random <= self.alpha:
            return "used"
        return "unused" if self.effect.equivalent else "undecided"

    @property
    def text(self) -> str:
        """One sentence with the numbers."""
        return (
            f"{self.feature} of {self.site} is {self.verdict}: without it {self.objective} changes by {self.effect.mean:.3g} on "
            f"average ({self.effect.interval.text}; margin {self.margin:g}), along random directions by "
            f"{float(np.median(self.random_effects)):.3g} (p {self.p_random:.2g})"
        )

    @property
    def claims(self) -> tuple[Claim, Claim]:
        """The two claims that can be made: the direction is used, and it is not. Of a direction, not of a quantity."""
        bound = float(np.quantile(self.random_effects, 1 - self.alpha))
        random = Control(
            f"{len(self.random_effects)} random directions, as much moved", bound, self.p_random <= self.alpha,
            f"95 % change it by less than {bound:.3g}; p {self.p_random:.2g}",
        )  # fmt: skip
        shared: dict[str, Any] = {
            "strength": "interventional",
            "value": self.effect.mean,
            "unit": self.objective,
            "interval": self.effect.interval.ends,
            "interval_note": self.effect.interval.reason or self.effect.interval.warning,
            "trained": self.trained,
        }
        used = Claim(
            statement=f"the model uses {self.feature} of {self.site}: {self.text}", holds=self.effect.beyond,
            criterion=f"mean absolute change beyond {self.margin:g}", controls=(random,), p_value=self.p_random, **shared,
        )  # fmt: skip
        alive = Control(
            "random directions reach the answer", bound, bool(bound > self.margin),
            "as much moved elsewhere goes beyond the margin" if bound > self.margin
            else "as much moved elsewhere changes nothing either: the movement may be too small to tell",
        )  # fmt: skip
        unused = Claim(
            statement=f"the model does not use {self.feature} of {self.site}: {self.text}", holds=self.effect.equivalent,
            criterion=f"mean absolute change within {self.margin:g} by two one-sided tests at {self.alpha:g}",
            controls=(alive,), p_value=self.effect.p_value, **shared,
        )  # fmt: skip
        return used, unused


def validate_used_by_ablation(
    model: VisionModel,
    encoder: FeatureEncoder,
    feature: int,
    inputs: Float[Tensor, "image channel height width"],
    *,
    objective: Objective,
    margin: float,
    patients: Sequence[Any] | None = None,
    units_are_patients: bool = True,
    n_random: int = 100,
    alpha: float = 0.05,
    seed: int = 0,
    progress: Progress = SILENT,
) -> AblationUsage:
    """Set one feature of real images to its mean on every token, and see whether the answer changes.

    Parameters
    ----------
    model
        The model.
    encoder, feature
        The direction: a feature of any encoder of a site.
    inputs
        Prepared images, see :meth:`~mechinterp.models.vision_model.VisionModel.prepare`.
    objective
        What the answer is measured by, on logits.
    margin
        Mean absolute change that still counts as nothing. Set it before looking.
    patients
        Patient of each image; each image is one by default.
    units_are_patients
        False where the images are parts of one subject.
    n_random
        Random directions along which as much is moved, token by token, as was removed.
    alpha, seed, progress
        Level of all tests; seed of the random directions; sees them.

    Raises
    ------
    ConfigError
        If there is no such feature, or too few random directions for the level.
    ShapeError
        If there is not one patient for each image.

    """
    if not 0 <= feature < encoder.width:
        raise ConfigError(f"there is no feature {feature}: the encoder has 0 to {encoder.width - 1}")
    if n_random < 20:
        raise ConfigError(f"n_random is {n_random}: fewer than 20 random directions cannot show anything at 0.05")
    if patients is not None and len(patients) != len(inputs):
        raise ShapeError(f"{len(patients)} patients for {len(inputs)} images: one each")
    resolved = objective.resolve(model)
    direction = encoder.directions[feature].detach().float().to(model.device)
    with torch.no_grad():
        parts = [
            run_with_cache(model, inputs[i : i + _BATCH], [encoder.site], logits=True)
            for i in range(0, len(inputs), _BATCH)
        ]
        acts = torch.cat([p[encoder.site] for p in parts]).float()
        before = resolved(torch.cat([p["logits"][:, 0] for p in parts]).float())
        tail = Tail(model, encoder.site, inputs[:2])
        codes = encoder.encode(acts)[..., feature]
        removed = (codes.mean() - codes)[..., None]  # image, token, 1

        def change(along: Tensor) -> NDArray[np.float64]:
            changed = acts + removed * along
            after = [
                resolved(tail.logits(changed[i : i + _BATCH], None if tail.exact else inputs[i : i + _BATCH]))
                for i in range(0, len(acts), _BATCH)
            ]
            found: NDArray[np.float64] = (torch.cat(after) - before).abs().double().cpu().numpy()
            return found

        rivals = random_directions(acts.flatten(0, 1), direction, n_random, seed=seed) * float(direction.norm())
        random = [change(r) for r in progress.track(rivals, "random directions", total=n_random)]
        own = change(direction)
    return AblationUsage(
        encoder.site, f"{encoder.kind} {feature}", resolved.name, own, np.stack(random),
        None if patients is None else tuple(patients), margin, units_are_patients, alpha, model.trained,
    )  # fmt: skip
