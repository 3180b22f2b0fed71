"""Figures of interpretable heads: their scores, one answer taken apart, shapes of concepts, what corrections win."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from mechinterp.attributes.table import Attribute
from mechinterp.figures import COLOURS, apply_theme, as_text
from probes.heads.bottleneck import ConceptBottleneck
from probes.heads.comparing import HeadComparison
from probes.heads.data import HeadData
from probes.heads.intervention_curve import InterventionCurve
from probes.heads.terms import Explanation


def comparison_figure(found: HeadComparison) -> go.Figure:
    """Draw each head's AUROC on held-out patients with its interval; the opaque classifier's is the line."""
    scores = found.scores
    figure = go.Figure()
    ends = [s.interval.ends or (s.auroc, s.auroc) for s in scores]
    figure.add_scatter(
        x=[s.auroc for s in scores], y=[as_text(s.name) for s in scores], mode="markers", showlegend=False,
        marker={
            "size": 11, "color": [COLOURS["control"]] + [COLOURS["blue"]] * (len(scores) - 1),
            "symbol": ["square"] + ["circle"] * (len(scores) - 1),
        },
        error_x={
            "type": "data", "symmetric": False, "color": COLOURS["muted"], "thickness": 1.5,
            "array": [high - s.auroc for (_, high), s in zip(ends, scores, strict=True)],
            "arrayminus": [s.auroc - low for (low, _), s in zip(ends, scores, strict=True)],
        },
        hovertemplate="%{y}<br>AUROC %{x:.3f}<extra></extra>",
    )  # fmt: skip
    apply_theme(figure)
    figure.add_vline(x=scores[0].auroc, line={"color": COLOURS["control"], "dash": "dot", "width": 1.5})
    figure.update_xaxes(title="AUROC on held-out patients, 95 % interval")
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_layout(height=120 + 46 * len(scores))
    return figure


def explanation_figure(explained: Explanation, title: str = "", most: int = 12) -> go.Figure:
    """Draw one answer as a waterfall from the base through its terms to the output.

    Parameters
    ----------
    explained
        The answer.
    title
        Above it.
    most
        How many terms are drawn by themselves; the others are one step together.

    """
    terms = explained.strongest(most)
    labels = []
    for term in terms:
        unit = f" {term.unit}" if term.unit else ""
        labels.append(
            as_text(term.name.replace("_", " ") + (f" = {term.value:.3g}{unit}" if np.isfinite(term.value) else ""))
        )
    figure = go.Figure(
        go.Waterfall(
            orientation="h", measure=["absolute", *["relative"] * len(terms), "total"],
            y=["usual answer", *labels, "answer"],
            x=[explained.base, *[t.contribution for t in terms], 0],
            text=[f"{explained.base:+.2f}", *[f"{t.contribution:+.2f}" for t in terms], f"{explained.total:+.2f}"],
            increasing={"marker": {"color": COLOURS["vermilion"]}}, decreasing={"marker": {"color": COLOURS["blue"]}},
            totals={"marker": {"color": COLOURS["control"]}}, connector={"line": {"color": COLOURS["line"]}},
            hovertemplate="%{y}<br>%{text}<extra></extra>",
        )
    )  # fmt: skip
    apply_theme(figure)
    figure.update_xaxes(title="log-odds of class 1" if explained.scale == "log-odds" else "probability of class 1")
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_layout(height=130 + 28 * (len(terms) + 2), title=as_text(title), showlegend=False)
    return figure


def shapes_figure(head: ConceptBottleneck, train: HeadData, most: int = 6) -> go.Figure:
    """Draw what each concept adds over its values, where training patients have them; those that vary most first."""
    from plotly.subplots import make_subplots

    parts = head.parts(train.concepts)
    order = np.argsort(-parts.std(0), kind="stable")[:most]
    columns = min(3, len(order))
    rows = -(-len(order) // columns)
    titles = [as_text(Attribute(head.names[j], head.units[j]).label) for j in order]
    figure = make_subplots(
        rows, columns, subplot_titles=titles, shared_yaxes="all", vertical_spacing=0.28 / rows, horizontal_spacing=0.04
    )
    for position, j in enumerate(order):
        low, high = np.quantile(train.concepts[:, j], (0.01, 0.99))
        values = np.tile(train.concepts.mean(0), (101, 1))
        values[:, j] = np.linspace(low, high, 101)
        place = {"row": position // columns + 1, "col": position % columns + 1}
        figure.add_scatter(
            x=values[:, j], y=head.parts(values)[:, j], mode="lines", line={"color": COLOURS["blue"], "width": 2.5},
            hovertemplate="%{x:.3g}: %{y:+.2f}<extra></extra>", showlegend=False, **place,
        )  # fmt: skip
    apply_theme(figure)
    figure.update_yaxes(title="adds to the log-odds", col=1)
    figure.update_layout(height=90 + 230 * rows)
    return figure


def intervention_figure(curve: InterventionCurve) -> go.Figure:
    """Draw held-out AUROC and accuracy over the number of concepts corrected, beside random orders."""
    n = list(range(len(curve.order) + 1))
    last = ["none", *curve.order]
    figure = go.Figure()
    for name, ours, random, colour, symbol in (
        ("AUROC", curve.auroc, curve.auroc_random, COLOURS["blue"], "circle"),
        ("accuracy", curve.accuracy, curve.accuracy_random, COLOURS["green"], "diamond"),
    ):
        figure.add_scatter(
            x=n, y=ours, mode="lines+markers", name=name, line={"color": colour, "width": 2.5}, marker={"symbol": symbol, "size": 9},
            text=[as_text(t.replace("_", " ")) for t in last],
            hovertemplate="%{x} corrected, last %{text}<br>" + name + " %{y:.3f}<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=n, y=random, mode="lines", name=f"{name}, random order", line={"color": colour, "width": 1.5, "dash": "dot"},
            hovertemplate="%{x} corrected at random<br>" + name + " %{y:.3f}<extra></extra>",
        )  # fmt: skip
    apply_theme(figure)
    figure.update_xaxes(title="concepts corrected", dtick=1 if len(n) < 15 else None)
    figure.update_yaxes(title="held-out patients")
    figure.update_layout(height=380)
    return figure
