"""What a study found for one element: claims, figures, limits. No verdict stands here: it follows from these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.report.elements import check_element
from mechinterp.claims import Claim
from mechinterp.errors import ConfigError

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class ReportFigure:
    """A Plotly figure with what it shows, for those who cannot see it.

    Parameters
    ----------
    heading, text
        Above it, and what to look for.
    figure
        As Plotly's JSON: ``figure.to_plotly_json()``, or :meth:`of`.

    """

    heading: str
    text: str
    figure: Mapping[str, Any]

    @classmethod
    def of(cls, heading: str, text: str, figure: go.Figure) -> ReportFigure:
        """Return a figure as it is kept in the report's JSON."""
        import json

        return cls(heading, text, json.loads(figure.to_json() or "{}"))

    def to_json(self) -> dict[str, Any]:
        """Return the figure as plain JSON."""
        return {"heading": self.heading, "text": self.text, "figure": dict(self.figure)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ReportFigure:
        """Read what :meth:`to_json` wrote."""
        return cls(record["heading"], record["text"], record["figure"])


@dataclass(frozen=True)
class ElementEvidence:
    """Claims and limits for one element.

    Parameters
    ----------
    element
        Which of the five.
    claims
        Each names the planned test it answers; those that name none are shown, and do not count.
    limits
        In words: what was not tried, what the numbers do not say.
    figures
        Below the claims.

    """

    element: str
    claims: tuple[Claim, ...] = ()
    limits: tuple[str, ...] = ()
    figures: tuple[ReportFigure, ...] = ()

    def __post_init__(self) -> None:
        check_element(self.element)
        tests = [claim.test for claim in self.claims if claim.test]
        twice = sorted({test for test in tests if tests.count(test) > 1})
        if twice:
            raise ConfigError(f"two claims answer the planned test '{twice[0]}': one test, one claim")

    def to_json(self) -> dict[str, Any]:
        """Return the evidence as plain JSON."""
        return {
            "element": self.element,
            "claims": [claim.to_json() for claim in self.claims],
            "limits": list(self.limits),
            "figures": [figure.to_json() for figure in self.figures],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ElementEvidence:
        """Read what :meth:`to_json` wrote."""
        return cls(
            record["element"],
            tuple(Claim.from_json(claim) for claim in record["claims"]),
            tuple(record["limits"]),
            tuple(ReportFigure.from_json(figure) for figure in record["figures"]),
        )
