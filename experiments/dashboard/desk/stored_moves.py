"""Moves that are made beforehand, for pages that open from disk: one unit at a time, at a few values each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.dashboard.desk.desk import Desk, Unit, describe, outcome_json
from experiments.dashboard.desk.moves import How, Move

FACTORS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
SHARES = (0.0, 0.5, 1.0, 1.5)
"""What is put where a unit is active, as a share of its largest value on the image."""

FEATURES, CHANNELS = 4, 2


def stored_moves(desk: Desk, image: int) -> list[dict[str, Any]]:
    """Return, per proposed unit and way of moving it, the outcome at every value of a grid.

    Parameters
    ----------
    desk
        The desk.
    image
        Which image.

    Returns
    -------
    list of dict
        ``unit``, ``how``, ``values`` and, as many, ``outcomes`` as the desk's script reads them.

    """
    before = desk.before(image)
    made: list[dict[str, Any]] = []
    for unit in desk.proposals(image, FEATURES, CHANNELS):
        for how, values in _grid(unit):
            outcomes = []
            for value in values:
                outcome = desk.after(image, [Move(unit.kind, unit.index, how, value)])
                words = describe(outcome, before, desk.class_names, desk.objective.name, desk.model.activation)
                outcomes.append({**outcome_json(outcome), "words": words})
            made.append({"unit": unit.name, "how": how, "values": list(values), "outcomes": outcomes})
    return made


def images_to_store(positives: Sequence[int], n_images: int, most: int) -> list[int]:
    """Return the images whose moves are stored: half from those on which the model answers the target, evenly spread."""
    hits = list(positives)
    others = [i for i in range(n_images) if i not in set(hits)]
    wanted = min(len(hits), max(most - len(others), most - most // 2)) if others else most
    return sorted(_spread(hits, wanted) + _spread(others, most - min(wanted, len(hits))))


def _grid(unit: Unit) -> list[tuple[How, tuple[float, ...]]]:
    ways: list[tuple[How, tuple[float, ...]]] = [("scale", FACTORS)]
    if unit.kind == "feature" and unit.largest > 0:
        ways.append(("set-active", tuple(float(f"{share * unit.largest:.3g}") for share in SHARES)))
    return ways


def _spread(items: Sequence[int], most: int) -> list[int]:
    if most <= 0 or not items:
        return []
    n = min(most, len(items))
    return [items[round(i * (len(items) - 1) / max(1, n - 1))] for i in range(n)]
