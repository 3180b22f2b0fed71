"""Scores that say when not to trust a run's model, beside its own confidence; written as JSON and one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.analysis.acting_runs import Opened, as_class, unlabelled_words
from experiments.dashboard.single_page import Shown, write_single_page
from mechinterp.errors import AttributeTableError, ConfigError
from mechinterp.files import write_json
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from circuits.acting.deferring import Deferral
    from experiments.analysis.report_findings import ReportFindings

KEPT = (0.5, 0.8, 1.0)
"""Shares of kept cases whose risk is told."""


@dataclass(frozen=True, eq=False)
class DeferralRun:
    """Scores compared on one split.

    Parameters
    ----------
    target
        Name of the class decided on.
    site
        Where the scores look.
    found
        The model's confidence first.
    cases, errors
        How many, and on how many the model errs.
    trained
        Whether the model is.
    source
        What the run's own findings gave; empty where they were not asked.
    unlabelled
        Cases of the split that have no label and are left out.

    """

    target: str
    site: str
    found: tuple[Deferral, ...]
    cases: int
    errors: int
    trained: bool
    source: str = ""
    unlabelled: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "target": self.target, "site": self.site, "cases": self.cases, "errors": self.errors, "trained": self.trained,
            "source": self.source, "unlabelled": self.unlabelled,
            "scores": [one.to_json() for one in self.found], "sentences": self.sentences(),
        }  # fmt: skip

    def sentences(self) -> list[str]:
        """Return what each score is worth beside the model's confidence, from the intervals alone."""
        lines = [] if self.trained else ["UNTRAINED MODEL: what follows says nothing of a trained one."]
        lines += unlabelled_words(self.unlabelled)
        lines.append(
            f"The model errs on {self.errors} of {self.cases} cases. Its own confidence leaves an excess area of "
            f"{self.found[0].excess:.4f} (0 is the perfect order of cases)."
        )
        if self.source:
            lines.append(self.source)
        for one in self.found[1:]:
            ends = one.interval.ends
            if ends is None:
                word = f"cannot be compared: {one.interval.text}"
            elif ends[0] > 0:
                word = "defers better than the model's confidence"
            elif ends[1] < 0:
                word = "defers worse than the model's confidence"
            else:
                word = "is not told apart from the model's confidence"
            lines.append(f"“{one.name}” {word} (gain {one.gain:+.4f}; {one.interval.text}).")
        return lines


def defer_run(
    opened: Opened, target: str, *, label: str | None, features: Sequence[int], attributes: Sequence[str], split: str,
    reference_split: str, most_images: int, seed: int, findings: ReportFindings | None = None, progress: Progress = SILENT,
) -> DeferralRun:  # fmt: skip
    """Score the cases of one split against what is usual in another, and compare the scores.

    With `findings` there are scores from them: the share of an answer that rests on features that are not explained, and (where
    no `features` are given) how far it moves when those that serve a shortcut are taken away.

    Raises
    ------
    ConfigError
        If both splits are the same: a score would know its own cases; or if no case has a label.
    AttributeTableError
        If an attribute that is to be a score is missing for a case.

    """
    from circuits import defer, neurons
    from circuits import features as feature_nodes
    from circuits.acting.doubt import case_doubts
    from circuits.acting.explained_share import UNEXPLAINED_SHARE, unexplained_share
    from mechinterp.feature_encoder import Neurons

    if split == reference_split:
        raise ConfigError(f"--split and --reference-split are both '{split}': what is usual comes from other patients")
    every, usual = opened.rows(split, most_images), opened.rows(reference_split, most_images)
    rows = opened.labelled(every)
    if not len(rows):
        raise ConfigError(f"no image of the split '{split}' has a label: errors are counted on the truth; give labels")
    truth = opened.truth(rows, target, label)
    own = {name: _attribute(opened, name, rows) for name in attributes}
    encoder, cases, reference = opened.encoders[0], opened.prepared(rows), opened.prepared(usual)
    if findings is not None and not features:
        features = sorted(findings.suspected)
    doubts = case_doubts(
        opened.model, encoder, cases, reference, target=as_class(target), features=features, progress=progress
    )
    reported = {}
    if findings is not None and findings.explained:
        nodes = neurons(opened.model, encoder.site) if isinstance(encoder, Neurons) else feature_nodes(encoder)
        reported[UNEXPLAINED_SHARE] = unexplained_share(
            opened.model, nodes, cases, reference, target=as_class(target), explained=list(findings.explained),
            progress=progress,
        )  # fmt: skip
    found = defer(
        {**reported, **doubts.scores, **own}, doubts.log_odds, truth, groups=opened.patients(rows),
        units_are_patients=opened.units_are_patients, seed=seed,
    )  # fmt: skip
    errors = int(((doubts.log_odds > 0) != truth).sum())
    source = "" if findings is None else findings.sentence
    return DeferralRun(
        doubts.target, encoder.site, found, len(rows), errors, opened.model.trained, source, len(every) - len(rows)
    )


def write_deferral(run: DeferralRun, out: Path) -> dict[str, str]:
    """Write a comparison of scores as JSON and as a page; return the files' names."""
    from circuits.acting.figures import deferral_figure

    write_json(out / "defer.json", run.to_json())
    table = [
        f"Of {share:.0%} kept, wrong: " + ", ".join(f"{one.name} {one.risk_at(share):.1%}" for one in run.found) + "."
        for share in KEPT
    ]
    shown = Shown(
        "Errors among the cases that are kept", deferral_figure(run.found),
        "Cases are handed over from the most doubtful on, to the left. A lower line is a better score.",
    )  # fmt: skip
    write_single_page(out / "defer.html", f"When not to trust “{run.target}”", [*run.sentences(), *table], [shown])
    return {name: str(out / name) for name in ("defer.json", "defer.html")}


def _attribute(opened: Opened, name: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    values = opened.column("--score", name)[rows]
    if not np.isfinite(values).all():
        raise AttributeTableError(
            f"attribute '{name}' is missing for {int((~np.isfinite(values)).sum())} of {len(rows)} cases: it cannot order them"
        )
    return values
