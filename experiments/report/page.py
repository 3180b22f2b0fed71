"""The report as one page that opens from disk and prints: a pure function of its JSON.

Every piece of text that holds a number carries, as ``data-path``, the JSON pointer of what it shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files as package_files
from typing import Any

from experiments.dashboard.html_text import to_html
from experiments.dashboard.markup import Element, Node, element, word
from experiments.dashboard.page import FeatureTable, FigureBlock, Tone
from experiments.report.addressed_text import facts_list, interval, items, joined, listed, number, pointer, said
from experiments.report.interval_plot import interval_plot

TONES: dict[str, Tone] = {
    "met": "good",
    "partly": "caution",
    "inconclusive": "caution",
    "not met": "bad",
    "not addressed": "plain",
    "does its task": "good",
    "at chance": "bad",
    "not checked": "caution",
}
PASSED: dict[bool | None, tuple[str, Tone]] = {
    True: ("passed", "good"), False: ("failed", "bad"), None: ("not run", "caution")
}  # fmt: skip


def report_page(record: Mapping[str, Any]) -> str:
    """Return a report's page as HTML; Plotly is part of it only where there are figures.

    Parameters
    ----------
    record
        The report's JSON.

    """
    units = record["use_case"].get("units", "patients")
    parts = [
        element("p", element("strong", said("/notice", record["notice"])), css="banner", role="note"),
        *_head(record),
        *_model_check(record["model_check"], units),
        *(node for at, part in enumerate(record["elements"]) for node in _element(part, f"/elements/{at}", units)),
        *_plan(record["plan"]),
        *_last(record),
    ]
    body = to_html(element("main", element("article", *parts, css="page report")), no_leaf)
    title = escape(record["use_case"]["title"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title} – report</title><link rel="icon" href="data:,"><style>{page_styles()}</style></head>'
        f"<body>{body}{_scripts(record)}</body></html>\n"
    )


def page_styles() -> str:
    """Return the styles of every page of reports."""
    ours = package_files("experiments.report").joinpath("assets/report.css").read_text(encoding="utf-8")
    return package_files("experiments.dashboard").joinpath("assets/style.css").read_text(encoding="utf-8") + ours


def no_leaf(_: FigureBlock | FeatureTable) -> Element:
    """Refuse what a dashboard draws in its own way: reports hold plain elements only."""
    raise TypeError("a report's page holds plain elements only")


def _head(record: Mapping[str, Any]) -> list[Node]:
    case = record["use_case"]
    lines = [said(f"/answer/{at}", line, "li") for at, line in enumerate(record["answer"])]
    return [
        said("/use_case/title", case["title"], "h1"),
        _verdict_table(record),
        element(
            "section",
            element("p", said("/use_case/question", case["question"]), css="question"),
            element("ol", *lines, css="answer-lines"),
            css="answer",
            aria_label="Question and answer",
        ),
    ]


def _verdict_table(record: Mapping[str, Any]) -> Element:
    summary = record["summary"]
    rows = []
    for at, part in enumerate(record["elements"]):
        path, verdict = f"/elements/{at}", part["verdict"]
        held = [c["strength"] for c in part["claims"] if c["standing"]["counts"] and c["standing"]["word"] == "met"]
        rows.append(
            element(
                "tr",
                element(
                    "th", element("a", part["element"], href=f"#element-{at}"),
                    element("span", part["definition"]["question"], css="asked"), scope="row",
                ),
                element("td", word(verdict["word"], TONES[verdict["word"]])),
                element("td", "yes" if part["needed"] else "no"),
                element("td", ", ".join(dict.fromkeys(held)) or "–"),
                element("td", *_planned(part, path, record["model_check"]["state"]), css="why"),
            )
        )  # fmt: skip
    names = ("Element", "Verdict", "Needed here", "Strength of what holds", "Evidence")
    caption = element(
        "caption", number("/summary/n_needed_met", summary["n_needed_met"], "integer"), " of ",
        number("/summary/n_needed", summary["n_needed"], "integer"),
        " elements that this use needs are met.",
    )  # fmt: skip
    head = element("tr", *(element("th", name, scope="col") for name in names))
    table = element("table", caption, element("thead", head), element("tbody", *rows), css="verdicts")
    return element("div", table, css="table-frame", role="region", tabindex="0", aria_label="Verdicts by element")


def _planned(part: Mapping[str, Any], path: str, state: str) -> list[Node]:
    """Return how many of an element's tests hold, or why none was counted."""
    if state == "at chance" or not part["n_tests"]:
        reasons = part["verdict"]["reasons"]
        return [said(f"{path}/verdict/reasons/0", reasons[0])] if reasons else ["–"]
    held, planned = (number(f"{path}/{key}", part[key], "integer") for key in ("n_held", "n_tests"))
    return [held, " of ", planned, " planned tests hold"]


