"""What a later checkpoint gained, lost and turned, from two runs; written as JSON and one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.analysis.acting_runs import Opened
from experiments.dashboard.single_page import Shown, write_single_page
from mechinterp.errors import ConfigError
from mechinterp.files import write_json
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from circuits.acting.model_differences import ModelDifference


def diff_run(
    earlier: Opened, later: Opened, *, split: str | None, most_images: int, same: float, turned: float,
    progress: Progress = SILENT,
) -> ModelDifference:  # fmt: skip
    """Compare the features of two runs' models on the images of the earlier run.

    Raises
    ------
    ConfigError
        If the two runs look at different sites, or their models want different input.

    """
    from circuits import diff_models

    first, second = earlier.encoders[0], later.encoders[0]
    if first.site != second.site:
        raise ConfigError(
            f"the runs' features are of '{first.site}' and '{second.site}': compare the same site of both (--site)"
        )
    if earlier.model.contract != later.model.contract:
        raise ConfigError("the two models want different input: checkpoints of one model are compared")
    x = earlier.prepared(earlier.rows(split, most_images))
    return diff_models((earlier.model, first), (later.model, second), x, same=same, turned=turned, progress=progress)


def difference_sentences(found: ModelDifference, trained: bool) -> list[str]:
    """Return what changed, from the numbers alone."""
    lines = [] if trained else ["UNTRAINED MODEL: what follows says nothing of a trained one."]
    matched = len(found.pairs)
    median = f" (median correlation {np.median(found.correlation):.2f})" if matched else ""
    lines.append(
        f"{matched} features answer to the same in both{median}; {len(found.rotated)} of them write elsewhere now (cosine "
        f"below {found.turned:g}). {len(found.lost)} are lost, {len(found.new)} are new; "
        f"{found.silent[0]} and {found.silent[1]} never vary on these images and are neither."
    )
    chance = found.by_chance
    if not np.isfinite(chance):
        return [
            *lines,
            "By how much features agree by chance could not be told: that takes two images on which they vary.",
        ]
    near = chance >= found.same
    lines.append(
        f"Features of images shifted against each other correlate up to {chance:.2f}"
        + (f": at the bound of {found.same:g} matches can be chance, raise --same." if near else ", below the bound.")
    )
    return lines


def write_difference(found: ModelDifference, site: str, trained: bool, out: Path) -> dict[str, str]:
    """Write a comparison of checkpoints as JSON and as a page; return the files' names."""
    from circuits.acting.figures import difference_figure

    lines = difference_sentences(found, trained)
    record: dict[str, Any] = {**found.to_json(), "site": site, "pairs": _pairs(found), "sentences": lines}
    write_json(out / "diff-models.json", record)
    shown = [Shown(
        "Matched features", difference_figure(found),
        "Right: they answer to the same tokens. Below the dashed line a feature writes in another direction than before.",
    )] if len(found.pairs) else []  # fmt: skip
    lists = [
        f"{word}: {', '.join(map(str, numbers.tolist())) or 'none'}."
        for word, numbers in (("Lost", found.lost), ("New", found.new))
    ]
    write_single_page(out / "diff-models.html", f"What changed at {site}", [*lines, *lists], shown)
    return {name: str(out / name) for name in ("diff-models.json", "diff-models.html")}


def _pairs(found: ModelDifference) -> list[dict[str, Any]]:
    rows = zip(found.pairs.tolist(), found.correlation.tolist(), found.cosine.tolist(), strict=True)
    return [{"earlier": a, "later": b, "correlation": r, "cosine": c} for (a, b), r, c in rows]
