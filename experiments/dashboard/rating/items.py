"""Which galleries a rater sees, and the key that says what each of them was.

An item is a gallery of images on which one feature is strongest, its places marked, and a few candidates, one of which is
another of its images. No candidate is of a patient (or part of a volume) that the gallery shows: whoever knows a patient again
has not seen what the feature stands for. Planted among them are control items: galleries put together at random, for which no candidate is
right, and galleries of features of an autoencoder that was never trained. A rater's page holds neither names nor numbers nor the key.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np

from experiments.dashboard.record import Record
from experiments.dashboard.run_view import RunView
from mechinterp.errors import ConfigError

Kind = Literal["feature", "random images", "frozen-random feature"]
Whose = Mapping[int, str | int]
"""Patient of each image of the run."""
FEWEST_ITEMS = 4


@dataclass(frozen=True)
class RatingConfig:
    """How a rating is put together.

    Parameters
    ----------
    features, controls, frozen
        How many items of each kind.
    gallery, candidates
        Images of an item's gallery, and candidates to choose among.
    seed
        Decides features, controls and every order.

    """

    features: Annotated[int, "features to be rated, drawn at random among those alive"] = 20
    controls: Annotated[int, "galleries of random images planted among them"] = 8
    frozen: Annotated[int, "galleries of features of a frozen-random autoencoder planted among them"] = 8
    gallery: Annotated[int, "images of a gallery"] = 4
    candidates: Annotated[int, "images to choose the one from that belongs to the gallery"] = 4
    seed: Annotated[int, "decides features, controls and every order"] = 0


@dataclass(frozen=True)
class Shown:
    """An image with the map of a feature on it; which feature, no rater is told.

    Parameters
    ----------
    image
        Place in the run.
    values
        The feature's value in each cell of the site, rows of columns; empty where no map was kept.

    """

    image: int
    values: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Item:
    """One question.

    Parameters
    ----------
    name
        Says nothing: a hash.
    kind, feature
        What it is; a control has no feature of the run.
    gallery, candidates
        What is shown.
    right
        Place among the candidates of the one that belongs to the gallery; for a control a place drawn at random, which nobody
        can find but by chance.

    """

    name: str
    kind: Kind
    feature: int | None
    gallery: tuple[Shown, ...]
    candidates: tuple[Shown, ...]
    right: int

    def key(self) -> dict[str, Any]:
        """Return what the page must not hold."""
        return {"kind": self.kind, "feature": self.feature, "right": self.right}


@dataclass(frozen=True)
class Plan:
    """All items of a rating, in the order of the page.

    Parameters
    ----------
    name
        Hash of the items, which ties a rater's answers to their key.
    items
        The questions.
    config
        How it was put together.

    """

    name: str
    items: tuple[Item, ...]
    config: RatingConfig

    def key(self) -> dict[str, Any]:
        """Return the key, as it is kept in the run."""
        return {
            "format": 1, "plan": self.name, "config": asdict(self.config),
            "items": {item.name: item.key() for item in self.items},
        }  # fmt: skip


def make_plan(view: RunView, config: RatingConfig, frozen: Sequence[Sequence[Shown]] = ()) -> Plan:
    """Draw features and controls from a run.

    Parameters
    ----------
    view
        The run.
    config
        How many of what.
    frozen
        Images of features of a frozen-random autoencoder, see :func:`experiments.dashboard.rating.frozen.frozen_random_examples`.

    Raises
    ------
    ConfigError
        If a number cannot be meant, or the run keeps too few examples of its features.

    """
    if (
        config.gallery < 2
        or config.candidates < 2
        or min(config.controls, config.frozen) < 0
        or config.features < FEWEST_ITEMS
    ):
        raise ConfigError(
            f"a rating has at least {FEWEST_ITEMS} features, 2 images a gallery and 2 candidates; no fewer than 0 controls"
        )
    rng = np.random.default_rng(config.seed)
    whose = _whose(view)
    kept = {i: _examples(view, f) for i, f in enumerate(view.features)}
    examples = {i: shown for i, shown in kept.items() if _askable(shown, whose, config.gallery)}
    if len(examples) < max(FEWEST_ITEMS, config.candidates + 1):
        raise ConfigError(
            f"only {len(examples)} features of {view.run_dir} keep more than {config.gallery} images with pictures, one of them of "
            "another patient than the gallery's: ask for smaller galleries, or analyse the run on more images"
        )
    chosen = rng.permutation(list(examples))[: config.features].tolist()
    items = [
        _feature_item("feature", view.features[index]["id"].integer(), index, examples, whose, config, rng)
        for index in chosen
    ]
    random = {i: list(shown) for i, shown in enumerate(frozen) if _askable(shown, whose, config.gallery)}
    items += [
        _feature_item("frozen-random feature", None, index, random, whose, config, rng)
        for index in list(random)[: config.frozen]
    ]
    items += [_control_item(examples, whose, config, rng) for _ in range(config.controls)]
    ordered = [item for i in rng.permutation(len(items)) if (item := items[int(i)]) is not None]
    named = tuple(
        Item(_hash(config.seed, n, repr(item)), item.kind, item.feature, item.gallery, item.candidates, item.right)
        for n, item in enumerate(ordered)
    )
    return Plan(_hash(*(item.name for item in named)), named, config)


def _examples(view: RunView, feature: Record) -> list[Shown]:
    shown = []
    for entry in feature["top"].entries():
        image, value = entry["image"].integer(), entry["value"].number()
        if image is None or view.picture(image) is None or not value or value <= 0:
            continue
        grid = tuple(tuple(v or 0.0 for v in row) for row in entry["map"].grid())
        shown.append(Shown(image, grid))
    return shown


def _whose(view: RunView) -> Whose:
    """Return the patient (or part of a volume) of each image; an image that nobody named a patient of is its own."""
    groups = view["images"]["groups"].entries()
    named = [group.text() for group in groups]
    return {i: named[i] if i < len(named) and named[i] else i for i in range(view.n_images)}


def _askable(shown: Sequence[Shown], whose: Whose, gallery: int) -> bool:
    """Return whether a gallery of this size can be made beside an image of a patient that it does not show."""
    images = Counter(whose[one.image] for one in shown)
    return len(shown) - min(images.values(), default=0) >= gallery


def _feature_item(
    kind: Kind,
    feature: int | None,
    index: int,
    examples: dict[int, list[Shown]],
    whose: Whose,
    config: RatingConfig,
    rng: np.random.Generator,
) -> Item | None:
    """Return one feature's item; nothing where other features leave too few wrong candidates."""
    own = [examples[index][int(i)] for i in rng.permutation(len(examples[index]))]
    asked = ((one, [o for o in own if whose[o.image] != whose[one.image]][: config.gallery]) for one in own)
    right, gallery = next((one, others) for one, others in asked if len(others) == config.gallery)
    taken = {shown.image for shown in own}
    wrong = _from_others(index, examples, whose, gallery, taken, config.candidates - 1, rng)
    if len(wrong) < config.candidates - 1:
        return None
    place = int(rng.integers(config.candidates))
    candidates = [*wrong[:place], right, *wrong[place:]]
    return Item("", kind, feature, tuple(gallery), tuple(candidates), place)


