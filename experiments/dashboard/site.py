"""All pages of a run, each built when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.dashboard.page import Link, Page, Stamp
from experiments.dashboard.pages import ablation, attributes, feature, features, model, overview, preparation
from experiments.dashboard.run_view import RunView

SECTIONS: dict[str, tuple[str, Callable[[RunView], Page]]] = {
    "overview": ("Overview", overview.build),
    "features": ("Features", features.build),
    "attributes": ("Attributes", attributes.build),
    "ablation": ("Ablation", ablation.build),
    "preparation": ("Preparation", preparation.build),
    "model": ("Model", model.build),
}
"""The pages of the navigation, first the one that opens: address, name, builder."""

RESEARCH_ONLY = "Research use only"
UNTRAINED = "UNTRAINED: the weights of this model are random, so nothing here says anything about a trained model."


class Pages(Mapping[str, Page]):
    """A run's pages by address; looking one up builds it, so that ten thousand features cost nothing until read.

    Parameters
    ----------
    view
        The run.

    """

    def __init__(self, view: RunView) -> None:
        self.view = view
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
            page = SECTIONS[slug][1](self.view)
        elif slug in self._groups:
            page = ablation.build_group(self.view, slug)
        else:
            page = feature.build(self.view, self._feature_index[slug])
        return Page(page.slug, page.title, (*stamps(self.view), *page.blocks))

    def __iter__(self) -> Iterator[str]:
        """Run through the addresses, sections first."""
        yield from SECTIONS
        yield from self._groups
        yield from self._feature_index

    def __len__(self) -> int:
        """Return the number of pages."""
        return len(SECTIONS) + len(self._groups) + len(self._feature_index)

    def __contains__(self, slug: object) -> bool:
        """Whether there is such a page, without building it."""
        return slug in SECTIONS or slug in self._groups or slug in self._feature_index

    @property
    def navigation(self) -> tuple[Link, ...]:
        """The sections."""
        return tuple(Link(name, slug) for slug, (name, _) in SECTIONS.items())


def build_pages(results: dict[str, Any], run_dir: Path) -> Pages:
    """Return all pages of a run by address; each is built when it is looked up.

    Parameters
    ----------
    results
        What the study wrote to ``results.json``. Whatever is absent reads *not run*.
    run_dir
        The run's folder, for its pictures and ``run.json``.

    """
    return Pages(RunView(results, run_dir))


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
