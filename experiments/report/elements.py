"""The five elements of interpretability: what the paper names, and what this toolkit asks before it calls one met.

The names and their order are the paper's [1]_. What stands under ``paper`` is our reading of it, in our words; what stands
under ``operational`` is this toolkit's own definition: the paper sets no numbers and no controls.

References
----------
.. [1] Wang, Karaman, Kim, Rosenthal, Saluja, Young, Sabuncu. A Framework for Interpretability in Machine Learning for
   Medical Imaging. IEEE Access 12, 53277-53292, 2024. doi:10.1109/ACCESS.2024.3387702, arXiv:2310.01685.

"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mechinterp.claims import Strength
from mechinterp.errors import ConfigError, nearest

CITATION = (
    "Wang, Karaman, Kim, Rosenthal, Saluja, Young, Sabuncu. A Framework for Interpretability in Machine Learning for "
    "Medical Imaging. IEEE Access 12, 53277–53292, 2024. doi:10.1109/ACCESS.2024.3387702, arXiv:2310.01685."
)


@dataclass(frozen=True)
class Element:
    """One of the five.

    Parameters
    ----------
    name
        As the paper calls it.
    question
        What a reader of the report wants to know.
    paper
        What the paper means by it, as we read it.
    operational
        What this toolkit tests, and what it asks for; its own.
    least_strength
        What at least one claim must be for the element to be met.

    """

    name: str
    question: str
    paper: str
    operational: str
    least_strength: Strength

    def to_json(self) -> dict[str, Any]:
        """Return the definitions as plain JSON."""
        return {
            "name": self.name, "question": self.question, "paper": self.paper, "operational": self.operational,
            "least_strength": self.least_strength,
        }  # fmt: skip


ELEMENTS = {
    element.name: element
    for element in (
        Element(
            "localization",
            "Where in the image is what the answer rests on?",
            "It can be told where in the image the features lie that the model's output rests on.",
            "Maps of features or of relevance are scored against masks on held-out patients, beside an edge detector, a centre "
            "prior and the map of the same model with its weights randomised; and taking away what a map marks must change "
            "the answer more than taking away as much elsewhere.",
            "interventional",
        ),
        Element(
            "visual recognizability",
            "Can a person see what a feature stands for?",
            "What the model uses can be seen and recognised by a person who looks at images.",
            "A feature's name, chosen on discovery patients or given by blinded raters, must tell its images from others on "
            "held-out patients better than chance, and better than names given to frozen-random features.",
            "correlational",
        ),
        Element(
            "physical attribution",
            "Which measurable quantity does a feature follow?",
            "What the model uses corresponds to real-world, physical quantities that can be measured.",
            "A feature or a direction must follow a quantity with a unit on held-out patients, beyond shuffled values, the "
            "untrained network and raw pixels, corrected for everything that was tried.",
            "correlational",
        ),
        Element(
            "model transparency",
            "How does the model come to its answer?",
            "The way from input to output inside the model is open to inspection and can be followed.",
            "A small set of features or edges, chosen on discovery patients, must carry the answer on held-out patients when it "
            "is replaced under more than one ablation, beyond random sets of the same size and norm.",
            "interventional",
        ),
        Element(
            "actionability",
            "What can be done with what was found?",
            "What was found gives a user something to act on: correct, defer, change the model or the care.",
            "An edit, a deferral or a rule that was made from the findings must improve what it was made for on held-out "
            "patients, and its side effects are counted, beside random edits of the same norm.",
            "interventional",
        ),
    )
}
"""By name, in the paper's order."""


def check_element(name: str) -> str:
    """Return the name of an element.

    Raises
    ------
    ConfigError
        If it is none of the five.

    """
    if name not in ELEMENTS:
        raise ConfigError(f"no element '{name}': {nearest(name, ELEMENTS)}")
    return name


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of elements, each once, in the paper's order."""
    asked = {check_element(name) for name in names}
    return tuple(name for name in ELEMENTS if name in asked)
