"""Settings of the studies whose truth is known: fixed when one starts, and part of its results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from mechinterp.errors import ConfigError, nearest

Architecture = Literal["cnn", "vit"]
Reference = Literal["auto", "full", "quick"]
Condition = Literal["as-it-is", "shortcut", "random-network", "shuffled-labels", "frozen-random-sae"]
"""What is planted wrong, so that a reader can see the report say so; ``as-it-is`` plants nothing."""

_FURTHER = 3
"""Further patients for each one to confirm on. A model that errs on one image in twenty makes ten errors on 200 images, too few to say
how many of them are spared; of 800 images with some 35 errors the lower end of the interval was above 0.25 in all of 24 draws."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomStudyConfig:
    """What such a study does; every field is a flag of ``mechinterp study``."""

    data: Annotated[
        str | None, "folder of your own images, with metadata.csv (label, group) and masks/; default: rendered phantoms"
    ] = None
    model: Annotated[
        str | None, "timm:NAME, hf:NAME_OR_DIR, onnx:FILE or py:FILE.py:FUNCTION; default: the reference model"
    ] = None
    weights: Annotated[str | None, "safetensors file or state dict; `random` asks for an untrained model"] = None
    architecture: Annotated[Architecture, "which reference model, where --model names none"] = "cnn"
    condition: Annotated[
        Condition,
        "plant something wrong, and see the report say so: a model that learnt a burnt-in mark, a random network, shuffled "
        "labels, or a sparse autoencoder that was never trained",
    ] = "as-it-is"
    reference: Annotated[
        Reference,
        "how long the reference model is trained, where a study has a quick recipe: in full, or within the minutes of --quick, on "
        "easier images; auto goes by --quick",
    ] = "auto"
    positive: Annotated[
        str | None, "labels of --data that count as the class asked about, separated by commas, as 2,3,4 of five grades"
    ] = None
    attribute: Annotated[str | None, "the column of --data that is the physical quantity, as lesion_area_mm2"] = None
    patients: Annotated[int, "phantom patients on either side: to explore on, and to confirm on"] = 400
    k: Annotated[int, "features active per cell"] = 8
    expansion: Annotated[int | None, "features per channel; by default as many as the study takes at each site"] = None
    epochs: Annotated[int, "passes over the exploration patients' cells; breast-cancer makes more at its last site"] = (
        20
    )
    n_random: Annotated[int, "random directions, circuits and edits beside every result"] = 100
    seed: Annotated[int, "decides every random choice"] = 0
    quick: Annotated[bool, "a coarser version in minutes: fewer patients, epochs and random controls"] = False

    def __post_init__(self) -> None:
        if self.condition not in get_args(Condition):
            raise ConfigError(f"condition is '{self.condition}': {nearest(self.condition, get_args(Condition))}")
        if self.architecture not in get_args(Architecture):
            raise ConfigError(
                f"architecture is '{self.architecture}': {nearest(self.architecture, get_args(Architecture))}"
            )
        if self.reference not in get_args(Reference):
            raise ConfigError(f"reference is '{self.reference}': {nearest(self.reference, get_args(Reference))}")
        if self.patients < 20:
            raise ConfigError(f"patients is {self.patients}: no interval can be given under 20 on either side")
        if self.n_random < 20:
            raise ConfigError(f"n_random is {self.n_random}: fewer than 20 cannot show anything at 0.05")
        for name in ("k", "expansion", "epochs"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.condition == "shortcut" and (self.data or self.model):
            raise ConfigError("--condition shortcut trains a model on marked phantoms: leave out --data and --model")
        if self.weights is not None and self.model is None:
            raise ConfigError("--weights without --model: name the architecture that they belong to")

    @property
    def quick_reference(self) -> bool:
        """Whether the reference model is one of a quick recipe."""
        return self.quick if self.reference == "auto" else self.reference == "quick"

    @property
    def sizes(self) -> Sizes:
        """How much is looked at."""
        if not self.quick:
            return Sizes(
                self.patients, self.epochs, self.n_random, 30, 60, 24, 80, 120, min(self.patients, 300),
                _FURTHER * self.patients,
            )  # fmt: skip
        return Sizes(
            min(self.patients, 200),
            min(self.epochs, 10),
            min(self.n_random, 40),
            32,
            32,
            16,
            80,
            80,
            min(self.patients, 160),
            _FURTHER * min(self.patients, 200),
        )


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a study looks at.

    Parameters
    ----------
    patients
        On either side.
    epochs
        Of the autoencoder of the finer site; of the last site's, as many times more as the study says.
    n_random
        Random rivals of every result.
    calibrated, steered
        Phantoms that are rendered anew with a changed quantity: to calibrate on, and to test on.
    circuit_found, circuit_tested
        Images that the circuit is found and tested on.
    localized
        Images with a lesion whose relevance maps are scored, and tested by deleting. What deleting by relevance costs beyond deleting
        at random varies twice as much between mammograms as it is large: of 24 the interval held 0 on one of six seeds.
    paired
        Patients on either side that are rendered without and with a mark.
    further
        Patients beyond those to confirm on, of whom only the answers are looked at: whether handing images over spares errors
        hangs on how many errors there are, and a good model makes few.

    """

    patients: int
    epochs: int
    n_random: int
    calibrated: int
    steered: int
    circuit_found: int
    circuit_tested: int
    localized: int
    paired: int
    further: int
