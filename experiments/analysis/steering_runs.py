"""Dose curves of a run's features: measured on its images, written as JSON and one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.analysis.acting_runs import Opened, as_class, interval_words
from experiments.dashboard.single_page import Shown, write_single_page
from mechinterp.errors import ConfigError
from mechinterp.files import write_json
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from circuits.acting.steering import Steered

FAR_OFF = 2.0
"""From this multiple of the usual distance on, a dose shows the model what it has never seen."""


def steer_run(
    opened: Opened, features: Sequence[int], target: str, *, doses: Sequence[float], split: str | None, most_images: int,
    random: int, seed: int, progress: Progress = SILENT,
) -> list[Steered]:  # fmt: skip
    """Add doses of some features to a run's images and measure the decision.

    Raises
    ------
    ConfigError
        If no feature is named, a dose is no number, or fewer than no random directions are asked for.

    """
    from circuits import steer

    if not features:
        raise ConfigError("--features is empty: name at least one feature to steer")
    if not np.isfinite(doses).all():
        raise ConfigError(
            f"--doses holds {', '.join(f'{d:g}' for d in doses if not np.isfinite(d))}: give finite numbers"
        )
    if random < 0:
        raise ConfigError(f"--random is {random}: give 0 or more")
    rows = opened.rows(split, most_images)
    x, patients = opened.prepared(rows), opened.patients(rows)
    return [
        steer(
            opened.model, opened.encoders[0], feature, x, target=as_class(target), doses=doses, groups=patients,
            units_are_patients=opened.units_are_patients, n_random=random, seed=seed, progress=progress,
        )
        for feature in features
    ]  # fmt: skip


def steering_sentence(found: Steered, name: str) -> str:
    """Return what the ends of one feature's dose curve say, from their numbers alone."""
    ends = dict.fromkeys((int(np.argmin(found.doses)), int(np.argmax(found.doses))))
    parts = []
    for k in ends:
        random = np.abs(found.random[:, k]).max(initial=0.0)
        change = float(found.change[k])
        beside = (
            f"{'more' if abs(change) > random else 'no more'} than {len(found.random)} random directions of the same norm "
            f"do (at most {random:.2f})"
            if len(found.random)
            else "without random directions beside it"
        )
        parts.append(
            f"{found.doses[k]:+g} SD changes the log-odds of {found.target} by {change:+.2f} "
            f"(95 %: {interval_words(found.intervals[k])}), {beside}"
        )
    off = float(found.off_data.max())
    far = (
        f"The farthest dose lies {off:.1f} times as far from the data as usual: read smaller ones."
        if off >= FAR_OFF
        else f"Distance from the data: at most {off:.2f} times the usual."
    )
    return f"{name}: {'; '.join(parts)}. {far}"


def write_steered(found: Sequence[Steered], names: Sequence[str], opened: Opened, out: Path) -> dict[str, str]:
    """Write dose curves as JSON and as a page; return the files' names."""
    site = opened.encoders[0].site
    write_json(out / "steer.json", {"site": site, "features": [f.to_json() for f in found], "names": list(names)})
    lines = [*_stamp(opened), *(steering_sentence(f, n) for f, n in zip(found, names, strict=True))]
    shown = [
        Shown(
            name, one.figure(), "Grey: the range of random directions of the same norm. Whiskers: intervals over patients.",
        )
        for one, name in zip(found, names, strict=True)
    ]  # fmt: skip
    write_single_page(out / "steer.html", f"Dose curves at {site}", lines, shown)
    return {name: str(out / name) for name in ("steer.json", "steer.html")}


def _stamp(opened: Opened) -> list[str]:
    return [] if opened.model.trained else ["UNTRAINED MODEL: what follows says nothing of a trained one."]
