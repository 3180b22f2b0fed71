"""One record per feature, as ``results.json`` holds it and a feature's page shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from experiments.analysis.exploration import Exploration


def feature_records(found: Exploration) -> list[dict[str, Any]]:
    """Return the records of all features, in their order."""
    effects = _mean_effects(found)
    return [_record(found, i, effects.get(i, {})) for i in range(found.sae.width)]


def _record(found: Exploration, i: int, effects: dict[str, dict[str, float]]) -> dict[str, Any]:
    summary = found.summary
    alive = bool(summary.density[i] > 0)
    tokens = found.model.site(found.site).tokens
    active = summary.active[:, i].sum() * tokens
    return {
        "id": i,
        "density": summary.density[i],
        "alive": alive,
        "max": summary.maximum[:, i].max(),
        "mean_when_active": summary.mean[:, i].sum() * tokens / active if alive else 0.0,
        "best": _best(found, i),
        "attributes": _attributes(found, i),
        "effects": effects,
        "values": summary.mean[:, i],
        "histogram": {"edges": summary.edges[i], "counts": summary.histogram[i]},
        "top": _top(found, i),
    }


def _top(found: Exploration, i: int) -> list[dict[str, Any]]:
    """Return the strongest images with the feature's values on the cells, row by row."""
    summary, site = found.summary, found.model.site(found.site)
    entries = []
    for image, value, values in zip(summary.top_images[i], summary.top_values[i], summary.top_maps[i], strict=True):
        if image < 0:
            continue
        cells = values[site.prefix_tokens :]
        grid = None if site.grid is None else cells.reshape(site.grid.rows, site.grid.columns)
        entries.append({"image": int(image), "value": value, "map": grid})
    return entries


def _best(found: Exploration, i: int) -> dict[str, Any] | None:
    if found.matrix is None:
        return None
    pair = found.matrix[i]
    if not pair.attribute:
        return {"attribute": None, "survives": False, "text": pair.verdict}
    label = found.images.attributes[pair.attribute].label
    confirmed = pair.verdict.startswith("confirmed")
    return {
        "attribute": pair.attribute,
        "unit": pair.unit,
        "rho_discovery": pair.rho_discovery,
        "rho_confirmation": pair.rho_confirmation,
        "p_corrected": pair.p_corrected,
        "survives": confirmed,
        "text": f"{'Follows' if confirmed else 'Chosen for'} {label}, {pair.verdict}.",
    }


def _attributes(found: Exploration, i: int) -> list[dict[str, Any]]:
    matrix = found.matrix
    if matrix is None:
        return []
    return [
        {
            "attribute": a.name,
            "unit": a.unit,
            "rho_discovery": matrix.rho_discovery[i, j],
            "rho_confirmation": matrix.rho_confirmation[i, j],
            "p_corrected": matrix.test.p_corrected[i, j],
        }
        for j, a in enumerate(matrix.attributes)
    ]


def _mean_effects(found: Exploration) -> dict[int, dict[str, dict[str, float]]]:
    """Return, per feature, ablation and class, the mean change of the logit over images."""
    if found.effects is None:
        return {}
    names, classes = found.model.class_names, found.shown_classes
    means = {name: values.mean(0) for name, values in found.effects.effects.items()}
    return {
        int(feature): {name: {names[c]: float(values[row, c]) for c in classes} for name, values in means.items()}
        for row, feature in enumerate(np.asarray(found.effects.features))
    }
