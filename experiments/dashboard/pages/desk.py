"""The intervention desk: choose an image, move features or channels, see the logits and the map change."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.dashboard.desk.charts import OPACITY, answer_figure, map_figure
from experiments.dashboard.desk.desk import RANDOM_CHANGES, Desk, Outcome, Unit
from experiments.dashboard.desk.moves import HOWS
from experiments.dashboard.desk.opening import DeskOfRun
from experiments.dashboard.desk.stored_moves import stored_moves
from experiments.dashboard.formatting import format_value
from experiments.dashboard.page import (
    Block,
    Details,
    FigureBlock,
    Heading,
    Link,
    Links,
    OverlaySlider,
    Page,
    Side,
    Text,
    Thumbnail,
    Thumbnails,
    Widget,
)
from experiments.dashboard.run_view import RunView
from mechinterp.errors import MechinterpError

SLUG = "desk"
SHOWN = 96
CLASSES = 8
MAP_WIDTH_PX = 320

WHAT = "Pick an image, move features or channels of the site, and see what the model answers then."
LIVE = "Every move runs the model again, on this machine."
PRECOMPUTED = (
    "Precomputed: these pages open from disk, where no model runs. One feature or channel at a time can be moved, at the values "
    "that were computed beforehand. Served pages (mechinterp dashboard) run the model at every move, with any feature."
)


def slug_of(image: int) -> str:
    """Return the address of an image's desk."""
    return f"{SLUG}/{image}"


def build(view: RunView, images: list[int], *, live: bool, missing: str = "") -> Page:
    """Build the page on which an image is picked.

    Parameters
    ----------
    view
        The run.
    images
        Those that have a desk.
    live
        Whether moves run the model.
    missing
        Why there is no desk, if there is none.

    """
    blocks: list[Block] = [Text((WHAT,))]
    if missing or not images:
        blocks.append(Text((f"No desk: {missing or 'the run has no images'}.",), "caution"))
        return Page(SLUG, "Intervention desk", tuple(blocks))
    blocks.append(Text((LIVE if live else PRECOMPUTED,), "plain" if live else "caution"))
    blocks.append(Heading("Pick an image"))
    items = []
    for i in images[:SHOWN]:
        probability = view.probability(i, view.target_index)
        answer = "" if probability is None else f"p({view.target}) {probability:.2f}"
        name = view.image_name(i)
        items.append(
            Thumbnail(view.picture(i), ", ".join(filter(None, (name, answer))), answer or name, slug=slug_of(i))
        )
    blocks.append(Thumbnails(tuple(items)))
    if len(images) > SHOWN:
        blocks.append(Text((f"The first {SHOWN} of {len(images):,} images; each has a desk, see “next”.",), "muted"))
    return Page(SLUG, "Intervention desk", tuple(blocks))


def build_image(view: RunView, opened: DeskOfRun, images: list[int], image: int, *, live: bool) -> Page:
    """Build the desk of one image; a page that says why where the model cannot be loaded.

    Parameters
    ----------
    view, opened
        The run and its desk.
    images
        Those that have a desk.
    image
        Which one.
    live
        Whether moves run the model, or are looked up among those stored in the page.

    """
    title = f"Desk: {view.image_name(image)}"
    links = Links("Other images", tuple(_others(view, images, image)))
    try:
        desk = opened.open()
        before = desk.before(image)
    except MechinterpError as error:  # a model that is gone, an image that cannot be read any more
        return Page(slug_of(image), title, (links, Text((f"No desk: {error}",), "caution")))
    names = desk.class_names
    shown = shown_classes(view, before)
    config: dict[str, Any] = {
        "image": image,
        "live": live,
        "classes": [names[c] for c in shown],
        "outputs": shown,
        "before": {"logits": before.logits, "probabilities": before.probabilities},
        "hows": [{"how": how, "words": words} for how, words in HOWS.items()],
        "units": [unit_json(view, unit) for unit in desk.proposals(image)],
        "features": desk.encoder.width,
        "channels": desk.site.width,
        "stored": [] if live else stored_moves(desk, image),
    }
    chosen = [float(before.logits[c]) for c in shown]
    answer = FigureBlock(
        answer_figure([names[c] for c in shown], chosen, chosen),
        "The logits on this image, as it is and after the moves.",
        "Logits of each class as it is and after the moves; the table beside the sliders holds the same numbers.",
        height_px=300, name="desk-answer",
    )  # fmt: skip
    label = f"A move, its image: {view.image_name(image)}"
    return Page(
        slug_of(image),
        title,
        (
            links,
            Text((LIVE if live else PRECOMPUTED,), "muted" if live else "caution"),
            Heading("Move"),
            Widget("desk", config, label),
            *_maps(view, image, desk, before),
            Heading("Logits"),
            answer,
            _meaning(desk),
        ),
    )


