"""What one study asks: the use case, the phantom that stands in for its images, and the quantities whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from experiments.studies.phantom.config import Architecture

if TYPE_CHECKING:
    from experiments.report import UseCase
    from mechinterp.phantoms.phantom import PhantomImage
    from mechinterp.progress import Progress
    from mechinterp.reference.training import TrainedReference


@dataclass(frozen=True, kw_only=True)
class ChangedQuantity:
    """A parameter of the phantom that can be changed alone, and by how much.

    Parameters
    ----------
    parameter
        Its name, for example ``exudate_area_mm2``.
    label
        In words.
    steps
        Changes of it in its unit; images in which one of them cannot be rendered are left out.
    unit
        Its unit; empty for a plain number.
    margin
        Change of the answer [logits] per unit that still counts as nothing.
    where
        The parameter that says whether the image holds what is changed: above 0. Empty where every image does.
    within
        Another parameter and the range of it in which the label depends on the quantity; images outside it are left out.
    structure
        What grows with it, where activations are to move there alone; ``None`` moves every cell alike. A finding that a
        model does not simply average over the image cannot be moved by a little of it everywhere.

    """

    parameter: str
    label: str
    steps: tuple[float, ...]
    unit: str = "mm²"
    margin: float = 0.5
    where: str = ""
    within: tuple[str, float, float] | None = None
    structure: str | None = None

    @property
    def per(self) -> str:
        """What a slope is per, in words: ``per mm²``, ``per unit``."""
        return f"per {self.unit or 'unit'}"

    def amount(self, value: float) -> str:
        """Return an amount of it with its unit."""
        return f"{value:g} {self.unit}".rstrip()

    def raised(self, image: PhantomImage[Any], step: float) -> PhantomImage[Any]:
        """Return an image with so much more of it; a count stays a whole number."""
        value = getattr(image.parameters, self.parameter)
        return image.counterfactual(**{self.parameter: type(value)(value + step)})

    def possible(self, parameters: Any) -> bool:
        """Return whether every step can be rendered in an image of these parameters."""
        from mechinterp.phantoms.quantities import quantities

        if self.where and not getattr(parameters, self.where) > 0:
            return False
        if self.within is not None:
            name, low, high = self.within
            if not low <= getattr(parameters, name) <= high:
                return False
        declared, value = quantities(parameters)[self.parameter], getattr(parameters, self.parameter)
        return all(declared.low <= value + step <= declared.high for step in self.steps)


@dataclass(frozen=True, kw_only=True)
class CircuitSize:
    """What a circuit that should carry the answer is made of.

    Parameters
    ----------
    units
        Features of the last site's autoencoder, or its neurons themselves: whichever carry more of the answer with as few of
        them, as seen on discovery patients of another seed before the plan was fixed. The other kind is the rival.
    edges
        How many of them.
    expansion
        Features per channel of the autoencoder that they are taken from, where the settings name no other number.
    passes
        How many times as many passes over the cells that autoencoder makes as the finer site's. A coarse map has few cells an image, so that
        as many passes are few steps; but an autoencoder that has passed often sees less of what it was not trained on.

    """

    units: Literal["features", "neurons"] = "features"
    edges: int = 30
    expansion: int = 8
    passes: float = 1.0


@dataclass(frozen=True, kw_only=True)
class StudyCase:
    """One study, as data: everything that differs between diabetic retinopathy and breast cancer.

    Parameters
    ----------
    name, title, question
        Of the study.
    task, intended_user, decision, goals, needs
        See :class:`experiments.report.UseCase`.
    phantom
        Kind of phantom.
    study_settings
        Of its study, where they are not the phantom's own: the size that the reference model takes.
    quick_settings
        The same of a reference model of a quick recipe, where they differ.
    target, reference
        Classes of the model: what is asked about, and what it is compared with.
    primary
        The attribute that a probe must read, named beforehand.
    quantities
        What the answer should follow.
    circuit
        Of what, and of how many of them, the answer should be made.
    bystander
        A quantity that the answer must not follow, ``None`` where there is none.
    structures
        Masks on which the answer should rest.
    removed_mm
        Side of the square tiles that are deleted, by relevance and at random, to test a map [mm]; ``None`` deletes single
        pixels, whose speckle may itself move the answer where findings are fine.
    marks
        Burnt-in marks on which it must not rest.
    sites
        For each reference model: where features are looked for (a map), and the last site before the answer.
    trained
        Returns the reference model: of an architecture, with the shortcut planted or not, of a quick recipe or not.
    folder_layout
        How a user's own folder must look, in words, for the error that asks for one.

    """

    name: str
    title: str
    question: str
    task: str
    intended_user: str
    decision: str
    goals: tuple[str, ...]
    needs: tuple[str, ...]
    phantom: str
    target: str
    reference: str
    primary: str
    quantities: tuple[ChangedQuantity, ...]
    structures: tuple[str, ...]
    marks: tuple[str, ...]
    sites: Mapping[Architecture, tuple[str, str]]
    trained: Callable[[Architecture, bool, bool, Progress], TrainedReference]
    folder_layout: str
    circuit: CircuitSize = CircuitSize()
    bystander: ChangedQuantity | None = None
    removed_mm: float | None = None
    study_settings: Mapping[str, float] = field(default_factory=dict, hash=False)
    quick_settings: Mapping[str, float] = field(default_factory=dict, hash=False)

    def use_case(self, model_licence: str, data_licence: str, *, truth_known: bool) -> UseCase:
        """Return the report's use case."""
        from experiments.report import UseCase

        return UseCase(
            self.name, self.title, self.question, self.task, self.intended_user, self.decision, self.goals, self.needs,
            licences={"model": model_licence, "data": data_licence}, truth_known=truth_known,
        )  # fmt: skip
