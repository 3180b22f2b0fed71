"""Draw a study of any kind of phantom, or open again what an image set says of its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mechinterp.errors import ConfigError, nearest
from mechinterp.images.image_set import ImageSet
from mechinterp.phantoms.chest.kind import CHEST
from mechinterp.phantoms.chest.population import ChestStudy
from mechinterp.phantoms.fundus_kind import CLASS_NAMES, FUNDUS
from mechinterp.phantoms.fundus_population import FundusStudy
from mechinterp.phantoms.kinds import PhantomKind
from mechinterp.phantoms.mammogram.kind import MAMMOGRAM
from mechinterp.phantoms.mammogram.population import MammogramStudy
from mechinterp.phantoms.phantom_set import PhantomSet
from mechinterp.phantoms.planted_shortcut import PlantedShortcut, Shortcut
from mechinterp.phantoms.stimuli.kind import STIMULI
from mechinterp.phantoms.stimuli.population import StimulusStudy

__all__ = [
    "CLASS_NAMES", "KINDS", "chest_phantoms", "FundusStudy", "PhantomSet", "draw_phantoms", "fundus_images", "fundus_phantoms",
    "mammogram_phantoms", "phantom_images", "phantom_kind", "stimulus_phantoms",
]  # fmt: skip

KINDS: Mapping[str, PhantomKind[Any]] = {kind.name: kind for kind in (FUNDUS, MAMMOGRAM, CHEST, STIMULI)}


def phantom_kind(name: str) -> PhantomKind[Any]:
    """Return a kind by name.

    Raises
    ------
    ConfigError
        If there is none; the valid ones are named.

    """
    if name not in KINDS:
        raise ConfigError(f"no phantom '{name}': {nearest(name, KINDS)}")
    return KINDS[name]


def draw_phantoms(kind: PhantomKind[Any], study: Any) -> PhantomSet:
    """Draw the patients of a study of some kind."""
    parameters, identities, splits = kind.sample(study)
    return PhantomSet(kind, study, tuple(parameters), tuple(identities), tuple(splits), kind.renderer(study))


def fundus_phantoms(study: FundusStudy | None = None) -> PhantomSet:
    """Draw the patients of an eye clinic.

    Examples
    --------
    >>> eyes = fundus_phantoms(FundusStudy(patients=4, images_per_patient=1))
    >>> eyes.images[0].pixels.shape
    (96, 96, 3)

    """
    return draw_phantoms(FUNDUS, study or FundusStudy())


def mammogram_phantoms(study: MammogramStudy | None = None) -> PhantomSet:
    """Draw the patients of a screening programme.

    Examples
    --------
    >>> breasts = mammogram_phantoms(MammogramStudy(patients=4, images_per_patient=1, size_px=96))
    >>> breasts.images[0].pixels.shape
    (96, 80)

    """
    return draw_phantoms(MAMMOGRAM, study or MammogramStudy())


def chest_phantoms(study: ChestStudy | None = None) -> PhantomSet:
    """Draw the patients of an X-ray department.

    Examples
    --------
    >>> chests = chest_phantoms(ChestStudy(patients=4, images_per_patient=1, size_px=96))
    >>> chests.images[0].pixels.shape
    (96, 96)

    """
    return draw_phantoms(CHEST, study or ChestStudy())


def stimulus_phantoms(study: StimulusStudy | None = None) -> PhantomSet:
    """Draw the stimuli of an experiment.

    Examples
    --------
    >>> shown = stimulus_phantoms(StimulusStudy(patients=4, images_per_patient=1, size_px=96))
    >>> shown.images[0].pixels.shape
    (96, 96)

    """
    return draw_phantoms(STIMULI, study or StimulusStudy())


def phantom_images(kind: str, *, shortcut: Mapping[str, Any] | None = None, **settings: Any) -> ImageSet:
    """Return the images of a study given as plain settings: what an image set's source holds.

    Raises
    ------
    ConfigError
        If there is no such kind, or a setting cannot be meant.

    """
    return draw_phantoms(phantom_kind(kind), study_of(kind, settings, shortcut)).images


def study_of(kind: str, settings: Mapping[str, Any], shortcut: Mapping[str, Any] | None) -> Any:
    """Return a study of a kind from plain settings."""
    of_kind = phantom_kind(kind)
    planted: PlantedShortcut | Shortcut | None = None
    if shortcut is not None:
        mark = str(shortcut.get("mark", of_kind.marks[0]))
        if mark not in of_kind.marks:
            raise ConfigError(f"a {of_kind.title} has no mark '{mark}': {nearest(mark, of_kind.marks)}")
        planted = PlantedShortcut(**shortcut) if of_kind is FUNDUS else Shortcut(**shortcut)
    known = [f.name for f in fields(of_kind.study)]
    for name in settings:
        if name not in known:
            raise ConfigError(f"a study of {kind} phantoms has no setting '{name}': {nearest(name, known)}")
    return of_kind.study(shortcut=planted, **settings)


def fundus_images(*, shortcut: Mapping[str, Any] | None = None, **settings: Any) -> ImageSet:
    """Return the images of a study of eyes given as plain settings; see :func:`phantom_images`."""
    return phantom_images("fundus", shortcut=shortcut, **settings)
