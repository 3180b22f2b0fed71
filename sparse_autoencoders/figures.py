"""Figures of a training run, of how often features fire, and of an SAE beside its controls."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from sparse_autoencoders.autoencoder import SparseAutoencoder

_PANELS = {
    "loss": "loss (scaled activations)",
    "explained_variance": "explained variance of the batch",
    "l0": "active features of a token",
    "dead": "dead features (share)",
}


def training_figure(saes: Sequence[SparseAutoencoder] | SparseAutoencoder) -> go.Figure:
    """Return the training curves of one SAE or several: loss, explained variance, L0 and dead features over the steps.

    Raises
    ------
    ConfigError
        If none of them has a curve (trained elsewhere).

    """
    several = [saes] if not isinstance(saes, Sequence) else list(saes)
    return curves_figure(
        {
            f"{sae.provenance.get('config', {}).get('arch', sae.architecture)}, seed {sae.provenance.get('seed')}": sae.provenance[
                "curve"
            ]
            for sae in several
            if sae.provenance.get("curve")
        }
    )


def curves_figure(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> go.Figure:
    """Return training curves by the name of their SAE; see :class:`~sparse_autoencoders.training.TrainingStatus`.

    Raises
    ------
    ConfigError
        If there is none.

    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from mechinterp.figures import SEQUENCE, apply_theme

    if not curves:
        raise ConfigError("no SAE has a training curve: only those trained here record one")
    figure = make_subplots(rows=2, cols=2, subplot_titles=list(_PANELS.values()), vertical_spacing=0.2)
    for i, (name, curve) in enumerate(curves.items()):
        for panel, key in enumerate(_PANELS):
            figure.add_trace(
                go.Scatter(
                    x=curve["step"],
                    y=curve[key],
                    mode="lines",
                    name=name,
                    legendgroup=name,
                    showlegend=panel == 0 and len(curves) > 1,
                    line={"color": SEQUENCE[i % len(SEQUENCE)], "width": 2},
                ),
                row=panel // 2 + 1,
                col=panel % 2 + 1,
            )
    figure.update_xaxes(title_text="step", row=2)
    figure.update_yaxes(type="log", dtick="D2", row=1, col=1)
    # below: with many autoencoders the legend takes several lines, which would lie on the titles
    below = {"orientation": "h", "y": -0.18, "yanchor": "top"}
    return apply_theme(figure).update_layout(height=520 + 12 * len(curves), margin={"t": 60}, legend=below)


def silence_figure(silent_epochs: Mapping[str, NDArray[np.float64]]) -> go.Figure:
    """Return for how long features have been silent: a histogram over epochs, one line for each SAE in training."""
    import plotly.graph_objects as go

    from mechinterp.figures import apply_theme

    figure = go.Figure()
    top = max(1.0, *(float(values.max()) for values in silent_epochs.values()))
    edges = np.linspace(0, top, 41)
    for name, values in silent_epochs.items():
        counts, _ = np.histogram(values, bins=edges)
        figure.add_trace(
            go.Scatter(
                x=(edges[1:] + edges[:-1]) / 2,
                y=counts,
                mode="lines",
                line={"shape": "hvh", "width": 2},
                name=name,
                showlegend=len(silent_epochs) > 1,
            )
        )
    figure.update_xaxes(title_text="epochs since a feature was last active")
    figure.update_yaxes(title_text="features", type="log")
    return apply_theme(figure).update_layout(height=340)


def density_figure(densities: Mapping[str, NDArray[np.float64]]) -> go.Figure:
    """Return how often features fire: a histogram of the logarithm of their density, one line for each encoder.

    Parameters
    ----------
    densities
        Name → share of the tokens on which each feature is active. Features that never are stand in the legend, having no
        logarithm.

    """
    import plotly.graph_objects as go

    from mechinterp.figures import apply_theme

    figure = go.Figure()
    rarest = min((float(density[density > 0].min()) for density in densities.values() if density.any()), default=1.0)
    low = int(np.clip(np.floor(np.log10(rarest)), -6, -1))
    edges = np.linspace(low, 0, 1 - 8 * low)
    for name, density in densities.items():
        living = density[density > 0]
        counts, _ = np.histogram(np.log10(living).clip(low, 0), bins=edges)
        figure.add_trace(
            go.Scatter(
                x=(edges[1:] + edges[:-1]) / 2,
                y=counts,
                mode="lines",
                line={"shape": "hvh", "width": 2},
                name=f"{name} ({len(density) - len(living)} of {len(density)} silent)",
                showlegend=True,
            )
        )
    figure.update_xaxes(title_text="share of tokens on which a feature is active", tickvals=list(range(low, 1)))
    figure.update_xaxes(ticktext=["10⁻⁶", "10⁻⁵", "10⁻⁴", "0.001", "0.01", "0.1", "1"][low - 1 :])
    figure.update_yaxes(title_text="features")
    return apply_theme(figure).update_layout(height=340)


