"""One direction of the set experiment: features chosen here, tested there, under every ablation, beside random sets."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.dashboard.ablation_charts import Curve, before_after, set_size_curves
from experiments.dashboard.formatting import ABSENT, Form, counted, format_value
from experiments.dashboard.page import (
    Block,
    Cell,
    Column,
    Details,
    FigureBlock,
    Heading,
    Link,
    Links,
    Side,
    Table,
    Text,
)
from experiments.dashboard.pages.parts import feature_cell, not_run
from experiments.dashboard.record import Record
from experiments.dashboard.run_view import RunView

MOST_LINKS = 60
MORE: dict[str, tuple[str, Form]] = {
    "notumor_kept": ("{reference} answers kept", "percent"),
    "off_data": ("distance from usual tokens", "number"),
    "p_flipped": ("p, flipped", "p"),
    "p_delta": ("p, Δ", "p"),
    "control_scale": ("scaling of random sets", "number"),
    "control_distinct": ("different random sets", "integer"),
}
"""Further quantities over sizes that a study may record, shown when asked for."""


@dataclass(frozen=True)
class Ablation:
    """One ablation's numbers over the set's size."""

    name: str
    record: Record

    @property
    def sizes(self) -> list[float | None]:
        """The sizes that were tried."""
        return self.record["sizes"].numbers()

    def nearest(self, size: float | None) -> int:
        """Return where the size nearest to the tested one stands."""
        known = [(abs(s - size), i) for i, s in enumerate(self.sizes) if s is not None and size is not None]
        return min(known)[1] if known else len(self.sizes) - 1

    def curve(self, key: str) -> Curve:
        """Return a quantity with its random sets."""
        control = self.record[f"control_{key}"]
        low, median, high = (control[name].numbers() for name in ("low", "median", "high"))
        return Curve(self.name, self.sizes, self.record[key].numbers(), median, low, high)

    def number(self, key: str, at: int) -> float | None:
        """Return a quantity at one size; of one with a band, its median."""
        record = self.record[key]
        return record[at].number() if record.entries() else record["median"][at].number()

    def control(self, key: str, at: int, form: Form) -> str:
        """Return the random sets' median and band at one size, in words."""
        control = self.record[f"control_{key}"]
        median, low, high = (format_value(control[name][at].number(), form) for name in ("median", "low", "high"))
        return "not run" if median == low == high == ABSENT else f"{median} ({low} to {high})"

    def glance(self, size: float | None) -> str:
        """Return the share flipped at the tested size, with the random sets' median."""
        at = self.nearest(size)
        chosen = format_value(self.number("flipped", at), "percent")
        random = self.number("control_flipped", at)
        return chosen if random is None else f"{chosen} ({format_value(random, 'percent')})"

    def row(self, at: int) -> tuple[Cell, ...]:
        """Return the numbers at one size, the random sets beside them."""
        return (
            self.name,
            self.sizes[at],
            self.number("flipped", at),
            self.control("flipped", at, "percent"),
            self.number("delta", at),
            self.control("delta", at, "signed"),
            self.number("p", at),
            self.number("notumor_delta", at),
            self.number("norm_removed", at),
            self.number("control_norm", at),
        )


def ablations_of(direction: Record) -> list[Ablation]:
    """Return a direction's ablations that have sizes."""
    curves = direction["curves"].entries()
    return [Ablation(c["ablation"].text("unnamed"), c) for c in curves if c["sizes"].entries()]


def tested_size(direction: Record) -> float | None:
    """Return the size of the set that is shown in detail."""
    return direction["size"].number()


def direction_blocks(view: RunView, direction: Record, features: str, unnamed: str) -> list[Block]:
    """Return a direction's section.

    Parameters
    ----------
    view
        The run.
    direction
        The direction.
    features
        What the features are.
    unnamed
        What to call a direction without a name.

    """
    name = f"{direction['name'].text(unnamed)}, {features}"
    size = tested_size(direction)
    found = ablations_of(direction)
    blocks: list[Block] = [Heading(name), *_chosen(view, direction, name)]
    if not found:
        return [*blocks, not_run("The curve over set sizes")]
    flipped = [a.curve("flipped") for a in found if a.record["flipped"].entries()]
    delta = [a.curve("delta") for a in found if a.record["delta"].entries()]
    rows = tuple(a.row(a.nearest(size)) for a in found)
    if flipped or delta:
        said = "; ".join(
            f"{row[0]}: {format_value(row[2], 'percent')} flipped at {row[1]}, random {row[3]}" for row in rows
        )
        caption = f"{name}: the chosen set and random sets over the number of features replaced"
        caption += f"; dashed: the {format_value(size, 'integer')} tested." if size is not None else "."
        blocks.append(FigureBlock(set_size_curves(flipped, delta, size), caption, f"{caption} {said}.", 470))
    blocks.append(
        Table(f"{name}: numbers at the tested size (random sets: median and 95 % band)", _columns(view), rows)
    )
    every = tuple(a.row(i) for a in found for i in range(len(a.sizes)))
    tables = [Table(f"{name}: every size", _columns(view), every), *_more(view, found, name)]
    blocks.append(Details("Numbers at every size", tuple(tables)))
    return [*blocks, *_before_after(view, direction, name)]


