"""How a reference model is trained: everything that decides its weights, as data.

Measured with the full recipes on 400 patients never seen: AUROC 0.994 (CNN) and 0.989 (ViT), after 70 s and 240 s of one
core, beside 80 s for rendering. The ViT's ``token_loss`` is what does it: after six epochs it stands at 0.96 with it and
at 0.50 without.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from mechinterp.errors import ConfigError, nearest
from mechinterp.phantoms.fundus_population import FundusStudy

Kind = Literal["cnn", "vit"]
KINDS: tuple[Kind, ...] = ("cnn", "vit")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Data, schedule and losses of one training.

    Raises
    ------
    ConfigError
        If a number cannot be meant.

    """

    study: Annotated[FundusStudy, "which phantoms; the test split's patients are never trained on"] = field(
        default_factory=FundusStudy
    )
    epochs: Annotated[int, "passes over the training images"] = 10
    batch_size: Annotated[int, "images per step"] = 64
    learning_rate: Annotated[float, "peak of the one-cycle schedule (AdamW)"] = 1e-3
    weight_decay: Annotated[float, "of AdamW"] = 0.05
    token_loss: Annotated[float, "weight of the loss that asks every cell which lesions it holds"] = 1.0
    curriculum_epochs: Annotated[
        int, "epochs during which images near the rule's threshold come in, clear ones first"
    ] = 0
    threads: Annotated[int, "threads of the arithmetic: bits depend on it, so it is part of the recipe"] = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate is {self.learning_rate:g}: it must be above 0")
        if self.study.size_px != 96:
            raise ConfigError(f"size_px is {self.study.size_px}: the reference models take images of 96 pixels")


FULL_STUDY = FundusStudy(patients=2000, images_per_patient=2, validation_share=0.05, test_share=0.2, seed=1)
TINY_STUDY = FundusStudy(patients=60, images_per_patient=1, validation_share=0.0, test_share=0.3, seed=2)

FULL: dict[Kind, Recipe] = {
    "cnn": Recipe(study=FULL_STUDY, epochs=8),
    "vit": Recipe(study=FULL_STUDY, epochs=10),
}
TINY: dict[Kind, Recipe] = {
    "cnn": Recipe(study=TINY_STUDY, epochs=2, batch_size=16),
    "vit": Recipe(study=TINY_STUDY, epochs=2, batch_size=16),
}


def check_kind(kind: str) -> Kind:
    """Return `kind` if there is such a reference model.

    Raises
    ------
    ConfigError
        If there is none; the valid ones are named.

    """
    for known in KINDS:
        if kind == known:
            return known
    raise ConfigError(f"there is no reference model '{kind}': {nearest(kind, KINDS)}")
