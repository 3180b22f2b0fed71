"""What one study asks: the use case, the phantom that stands in for its images, and the quantities whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments.studies.phantom_study_config import Architecture

if TYPE_CHECKING:
    from experiments.report import UseCase
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
        Changes of it in its unit, small enough for any image.

    """

    parameter: str
    label: str
    steps: tuple[float, ...]


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
    target, reference
        Classes of the model: what is asked about, and what it is compared with.
    primary
        The attribute that a probe must read, named beforehand.
    quantities
        What the answer should follow.
    structures
        Masks on which the answer should rest.
    marks
        Burnt-in marks on which it must not rest.
    sites
        For each reference model: where features are looked for (a map), and the last site before the answer.
    trained
        Returns the reference model: of an architecture, with the shortcut planted or not.
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
    trained: Callable[[Architecture, bool, Progress], TrainedReference]
    folder_layout: str
    study_settings: Mapping[str, int] = field(default_factory=dict, hash=False)

    def use_case(self, model_licence: str, data_licence: str, *, truth_known: bool) -> UseCase:
        """Return the report's use case."""
        from experiments.report import UseCase

        return UseCase(
            self.name, self.title, self.question, self.task, self.intended_user, self.decision, self.goals, self.needs,
            licences={"model": model_licence, "data": data_licence}, truth_known=truth_known,
        )  # fmt: skip
