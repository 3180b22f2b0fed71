"""What the site encodes: linear probes beside their controls, and the matrix of attributes and features."""

from __future__ import annotations

from experiments.dashboard.charts import matrix, predicted_against_true
from experiments.dashboard.formatting import counted, format_value, label_with_unit, with_unit
from experiments.dashboard.page import (
    Block,
    Cell,
    Column,
    Details,
    FigureBlock,
    Heading,
    Page,
    Side,
    Table,
    Text,
)
from experiments.dashboard.pages.parts import feature_cell, not_run
from experiments.dashboard.record import Record
from experiments.dashboard.run_view import RunView

MATRIX_COLUMNS = 60


def build(view: RunView) -> Page:
    """Build the page of attributes."""
    return Page(
        "attributes",
        "Attributes",
        (
            Heading("What was measured"),
            *_measured(view),
            Heading("What can be read from the site"),
            *_probes(view),
            Heading("Which features follow which attribute"),
            *_matrix(view),
        ),
    )


def _measured(view: RunView) -> list[Block]:
    rows: list[tuple[Cell, ...]] = []
    for attribute in view["images"]["attributes"].entries():
        values = [v for v in attribute["values"].numbers() if v is not None]
        low, high = (min(values), max(values)) if values else (None, None)
        rows.append(
            (
                label_with_unit(view.attribute_name(attribute["name"]), attribute["unit"].text()),
                low,
                high,
                len(values),
                _how(attribute),
            )
        )
    if not rows:
        return [not_run("The measurement of attributes")]
    columns = (
        Column("attribute"),
        Column("lowest", form="number"),
        Column("highest", form="number"),
        Column("images", form="integer"),
        Column("how"),
    )
    return [Table("Physical attributes of the images", columns, tuple(rows))]


def _how(attribute: Record) -> str:
    measured = attribute["measured"]
    flag = measured.flag()
    return measured.text("not recorded") if flag is None else ("measured" if flag else "given")


def _probes(view: RunView) -> list[Block]:
    probes = view["probes"].entries()
    if not probes:
        return [not_run("The linear probe")]
    rows: list[tuple[Cell, ...]] = []
    figures: list[Block] = []
    controls: list[tuple[Cell, ...]] = []
    for probe in probes:
        name, unit = view.attribute_name(probe["attribute"]), probe["unit"].text()
        interval = probe["interval"].pair()
        shown = (
            f"{format_value(interval[0])} to {format_value(interval[1])}"
            if interval
            else probe["interval_note"].text("not estimated")
        )
        score = probe["score"].number()
        rows.append(
            (
                label_with_unit(name, unit),
                probe["score_name"].text("score"),
                score,
                shown,
                with_unit(probe["mae"].number(), unit),
                probe["p"].number(),
            )
        )
        for control in probe["controls"].entries():
            value = control["score"].number() if control["value"].number() is None else control["value"].number()
            controls.append(
                (
                    name,
                    control["name"].text("unnamed"),
                    value,
                    _passed(control["passed"].flag()),
                    control["detail"].text(),
                )
            )
        true, predicted = probe["true"].numbers(), probe["predicted"].numbers()
        if true and predicted:
            title = f"{name}: {probe['score_name'].text('score')} {format_value(score)}"
            alt = f"Held-out predictions of {name} against the truth for {counted(min(len(true), len(predicted)), 'image')}."
            figures.append(FigureBlock(predicted_against_true(true, predicted, name, unit), title, alt, height_px=300))
    columns = (
        Column("attribute"),
        Column("score"),
        Column("value", form="number"),
        Column("95 % interval"),
        Column("mean absolute error"),
        Column("p", form="p"),
    )
    blocks: list[Block] = [Table("Linear probes on held-out images", columns, tuple(rows))]
    if controls:
        heads = (
            Column("attribute"),
            Column("control"),
            Column("value", form="number"),
            Column("passed"),
            Column("in words"),
        )
        blocks.append(Table("Controls of the probes", heads, tuple(controls)))
    if figures:
        blocks.append(Side(tuple(figures), narrowest_px=300))
    return blocks


