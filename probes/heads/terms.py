"""What an interpretable head shows of an answer: terms that add up to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from jaxtyping import Float
from numpy.typing import NDArray

Scale = Literal["log-odds", "probability"]


@dataclass(frozen=True)
class Term:
    """One part of an answer.

    Parameters
    ----------
    name
        Of the concept, or of the training image.
    value
        What was seen: the concept's value in `unit`, or the similarity to the training image.
    unit
        Of the value, empty without one.
    contribution
        What it adds to the answer.
    image
        Position of the training image, for a term that is one.

    """

    name: str
    value: float
    unit: str
    contribution: float
    image: int | None = None


@dataclass(frozen=True)
class Explanation:
    """An answer for one image, taken apart.

    Parameters
    ----------
    terms
        Of the image.
    base
        The answer where every term is 0.
    output
        The head's own answer, computed without the terms.
    scale
        What base, terms and output are measured in.

    """

    terms: tuple[Term, ...]
    base: float
    output: float
    scale: Scale

    @property
    def total(self) -> float:
        """Base plus terms: the output, up to rounding."""
        return self.base + sum(term.contribution for term in self.terms)

    def strongest(self, most: int) -> tuple[Term, ...]:
        """Return the terms that add or take most, and the sum of all others as one more term, so that nothing is lost."""
        ranked = sorted(self.terms, key=lambda term: -abs(term.contribution))
        if len(ranked) <= most + 1:
            return tuple(ranked)
        left = ranked[most:]
        rest = Term(f"{len(left)} others", float("nan"), "", sum(term.contribution for term in left))
        return (*ranked[:most], rest)


class Head(Protocol):
    """A classifier of two classes whose answers can be taken apart."""

    @property
    def scale(self) -> Scale:
        """What an answer is measured in."""
        ...

    def outputs(self, x: Float[NDArray[Any], "image width"]) -> Float[NDArray[Any], " image"]:
        """Return the answers."""
        ...

    def explain(self, x: Float[NDArray[Any], " width"]) -> Explanation:
        """Take the answer for one image apart."""
        ...
