"""How the finding moves with the preparation of the images, and whether it is seen in another head."""

from __future__ import annotations

from experiments.dashboard.charts import shares
from experiments.dashboard.formatting import format_value
from experiments.dashboard.page import Block, Cell, Column, Facts, FigureBlock, Heading, Page, Table, Text
from experiments.dashboard.pages.parts import not_run
from experiments.dashboard.record import Record
from experiments.dashboard.run_view import RunView

KNOWN = {"name", "present", "n_positive", "n_images", "text"}
EXTRA = {
    "same_answer": Column(
        "same answer", form="percent", explanation="Share of images whose most probable class stays."
    ),
    "mean_probability": Column("mean probability", form="number"),
}


def build(view: RunView) -> Page:
    """Build the page of preparation and replication."""
    return Page(
        "preparation",
        "Preparation and replication",
        (
            Heading("How the answer moves with preparation"),
            *_preparation(view),
            Heading("In another head"),
            *_replication(view),
        ),
    )


def _preparation(view: RunView) -> list[Block]:
    rows: list[tuple[Cell, ...]] = []
    names: list[str] = []
    values: list[float | None] = []
    records = view["preparation"].entries()
    for record in records:
        n, of = record["n_positive"].number(), record["n_images"].number()
        share = n / of if n is not None and of else None
        names.append(record["name"].text("unnamed"))
        values.append(share)
        rows.append((names[-1], n, of, share, record["text"].text()))
    if not rows:
        return [not_run("The comparison of preparations")]
    threshold = view["target"]["threshold"].number()
    label = f"share of images called {view.target}" + ("" if threshold is None else f" above {threshold:g}")
    said = "; ".join(f"{name} {format_value(value, 'percent')}" for name, value in zip(names, values, strict=True))
    figure = FigureBlock(shares(names, values, label), f"The {label}.", f"The {label}: {said}.", 110 + 38 * len(rows))
    extra = [(key, column) for key, column in EXTRA.items() if any(r[key].number() is not None for r in records)]
    rows = [
        (*row[:4], *(record[key].number() for key, _ in extra), row[4])
        for row, record in zip(rows, records, strict=True)
    ]
    columns = (
        Column("preparation"),
        Column("called so", form="integer"),
        Column("of", form="integer"),
        Column("share", form="percent"),
        *(column for _, column in extra),
        Column("in words"),
    )
    return [figure, Table(f"Images called {view.target} under each preparation", columns, tuple(rows))]


def _replication(view: RunView) -> list[Block]:
    record = view["replication"]
    if not record:
        return [not_run("The replication")]
    name = record["name"].text("the second head")
    if record["present"].flag() is False:
        return [
            Text((record["text"].text(f"{name} is not installed here, so the replication was not run."),), "caution")
        ]
    items = [("head", name)]
    n, of = record["n_positive"].integer(), record["n_images"].integer()
    if n is not None and of is not None:
        items.append((f"called {view.target}", f"{n} of {of}"))
    skull, whole = record["with_skull"]["n_positive"].integer(), record["with_skull"]["n_images"].integer()
    if skull is not None and whole is not None:
        items.append((f"called {view.target}, with skull", f"{skull} of {whole}"))
    for key, value in record.items():
        number = value.number()
        if key not in KNOWN and (number is not None or value.text()):
            items.append((key.replace("_", " "), value.text() if number is None else format_value(number)))
    words = record["text"].text()
    return [Facts(tuple(items)), *([Text((words,))] if words else []), *_sets(record["sets"])]


def _sets(sets: Record) -> list[Block]:
    """Return what the chosen sets did on the second head."""
    rows = tuple((s["chosen_on"].text("–"), s["ablation"].text("–"), s["flipped"].number()) for s in sets.entries())
    columns = (Column("chosen on"), Column("ablation"), Column("flipped", form="percent"))
    return [Table("The chosen sets on the second head", columns, rows)] if rows else []