def _matrix(view: RunView) -> list[Block]:
    record = view["matrix"]
    rho, names = record["rho"].grid(), [view.attribute_name(a) for a in record["attributes"].entries()]
    features = [f.text("?") for f in record["features"].entries()]
    if rho and len(rho) == len(features) and len(rho[0]) == len(names):  # written feature by feature
        rho = [list(row) for row in zip(*rho, strict=True)]
    if not rho or len(rho) != len(names) or len(rho[0]) != len(features):
        return [not_run("The attribute matrix")]
    strongest = sorted(range(len(features)), key=lambda j: -max(abs(row[j] or 0.0) for row in rho))[:MATRIX_COLUMNS]
    kept = sorted(strongest)
    shown = [[row[j] for j in kept] for row in rho]
    where = " on confirmation images" if record["rho_discovery"] else ""
    caption = f"Rank correlation{where} of {counted(len(names), 'attribute')} with {counted(len(features), 'feature')}"
    caption += f"; the {MATRIX_COLUMNS} strongest columns are drawn." if len(kept) < len(features) else "."
    peaks = [
        f"{name} {format_value(max((v for v in row if v is not None), key=abs, default=None), 'signed')}"
        for name, row in zip(names, rho, strict=True)
    ]
    figure = matrix(shown, names, [features[j] for j in kept])
    blocks: list[Block] = [
        FigureBlock(figure, caption, f"{caption} Strongest per attribute: {'; '.join(peaks)}.", 120 + 34 * len(names))
    ]
    blocks += matrix_tests(view, record["tests"])
    return blocks


def matrix_tests(view: RunView, tests: Record) -> list[Block]:
    """Return how the matrix was tested: in words, every finding, the controls, and whatever else was recorded."""
    if not tests:
        return [Text(("The matrix's tests were not run.",), "muted")]
    blocks: list[Block] = []
    if tests["text"]:
        words = tests["text"].text()
        blocks.append(Text((words[:1].upper() + words[1:],)))
    blocks += _findings(view, tests["findings"])
    controls = tuple(
        (c["name"].text("unnamed"), c["n_findings"].number(), _passed(c["passed"].flag()), c["detail"].text())
        for c in tests["controls"].entries()
    )
    if controls:
        heads = (Column("control"), Column("findings", form="number"), Column("passed"), Column("in words"))
        blocks.append(Table("Controls of the matrix", heads, controls))
    known = {"text", "findings", "controls", "best"}
    rest = tuple((key.replace("_", " "), _plain(value)) for key, value in tests.items() if key not in known)
    if rest:
        table = Table("What was recorded of the matrix's tests", (Column("entry"), Column("value")), rest)
        blocks.append(Details("How the matrix was tested", (table,)))
    return blocks


def _findings(view: RunView, findings: Record) -> list[Block]:
    rows = tuple(
        (
            feature_cell(view, f["feature"].integer()),
            label_with_unit(view.attribute_name(f["attribute"]), f["unit"].text()),
            f["rho_discovery"].number(),
            f["rho_confirmation"].number(),
            f["p_corrected"].number(),
        )
        for f in findings.entries()
    )
    if not rows:
        return []
    heads = (
        Column("feature"),
        Column("attribute"),
        Column("ρ discovery", form="signed"),
        Column("ρ confirmation", form="signed"),
        Column("p", form="p"),
    )
    return [Table("Features that follow an attribute after correction", heads, rows)]


def _passed(flag: bool | None) -> str | None:
    return None if flag is None else ("passed" if flag else "failed")


def _plain(value: Record) -> str:
    if value.entries():
        shown = [_plain(entry) for entry in value.entries()[:12]]
        return ", ".join(shown) + (" …" if len(value.entries()) > 12 else "")
    if value.items():
        return "; ".join(f"{key.replace('_', ' ')} {_plain(inner)}" for key, inner in value.items())
    number = value.number()
    if number is not None:
        return format_value(number)
    return format_value(value.flag()) if value.flag() is not None else value.text("–")