def _model_check(check: Mapping[str, Any], units: str) -> list[Node]:
    path = "/model_check"
    ood = check["out_of_distribution"]
    facts = [
        (check["metric"], number(f"{path}/value", check["value"])),
        (f"95 % interval over {units}", interval(check, path)),
        ("chance", number(f"{path}/chance", check["chance"])),
        ("images", number(f"{path}/n_images", check["n_images"], "integer")),
        (units, number(f"{path}/n_groups", check["n_groups"], "integer")),
        ("calibration error", number(f"{path}/calibration_error", check["calibration_error"])),
        ("Brier score", number(f"{path}/brier", check["brier"])),
        ("Brier score of the observed frequency", number(f"{path}/brier_reference", check["brier_reference"])),
    ]
    if ood is not None:
        facts.append(
            (
                "images outside what it knows",
                number(f"{path}/out_of_distribution/share_outside", ood["share_outside"], "percent"),
            )
        )
    shown: list[Node] = [
        element("h2", "First: does the model do its task?"),
        element(
            "p",
            word(check["state"], TONES[check["state"]]),
            " ",
            said(f"{path}/task", check["task"]),
            css="section-verdict",
        ),
        *listed(f"{path}/reasons", check["reasons"], "reasons"),
        facts_list(facts),
    ]
    if check["note"] and not any(check["note"] in reason for reason in check["reasons"]):
        shown.append(element("p", said(f"{path}/note", check["note"]), css="text muted"))
    if ood is not None and ood["detail"]:
        shown.append(element("p", said(f"{path}/out_of_distribution/detail", ood["detail"]), css="text muted"))
    return [*shown, *(_claim(claim, f"{path}/claims/{at}", units) for at, claim in enumerate(check["claims"]))]


def _element(part: Mapping[str, Any], path: str, units: str) -> list[Node]:
    verdict, definition = part["verdict"], part["definition"]
    at = path.rsplit("/", 1)[1]
    shown: list[Node] = [
        element("h2", part["element"][:1].upper() + part["element"][1:], id=f"element-{at}"),
        element(
            "p", word(verdict["word"], TONES[verdict["word"]]),
            element("span", "needed for this use" if part["needed"] else "not needed for this use", css="stamp"),
            css="section-verdict",
        ),
        *listed(f"{path}/verdict/reasons", verdict["reasons"], "reasons"),
    ]  # fmt: skip
    for i, seen in enumerate(verdict["smallest_visible"]):
        where = f"{path}/verdict/smallest_visible/{i}"
        shown.append(
            element(
                "p", said(f"{where}/test", seen["test"]), ": the smallest value that this study would have told from its criterion is ",
                number(f"{where}/value", seen["value"]), f" {seen['unit']}.", css="text caution",
            )
        )  # fmt: skip
    shown += [_claim(claim, f"{path}/claims/{i}", units) for i, claim in enumerate(part["claims"])]
    for i, figure in enumerate(part["figures"]):
        shown += [
            said(f"{path}/figures/{i}/heading", figure["heading"], "h3"),
            element("p", said(f"{path}/figures/{i}/text", figure["text"]), css="text muted"),
            element(
                "div",
                css="plot",
                id=f"figure-{at}-{i}",
                role="img",
                aria_label=f"{figure['heading']}. {figure['text']}",
            ),
        ]
    if part["limits"]:
        shown += [element("h3", "Limits"), *listed(f"{path}/limits", part["limits"], "limits")]
    return [
        *shown,
        element("p", element("strong", "In the paper, as we read it: "), definition["paper"], css="definition"),
        element(
            "p",
            element("strong", "This toolkit's own operational definition: "),
            definition["operational"],
            css="definition",
        ),
    ]


def _claim(claim: Mapping[str, Any], path: str, units: str) -> Element:
    standing = claim.get("standing") or {"word": claim["verdict"], "reasons": claim["reasons"], "counts": True}
    where = f"{path}/standing/reasons" if "standing" in claim else f"{path}/reasons"
    tone = TONES[standing["word"]]
    parts: list[Node] = [
        element(
            "p",
            word(standing["word"], tone),
            " ",
            element("span", claim["strength"], css="stamp"),
            *_uncounted(standing),
        ),
        element("p", said(f"{path}/statement", claim["statement"]), css="statement"),
    ]
    plot = interval_plot(claim, path)
    parts += [plot] if plot else []
    facts: list[tuple[str, Node]] = [
        (claim["unit"] or "value", number(f"{path}/value", claim["value"])),
        (f"95 % interval over {units}", interval(claim, path)),
    ]
    if claim["p_value"] is not None:
        facts.append(("corrected p", number(f"{path}/p_value", claim["p_value"], "p")))
    criterion = element(
        "p", element("strong", "Criterion: "), said(f"{path}/criterion", claim["criterion"]), css="text muted"
    )
    parts += [facts_list(facts), criterion]
    parts += listed(where, standing["reasons"], "reasons")
    rows = [_control(control, f"{path}/controls/{at}") for at, control in enumerate(claim["controls"])]
    if rows:
        parts += [element("p", "Controls", css="label"), element("ul", *rows, css="controls")]
    return element("section", *parts, css=f"card claim {tone}", aria_label=f"Claim, {standing['word']}")


def _uncounted(standing: Mapping[str, Any]) -> list[Node]:
    return [] if standing["counts"] else [" ", element("span", "not in the plan, does not count", css="stamp caution")]


