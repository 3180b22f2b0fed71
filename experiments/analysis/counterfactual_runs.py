"""The fewest features that turn a run's decisions, with the real images nearest to the result; JSON and one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.analysis.acting_runs import Opened, as_class
from experiments.analysis.thumbnails import thumbnail
from experiments.dashboard.markup import element
from experiments.dashboard.single_page import Shown, write_single_page
from mechinterp.errors import ConfigError
from mechinterp.files import write_json
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from circuits.acting.counterfactuals import CounterfactualFeatures
    from experiments.dashboard.markup import Element


@dataclass(frozen=True, eq=False)
class Turned:
    """What turns the decisions of some cases.

    Parameters
    ----------
    target
        Name of the class decided on.
    found
        One per case.
    cases, reference
        The images' numbers in the run.

    """

    target: str
    found: tuple[CounterfactualFeatures, ...]
    cases: NDArray[np.int64]
    reference: NDArray[np.int64]

    def to_json(self, opened: Opened) -> dict[str, Any]:
        """Return it as plain JSON, images by their ids."""
        ids = opened.images.ids
        return {
            "target": self.target, "site": opened.encoders[0].site, "turned": sum(f.turned for f in self.found),
            "cases": [
                {
                    **one.to_json(),
                    "image": ids[row],
                    "neighbours": [ids[self.reference[n]] for n in one.neighbours],
                }
                for one, row in zip(self.found, self.cases, strict=True)
            ],
        }  # fmt: skip


def turn_run(
    opened: Opened, target: str, *, split: str | None, reference_split: str | None, cases: int, most_images: int, most: int,
    features: Sequence[int], progress: Progress = SILENT,
) -> Turned:  # fmt: skip
    """Find for some cases the fewest features that turn the decision, with values of the reference images.

    Raises
    ------
    ConfigError
        If no case is asked for, or no reference image is left beside the cases.

    """
    from circuits import counterfactual_features
    from circuits.acting.decision import Decision

    rows, reference = opened.rows(split, cases, "--cases"), opened.rows(reference_split, most_images)
    # a case must not be its own nearest image
    reference = np.setdiff1d(reference, rows)
    if not len(reference):
        raise ConfigError(
            "no reference image is left beside the cases themselves: raise --most-images, or name another --reference-split"
        )
    found = counterfactual_features(
        opened.model, opened.encoders[0], opened.prepared(rows), opened.prepared(reference), target=as_class(target),
        chosen=features or None, most=most, progress=progress,
    )  # fmt: skip
    return Turned(Decision.of(opened.model, as_class(target)).name, found, rows, reference)


def turning_sentences(turned: Turned, opened: Opened) -> list[str]:
    """Return what was found, from its numbers alone."""
    n, done = len(turned.found), [f for f in turned.found if f.turned]
    sizes = [len(f.features) for f in done]
    lines = [] if opened.model.trained else ["UNTRAINED MODEL: what follows says nothing of a trained one."]
    lines.append(
        f"{len(done)} of {n} decisions on {turned.target} turn"
        + (f", with {int(np.median(sizes))} feature(s) in the median ({min(sizes)} to {max(sizes)})." if done else ".")
    )
    lines.append(
        "A feature is changed to the mean code map of real images that the model decides the other way; none of the features "
        "named could be left out. The set is minimal, not proved smallest."
    )
    return lines


def write_turned(turned: Turned, names: Sequence[str], opened: Opened, out: Path) -> dict[str, str]:
    """Write counterfactual features as JSON and as a page with the cases beside their nearest images.

    Parameters
    ----------
    turned, opened
        What was found, in which run.
    names
        How each of the encoder's features is called.
    out
        The folder.

    """
    from circuits.acting.figures import turning_figure

    write_json(out / "counterfactuals.json", turned.to_json(opened))
    ids = [opened.images.ids[row] for row in turned.cases]
    shown = Shown(
        "Decisions before and after", turning_figure(turned.found, ids, turned.target),
        "Right of 0 the model says yes. A dotted line is a decision that did not turn.",
    )  # fmt: skip
    blocks = [_case(one, row, turned, names, opened) for one, row in zip(turned.found, turned.cases, strict=True)]
    write_single_page(
        out / "counterfactuals.html", f"What turns “{turned.target}”", turning_sentences(turned, opened), [shown],
        after=[element("h2", "Cases and the real images nearest to them once changed"), *blocks],
    )  # fmt: skip
    return {name: str(out / name) for name in ("counterfactuals.json", "counterfactuals.html")}


def _case(one: CounterfactualFeatures, row: int, turned: Turned, names: Sequence[str], opened: Opened) -> Element:
    said = f"log-odds {one.before:+.2f} → {one.after:+.2f}" + ("" if one.turned else ", not turned")
    changed = ", ".join(names[f] for f in one.features) or "no feature helps"
    near = [
        thumbnail(opened.images[int(turned.reference[n])], f"nearest {k + 1}, {d:.1f} SD away")
        for k, (n, d) in enumerate(zip(one.neighbours, one.distances, strict=True))
    ]
    return element(
        "section", element("h3", f"{opened.images.ids[row]}: {said}"), element("p", f"Changed: {changed}.", css="text"),
        element("ul", thumbnail(opened.images[int(row)], "the case"), *near, css="thumbnails"),
    )  # fmt: skip
