"""The five-element report: what a model is for, what was planned, what was found, and one verdict per element.

See ``docs/report.md``. The five elements are those of Wang et al., IEEE Access 2024 (see :mod:`experiments.report.elements`).
"""

from __future__ import annotations

from experiments.report.element_evidence import ElementEvidence, ReportFigure
from experiments.report.elements import ELEMENTS, Element
from experiments.report.model_check import ModelCheck, OutOfDistribution
from experiments.report.plan import (
    Plan,
    PlannedTest,
    PlanRecord,
    groups_hash,
    open_confirmation,
    read_plan,
    register_plan,
)
from experiments.report.report import Report
from experiments.report.saving import read_report, write_report
from experiments.report.task_checks import check_classifier, distance_check
from experiments.report.use_case import UseCase
from experiments.report.verdicts import ElementVerdict, claim_standing, element_verdict

__all__ = [
    "ELEMENTS",
    "Element",
    "ElementEvidence",
    "ElementVerdict",
    "ModelCheck",
    "OutOfDistribution",
    "Plan",
    "PlanRecord",
    "PlannedTest",
    "Report",
    "ReportFigure",
    "UseCase",
    "check_classifier",
    "claim_standing",
    "distance_check",
    "element_verdict",
    "groups_hash",
    "open_confirmation",
    "read_plan",
    "read_report",
    "register_plan",
    "write_report",
]
