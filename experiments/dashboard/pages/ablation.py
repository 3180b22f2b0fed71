"""What happens when the features are removed: chosen on one group of images, tested on another, beside random sets."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.dashboard.ablation_charts import Curve, before_after, set_size_curves
from experiments.dashboard.formatting import counted, format_value
from experiments.dashboard.page import (
    Block,
    Cell,
    Column,
    Details,
    FigureBlock,
    Heading,
    Link,
    Links,
    Page,
    Side,
    Table,
    Text,
    Tone,
    Verdict,
)
from experiments.dashboard.pages.parts import feature_cell, not_run
from experiments.dashboard.record import Record
from experiments.dashboard.run_view import RunView

TITLE = "What happens when the features are removed"
MEANING = {
    "zero": "set to zero, which the model has never seen and which moves other images too",
    "mean": "set to their mean over {reference} images",
    "resample": "set to their values on a {reference} image drawn at random",
    "towards": "moved along the direction from {reference} to {target}",
}


def build(view: RunView) -> Page:
    """Build the page of the set experiment."""
    experiment = view["experiment"]
    directions = experiment["directions"].entries()
    if not directions:
        return Page("ablation", TITLE, (*_verdict(experiment), not_run("The set experiment")))
    blocks: list[Block] = [*_verdict(experiment), *_how_to_read(view, experiment)]
    for i, direction in enumerate(directions):
        blocks += _direction(view, direction, i)
    return Page("ablation", TITLE, tuple(blocks))


def _verdict(experiment: Record) -> list[Block]:
    word = experiment["verdict"]["word"].text("not run")
    tone: Tone = {"drives": "good", "no small set does": "bad"}.get(word, "caution")  # type: ignore[assignment]
    return [Verdict(word, tone, tuple(r for r in experiment["verdict"]["reasons"].texts() if r))]


def _how_to_read(view: RunView, experiment: Record) -> list[Block]:
    n = experiment["n_controls"].integer()
    controls = "random sets" if n is None else f"{n:,} random sets"
    used = dict.fromkeys(
        c["ablation"].text() for d in experiment["directions"].entries() for c in d["curves"].entries()
    )
    meanings = [
        f"{name}: {MEANING[name].format(reference=view.reference, target=view.target)}"
        for name in used
        if name in MEANING
    ]
    first = (
        f"Features are chosen on one group of images and tested on the other. The blue line is the chosen set; grey is what "
        f"{controls} of the same size do that remove as much of the activation (median and 95 % band). A set drives the answer "
        f"only if it leaves the band where features are replaced by what {view.reference} images have, not just where they are "
        "set to zero."
    )
    second = f"Ablations: {'; '.join(meanings)}." if meanings else ""
    return [Text((first, second) if second else (first,))]


@dataclass(frozen=True)
class _Ablation:
    """One ablation's numbers over the set's size."""

    name: str
    record: Record

    @property
    def sizes(self) -> list[float | None]:
        return self.record["sizes"].numbers()

    def curve(self, key: str) -> Curve:
        control = self.record[f"control_{key}"]
        return Curve(
            self.name,
            self.sizes,
            self.record[key].numbers(),
            control["median"].numbers(),
            control["low"].numbers(),
            control["high"].numbers(),
        )

    def row(self, at: int) -> tuple[Cell, ...]:
        """Return the numbers at one size, the controls beside them."""
        return (
            self.name,
            self.sizes[at],
            self._at("flipped", at),
            self._control("flipped", at, "percent"),
            self._at("delta", at),
            self._control("delta", at, "signed"),
            self._at("p", at),
            self._at("notumor_delta", at),
            self._at("norm_removed", at),
            self._at("control_norm", at),
        )

    def _at(self, key: str, at: int) -> float | None:
        record = self.record[key]
        return record[at].number() if record.entries() else record["median"][at].number()

    def _control(self, key: str, at: int, form: str) -> str:
        control = self.record[f"control_{key}"]
        median, low, high = (format_value(control[k][at].number(), form) for k in ("median", "low", "high"))  # type: ignore[arg-type]
        return "not run" if median == low == high == "–" else f"{median} ({low} to {high})"


def _columns(view: RunView) -> tuple[Column, ...]:
    return (
        Column("ablation"),
        Column("size", form="integer"),
        Column("flipped", form="percent", explanation=f"Share of tested images no longer called {view.target}."),
        Column("random sets, flipped", form="number"),
        Column(
            "Δ logit difference", form="signed", explanation=f"Mean change of {view.target} minus {view.reference}."
        ),
        Column("random sets, Δ", form="number"),
        Column("p", form="p"),
        Column(f"Δ on {view.reference}", form="signed", explanation="The same change where nothing should move."),
        Column("norm removed", form="number"),
        Column("norm, random", form="number"),
    )


def _direction(view: RunView, direction: Record, index: int) -> list[Block]:
    name = direction["name"].text(f"direction {index + 1}")
    kind = direction["kind"].text()
    size = direction["size"].number()
    ablations = [
        _Ablation(c["ablation"].text("unnamed"), c) for c in direction["curves"].entries() if c["sizes"].entries()
    ]
    kind_words = {"sae": "SAE features", "raw": "raw channels"}.get(kind, kind)
    name = f"{name}, {kind_words}" if kind else name
    blocks: list[Block] = [Heading(name), *_chosen(view, direction, name, kind)]
    if not ablations:
        return [*blocks, not_run("The curve over set sizes")]
    flipped = [a.curve("flipped") for a in ablations if a.record["flipped"].entries()]
    delta = [a.curve("delta") for a in ablations if a.record["delta"].entries()]
    at_size = [a.row(_nearest(a.sizes, size)) for a in ablations]
    if flipped or delta:
        said = "; ".join(
            f"{row[0]}: {format_value(row[2], 'percent')} flipped at {row[1]}, random {row[3]}" for row in at_size
        )
        caption = f"{name}: chosen set and random sets over the number of features replaced"
        caption += f"; dashed: the set of {format_value(size, 'integer')} tested." if size is not None else "."
        blocks.append(FigureBlock(set_size_curves(flipped, delta, size), caption, f"{caption} {said}.", 470))
    blocks.append(
        Table(
            f"{name}: numbers at the tested size (median and 95 % band of the random sets)",
            _columns(view),
            tuple(at_size),
        )
    )
    every = tuple(a.row(i) for a in ablations for i in range(len(a.sizes)))
    blocks.append(Details("Numbers at every size", (Table(f"{name}: every size", _columns(view), every),)))
    blocks += _before_after(view, direction, name)
    return blocks


def _nearest(sizes: list[float | None], size: float | None) -> int:
    known = [i for i, s in enumerate(sizes) if s is not None]
    if size is None or not known:
        return len(sizes) - 1
    return min(known, key=lambda i: abs((sizes[i] or 0.0) - size))


def _chosen(view: RunView, direction: Record, name: str, kind: str) -> list[Block]:
    chosen = direction["chosen"].integers()
    chosen_on, tested_on = direction["chosen_on"].text("one group"), direction["tested_on"].text("the other")
    text = f"Chosen on {chosen_on}, tested on {tested_on}."
    if not chosen:
        return [Text((text,))]
    many = counted(len(chosen), "channel" if kind == "raw" else "feature")
    blocks: list[Block] = [Text((f"{text} {many} chosen, strongest first.",))]
    cells = [feature_cell(view, number) for number in chosen] if kind != "raw" else []
    links = tuple(cell for cell in cells if isinstance(cell, Link))
    if links:
        blocks.append(Links(f"Chosen features, {name}", links[:60]))
    else:
        shown = ", ".join(str(n) for n in chosen[:60])
        blocks.append(
            Text(
                (f"{'Channels' if kind == 'raw' else 'Features'}: {shown}{' …' if len(chosen) > 60 else ''}.",), "muted"
            )
        )
    return blocks


def _before_after(view: RunView, direction: Record, name: str) -> list[Block]:
    figures: list[Block] = []
    for record in direction["before_after"].entries():
        before, after = record["before"].numbers(), record["after"].numbers()
        pairs = [(b, a) for b, a in zip(before, after, strict=False) if b is not None and a is not None]
        if not pairs:
            continue
        images = record["images"].integers()
        names = [view.image_name(i) for i in images]
        ablation = record["ablation"].text("unnamed ablation")
        fallen = sum(a < 0.5 for _, a in pairs)
        caption = f"Ablation {ablation}: {fallen} of {len(pairs)} fall below 0.5."
        alt = f"{name}, probability of {view.target} before and after. {caption}"
        threshold = view["target"]["threshold"].number()
        figures.append(FigureBlock(before_after(before, after, names, view.target, threshold), caption, alt, 300))
    if not figures:
        return [not_run("The answers before and after")]
    return [Heading(f"{name}: each image before and after", 3), Side(tuple(figures), narrowest_px=225)]
