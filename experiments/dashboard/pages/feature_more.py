"""What a feature's page shows of the run's further details: galleries by relevance and at random, near features."""

from __future__ import annotations

from typing import Any

from experiments.dashboard.feature_details import FeatureDetails
from experiments.dashboard.formatting import format_value
from experiments.dashboard.page import Block, Column, Details, Side, Table, Text
from experiments.dashboard.pages.feature_picture import picture
from experiments.dashboard.pages.parts import feature_cell, not_run
from experiments.dashboard.record import Record
from experiments.dashboard.run_view import RunView


def further_galleries(view: RunView, feature: Record, details: FeatureDetails) -> list[Block]:
    """Return the galleries by relevance and at random, folded away until they are asked for."""
    found = details[feature["id"].integer()]
    kinds = (
        (
            "relevance",
            "Where it matters most",
            f"Images in which it drives {details.objective or 'the answer'} up most: its value times the gradient along its "
            "direction, summed over the site's tokens. Not the same as where it is strongest.",
        ),
        (
            "random",
            "Where it is merely active",
            "Drawn at random from all images in which it is active, as many from each third of its strength, weakest first: what "
            "the strongest images alone hide.",
        ),
    )
    if not found:
        return [not_run("The choice of galleries by relevance and at random")]
    blocks: list[Block] = []
    for kind, summary, words in kinds:
        entries = [Record(_with_map(view, entry, details.tokens)) for entry in found[kind].entries()]
        if not entries:
            blocks.append(Text((f"{summary}: no such image, or it was not computed.",), "muted"))
            continue
        highest = max((v for e in entries for row in e["map"].grid() for v in row if v is not None), default=0.0)
        pictures = tuple(picture(view, feature, entry, highest) for entry in entries)
        among = f"Chosen from {details.images:,} of {view.n_images:,} images, spread over the run."
        said = (words, among) if 0 < details.images < view.n_images else (words,)
        blocks.append(Details(summary, (Text(said, "muted"), Side(pictures, narrowest_px=270))))
    return blocks


def near_features(view: RunView, feature: Record, details: FeatureDetails) -> list[Block]:
    """Return the features whose directions are nearest."""
    rows = tuple(
        (feature_cell(view, near[0].integer()), near[1].number(), details.recurs(near[0].integer()))
        for near in details[feature["id"].integer()]["neighbours"].entries()
    )
    if not rows:
        return [not_run("The comparison with other features")]
    columns = (Column("feature"), Column("cosine", form="signed"), Column("recurs in other seeds"))
    nearest = format_value(rows[0][1], "signed")
    return [Table(f"Nearest by direction; the nearest has a cosine of {nearest}", columns, rows)]


def _with_map(view: RunView, entry: Record, tokens: int) -> dict[str, Any]:
    """Return an example with its map on the site's grid, from the tokens at which the feature is not zero; others stand in front."""
    rows, columns = view["grid"]["rows"].integer(), view["grid"]["columns"].integer()
    made: dict[str, Any] = {"image": entry["image"].value, "value": entry["value"].value, "map": None}
    if not rows or not columns:
        return made
    prefix = tokens - rows * columns
    if prefix < 0:  # not all tokens were stored
        return made
    flat = [0.0] * (rows * columns)
    for token, value in zip(entry["tokens"].integers(), entry["values"].numbers(), strict=False):
        if 0 <= token - prefix < len(flat) and value is not None:
            flat[token - prefix] = value
    made["map"] = [flat[r * columns : (r + 1) * columns] for r in range(rows)]
    return made
