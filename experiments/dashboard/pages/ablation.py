"""What happens when the features are removed: the verdict, all sets at a glance, and the primary features in detail.

Other kinds of features (raw channels, random directions) and other rankings have pages of their own below this one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from experiments.dashboard.page import Block, Cell, Column, Heading, Link, Links, Page, Table, Text, Tone, Verdict
from experiments.dashboard.pages.direction import Ablation, ablations_of, direction_blocks, tested_size
from experiments.dashboard.pages.parts import not_run
from experiments.dashboard.record import Record
from experiments.dashboard.run_view import RunView

TITLE = "What happens when the features are removed"
KINDS = {
    "sae": "SAE features",
    "raw": "raw channels",
    "neurons": "raw channels",
    "random": "random directions",
    "pca": "principal components",
}
RANKINGS = {"reference": "", "zero": ", ranked by zeroing"}
MEANING = {
    "zero": "set to zero, which the model has never seen and which moves other images too",
    "mean": "set to their mean over {reference} images",
    "resample": "set to their values on a {reference} image drawn at random",
    "towards": "{reference} images get the values of {target} images",
}


@dataclass(frozen=True)
class Group:
    """Directions with the same features and the same ranking.

    Parameters
    ----------
    slug
        Address of its page; the first group stands on the page of the experiment itself.
    name
        What the features are, and how they were ranked.
    kind
        As the results name it.
    directions
        Both ways.

    """

    slug: str
    name: str
    kind: str
    directions: tuple[Record, ...]


def groups(view: RunView) -> list[Group]:
    """Return the experiment's groups, the primary one first."""
    found: dict[tuple[str, str], list[Record]] = {}
    for direction in view["experiment"]["directions"].entries():
        found.setdefault((direction["kind"].text(), direction["ranked_by"].text()), []).append(direction)
    made: list[Group] = []
    for i, ((kind, ranking), directions) in enumerate(found.items()):
        name = (KINDS.get(kind, kind) or "features") + RANKINGS.get(
            ranking, f", ranked by {ranking}" if ranking else ""
        )
        part = re.sub(r"[^A-Za-z0-9]+", "-", f"{kind}-{ranking}").strip("-") or "features"
        slug = "ablation" if i == 0 else f"ablation/{part}"
        if any(slug == group.slug for group in made):
            slug += f"-{i}"
        made.append(Group(slug, name, kind, tuple(directions)))
    return made


def build(view: RunView) -> Page:
    """Build the page of the set experiment."""
    experiment = view["experiment"]
    found = groups(view)
    if not found:
        return Page("ablation", TITLE, (*_verdict(experiment["verdict"]), not_run("The set experiment")))
    blocks: list[Block] = [*_verdict(experiment["verdict"]), *_how_to_read(view, experiment)]
    blocks += [Heading("All sets at a glance"), *_glance(view, found)]
    blocks += _directions(view, found[0])
    return Page("ablation", TITLE, tuple(blocks))


def build_group(view: RunView, slug: str) -> Page:
    """Build the page of another group; raises ``KeyError`` where there is none."""
    found = groups(view)
    group = {group.slug: group for group in found[1:]}[slug]
    others = [Link(TITLE, "ablation"), *(Link(g.name, g.slug) for g in found[1:] if g is not group)]
    blocks: list[Block] = [Links("The other sets", tuple(others))]
    verdict = view["experiment"]["verdicts"][group.kind]
    if verdict:
        words = "Verdict of the same experiment on these features, for comparison: it does not decide the question."
        blocks += [*_verdict(verdict), Text((words,), "muted")]
    title = f"When {group.name} are removed"
    return Page(slug, title, (*blocks, *_directions(view, group)))


def _directions(view: RunView, group: Group) -> list[Block]:
    return [
        block
        for i, direction in enumerate(group.directions)
        for block in direction_blocks(view, direction, group.name, f"direction {i + 1}")
    ]


def _verdict(record: Record) -> list[Block]:
    word = record["word"].text("not run")
    tone: Tone = {"drives": "good", "no small set does": "bad"}.get(word, "caution")  # type: ignore[assignment]
    return [Verdict(word, tone, tuple(r for r in record["reasons"].texts() if r))]


def _how_to_read(view: RunView, experiment: Record) -> list[Block]:
    n = experiment["n_controls"].integer()
    controls = "random sets" if n is None else f"{n:,} random sets"
    first = (
        f"Features are chosen on one group of images and tested on the other. The blue line is the chosen set; grey is what "
        f"{controls} of the same size do that remove as much of the activation (median and 95 % band). A set drives the answer "
        f"only if it leaves the band where features are replaced by what {view.reference} images have, not just where they are "
        "set to zero."
    )
    meanings: dict[str, str] = {}
    for direction in experiment["directions"].entries():
        for ablation in ablations_of(direction):
            usual = MEANING.get(ablation.name, "").format(reference=view.reference, target=view.target)
            meanings.setdefault(ablation.name, ablation.record["sentence"].text(usual))
    said = tuple(f"{name}: {sentence}" for name, sentence in meanings.items() if sentence)
    return [Text((first,)), *([Text(said, "muted")] if said else [])]


def _glance(view: RunView, found: list[Group]) -> list[Block]:
    """Return one row per group and direction: what the tested set flips, with the random sets' median."""
    names = list(dict.fromkeys(a.name for g in found for d in g.directions for a in ablations_of(d)))
    rows: list[tuple[Cell, ...]] = []
    for group in found:
        verdict = view["experiment"]["verdicts"][group.kind]["word"].text()
        first: Cell = group.name if group.slug == "ablation" else Link(group.name, group.slug)
        for direction in group.directions:
            made = {a.name: a for a in ablations_of(direction)}
            cells = [_flipped(made.get(name), tested_size(direction)) for name in names]
            size = direction["size"].integer()
            rows.append((first, direction["name"].text("–"), size, *cells, verdict or None))
    columns = [Column("features"), Column("direction"), Column("size", form="integer")]
    columns += [Column(name, form="number") for name in names]
    if any(row[-1] is not None for row in rows):
        columns.append(Column("verdict"))
    else:
        rows = [row[:-1] for row in rows]
    caption = "Share of answers turned by the tested set (in brackets: the median of the random sets)"
    return [Table(caption, tuple(columns), tuple(rows))]


def _flipped(ablation: Ablation | None, size: float | None) -> str | None:
    if ablation is None:
        return None
    return ablation.glance(size)