def _columns(view: RunView) -> tuple[Column, ...]:
    turned = (
        f"Share of the changed images whose answer turned: away from {view.target}, or, where {view.reference} images "
    )
    return (
        Column("ablation"),
        Column("size", form="integer"),
        Column("flipped", form="percent", explanation=f"{turned}are changed, to it."),
        Column("random sets, flipped", form="number"),
        Column("Δ logit diff.", form="signed", explanation=f"Mean change of {view.target} minus {view.reference}."),
        Column("random sets, Δ", form="number"),
        Column("p", form="p"),
        Column(f"Δ on {view.reference}", form="signed", explanation="The same change where nothing should move."),
        Column("norm removed", form="number"),
        Column("norm, random", form="number"),
    )


def _more(view: RunView, found: list[Ablation], name: str) -> list[Block]:
    keys = [key for key in MORE if any(a.record[key].entries() for a in found)]
    if not keys:
        return []
    heads = [Column(MORE[key][0].format(reference=view.reference), form=MORE[key][1]) for key in keys]
    rows = tuple((a.name, a.sizes[i], *(a.number(key, i) for key in keys)) for a in found for i in range(len(a.sizes)))
    return [Table(f"{name}: further numbers", (Column("ablation"), Column("size", form="integer"), *heads), rows)]


def _chosen(view: RunView, direction: Record, name: str) -> list[Block]:
    chosen, kind = direction["chosen"].integers(), direction["kind"].text("sae")
    chosen_on, tested_on = direction["chosen_on"].text("one group"), direction["tested_on"].text("the other")
    text = f"Chosen on “{chosen_on}”, tested on “{tested_on}”."
    if not chosen:
        return [Text((text,))]
    alive = direction["alive"].integer()
    of = "" if alive is None else f" of {alive:,} that change anything"
    agreement = direction["rank_agreement"].number()
    ranks = "" if agreement is None else (
        f" Ranking by zeroing agrees with ranking by reference values to ρ = {format_value(agreement, 'signed')}."
    )  # fmt: skip
    blocks: list[Block] = [Text((f"{text} {counted(len(chosen), 'feature')}{of}, strongest first.{ranks}",))]
    links = tuple(c for number in chosen if isinstance(c := feature_cell(view, number), Link)) if kind == "sae" else ()
    if links:
        return [*blocks, Links(f"Chosen features, {name}", links[:MOST_LINKS])]
    shown = ", ".join(str(number) for number in chosen[:MOST_LINKS])
    return [*blocks, Text((f"Numbers: {shown}{' …' if len(chosen) > MOST_LINKS else ''}.",), "muted")]


def _before_after(view: RunView, direction: Record, name: str) -> list[Block]:
    figures: list[Block] = []
    for record in direction["before_after"].entries():
        before, after = record["before"].numbers(), record["after"].numbers()
        pairs = [(b, a) for b, a in zip(before, after, strict=False) if b is not None and a is not None]
        if not pairs:
            continue
        names = [view.image_name(i) for i in record["images"].integers()]
        crossed = sum((b < 0.5) != (a < 0.5) for b, a in pairs)
        caption = f"Ablation {record['ablation'].text('unnamed')}: {crossed} of {len(pairs)} cross 0.5."
        alt = f"{name}, probability of {view.target} before and after. {caption}"
        threshold = view["target"]["threshold"].number()
        figures.append(FigureBlock(before_after(before, after, names, view.target, threshold), caption, alt, 300))
    if not figures:
        return [not_run("The answers before and after")]
    return [Heading(f"{name}: each image before and after", 3), Side(tuple(figures), narrowest_px=225)]