def comparison_figure(table: pd.DataFrame, saes: Sequence[str] = ()) -> go.Figure:
    """Return the explained variance of encoders as bars, controls in grey.

    Parameters
    ----------
    table
        From :func:`sparse_autoencoders.metrics_table`.
    saes
        Names of the rows that are no controls.

    """
    import plotly.graph_objects as go

    from mechinterp.figures import COLOURS, apply_theme

    ordered = table.sort_values("explained_variance")
    labels: list[Any] = [f"{row.explained_variance:.3f}  (L0 {row.l0:.1f})" for row in ordered.itertuples()]
    figure = go.Figure(
        go.Bar(
            x=ordered["explained_variance"],
            y=ordered.index,
            orientation="h",
            marker={"color": [COLOURS["blue" if name in saes else "control"] for name in ordered.index]},
            text=labels,
            textposition="auto",
            hovertemplate="%{y}: %{x:.4f}<extra></extra>",
        )
    )
    figure.update_xaxes(title_text="explained variance on held-out images")
    return apply_theme(figure).update_layout(height=80 + 44 * len(ordered))


_CONTROL_SYMBOLS = (
    "x", "triangle-up", "square", "diamond", "cross", "star", "triangle-down", "pentagon", "hexagram", "bowtie",
)  # fmt: skip


def pareto_figure(table: pd.DataFrame, saes: Sequence[str] = ()) -> go.Figure:
    """Return explained variance against active features, controls in grey behind them.

    The axis ends at 0, or below the worst autoencoder: controls that are far worse than the mean are named instead of drawn, since
    all else would be pressed together at the top.

    Parameters
    ----------
    table
        From :func:`sparse_autoencoders.metrics_table`.
    saes
        Names of the rows that are no controls.

    """
    import plotly.graph_objects as go

    from mechinterp.figures import COLOURS, SEQUENCE, apply_theme

    figure = go.Figure()
    ours = [name for name in table.sort_values("l0").index if name in saes]
    # seeds of one setting share a colour
    groups = list(dict.fromkeys(name.rpartition("/seed-")[0] or name for name in ours))
    for at, group in enumerate(groups):
        rows = table.loc[[name for name in ours if (name.rpartition("/seed-")[0] or name) == group]]
        # drawn last, over the controls, and first in the legend
        points = _points(rows, group, SEQUENCE[at % len(SEQUENCE)], "circle")
        figure.add_trace(points.update(zorder=1, legendrank=at))
    kinds: dict[str, list[str]] = {}
    for name in table.index:
        if name not in saes:
            kinds.setdefault(re.sub(r"(, k)? \d+$", "", name), []).append(name)
    for at, kind in enumerate(kinds):
        symbol = _CONTROL_SYMBOLS[at % len(_CONTROL_SYMBOLS)]
        figure.add_trace(
            _points(table.loc[kinds[kind]].sort_values("l0"), kind, COLOURS["control"], symbol, "lines+markers")
        )
    # all may have the same k: a logarithmic axis needs room for two ticks at least
    ends = [float(np.log10(max(l0, 0.1))) for l0 in (table["l0"].min() / 2, table["l0"].max() * 2)]
    figure.update_xaxes(title_text="active features of a token (mean)", type="log", dtick="D2", range=ends)
    shown = table.loc[ours, "explained_variance"] if ours else table["explained_variance"]
    least = min(0.0, float(shown.min())) - 0.02
    figure.update_yaxes(title_text="explained variance of held-out images", range=[least, 1.02])
    below = {
        kind: low for kind, names in kinds.items() if (low := table.loc[names, "explained_variance"].min()) < least
    }
    if below:
        said = ", ".join(f"{kind} (down to {low:.2g})" for kind, low in below.items())
        figure.add_annotation(
            text=f"below the axis: {said}",
            x=0,
            y=0,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
        )
    return apply_theme(figure).update_layout(height=520, showlegend=True)


def _points(rows: pd.DataFrame, name: str, colour: str, symbol: str, mode: str = "markers") -> go.Scatter:
    import plotly.graph_objects as go

    return go.Scatter(
        x=rows["l0"],
        y=rows["explained_variance"],
        mode=mode,
        name=name,
        text=list(rows.index),
        marker={"color": colour, "size": 10, "symbol": symbol},
        line={"color": colour, "width": 1, "dash": "dot"},
        hovertemplate="%{text}<br>L0 %{x:.1f}, explained variance %{y:.4f}<extra></extra>",
    )
