"""All pages of a run, each built when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.dashboard.desk.opening import DeskOfRun
from experiments.dashboard.desk.stored_moves import images_to_store
from experiments.dashboard.feature_details import FeatureDetails
from experiments.dashboard.notes import Notes
from experiments.dashboard.page import Block, Link, Page, Stamp, Text
from experiments.dashboard.pages import (
    ablation,
    attributes,
    desk,
    feature,
    features,
    model,
    notes,
    overview,
    preparation,
    stages,
)
from experiments.dashboard.run_view import RunView
from mechinterp.errors import ConfigError, MechinterpError

SECTIONS: dict[str, tuple[str, Callable[[Pages], Page]]] = {
    "overview": ("Overview", lambda pages: overview.build(pages.view)),
    "features": ("Features", lambda pages: features.build(pages.view, pages.details)),
    "attributes": ("Attributes", lambda pages: attributes.build(pages.view)),
    "ablation": ("Ablation", lambda pages: ablation.build(pages.view)),
    "desk": ("Desk", lambda pages: desk.build(pages.view, pages.desk_images, live=pages.live, missing=pages.no_desk)),
    "preparation": ("Preparation", lambda pages: preparation.build(pages.view)),
    "model": ("Model", lambda pages: model.build(pages.view)),
    "notes": ("Notes", lambda pages: pages.page_of_notes()),
    "stages": ("All results", lambda pages: stages.build(pages.view)),
}
"""The pages of the navigation, first the one that opens: address, name, builder."""

START = next(iter(SECTIONS))

STORED_DESKS = 6
"""Images whose moves an export computes beforehand."""

RESEARCH_ONLY = "Research use only"
UNTRAINED = "UNTRAINED: the weights of this model are random, so nothing here says anything about a trained model."


class Pages(Mapping[str, Page]):
    """A run's pages by address; looking one up builds it, so that ten thousand features cost nothing until read.

    Parameters
    ----------
    view
        The run.
    live
        Whether a server stands behind the pages, so that moves on the desk run the model and notes can be written.
    stored_desks
        Without a server: on how many images moves are computed beforehand.

    """

    def __init__(self, view: RunView, *, live: bool = False, stored_desks: int = STORED_DESKS) -> None:
        self.view: RunView = view
        self.live: bool = live
        self.stored_desks = stored_desks
        self.desk = DeskOfRun(view)
        self.notes = Notes(view.run_dir)
        self._groups = [group.slug for group in ablation.groups(view)[1:]]
        self._feature_index = {slug: i for i, slug in enumerate(view.feature_slugs)}

    def __getitem__(self, slug: str) -> Page:
        """Build one page.

        Raises
        ------
        KeyError
            If the run has no page of this address.

        """
        if slug in SECTIONS:
            page = SECTIONS[slug][1](self)
        elif slug in self._desk_slugs:
            page = desk.build_image(self.view, self.desk, self.desk_images, self._desk_slugs[slug], live=self.live)
        elif slug in self._groups:
            page = ablation.build_group(self.view, slug)
        else:
            at = self._feature_index[slug]
            page = feature.build(self.view, at, self.details, desk=self._desk_of(at))
        noted = self._note(slug) if slug in self._feature_index or slug == START else []
        return Page(page.slug, page.title, (*stamps(self.view), *page.blocks, *noted))

    def __iter__(self) -> Iterator[str]:
        """Run through the addresses, sections first."""
        yield from SECTIONS
        yield from self._groups
        yield from self._desk_slugs
        yield from self._feature_index

    def __len__(self) -> int:
        """Return the number of pages."""
        return len(SECTIONS) + len(self._groups) + len(self._desk_slugs) + len(self._feature_index)

    def __contains__(self, slug: object) -> bool:
        """Whether there is such a page, without building it."""
        return any(slug in known for known in (SECTIONS, self._groups, self._feature_index, self._desk_slugs))

    def page_of_notes(self) -> Page:
        """Build the page of all notes."""
        titles = {START: SECTIONS[START][0]} | {
            slug: feature.title(self.view, record)
            for slug, record in zip(self.view.feature_slugs, self.view.features, strict=True)
        }
        try:
            return notes.build(self.notes.read(), titles, live=self.live)
        except MechinterpError as error:
            return Page(notes.SLUG, "Notes", (Text((str(error),), "caution"),))

    def _desk_of(self, index: int) -> Link | None:
        """Return the way to the desk of a feature's strongest image that has one."""
        for entry in self.view.features[index]["top"].entries():
            image = entry["image"].integer()
            if image is not None and desk.slug_of(image) in self._desk_slugs:
                return Link(f"Move it on the desk: {self.view.image_name(image)}", desk.slug_of(image))
        return None

    def _note(self, slug: str) -> list[Block]:
        try:
            return notes.note_on_page(slug, self.notes.of(slug), live=self.live)
        except MechinterpError as error:
            return [Text((f"The notes cannot be read: {error}",), "caution")]

    @cached_property
    def details(self) -> FeatureDetails:
        """Further details of the features, as far as they were computed."""
        return FeatureDetails.read(self.view)

    @cached_property
    def no_desk(self) -> str:
        """Why there is no desk; empty where there is one. Without a server the model is loaded to know."""
        if self.desk.missing or self.live:
            return self.desk.missing
        if self.stored_desks < 1:
            return "the export was asked to compute no moves"
        try:
            self.desk.open()
        except ConfigError as error:
            return str(error)
        return ""

    @cached_property
    def desk_images(self) -> list[int]:
        """The images that have a desk: all with a server, otherwise those whose moves are computed beforehand."""
        if self.no_desk:
            return []
        n = self.view.n_images
        return list(range(n)) if self.live else images_to_store(self.view.positives, n, self.stored_desks)

    @cached_property
    def _desk_slugs(self) -> dict[str, int]:
        return {desk.slug_of(image): image for image in self.desk_images}

    @property
    def navigation(self) -> tuple[Link, ...]:
        """The sections."""
        return tuple(Link(name, slug) for slug, (name, _) in SECTIONS.items())


def build_pages(results: dict[str, Any], run_dir: Path, *, live: bool = False) -> Pages:
    """Return all pages of a run by address; each is built when it is looked up.

    Parameters
    ----------
    results
        What the study wrote to ``results.json``. Whatever is absent reads *not run*.
    run_dir
        The run's folder, for its pictures and ``run.json``.
    live
        Whether a server stands behind the pages.

    """
    return Pages(RunView(results, run_dir), live=live)


def stamps(view: RunView) -> tuple[Stamp, ...]:
    """Return what every page says: untrained weights first, research use, the model."""
    found = [Stamp(UNTRAINED, "bad", banner=True)] if view.trained is False else []
    found.append(Stamp(RESEARCH_ONLY, "caution"))
    found.append(Stamp(f"model {view['model']['spec'].text('not named')}"))
    if view.trained is None:
        found.append(Stamp("whether the model was trained is not recorded", "caution"))
    return tuple(found)


def missing_page(slug: str) -> Page:
    """Return what is shown for an address that leads nowhere."""
    from experiments.dashboard.page import Links, Text

    shown = slug if len(slug) <= 80 else slug[:80] + "…"
    return Page(
        slug,
        "No such page",
        (
            Text((f"This run has no page “{shown}”. It may belong to another run, or the feature was not kept.",)),
            Links("Where to go from here", (Link("Overview", "overview"), Link("All features", "features"))),
        ),
    )
