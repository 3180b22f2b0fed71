"""Effects of a run's nodes in every subgroup of its patients; written as JSON and one page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.analysis.acting_runs import Opened
from experiments.analysis.circuit_runs import parsed_ablation, parsed_metric
from experiments.dashboard.single_page import Shown, write_single_page
from mechinterp.errors import ConfigError
from mechinterp.files import write_json
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from circuits.acting.subgroup_effects import SubgroupDifference, SubgroupEffect
    from circuits.measuring import Method

MOST_SUBGROUPS = 8
ALPHA = 0.05
MOST_TOLD = 8
"""Differences that are told one by one."""


@dataclass(frozen=True, eq=False)
class SubgroupRun:
    """Effects by subgroup.

    Parameters
    ----------
    by
        What the subgroups are made by.
    metric, method, ablation
        What effects are on, and how they were computed.
    found
        One per node and subgroup.
    differences
        One per node and pair of subgroups, tested.
    trained
        Whether the model is.

    """

    by: str
    metric: str
    method: str
    ablation: str
    found: tuple[SubgroupEffect, ...]
    differences: tuple[SubgroupDifference, ...]
    trained: bool

    def differing(self) -> list[SubgroupDifference]:
        """Return the pairs of subgroups that differ for a node, corrected for all pairs and nodes."""
        return [d for d in self.differences if d.p <= ALPHA]

    def sentences(self) -> list[str]:
        """Return what differs, from the intervals alone."""
        lines = [] if self.trained else ["UNTRAINED MODEL: what follows says nothing of a trained one."]
        nodes = len({f.node.name for f in self.found})
        groups = list(dict.fromkeys((f.subgroup, f.images) for f in self.found))
        lines.append(
            f"The {nodes} nodes with the largest effect on {self.metric} ({self.method}, {self.ablation}), by {self.by}: "
            + ", ".join(f"{name} ({n} images)" for name, n in groups)
            + "."
        )
        if not any(f.interval.estimable for f in self.found):
            lines.append(f"No interval can be given ({self.found[0].interval.text}), so no difference is claimed.")
            return lines
        differing, tested = self.differing(), len(self.differences)
        words = [
            f"{d.node.name} ({d.first} – {d.second}: {d.difference:+.3g}, p {d.p:.2g})" for d in differing[:MOST_TOLD]
        ]
        more = f" and {len(differing) - MOST_TOLD} more" if len(differing) > MOST_TOLD else ""
        lines.append(
            f"Of {tested} comparisons of two subgroups {len(differing)} differ at p ≤ {ALPHA:g}, corrected for all of them: "
            f"{', '.join(words)}{more}. What else differs between the subgroups is not adjusted for."
            if differing
            else f"Of {tested} comparisons of two subgroups none differs at p ≤ {ALPHA:g}, corrected for all of them; that two "
            "intervals lie apart is no finding among so many."
        )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "by": self.by, "metric": self.metric, "method": self.method, "ablation": self.ablation,
            "effects": [f.to_json() for f in self.found], "differences": [d.to_json() for d in self.differences],
            "sentences": self.sentences(),
        }  # fmt: skip


def subgroup_run(
    opened: Opened, by: str, metric: str, *, method: Method, ablation: str, split: str | None, most_images: int, nodes: int,
    seed: int, progress: Progress = SILENT,
) -> SubgroupRun:  # fmt: skip
    """Measure effects of the run's features (or a site's neurons) and average them by subgroup.

    Raises
    ------
    ConfigError
        If there are fewer than two subgroups, or more than a figure can show.

    """
    from circuits import effects, features, neurons, subgroups
    from circuits.acting.subgroup_effects import subgroup_differences
    from mechinterp.feature_encoder import Neurons

    rows = opened.rows(split, most_images)
    names = _subgroups(opened, by, rows)
    rows, names = rows[names != ""], names[names != ""]
    count = len(set(names.tolist()))
    if not 2 <= count <= MOST_SUBGROUPS:
        raise ConfigError(
            f"--by '{by}' makes {count} subgroup(s) of the images: it must make 2 to {MOST_SUBGROUPS}; give bands a column"
        )
    sets = [
        neurons(opened.model, e.site) if isinstance(e, Neurons) else features(e) for e in opened.encoders
    ]  # fmt: skip
    measured = effects(
        parsed_metric(metric), sets, model=opened.model, images=opened.prepared(rows), method=method,
        ablation=parsed_ablation(ablation), groups=opened.patients(rows), seed=seed, progress=progress,
    )  # fmt: skip
    if measured.batch is not None:  # blocks of one head are no patients
        known = replace(measured.batch, units_are_patients=opened.units_are_patients)
        measured = replace(measured, batch=known)
    found = subgroups(measured, names, n=nodes, seed=seed)
    differences = subgroup_differences(measured, names, n=nodes)
    return SubgroupRun(by, measured.metric, method, ablation, found, differences, opened.model.trained)


def write_subgroups(run: SubgroupRun, out: Path) -> dict[str, str]:
    """Write effects by subgroup as JSON and as a page; return the files' names."""
    from circuits.acting.figures import subgroup_figure

    write_json(out / "subgroups.json", run.to_json())
    shown = Shown(
        f"Effects by {run.by}", subgroup_figure(run.found, run.metric), "Whiskers: intervals over patients.",
    )  # fmt: skip
    write_single_page(out / "subgroups.html", f"Effects by {run.by}", run.sentences(), [shown])
    return {name: str(out / name) for name in ("subgroups.json", "subgroups.html")}


def _subgroups(opened: Opened, by: str, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return each image's subgroup; empty where it is not known."""
    own = {"split": opened.images.splits, "label": opened.images.labels}
    values = own.get(by)
    if values is not None:
        return np.array([str(values[i] or "") for i in rows])
    column = opened.column("--by", by)[rows]
    names = opened.images.attributes.categories.get(by)
    if names is not None:
        return np.array([names[int(v)] if np.isfinite(v) else "" for v in column])
    return np.array([f"{by} {v:g}" if np.isfinite(v) else "" for v in column])