def shown_classes(view: RunView, before: Outcome) -> list[int]:
    """Return which classes are shown, in the order of the outputs: the target, the reference, then the likeliest."""
    n = len(before.logits)
    first = [view.class_names.index(name) for name in (view.target, view.reference) if name in view.class_names]
    likely = [int(i) for i in np.argsort(-before.logits, kind="stable")]
    return sorted(list(dict.fromkeys([i for i in first if i < n] + likely))[:CLASSES])


def unit_json(view: RunView, unit: Unit) -> dict[str, Any]:
    """Return a feature or channel as the desk's script reads it, with its page and its largest value in the run."""
    record = view.feature_of_number.get(unit.index) if unit.kind == "feature" else None
    return {
        "unit": unit.name,
        "slug": None if record is None else view.slug_of_feature[unit.index],
        "largest": float(f"{unit.largest:.4g}"),
        "inRun": None if record is None else record["max"].number(),
        "relevance": format_value(unit.relevance, "signed"),
    }


def _others(view: RunView, images: list[int], image: int) -> list[Link]:
    at = images.index(image) if image in images else -1
    links = [Link("All images", SLUG)]
    if at > 0:
        links.append(Link(f"← {view.image_name(images[at - 1])}", slug_of(images[at - 1])))
    if 0 <= at < len(images) - 1:
        links.append(Link(f"{view.image_name(images[at + 1])} →", slug_of(images[at + 1])))
    return links


def _maps(view: RunView, image: int, desk: Desk, before: Outcome) -> list[Block]:
    if before.evidence is None:
        return [Text(("This site's tokens have no place in the image: there is no map.",), "muted")]
    limit = float(np.abs(before.evidence).max()) or 1.0
    objective = desk.objective.name
    nothing = np.zeros_like(before.evidence)
    size = view.size_mm(image)
    height = min(560, round(MAP_WIDTH_PX * size[0] / size[1]) + 52) if size else 340
    blocks = []
    for name, values, label, limits, caption in (
        ("desk-evidence-before", before.evidence, "evidence", (-limit, limit), f"Evidence for {objective}, as it is."),
        (
            "desk-evidence-after",
            before.evidence,
            "evidence",
            (-limit, limit),
            f"Evidence for {objective}, after the moves.",
        ),
        ("desk-moved", nothing, "size of the change", (0.0, 1.0), "Where the moves changed the site's activation."),
    ):
        figure = map_figure(view, image, values, label, limits)
        if figure is not None:
            alt = f"{view.image_name(image)}. {caption}"
            blocks.append(FigureBlock(figure, caption, alt, height_px=height, name=name))
    if not blocks:
        return [Text(("The picture of this image was not kept: there is no map.",), "muted")]
    return [Heading("Where"), OverlaySlider("Overlay opacity", OPACITY), Side(tuple(blocks), narrowest_px=280)]


def _meaning(desk: Desk) -> Details:
    site = desk.site.name
    exact = "from the site on" if desk.tail.exact else "in whole forward passes, since something bypasses the site"
    return Details(
        "What the numbers mean",
        (
            Text(
                (
                    f"The site is {site}. A feature that changes from z to z′ adds (z′ − z) times its direction to the site's activation; "
                    f"what the autoencoder did not reconstruct stays. Channels are moved last. The model then runs {exact}.",
                    f"Evidence of a cell is gradient times activation of {desk.objective.name}, summed over the site's width: to first order, "
                    "what the cell adds to it. It is a local reading and no proof of what the cell does.",
                    f"Random changes as large: {RANDOM_CHANGES} draws of a random direction in every cell, as long as what the moves changed "
                    "there. A move whose effect lies inside their range does no more than any change of its size.",
                    "A value above the largest that the feature takes in this run lies off the data: the model has not been asked "
                    "about such an activation, and its answer need not mean anything.",
                )
            ),
        ),
    )
