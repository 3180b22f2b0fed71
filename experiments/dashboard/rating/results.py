"""What ratings leave in a run: ``ratings/ratings.json``, a table for other programs, a page; and the report's claim."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.dashboard.charts import shares
from experiments.dashboard.formatting import format_value
from experiments.dashboard.rating.rating_page import KEY_FOLDER
from experiments.dashboard.rating.scoring import ELEMENT, Scores
from experiments.dashboard.single_page import Shown, write_single_page
from mechinterp.claims import Claim
from mechinterp.files import read_json, write_bytes, write_json

if TYPE_CHECKING:
    from experiments.report import Report

FILE = "ratings.json"


def write_scores(run_dir: Path, scores: Scores, *, trained: bool) -> dict[str, str]:
    """Write what ratings say into a run, and return the files' paths by name.

    Parameters
    ----------
    run_dir
        The run.
    scores
        What they say.
    trained
        Whether the run's model was trained.

    """
    folder = Path(run_dir) / KEY_FOLDER
    write_json(folder / FILE, scores.to_json(trained=trained))
    write_bytes(folder / "ratings.csv", _table(scores).encode())
    claim = scores.claim(trained=trained)
    lines = [
        claim.statement,
        f"Verdict: {claim.verdict}. {' '.join(claim.reasons)}",
        *(f"{control.name}: {control.detail}" for control in claim.controls),
        *(
            f"{first} and {second}: Cohen's kappa of the choices {format_value(kappa)}."
            for (first, second), kappa in scores.kappa.items()
        ),
    ]
    items = sorted(scores.items, key=lambda item: (item.kind != "feature", -item.right, -item.seen))
    names = [f"feature {i.feature}" if i.feature is not None else f"{i.kind} {n}" for n, i in enumerate(items)]
    shown = Shown(
        "Right choices, gallery by gallery",
        shares(names, [item.right for item in items], f"share of raters who chose right (chance {scores.chance:.2f})"),
        "Galleries of random images have no right choice: whoever finds it there, guesses. Features of a frozen-random autoencoder have "
        "one, and nothing was learnt.",
    )
    write_single_page(folder / "ratings.html", "What people see in the features", lines, [shown])
    return {name: str(folder / name) for name in (FILE, "ratings.csv", "ratings.html")}


def rated_claim(run_dir: Path) -> Claim | None:
    """Return the claim of a run's ratings; ``None`` where nobody rated it."""
    path = Path(run_dir) / KEY_FOLDER / FILE
    return Claim.from_json(read_json(path)["claim"]) if path.is_file() else None


UNPLANNED = (
    "People rated the features blindly; the run's plan, written before, did not name that test, so it is shown and does not "
    "count towards the verdict."
)


def with_ratings(report: Report, run_dir: Path) -> Report:
    """Return a report with the ratings' claim under visual recognizability; as it is where nobody rated the run.

    Parameters
    ----------
    report
        Of the run.
    run_dir
        The run.

    """
    from experiments.analysis.run_report import GALLERIES
    from experiments.report import ElementEvidence

    claim = rated_claim(run_dir)
    if claim is None:
        return report
    evidence = report.evidence.get(ELEMENT, ElementEvidence(ELEMENT))
    others = tuple(c for c in evidence.claims if c.criterion != claim.criterion)
    limits = tuple(text for text in evidence.limits if text not in (GALLERIES, UNPLANNED))
    rated = replace(evidence, claims=(*others, claim), limits=(*limits, *(() if claim.test else (UNPLANNED,))))
    return replace(report, evidence={**report.evidence, ELEMENT: rated})


def _table(scores: Scores) -> str:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["item", "kind", "feature", "raters", "right", "seen", "names"])
    for item in scores.items:
        names = "; ".join(_cell(f"{rater}: {name}") for rater, name in item.names.items())
        writer.writerow([item.item, item.kind, item.feature, item.raters, item.right, item.seen, names])
    return file.getvalue()


def _cell(text: str) -> str:
    """Return text that a table program does not take for a formula."""
    return f"'{text}" if text[:1] in "=+-@" else text
