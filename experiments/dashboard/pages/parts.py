"""Blocks that several pages share."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.dashboard.page import Cell, Column, Link, Table, Text
from experiments.dashboard.record import Record
from experiments.dashboard.run_view import RunView

METRIC_NAMES: Mapping[str, str] = {
    "l0": "L0 (features active per token)",
    "explained_variance": "explained variance",
    "dead": "dead features",
    "dead_fraction": "share of dead features",
    "loss_recovered": "loss recovered",
    "mse": "mean squared error",
}


def not_run(what: str) -> Text:
    """Return the words that stand where a part of the run is absent."""
    return Text((f"{what} was not run.",), "muted")


def feature_cell(view: RunView, number: int | None) -> Cell:
    """Return a feature's number, linked when it has a page."""
    if number is None:
        return None
    slug = view.slug_of_feature.get(number)
    return Link(f"feature {number}", slug) if slug else f"feature {number}"


def metric_name(key: str) -> str:
    """Return a metric's name in words."""
    return METRIC_NAMES.get(key.lower(), key.replace("_", " "))


def metrics_table(caption: str, columns: list[tuple[str, Record]]) -> Table | None:
    """Return metrics (rows) of several things (columns), the controls beside what they control."""
    keys: dict[str, None] = {}
    for _, metrics in columns:
        for key, value in metrics.items():
            if value.number() is not None:
                keys.setdefault(key)
    if not keys:
        return None
    rows = tuple((metric_name(key), *(metrics[key].number() for _, metrics in columns)) for key in keys)
    return Table(caption, (Column("metric"), *(Column(name, form="number") for name, _ in columns)), rows)
