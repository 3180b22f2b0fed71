"""The report: use case, plan, model check, evidence; its verdicts follow from them and are never stored as truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from experiments.report.backing import unbacked
from experiments.report.element_evidence import ElementEvidence
from experiments.report.elements import CITATION, ELEMENTS
from experiments.report.model_check import ModelCheck
from experiments.report.plan import PlanRecord
from experiments.report.use_case import UseCase
from experiments.report.verdicts import ElementVerdict, Standing, claim_standing, element_verdict
from mechinterp.claims import without_signed_zero
from mechinterp.errors import ConfigError, DamagedFileError

FORMAT_VERSION = 1
NOTICE = "Research use only. Not a medical device."


@dataclass(frozen=True)
class Report:
    """Everything a page shows.

    Parameters
    ----------
    use_case
        What the model is meant for.
    plan
        The plan with what became of it: :func:`register_plan`'s return.
    model_check
        Whether the model does its task.
    evidence
        By element; elements that are left out are *not addressed*.
    answer
        The question's answer in a few plain lines.
    limits
        Of the study as a whole, in words.
    numbers
        Numbers that answer lines and limits speak of, by name, where no claim holds them.
    provenance
        Model, weights hash, images, versions, settings: whatever says how it was made.

    """

    use_case: UseCase
    plan: PlanRecord
    model_check: ModelCheck
    evidence: Mapping[str, ElementEvidence] = field(hash=False)
    answer: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    numbers: Mapping[str, float | None] = field(default_factory=dict, hash=False)
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name, evidence in self.evidence.items():
            if name != evidence.element:
                raise ConfigError(f"evidence for '{evidence.element}' stands under '{name}': put it under its own name")
        object.__setattr__(self, "answer", tuple(without_signed_zero(line) for line in self.answer))

    @cached_property
    def elements(self) -> tuple[ElementEvidence, ...]:
        """The five, in the paper's order; those without evidence are there, empty."""
        return tuple(self.evidence.get(name, ElementEvidence(name)) for name in ELEMENTS)

    @cached_property
    def verdicts(self) -> dict[str, ElementVerdict]:
        """By element, in the paper's order."""
        return {
            evidence.element: element_verdict(
                evidence,
                self.plan,
                self.model_check,
                needed=evidence.element in self.use_case.needs,
                truth_known=self.use_case.truth_known,
            )
            for evidence in self.elements
        }

    def standings(self, evidence: ElementEvidence) -> tuple[Standing, ...]:
        """Return how every claim of an element stands beside the plan; of a model at chance none is met."""
        if self.model_check.state == "at chance":
            return tuple(
                Standing("not met", tuple(dict.fromkeys((*c.reasons, *self.model_check.reasons))), counts=bool(c.test))
                for c in evidence.claims
            )
        tests = {test.name: test for test in self.plan.plan.of(evidence.element)}
        known = self.use_case.truth_known
        return tuple(claim_standing(c, tests.get(c.test), truth_known=known) for c in evidence.claims)

    @property
    def unmet(self) -> tuple[str, ...]:
        """The elements that the use case needs and that are not met."""
        return tuple(name for name in self.use_case.needs if self.verdicts[name].word != "met")

    def strict(self) -> int:
        """Return the exit status of ``--strict``: 0 where every needed element is met, otherwise 1."""
        return 1 if self.unmet else 0

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON, after the published schema."""
        needs = self.use_case.needs
        record = {
            "format": FORMAT_VERSION,
            "notice": NOTICE,
            "citation": CITATION,
            "use_case": self.use_case.to_json(),
            "plan": self.plan.to_json(),
            "model_check": self.model_check.to_json(),
            "elements": [self._element_json(evidence) for evidence in self.elements],
            "summary": {
                "n_needed": len(needs),
                "n_needed_met": len(needs) - len(self.unmet),
                "unmet": list(self.unmet),
                "strict": self.strict(),
            },
            "answer": list(self.answer),
            "limits": list(self.limits),
            "numbers": dict(self.numbers),
            "provenance": dict(self.provenance),
        }
        return {**record, "unbacked": unbacked(record)}

    def _element_json(self, evidence: ElementEvidence) -> dict[str, Any]:
        record = evidence.to_json()
        standings = self.standings(evidence)
        for claim, stands in zip(record["claims"], standings, strict=True):
            claim["standing"] = {"word": stands.word, "reasons": list(stands.reasons), "counts": stands.counts}
        return {
            **record,
            "definition": ELEMENTS[evidence.element].to_json(),
            "needed": evidence.element in self.use_case.needs,
            "verdict": self.verdicts[evidence.element].to_json(),
            "n_tests": len(self.plan.plan.of(evidence.element)),
            "n_held": sum(stands.counts and stands.word == "met" for stands in standings),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Report:
        """Read what :meth:`to_json` wrote; every verdict is reached anew.

        Raises
        ------
        DamagedFileError
            If something is missing, of another format, or a hash does not match.

        """
        if record.get("format") != FORMAT_VERSION:
            raise DamagedFileError(
                f"the report is of format {record.get('format')}, this version reads {FORMAT_VERSION}: run the study again"
            )
        try:
            evidence = [ElementEvidence.from_json(element) for element in record["elements"]]
            return cls(
                UseCase.from_json(record["use_case"]),
                PlanRecord.from_json(record["plan"]),
                ModelCheck.from_json(record["model_check"]),
                {e.element: e for e in evidence if e.claims or e.limits or e.figures},
                tuple(record["answer"]),
                tuple(record["limits"]),
                dict(record["numbers"]),
                dict(record["provenance"]),
            )
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise DamagedFileError(
                f"the report lacks or misnames a part ({error}): it was altered, or written by another version"
            ) from error