def _control(control: Mapping[str, Any], path: str) -> Element:
    text: list[Node] = [word(*PASSED[control["passed"]]), " ", said(f"{path}/name", control["name"])]
    if control["value"] is not None:
        text.append(": ")
        if control.get("measure"):
            text += [said(f"{path}/measure", control["measure"]), " "]
        text.append(number(f"{path}/value", control["value"]))
    bound = control.get("bound")
    if bound:
        text += [f" (must be {bound['side']} ", number(f"{path}/bound/threshold", bound["threshold"]), ")"]
    if control["detail"]:
        text += [". ", said(f"{path}/detail", control["detail"], css="detail")]
    return element("li", *text)


def _plan(plan: Mapping[str, Any]) -> list[Node]:
    facts: list[tuple[str, Node]] = [
        ("hash of the plan", said("/plan/hash", plan["hash"], css="hash")),
        ("registered", said("/plan/registered", plan["registered"] or "no: no plan was written before the run")),
        ("confirmation patients opened", said("/plan/opened", plan["opened"] or "–")),
    ]
    rows = []
    for at, test in enumerate(plan["tests"]):
        cells = [said(f"/plan/tests/{at}/{key}", test[key]) for key in ("element", "method", "criterion")]
        controls = element("ul", *items(f"/plan/tests/{at}/controls", test["controls"]), css="limits")
        rows.append(
            element(
                "tr",
                element("th", said(f"/plan/tests/{at}/name", test["name"]), scope="row"),
                *(element("td", c) for c in cells),
                element("td", controls),
            )
        )
    head = element(
        "tr", *(element("th", name, scope="col") for name in ("Test", "Element", "Method", "Criterion", "Controls"))
    )
    table = element(
        "table",
        element("caption", "What was to be tested, and how it was to be judged"),
        element("thead", head),
        element("tbody", *rows),
        css="table",
    )
    shown: list[Node] = [element("h2", "The plan"), facts_list(facts)]
    if plan["note"]:
        shown.append(element("p", said("/plan/note", plan["note"]), css="text"))
    if plan["deviations"]:
        shown += [
            element("h3", "Deviations from the plan"),
            *listed("/plan/deviations", plan["deviations"], "reasons"),
        ]
    return [
        *shown,
        element("div", table, css="table-frame", role="region", tabindex="0", aria_label="The plan's tests"),
    ]


def _last(record: Mapping[str, Any]) -> list[Node]:
    case = record["use_case"]
    use = [
        (key.replace("_", " "), said(f"/use_case/{key}", case[key])) for key in ("task", "intended_user", "decision")
    ]
    legal = [
        (f"licence of the {key}", said(f"/use_case/licences/{key}", text)) for key, text in case["licences"].items()
    ]
    shown: list[Node] = [
        element("h2", "Use and licences"),
        *(element("p", element("strong", f"{name}: "), text, css="text") for name, text in [*use, *legal]),
    ]
    if record["limits"]:
        shown += [element("h2", "Limits of the study"), *listed("/limits", record["limits"], "limits")]
    if record["unbacked"]:
        paths = [
            element(
                "li",
                said(f"/unbacked/{at}/path", seen["path"]),
                ": ",
                *joined(seen["numerals"], f"/unbacked/{at}/numerals"),
            )
            for at, seen in enumerate(record["unbacked"])
        ]
        about = "Sentences of this report, by their place in its JSON, with numbers that stand there in words only."
        shown += [
            element("h2", "Numbers in words only"),
            element("p", about, css="text muted"),
            element("ul", *paths, css="limits"),
        ]
    made: list[tuple[str, Node]] = []
    for key, value in record["provenance"].items():
        at = f"/provenance/{pointer(key)}"
        if isinstance(value, Mapping):
            made += [(str(k), said(f"{at}/{pointer(k)}", str(v))) for k, v in value.items()]
        else:
            made.append((str(key), said(at, str(value), css="hash")))
    return [
        *shown,
        element("h2", "How it was made"),
        facts_list(made),
        element("p", "The five elements are those of ", said("/citation", record["citation"]), css="text muted"),
    ]


def _scripts(record: Mapping[str, Any]) -> str:
    """Return Plotly and the figures, after all text; nothing where there are none."""
    figures = [
        (f"figure-{e}-{f}", figure["figure"])
        for e, part in enumerate(record["elements"])
        for f, figure in enumerate(part["figures"])
    ]
    if not figures:
        return ""
    from plotly.offline import get_plotlyjs

    # a figure's strings may hold markup: inside a script only "<" could end it
    calls = "".join(
        f"draw({json.dumps(name)}, {json.dumps(figure).replace('<', chr(92) + 'u003c')});" for name, figure in figures
    )
    draw = (
        "function draw(id, figure) { Plotly.newPlot(id, figure.data, figure.layout, {responsive: true, displayModeBar: false})"
        ".then(function () { document.getElementById(id).dataset.drawn = 'yes'; }); }"
    )
    return f"<script>{get_plotlyjs()}</script><script>{draw}{calls}</script>"
