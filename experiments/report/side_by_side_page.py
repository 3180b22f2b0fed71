"""Several reports side by side as one page that opens from disk: a pure function of their common JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.dashboard.html_text import to_html
from experiments.dashboard.markup import Node, element, word
from experiments.dashboard.page import Tone
from experiments.report.addressed_text import listed, number, said
from experiments.report.page import TONES, no_leaf, page_styles

_TONES: Mapping[str, Tone] = {**TONES, "not run": "caution"}


def side_by_side_page(record: Mapping[str, Any]) -> str:
    """Return the page as HTML; it holds no script and no address.

    Parameters
    ----------
    record
        What :func:`~experiments.report.side_by_side.side_by_side` returned.

    """
    runs = record["runs"]
    parts = [
        element("p", element("strong", said("/notice", record["notice"])), css="banner", role="note"),
        element("h1", "Reports side by side"),
        *listed("/shared", record["shared"], "limits"),
        _framed("Verdicts by element and run", _verdicts(record)),
        element("h2", "Test by test"),
        element(
            "p", "Each test's metric with its 95 % interval, over the units its own report names, and how it stands beside the run's "
            "plan. Metrics of different models can be told apart only where their intervals do.", css="text muted",
        ),
        _framed("Tests by run", _tests(record)),
        element("h2", "Each run's answer"),
        *(node for at, run in enumerate(runs) for node in _answer(run, f"/runs/{at}")),
        element("p", "The five elements are those of ", said("/citation", record["citation"]), css="text muted"),
    ]  # fmt: skip
    body = to_html(element("main", element("article", *parts, css="page report")), no_leaf)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>Reports side by side</title><link rel="icon" href="data:,"><style>{page_styles()}</style></head>'
        f"<body>{body}</body></html>\n"
    )


def _framed(label: str, table: Node) -> Node:
    return element("div", table, css="table-frame", role="region", tabindex="0", aria_label=label)


def _names(runs: Sequence[Mapping[str, Any]]) -> list[Node]:
    return [element("th", said(f"/runs/{at}/name", run["name"]), scope="col") for at, run in enumerate(runs)]


def _verdicts(record: Mapping[str, Any]) -> Node:
    runs = record["runs"]
    rows = [
        _row("Study", [said(f"/runs/{at}/study", run["study"]) for at, run in enumerate(runs)]),
        _row("Model", [_model(run, f"/runs/{at}") for at, run in enumerate(runs)]),
    ]
    if any(run["condition"] for run in runs):
        cells: list[Node] = [
            said(f"/runs/{at}/condition", run["condition"]) if run["condition"] else "–" for at, run in enumerate(runs)
        ]
        rows.append(_row("Condition", cells))
    rows.append(
        _row("Does the model do its task?", [_check(run["check"], f"/runs/{at}/check") for at, run in enumerate(runs)])
    )
    for e, part in enumerate(record["elements"]):
        head = element("span", part["element"], element("span", part["question"], css="asked"))
        rows.append(_row(head, [_element(c, f"/elements/{e}/cells/{at}") for at, c in enumerate(part["cells"])]))
    met = [
        element(
            "span", number(f"/runs/{at}/n_needed_met", run["n_needed_met"], "integer"), " of ",
            number(f"/runs/{at}/n_needed", run["n_needed"], "integer"), " met",
        )
        for at, run in enumerate(runs)
    ]  # fmt: skip
    rows.append(_row("Elements that the use needs", met))
    head_row = element("tr", element("th", "Run", scope="col"), *_names(runs))
    return element("table", element("thead", head_row), element("tbody", *rows), css="verdicts")


def _row(name: Node, cells: Sequence[Node]) -> Node:
    return element("tr", element("th", name, scope="row"), *(element("td", cell, css="why") for cell in cells))


def _model(run: Mapping[str, Any], path: str) -> Node:
    """Return the architecture, and which weights: two runs of one architecture are seldom of one model."""
    shown: list[Node] = [said(f"{path}/model", run["model"])]
    if run["weights"]:
        shown.append(element("span", "weights ", said(f"{path}/weights", run["weights"]), css="asked"))
    return element("span", *shown)


def _check(check: Mapping[str, Any], path: str) -> Node:
    return element(
        "span", word(check["state"], _TONES[check["state"]]), " ", said(f"{path}/metric", check["metric"]), " ",
        number(f"{path}/value", check["value"]), *_interval(check["interval"], path),
    )  # fmt: skip


def _element(cell: Mapping[str, Any], path: str) -> Node:
    shown: list[Node] = [word(cell["word"], _TONES[cell["word"]])]
    if cell["n_tests"]:
        held, tests = (number(f"{path}/{key}", cell[key], "integer") for key in ("n_held", "n_tests"))
        shown += [" ", held, " of ", tests]
    if not cell["needed"]:
        shown += [" ", element("span", "not needed", css="stamp")]
    return element("span", *shown, *_reason(cell, path))


def _tests(record: Mapping[str, Any]) -> Node:
    rows = []
    for t, test in enumerate(record["tests"]):
        head = element("span", said(f"/tests/{t}/name", test["name"]), element("span", test["element"], css="asked"))
        rows.append(_row(head, [_test(c, f"/tests/{t}/cells/{at}") for at, c in enumerate(test["cells"])]))
    head_row = element("tr", element("th", "Test", scope="col"), *_names(record["runs"]))
    return element("table", element("thead", head_row), element("tbody", *rows), css="verdicts wrapped")


def _test(cell: Mapping[str, Any] | None, path: str) -> Node:
    if cell is None:
        return "–"
    shown: list[Node] = [word(cell["word"], _TONES[cell["word"]])]
    if cell["value"] is not None:
        shown += [" ", number(f"{path}/value", cell["value"]), *_interval(cell["interval"], path)]
        shown += [" ", said(f"{path}/unit", cell["unit"])] if cell["unit"] else []
    return element("span", *shown, *_reason(cell, path))


def _interval(ends: Sequence[float] | None, path: str) -> list[Node]:
    if ends is None:
        return []
    low, high = (number(f"{path}/interval/{at}", end) for at, end in enumerate(ends))
    return [" (", low, " to ", high, ")"]


def _reason(cell: Mapping[str, Any], path: str) -> list[Node]:
    return [said(f"{path}/reason", cell["reason"], css="asked")] if cell["reason"] else []


def _answer(run: Mapping[str, Any], path: str) -> list[Node]:
    lines = [said(f"{path}/answer/{at}", line, "li") for at, line in enumerate(run["answer"])]
    about = element("p", said(f"{path}/title", run["title"]), css="text muted")
    return [element("h3", said(f"{path}/name", run["name"])), about, element("ol", *lines, css="answer-lines")]
