"""What served pages ask for besides themselves: an answer after moves, a feature for the desk, a note to be kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import flask

from experiments.dashboard.desk.desk import Desk, Outcome, describe, outcome_json
from experiments.dashboard.desk.moves import Move, parse_moves, parse_unit
from experiments.dashboard.formatting import format_value
from experiments.dashboard.pages.desk import unit_json
from experiments.dashboard.run_view import RunView
from experiments.dashboard.site import Pages
from mechinterp.errors import ConfigError, MechinterpError

LARGEST_REQUEST = 200_000
"""Bytes."""


def add_api(server: flask.Flask, pages: Pages) -> None:
    """Let a server answer what its pages' scripts ask for, as JSON."""

    def moved(asked: dict[str, Any]) -> dict[str, Any]:
        desk = pages.desk.open()
        moves = parse_moves(asked.get("moves"), desk.encoder.width, desk.site.width)
        return moved_json(pages.view, desk, _image(asked), moves)

    def unit(asked: dict[str, Any]) -> dict[str, Any]:
        desk = pages.desk.open()
        kind, index = parse_unit(str(asked.get("unit")), desk.encoder.width, desk.site.width)
        return unit_json(pages.view, desk.unit(_image(asked), kind, index))

    def note(asked: dict[str, Any]) -> dict[str, Any]:
        slug, text, before = (asked.get(key) for key in ("slug", "text", "insteadOf"))
        if not (isinstance(slug, str) and isinstance(text, str) and isinstance(before, str)) or slug not in pages:
            raise ConfigError("a note belongs to a page of this run: load the page again")
        kept = pages.notes.write(slug, text, instead_of=before)
        return {"text": kept.text if kept else "", "written": kept.written if kept else ""}

    for name, answer in {"desk": moved, "unit": unit, "notes": note}.items():
        server.add_url_rule(f"/api/{name}", f"api_{name}", _answering(answer), methods=["POST"])


def moved_json(view: RunView, desk: Desk, image: int, moves: tuple[Move, ...]) -> dict[str, Any]:
    """Return what the model answers on an image after moves, with what should be said beside it."""
    before = desk.before(image)
    started = time.perf_counter()
    outcome = desk.after(image, moves)
    seconds = time.perf_counter() - started
    return {
        **outcome_json(outcome),
        "words": describe(outcome, before, desk.class_names, desk.objective.name, desk.model.activation),
        "cautions": cautions(view, moves, outcome, {m.unit: desk.unit(image, m.kind, m.index).largest for m in moves}),
        "seconds": round(seconds, 3),
    }


def cautions(
    view: RunView, moves: tuple[Move, ...], outcome: Outcome, largest_here: Mapping[str, float] | None = None
) -> list[str]:
    """Return why an answer may mean little: values that no image of the run has, a change as large as the activation.

    Parameters
    ----------
    view, moves, outcome
        What was moved in which run, and what it gave.
    largest_here
        Each moved unit's largest value on the image: what a factor multiplies.

    """
    found = []
    for move in moves:
        record = view.feature_of_number.get(move.index) if move.kind == "feature" else None
        if record is None:
            continue
        largest = record["max"].number()
        reached = move.value * (largest_here or {}).get(move.unit, 0.0) if move.how == "scale" else move.value
        if largest is not None and reached > largest and not (move.how == "scale" and move.value <= 1):
            found.append(
                f"{move.unit} is set to {format_value(reached)}, above the largest value it takes in this run "
                f"({format_value(largest)}): off the data."
            )
    if outcome.relative_change > 1:
        found.append("The change is larger than the activation itself: off the data.")
    return found


def _image(asked: dict[str, Any]) -> int:
    image = asked.get("image")
    if isinstance(image, bool) or not isinstance(image, int):
        raise ConfigError("an image is named by its number in the run")
    return image


def _answering(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[], tuple[flask.Response, int]]:
    """Return a view that reads a JSON object and answers with one; a user's mistake is a line with status 400."""

    def view() -> tuple[flask.Response, int]:
        if (flask.request.content_length or 0) > LARGEST_REQUEST:
            return flask.jsonify({"error": "this request is too large"}), 413
        asked = flask.request.get_json(silent=True)
        if not isinstance(asked, dict):
            return flask.jsonify({"error": "the request is no JSON object"}), 400
        try:
            return flask.jsonify(answer(asked)), 200
        except MechinterpError as error:
            return flask.jsonify({"error": str(error)}), 400

    return view