def _control_item(
    examples: dict[int, list[Shown]], whose: Whose, config: RatingConfig, rng: np.random.Generator
) -> Item | None:
    """Return a gallery whose images and marks come from as many features, with candidates from others still."""
    order = rng.permutation(list(examples)).tolist()
    shown, offered = ({i: examples[i] for i in half} for half in (order[::2], order[1::2]))
    gallery = _from_others(None, shown, whose, [], set(), config.gallery, rng)
    taken = {one.image for one in gallery}
    candidates = _from_others(None, offered, whose, gallery, taken, config.candidates, rng)
    if len(gallery) < config.gallery or len(candidates) < config.candidates:
        return None
    place = int(rng.integers(config.candidates))
    return Item("", "random images", None, tuple(gallery), tuple(candidates), place)


def _from_others(
    index: int | None,
    examples: dict[int, list[Shown]],
    whose: Whose,
    gallery: Sequence[Shown],
    taken: set[int],
    most: int,
    rng: np.random.Generator,
) -> list[Shown]:
    """Return images of other features, one a feature, none of a patient in the gallery or of an image that is taken."""
    found: list[Shown] = []
    seen, known = set(taken), {whose[shown.image] for shown in gallery}
    for other in rng.permutation([i for i in examples if i != index]).tolist():
        free = [shown for shown in examples[other] if shown.image not in seen and whose[shown.image] not in known]
        if free:
            found.append(free[int(rng.integers(len(free)))])
            seen.add(found[-1].image)
        if len(found) == most:
            break
    return found


def _hash(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]
