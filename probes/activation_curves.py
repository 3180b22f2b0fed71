"""The physical calibration curve of a feature: its activation against an attribute in its unit, over patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import Attribute
from mechinterp.errors import AttributeTableError, ShapeError
from mechinterp.figures import COLOURS, apply_theme, as_text
from mechinterp.statistics.bootstrap import FEWEST_GROUPS, Interval, bootstrap_groups
from mechinterp.statistics.equivalence import mean_interval
from mechinterp.statistics.permutation import unit_means
from probes.deconfounding import AdjustedEffect

MOST_BINS = 8


@dataclass(frozen=True)
class ActivationCurve:
    """What a feature does, on average, at each size of an attribute.

    Parameters
    ----------
    feature
        Its name.
    attribute
        Name and unit of what it is held against.
    patients
        Patient × (attribute, feature): the mean over the patient's images.
    value, reading, interval
        For each bin of patients: mean of the attribute in its unit, mean of the feature, and its 95 % interval over
        patients; a bin of fewer than 10 has none.
    count
        Patients in each bin.
    slope
        Of the feature over the attribute, nothing else held fixed; over images, so a patient with more of them counts more.

    """

    feature: str
    attribute: Attribute
    patients: Float[NDArray[np.float64], "patient 2"]
    value: tuple[float, ...]
    reading: tuple[float, ...]
    interval: tuple[Interval, ...]
    count: tuple[int, ...]
    slope: AdjustedEffect

    @property
    def text(self) -> str:
        """In one line: how much the feature changes per unit, with its interval."""
        return f"{self.feature} changes by {self.slope.value:.3g} {self.slope.unit}; {self.slope.interval.text}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON, without the patients."""
        return {
            "feature": self.feature,
            "attribute": self.attribute.name,
            "unit": self.attribute.unit,
            "value": list(self.value),
            "reading": list(self.reading),
            "interval": [i.to_json() for i in self.interval],
            "count": list(self.count),
            "slope": self.slope.to_json(),
        }


def activation_curve(
    feature: Float[NDArray[Any], " image"],
    attribute: Float[NDArray[Any], " image"],
    about: Attribute,
    *,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    name: str = "feature",
    n_boot: int = 1000,
    seed: int = 0,
) -> ActivationCurve:
    """Average a feature over patients who are alike in an attribute.

    Parameters
    ----------
    feature, attribute
        Per image; images that lack either are left out.
    about
        Name and unit of the attribute.
    groups
        Patient of each image; every image is its own by default. A patient's images are averaged first.
    name
        Of the feature.
    n_boot, seed
        Of the slope's interval.

    Returns
    -------
    ActivationCurve
        In bins of about equal numbers of patients, at most 8 and of 10 patients where there are as many; patients of the
        same value (no lesion, for example) are in one bin.

    Raises
    ------
    ShapeError
        If the two are not of the same images.
    AttributeTableError
        If the attribute has fewer than two values.

    """
    f, a = np.asarray(feature, dtype=np.float64), np.asarray(attribute, dtype=np.float64)
    if f.shape != a.shape or f.ndim != 1:
        raise ShapeError(f"the feature has shape {f.shape}, the attribute {a.shape}: one value per image each")
    kept = np.isfinite(f) & np.isfinite(a)
    if len(np.unique(a[kept])) < 2:
        raise AttributeTableError(f"'{about.name}' does not vary: no curve can be drawn over it")
    units = np.arange(int(kept.sum())) if groups is None else np.asarray(groups, dtype=object)[kept]
    means = unit_means(np.column_stack([a, f])[kept], units)
    bins = _bins(means[:, 0])
    members = [means[bins == b] for b in np.unique(bins)]
    return ActivationCurve(
        name, about, means,
        tuple(float(m[:, 0].mean()) for m in members),
        tuple(float(m[:, 1].mean()) for m in members),
        tuple(mean_interval(m[:, 1]) for m in members),
        tuple(len(m) for m in members),
        _slope(f[kept], a[kept], units, about.unit, n_boot, seed),
    )  # fmt: skip


def activation_curve_figure(curve: ActivationCurve) -> go.Figure:
    """Draw the curve over its patients, the attribute in its unit."""
    label, name = as_text(curve.attribute.label), as_text(curve.feature)
    unit = "" if curve.attribute.unit in {"", "1"} else f" {as_text(curve.attribute.unit)}"
    figure = go.Figure()
    figure.add_scatter(
        x=curve.patients[:, 0], y=curve.patients[:, 1], mode="markers", name="a patient",
        marker={"color": COLOURS["control"], "size": 5}, hovertemplate="%{x:.3g}" + unit + "<br>%{y:.3g}<extra>patient</extra>",
    )  # fmt: skip
    ends = [i.ends or (r, r) for i, r in zip(curve.interval, curve.reading, strict=True)]
    figure.add_scatter(
        x=curve.value, y=curve.reading, mode="lines+markers", name="mean, 95 % interval over patients",
        line={"color": COLOURS["blue"], "width": 2}, marker={"size": 8},
        error_y={
            "type": "data", "symmetric": False, "array": [high - r for (_, high), r in zip(ends, curve.reading, strict=True)],
            "arrayminus": [r - low for (low, _), r in zip(ends, curve.reading, strict=True)],
        },
        customdata=[[n, as_text(i.text)] for n, i in zip(curve.count, curve.interval, strict=True)],
        hovertemplate="%{x:.3g}" + unit + "<br>%{y:.3g}<br>%{customdata[0]} patients; %{customdata[1]}<extra>mean</extra>",
    )  # fmt: skip
    apply_theme(figure)
    figure.update_xaxes(title=label)
    figure.update_yaxes(title=name)
    figure.update_layout(
        height=430, margin={"t": 84, "b": 100}, legend={"orientation": "h", "y": -0.32, "x": 0},
        title=f"{name}: {curve.slope.value:.3g} {as_text(curve.slope.unit)}<br><sub>{as_text(curve.slope.interval.text)}</sub>",
    )  # fmt: skip
    return figure


def _bins(values: Float[NDArray[np.float64], " patient"]) -> NDArray[np.int64]:
    """Put patients into bins of about as many each, those of one value together."""
    wanted = int(np.clip(len(values) // FEWEST_GROUPS, 2, MOST_BINS))
    edges = np.unique(np.quantile(values, np.arange(1, wanted) / wanted))
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def _slope(
    f: NDArray[np.float64], a: NDArray[np.float64], units: NDArray[Any], unit: str, n_boot: int, seed: int
) -> AdjustedEffect:
    """Return the least-squares slope over images; few patients have one too, without an interval."""

    def slope(images: NDArray[np.int64]) -> float:
        x = a[images] - a[images].mean()
        spread = float(x @ x)
        return float(x @ f[images]) / spread if spread > 0 else float("nan")

    interval = bootstrap_groups(slope, units, n_boot, seed)
    per = "per unit" if unit in {"", "1"} else f"per {unit}"
    return AdjustedEffect(
        "naive", slope(np.arange(len(f))), per, interval, len(set(units.tolist())), "nothing held fixed"
    )
