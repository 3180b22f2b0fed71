"""Pictures of shortcuts, edits, doses, deferral, subgroups and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from mechinterp.figures import COLOURS, apply_theme, as_text, class_colour

if TYPE_CHECKING:
    from circuits.acting.counterfactuals import CounterfactualFeatures
    from circuits.acting.deferring import Deferral
    from circuits.acting.edit_bill import EditBill
    from circuits.acting.model_differences import ModelDifference
    from circuits.acting.shortcuts import ShortcutSearch
    from circuits.acting.steering import Steered
    from circuits.acting.subgroup_effects import SubgroupEffect

_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = ("circle", "diamond", "square", "x", "triangle-up", "cross")


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


def deferral_figure(found: Sequence[Deferral]) -> go.Figure:
    """Draw the share of errors among the cases that are kept over the share that is kept, one line a score."""
    figure = go.Figure()
    shares = np.linspace(0.05, 1, 96)
    for k, one in enumerate(found):
        figure.add_scatter(
            x=shares, y=[one.risk_at(float(c)) for c in shares], mode="lines", name=as_text(one.name),
            line={"color": class_colour(k), "dash": _DASHES[k % len(_DASHES)], "width": 2},
            hovertemplate="%{x:.0%} kept: %{y:.1%} of them wrong<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="share of cases kept", tickformat=".0%", range=[0, 1.01])
    figure.update_yaxes(title="share of errors among them", tickformat=".0%", rangemode="tozero")
    return apply_theme(figure).update_layout(height=420)


def subgroup_figure(found: Sequence[SubgroupEffect], metric: str) -> go.Figure:
    """Draw the mean effect of every node in every subgroup, with its interval over patients."""
    figure = go.Figure()
    nodes = list(dict.fromkeys(f.node.name for f in found))
    names = list(dict.fromkeys(f.subgroup for f in found))
    for k, name in enumerate(names):
        own = [f for f in found if f.subgroup == name]
        ends = [f.interval.ends for f in own]
        # marks of one node stand above each other, in the order of the legend
        places = [nodes.index(f.node.name) + 0.5 * ((k + 0.5) / len(names) - 0.5) for f in own]
        figure.add_scatter(
            x=[f.mean for f in own], y=places, mode="markers", name=f"{as_text(name)} ({own[0].images} images)",
            marker={"color": class_colour(k), "symbol": _SYMBOLS[k % len(_SYMBOLS)], "size": 9},
            error_x={
                "type": "data", "symmetric": False, "thickness": 1.2, "width": 3,
                "array": [0 if e is None else e[1] - f.mean for e, f in zip(ends, own, strict=True)],
                "arrayminus": [0 if e is None else f.mean - e[0] for e, f in zip(ends, own, strict=True)],
            },
            customdata=[[as_text(f.node.name), f.interval.text] for f in own],
            hovertemplate="%{customdata[0]}: %{x:+.3g} (%{customdata[1]})<extra>" + as_text(name) + "</extra>",
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": COLOURS["ink"], "width": 1})
    figure.update_xaxes(title=f"mean effect on {as_text(metric)}")
    figure.update_yaxes(
        tickvals=list(range(len(nodes))), ticktext=[as_text(n) for n in nodes], range=[len(nodes) - 0.4, -0.6]
    )
    return apply_theme(figure).update_layout(height=130 + 34 * len(nodes))


def turning_figure(found: Sequence[CounterfactualFeatures], names: Sequence[str], target: str) -> go.Figure:
    """Draw every case's log-odds before and after its features were changed; a line joins the two."""
    figure = go.Figure()
    for one, name in zip(found, names, strict=True):
        figure.add_scatter(
            x=[one.before, one.after], y=[name, name], mode="lines", showlegend=False, hoverinfo="skip",
            line={"color": COLOURS["control"], "width": 2, "dash": "solid" if one.turned else "dot"},
        )  # fmt: skip
    for title, values, symbol in (
        ("as it is", [f.before for f in found], "circle"),
        ("with its features changed", [f.after for f in found], "diamond"),
    ):
        figure.add_scatter(
            x=values, y=list(names), mode="markers", name=title,
            marker={"symbol": symbol, "size": 10, "color": class_colour(int(symbol == "diamond"))},
            customdata=[len(f.features) for f in found],
            hovertemplate="%{y}: %{x:+.2f}<br>%{customdata} feature(s) changed<extra>" + title + "</extra>",
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": COLOURS["ink"], "width": 1})
    figure.update_xaxes(title=f"log-odds of {as_text(target)}")
    figure.update_yaxes(type="category", autorange="reversed", automargin=True)
    return apply_theme(figure).update_layout(height=130 + 26 * len(found))


def difference_figure(found: ModelDifference) -> go.Figure:
    """Draw every matched pair of features: how alike they answer, and how alike they write."""
    figure = go.Figure()
    turned = found.cosine < found.turned
    for title, chosen, symbol in (("kept", ~turned, "circle"), ("turned", turned, "diamond")):
        figure.add_scatter(
            x=found.correlation[chosen], y=found.cosine[chosen], mode="markers", name=f"{title} ({int(chosen.sum())})",
            marker={"symbol": symbol, "size": 8, "color": class_colour(int(symbol == "diamond")), "opacity": 0.7},
            customdata=found.pairs[chosen],
            hovertemplate="earlier %{customdata[0]} → later %{customdata[1]}<br>correlation %{x:.2f}, cosine %{y:.2f}"
            "<extra></extra>",
        )  # fmt: skip
    figure.add_hline(y=found.turned, line={"color": COLOURS["control"], "width": 1, "dash": "dash"})
    figure.update_xaxes(title="correlation of codes over the same tokens", range=[found.same - 0.02, 1.01])
    figure.update_yaxes(title="cosine of directions")
    return apply_theme(figure).update_layout(height=460)
