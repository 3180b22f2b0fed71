"""Which attributes go along with each other, and which of them a readout follows once the others are held fixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import AttributeTableError
from mechinterp.figures import COLOURS, apply_theme, as_text
from mechinterp.statistics.rank import spearman
from probes.cross_fitting import Learner
from probes.deconfounding import AdjustedEffect, Groups, naive_effect, residualised_effect

_SHOWN = 0.2


@dataclass(frozen=True)
class ConfounderGraph:
    """Attributes, their correlations, and the readout's slope over each, naive and with all others held fixed.

    Parameters
    ----------
    readout
        Name of what follows them.
    attributes
        Their labels with units.
    correlation
        Attribute × attribute: Spearman's rho over images.
    naive, adjusted
        Slope over each attribute, in standard deviations of the readout per standard deviation of the attribute.

    """

    readout: str
    attributes: tuple[str, ...]
    correlation: Float[NDArray[np.float64], "attribute attribute"]
    naive: tuple[AdjustedEffect, ...]
    adjusted: tuple[AdjustedEffect, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "readout": self.readout,
            "attributes": list(self.attributes),
            "correlation": self.correlation.tolist(),
            "naive": [e.to_json() for e in self.naive],
            "adjusted": [e.to_json() for e in self.adjusted],
        }


def confounder_graph(
    readout: Float[NDArray[np.float64], " image"],
    attributes: AttributeTable,
    names: Sequence[str],
    *,
    groups: Groups = None,
    readout_name: str = "readout",
    learner: Learner = "spline",
    n_boot: int = 1000,
    seed: int = 0,
) -> ConfounderGraph:
    """Hold each attribute against the readout, alone and with the other named ones held fixed.

    Parameters
    ----------
    readout
        One number per image.
    attributes, names
        The table, and which of its columns; images that lack one are left out. Of categories (a scanner's maker, for
        example) each but the commonest becomes an attribute of its own, 1 where an image is of it.
    groups
        Patient of each image.
    readout_name
        For the figure.
    learner, n_boot, seed
        See :func:`~probes.deconfounding.residualised_effect`.

    Raises
    ------
    AttributeTableError
        If fewer than two attributes are named, or one is the same on all images that are left.

    """
    if len(names) < 2:
        raise AttributeTableError(f"{len(names)} attribute named: a confounder graph needs two at least")
    kept = np.isfinite(readout) & np.isfinite([attributes.column(name) for name in names]).all(0)
    columns = [column for name in names for column in _numbers(attributes, name, kept)]
    values = np.stack([of for _, of in columns], axis=1)
    units = None if groups is None else np.asarray(groups, dtype=object)[kept]
    values, r = values[kept], np.asarray(readout, dtype=np.float64)[kept]
    r = (r - r.mean()) / r.std()
    z = (values - values.mean(0)) / values.std(0)
    settings: dict[str, Any] = {"groups": units, "unit": "s.d.", "n_boot": n_boot, "seed": seed}
    return ConfounderGraph(
        readout_name,
        tuple(label for label, _ in columns),
        spearman(z, z),
        tuple(naive_effect(r, z[:, j], **settings) for j in range(len(columns))),
        tuple(
            residualised_effect(r, z[:, j], np.delete(z, j, axis=1), learner=learner, **settings)
            for j in range(len(columns))
        ),
    )


def _numbers(
    attributes: AttributeTable, name: str, kept: NDArray[np.bool_]
) -> list[tuple[str, Float[NDArray[np.float64], " image"]]]:
    """Return an attribute's label and values; of categories, those of each but the commonest."""
    about, values = attributes[name], attributes.column(name)
    there, often = np.unique(values[kept], return_counts=True)
    if len(there) < 2:
        raise AttributeTableError(f"'{name}' is the same on all images that have every attribute: leave it out")
    if about.kind != "categorical":
        return [(about.label, values)]
    words = attributes.categories.get(name, ())
    others = [code for code in there if code != there[often.argmax()]]
    return [
        (
            f"{about.label} = {words[int(code)] if int(code) < len(words) else f'{code:g}'}",
            (values == code).astype(np.float64),
        )
        for code in others
    ]


