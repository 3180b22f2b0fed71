"""What a model is meant for: who asks, what is decided, and so which of the five elements the answer needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.report.elements import in_order
from mechinterp.errors import ConfigError


@dataclass(frozen=True)
class UseCase:
    """A use of a model that somebody must decide about.

    Parameters
    ----------
    name
        Short, for file names: ``dr-screening``.
    title
        Of the report.
    question
        What is asked, in plain words.
    task
        What the model does: its input and its output.
    intended_user
        Who reads the answer.
    decision
        What is decided with it.
    goals
        What interpretability is wanted for here.
    needs
        Names of the elements that the decision needs, in any order. The report's overall answer rests on these alone.
    licences
        ``model`` and ``data``, each in words.
    truth_known
        Whether the images were rendered from known parameters. Only then may a claim be *ground-truth-verified*.
    units
        What groups the images, and intervals are over.

    Raises
    ------
    ConfigError
        If `needs` is empty or names something else, or a licence is missing.

    """

    name: str
    title: str
    question: str
    task: str
    intended_user: str
    decision: str
    goals: tuple[str, ...]
    needs: tuple[str, ...]
    licences: Mapping[str, str] = field(hash=False)
    truth_known: bool = False
    units: str = "patients"

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", in_order(self.needs))
        if not self.needs:
            raise ConfigError(f"use case '{self.name}' needs no element: name at least one in `needs`")
        missing = [part for part in ("model", "data") if not self.licences.get(part)]
        if missing:
            raise ConfigError(
                f"use case '{self.name}' does not say under which licence its {' and '.join(missing)} may be used: "
                "put it into `licences` ('not stated' where nobody says)"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the use case as plain JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "question": self.question,
            "task": self.task,
            "intended_user": self.intended_user,
            "decision": self.decision,
            "goals": list(self.goals),
            "needs": list(self.needs),
            "licences": dict(self.licences),
            "truth_known": self.truth_known,
            "units": self.units,
            "research_use_only": True,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> UseCase:
        """Read what :meth:`to_json` wrote."""
        texts = {key: record[key] for key in ("name", "title", "question", "task", "intended_user", "decision")}
        return cls(
            **texts,
            goals=tuple(record["goals"]),
            needs=tuple(record["needs"]),
            licences=dict(record["licences"]),
            truth_known=record["truth_known"],
            units=record.get("units", "patients"),
        )
