"""The first page: the question, the answer, the claims, and what the model says of each image."""

from __future__ import annotations

from itertools import pairwise

from experiments.dashboard.charts import probabilities
from experiments.dashboard.formatting import counted, format_value, with_unit
from experiments.dashboard.page import (
    Answer,
    Block,
    ClaimCard,
    ControlRow,
    Facts,
    FigureBlock,
    Heading,
    Link,
    Links,
    Page,
    Side,
    Text,
    Thumbnail,
    Thumbnails,
    Verdict,
)
from experiments.dashboard.pages.parts import not_run
from experiments.dashboard.record import Record
from experiments.dashboard.run_view import RunView

CLASSES_DRAWN = 6
PICTURES_SHOWN = 120


def build(view: RunView) -> Page:
    """Build the overview."""
    return Page(
        "overview",
        view.title,
        (
            *_answer(view),
            *_key_figures(view),
            Heading("What is claimed, and whether it holds"),
            *claims(view),
            Heading("What the model answers"),
            *_probabilities(view),
            Heading("The images"),
            *_thumbnails(view),
            Links(
                "Read on",
                (Link("What happens when the features are removed", "ablation"), Link("All features", "features")),
            ),
        ),
    )


def _answer(view: RunView) -> list[Block]:
    lines = tuple(line for line in view["answer"].texts() if line)
    question = view["question"].text("The run names no question.")
    return [Answer(question, lines)] if lines else [Text((question,)), not_run("The answer")]


def _key_figures(view: RunView) -> list[Block]:
    items = []
    threshold = view["target"]["threshold"].number()
    if view["target"]["positive"].value is not None and view.n_images:
        bound = "" if threshold is None else f" above {threshold:g}"
        items.append((f"images called {view.target}{bound}", f"{len(view.positives)} of {view.n_images:,}"))
    sae = view["sae"]
    if sae:
        size = " × ".join(t for t in (format_value(sae[k].number(), "integer") for k in ("d_in", "width")) if t != "–")
        items.append(("site width × features", size or "–"))
    if view.features:
        survivors = sum(f["best"]["survives"].flag() is True for f in view.features)
        items.append(("features that follow an attribute", f"{survivors} of {len(view.features):,}"))
    word = view["experiment"]["verdict"]["word"].text()
    if word:
        items.append(("ablation experiment", word))
    return [Facts(tuple(items), prominent=True)] if items else []


def claims(view: RunView) -> list[Block]:
    """Return a card per claim, or that there is none."""
    cards = tuple(claim_card(claim) for claim in view["claims"].entries())
    return [Side(cards, narrowest_px=420)] if cards else [not_run("No claim was tested in this run: the experiment")]


def claim_card(claim: Record) -> ClaimCard:
    """Return a claim as a card; a verdict other than *met* is shown as it is, never better."""
    verdict = claim["verdict"].text("not run")
    tone = {"met": "good", "not met": "bad"}.get(verdict, "caution")
    facts = []
    value = claim["value"].number()
    if value is not None:
        facts.append(("value", with_unit(value, claim["unit"].text())))
    interval = claim["interval"].pair()
    if interval:
        facts.append(("95 % interval", f"{format_value(interval[0])} to {format_value(interval[1])}"))
    else:
        facts.append(("95 % interval", claim["interval_note"].text("not estimated")))
    if claim["p_value"].number() is not None:
        facts.append(("p, corrected", format_value(claim["p_value"].number(), "p")))
    if claim["criterion"]:
        facts.append(("criterion", claim["criterion"].text()))
    controls = tuple(
        ControlRow(c["name"].text("unnamed"), c["passed"].flag(), c["detail"].text(), c["value"].number())
        for c in claim["controls"].entries()
    )
    return ClaimCard(
        claim["statement"].text("A claim without words."),
        Verdict(verdict, tone, tuple(r for r in claim["reasons"].texts() if r)),  # type: ignore[arg-type]
        claim["strength"].text("strength not recorded"),
        tuple(facts),
        controls,
    )