def confounder_figure(graph: ConfounderGraph) -> go.Figure:
    """Draw attributes on the left, the readout on the right.

    Grey curves join attributes that go along with each other; an arrow to the readout is solid where the slope's
    interval, the other attributes held fixed, excludes 0, and dashed where it does not.
    """
    n = len(graph.attributes)
    rows = np.linspace(0, 1, n)[::-1] if n > 1 else np.array([0.5])
    figure = go.Figure()
    for i in range(n):
        for j in range(i):
            rho = float(graph.correlation[i, j])
            if abs(rho) >= _SHOWN:
                _join(figure, rows[i], rows[j], rho)
    for j, (row, naive, adjusted) in enumerate(zip(rows, graph.naive, graph.adjusted, strict=True)):
        _arrow(figure, float(row), adjusted, naive, as_text(graph.attributes[j]))
    figure.add_scatter(
        x=[1.0] * n, y=rows, mode="markers", marker={"size": 13, "color": COLOURS["ink"]}, hoverinfo="skip",
    )  # fmt: skip
    for row, label in zip(rows, graph.attributes, strict=True):
        figure.add_annotation(
            x=0.97, y=row, text=as_text(label), xanchor="right", yanchor="middle", bgcolor=COLOURS["paper"], borderpad=2
        )
    figure.add_scatter(
        x=[2.6], y=[0.5], mode="markers", marker={"size": 20, "symbol": "square", "color": COLOURS["ink"]}, hoverinfo="skip"
    )  # fmt: skip
    figure.add_annotation(x=2.68, y=0.5, text=f"<b>{as_text(graph.readout)}</b>", xanchor="left", yanchor="middle")
    apply_theme(figure)
    axis = {"visible": False, "fixedrange": True}
    figure.update_xaxes(**axis, range=[-0.35, 3.4])
    figure.update_yaxes(**axis, range=[-0.18, 1.2])
    figure.update_layout(
        showlegend=False, height=170 + 95 * n, margin={"l": 8, "r": 8, "t": 64, "b": 8},
        title="Slope in standard deviations with the other attributes held fixed<br>"
        "<sub>solid: its 95 % interval excludes 0 · dashed: it does not · grey: rank correlation of attributes</sub>",
    )  # fmt: skip
    return figure


def _join(figure: go.Figure, a: float, b: float, rho: float) -> None:
    t = np.linspace(0, 1, 30)
    bulge = 0.25 + 0.55 * abs(a - b)
    x = 1.0 - bulge * np.sin(np.pi * t)
    figure.add_scatter(
        x=x, y=a + (b - a) * t, mode="lines", hoverinfo="skip",
        line={"color": COLOURS["control"], "width": 1 + 5 * abs(rho)},
    )  # fmt: skip
    figure.add_annotation(
        x=1.0 - bulge, y=(a + b) / 2, text=f"ρ {rho:+.2f}", xanchor="center", yanchor="middle", bgcolor=COLOURS["paper"],
        font={"color": COLOURS["muted"], "size": 12}, borderpad=2,
    )  # fmt: skip


def _arrow(figure: go.Figure, row: float, adjusted: AdjustedEffect, naive: AdjustedEffect, label: str) -> None:
    known = adjusted.excludes_zero
    colour = COLOURS["blue"] if known else COLOURS["muted"]
    end = 0.5 + 0.06 * (row - 0.5)
    figure.add_scatter(
        x=[1.06, 2.5], y=[row, end], mode="lines", line={
            "color": colour, "width": 1.5 + 5 * min(1.0, abs(adjusted.value)) if known else 1.5,
            "dash": "solid" if known else "dash",
        },
        hovertemplate=f"{label}<br>{as_text(adjusted.text)}<br>{as_text(naive.text)}<extra></extra>",
    )  # fmt: skip
    ends = adjusted.interval.ends
    said = f"<b>{adjusted.value:+.2f}</b>" + (f" ({ends[0]:+.2f} to {ends[1]:+.2f})" if ends else "")
    figure.add_annotation(
        x=1.55, y=row + (end - row) * (1.55 - 1.06) / 1.44, text=f"{said}<br>naive {naive.value:+.2f}", showarrow=False,
        bgcolor="rgba(255,255,255,0.9)", font={"color": COLOURS["ink"] if known else COLOURS["muted"], "size": 12},
        borderpad=2,
    )  # fmt: skip
