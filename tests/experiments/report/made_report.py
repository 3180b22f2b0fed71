"""A report whose every element is met, to be spoiled one thing at a time."""

from __future__ import annotations

from experiments.report import (
    ELEMENTS,
    ElementEvidence,
    ModelCheck,
    OutOfDistribution,
    Plan,
    PlannedTest,
    PlanRecord,
    Report,
    ReportFigure,
    UseCase,
)
from mechinterp.claims import Bound, Claim, Control

TESTS = tuple(
    PlannedTest(
        name,
        f"test of {name}",
        "method",
        "score",
        "score at least 0.5",
        ("shuffled", "untrained"),
        Bound("at least", 0.5),
    )
    for name in ELEMENTS
)
PLAN = Plan("made", TESTS, "d" * 64, "c" * 64)
RECORD = PlanRecord(PLAN, registered="2026-01-01T00:00:00+00:00", opened="2026-01-02T00:00:00+00:00")
CHECK = ModelCheck(
    "referable or not", "AUROC", 0.91, (0.86, 0.95), 0.5, 300, 100, "", 0.04, 0.11, 0.25,
    OutOfDistribution("Mahalanobis distance", 0.06, detail="6% of the images lie outside"),
)  # fmt: skip
CONTROLS = (
    Control("shuffled", 0.02, detail="0.02 on shuffled labels", bound=Bound("at most", 0.2)),
    Control("untrained", 0.11, bound=Bound("at most", 0.6)),
)


def use_case(**changes):
    fields = {
        "name": "made",
        "title": "A made report",
        "question": "Does it?",
        "task": "grades a photograph",
        "intended_user": "a grader",
        "decision": "refer or not",
        "goals": ("trust",),
        "needs": tuple(ELEMENTS),
        "licences": {"model": "Apache-2.0", "data": "rendered"},
        "truth_known": True,
    }
    return UseCase(**{**fields, **changes})


def claim(planned, /, **changes):
    fields = {
        "controls": CONTROLS,
        "interval": (0.61, 0.83),
        "test": planned.name,
        "numbers": {"patients": 100},
    }
    return Claim.measured(
        "The score is 0.72 on 100 patients.", "interventional", 0.72, "score", planned.bound, planned.criterion,
        **{**fields, **changes},
    )  # fmt: skip


def report(claims=None, *, check=CHECK, record=RECORD, case=None, figures=(), **more):
    claims = {test.element: (claim(test),) for test in TESTS} if claims is None else claims
    evidence = {
        name: ElementEvidence(name, tuple(found), ("nothing beyond 100 patients",), figures)
        for name, found in claims.items()
    }
    return Report(case or use_case(), record, check, evidence, ("It scores 0.72.",), **more)


def figure():
    import plotly.graph_objects as go

    return ReportFigure.of("A curve", "It rises.", go.Figure(go.Scatter(x=[1, 2], y=[3, 4])))