def drawn_classes(view: RunView, rows: list[list[float | None]]) -> list[tuple[int, str]]:
    """Return the classes worth a line: the target, the reference, then those with the highest peaks, in output order."""
    width = max((len(row) for row in rows), default=0)
    peaks = [max((row[i] or 0.0 for row in rows if i < len(row)), default=0.0) for i in range(width)]
    first = [view.class_names.index(name) for name in (view.target, view.reference) if name in view.class_names]
    rest = sorted(set(range(width)) - set(first), key=lambda i: -peaks[i])
    return [(i, view.class_name(i)) for i in sorted((first + rest)[:CLASSES_DRAWN]) if i < width]


def _probabilities(view: RunView) -> list[Block]:
    rows = [row.numbers() for row in view["images"]["probabilities"].entries()]
    if not rows:
        return [not_run("The model's answers")]
    known = [p for p in view.positions if p is not None]
    # of several volumes several images lie at one place, and a line would run to and fro between patients
    ordered = bool(known) and len(set(known)) == len(known)
    drawn = drawn_classes(view, rows)
    # images without a place are sorted, since a line through any other order is a scribble
    sorting = view.target_index if view.target_index is not None else drawn[0][0] if drawn else 0
    shown = (
        list(range(len(rows)))
        if ordered
        else sorted(range(len(rows)), key=lambda i: ((rows[i][sorting : sorting + 1] or [None])[0] or 0.0, i))
    )
    positions: list[float | None] = list(view.positions) if ordered else [0.0] * len(rows)
    if not ordered:
        for rank, i in enumerate(shown):
            positions[i] = float(rank + 1)
    label = view.position_label if ordered else f"images, sorted by the answer for {view.class_name(sorting)}"
    spans = [(band.name, *span) for band in view.bands if ordered and (span := _span(positions, band.images))]
    threshold = view["target"]["threshold"].number()
    figure = probabilities(
        [positions[i] for i in shown],
        [rows[i] for i in shown],
        drawn,
        label,
        spans,
        threshold,
        [view.image_name(i) for i in shown],
    )
    alt = f"Probability of each class along {label}."
    if threshold is not None and view.target_index is not None:
        alt += f" {view.target} is above {threshold:g} on {len(view.positives)} of {len(rows)} images."
    for name, start, end in spans:
        alt += f" Band {name}: {format_value(start)} to {format_value(end)}."
    caption = f"Probability of each class for {counted(len(rows), 'image')}."
    if spans:
        caption += " Shaded: the bands that the experiment chooses and tests on."
    note = view["target"]["note"].text()
    return [FigureBlock(figure, caption, alt, height_px=380), *([Text((note,), "muted")] if note else [])]


def _span(positions: list[float | None], images: tuple[int, ...]) -> tuple[float, float] | None:
    """Return where a band begins and ends, half a step beyond its outermost images."""
    at = [p for i in images if i < len(positions) and (p := positions[i]) is not None]
    if not at:
        return None
    known = sorted({p for p in positions if p is not None})
    half = min((b - a for a, b in pairwise(known)), default=1.0) / 2
    return min(at) - half, max(at) + half


def _thumbnails(view: RunView) -> list[Block]:
    if not view.pictures:
        return [not_run("No pictures were kept: saving them")]
    band_of = {i: band.name for band in view.bands for i in band.images}
    positive = set(view.positives)
    items = []
    for i in range(min(view.n_images, PICTURES_SHOWN)):
        probability = view.probability(i, view.target_index)
        place = view.positions[i] if i < len(view.positions) else None
        name = view.image_name(i)
        answer = "" if probability is None else f", p({view.target}) {probability:.2f}"
        below = [
            name if place is None else format_value(place),
            *([] if probability is None else [f"{probability:.2f}"]),
        ]
        mark = (band_of.get(i) or view.target) if i in positive else ""
        items.append(Thumbnail(view.picture(i), f"{name}{answer}", " · ".join(below), mark))
    ordered = any(p is not None for p in view.positions)
    text = f"Below each picture: {view.position_label if ordered else 'its name'} and p({view.target}). "
    text += f"Framed: the model answers {view.target} above the threshold; the word names the band."
    if view.n_images > PICTURES_SHOWN:
        text += f" The first {PICTURES_SHOWN} of {view.n_images:,} are shown."
    return [Text((text,), "muted"), Thumbnails(tuple(items))]
