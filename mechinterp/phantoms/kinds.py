"""What a kind of phantom is, as data: its classes, structures, marks, areas, and how a study of it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from mechinterp.attributes.table import AttributeTable
from mechinterp.phantoms.phantom import PhantomImage
from mechinterp.phantoms.random_streams import Identity

P = TypeVar("P")
P_co = TypeVar("P_co")


class Renderer(Protocol[P]):
    """Renders images of one size from parameters."""

    def __call__(self, parameters: P | None = None, identity: Identity | None = None) -> PhantomImage[P]:
        """Render one image."""
        ...


@dataclass(frozen=True)
class PhantomKind(Generic[P]):
    """One kind of phantom.

    Parameters
    ----------
    name
        What the command line calls it.
    title
        What it is called on pages.
    parameters, study
        Dataclass of one image's physical parameters, and of a study's settings.
    structures
        Names of the masks.
    marks
        Names of the binary parameters that can be planted as a shortcut.
    class_names
        Names of the classes, by the code that `label` returns.
    label
        Class of an image by the known rule.
    attributes
        All that is known of some images, with units.
    areas_mm2
        For structures whose area the parameters fix: the visible area in mm².
    sample
        Draws a study: parameters, identities, splits.
    renderer
        Renders a study's images.

    """

    name: str
    title: str
    parameters: type[P]
    study: type[Any]
    structures: tuple[str, ...]
    marks: tuple[str, ...]
    class_names: tuple[str, ...]
    label: Callable[[P], int]
    attributes: Callable[[Sequence[P]], AttributeTable]
    areas_mm2: Mapping[str, Callable[[P], float]]
    sample: Callable[[Any], tuple[list[P], list[Identity], list[str]]]
    renderer: Callable[[Any], Renderer[P]]
