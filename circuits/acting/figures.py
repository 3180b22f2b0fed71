"""Pictures of shortcuts and of edits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from mechinterp.figures import COLOURS, apply_theme, class_colour

if TYPE_CHECKING:
    from circuits.acting.edit_bill import EditBill
    from circuits.acting.shortcuts import ShortcutSearch
    from circuits.acting.steering import Steered


def use_figure(search: ShortcutSearch, n: int = 15) -> go.Figure:
    """Draw what removing the first `n` features does in either environment; a line joins the two."""
    ranked = search.ranked(n)
    names = [f"{f.rank}. {f.node.name}" for f in ranked]
    figure = go.Figure()
    for k, name in enumerate(names):
        figure.add_scatter(
            x=[ranked[k].first, ranked[k].second], y=[name, name], mode="lines",
            line={"color": COLOURS["control"], "width": 2}, showlegend=False, hoverinfo="skip",
        )  # fmt: skip
    for e, (environment, symbol) in enumerate(zip(search.environments, ("circle", "diamond"), strict=True)):
        figure.add_scatter(
            x=[f.first if e == 0 else f.second for f in ranked], y=names, mode="markers", name=environment,
            marker={"color": class_colour(e), "symbol": symbol, "size": 10},
            customdata=[f"{f.p:.4f}" for f in ranked],
            hovertemplate="%{y}: %{x:+.3f}<br>corrected p of the difference: %{customdata}<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": COLOURS["ink"], "width": 1})
    figure.update_xaxes(title="change of the log-odds of the truth when the feature is removed (below 0: it helped)")
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_layout(height=120 + 26 * len(names))
    return apply_theme(figure)


def bill_figure(bill: EditBill) -> go.Figure:
    """Draw the loss of every class with and without the shortcut, before and after, beside random edits' median."""
    names = [g.name for g in bill.before.groups]
    figure = go.Figure()
    for e, (title, scores) in enumerate((("as it is", bill.before), ("edited", bill.after))):
        figure.add_bar(
            x=names, y=[g.loss for g in scores.groups], name=title, marker={"color": class_colour(e)},
            customdata=[g.accuracy for g in scores.groups],
            hovertemplate="%{x}: %{y:.2f} nats, accuracy %{customdata:.0%}<extra>" + title + "</extra>",
        )  # fmt: skip
    for title, several, symbol in (
        ("random features", bill.random_features, "diamond"),
        ("random directions", bill.random_directions, "x"),
    ):
        if several:
            middle = [sorted(s.groups[k].loss for s in several)[len(several) // 2] for k in range(len(names))]
            figure.add_scatter(
                x=names, y=middle, mode="markers", name=f"{title} of the same norm, median",
                marker={"color": COLOURS["ink"], "symbol": symbol, "size": 9},
            )  # fmt: skip
    figure.update_yaxes(title="loss [nats]", rangemode="tozero")
    figure.update_layout(barmode="group")
    return apply_theme(figure)


def dose_figure(steered: Steered) -> go.Figure:
    """Draw the change of the log-odds over doses, with its interval and the range of random directions."""
    order = sorted(range(len(steered.doses)), key=lambda k: steered.doses[k])
    doses = [steered.doses[k] for k in order]
    figure = go.Figure()
    if len(steered.random):
        grey = {"width": 0, "color": COLOURS["control"]}
        for values, fill in ((steered.random.max(0), None), (steered.random.min(0), "tonexty")):
            figure.add_scatter(
                x=doses, y=[values[k] for k in order], mode="lines", line=grey, fill=fill, fillcolor="rgba(138,148,158,0.25)",
                name="random directions of the same norm", showlegend=fill is not None, hoverinfo="skip",
            )  # fmt: skip
    ends = [steered.intervals[k].ends for k in order]
    values = [float(steered.change[k]) for k in order]
    figure.add_scatter(
        x=doses, y=values, mode="lines+markers", name=f"feature {steered.feature}", line={"color": class_colour(0)},
        error_y={
            "type": "data", "symmetric": False,
            "array": [0 if e is None else e[1] - v for e, v in zip(ends, values, strict=True)],
            "arrayminus": [0 if e is None else v - e[0] for e, v in zip(ends, values, strict=True)],
        },
        customdata=[steered.off_data[k] for k in order],
        hovertemplate="%{x:+g} SD: %{y:+.2f}<br>distance from the data: %{customdata:.2f} × usual<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title="dose [standard deviations of the feature]")
    figure.update_yaxes(title=f"change of the log-odds of {steered.target}")
    return apply_theme(figure)
