"""The study's answer in three plain lines, made from its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from experiments.analysis.exploration import Exploration


def answer_lines(explored: Exploration, experiment: dict[str, Any]) -> list[str]:
    """Return what the model does, what drives it, and what that follows: one line each."""
    lines = [_what(explored), _drives(explored, experiment), _follows(explored, experiment)]
    return lines if explored.model.trained else [f"UNTRAINED MODEL – {line}" for line in lines]


def _what(explored: Exploration) -> str:
    question, n = explored.question, len(explored.images)
    said = f"The model calls {len(question.positive)} of {n} tumour-free slices “{question.target}” above {question.threshold:g}"
    if len(question.bands) < 2:
        return f"{said}; {question.note}."
    at = explored.images.attributes.column("slice_position")
    bands = " and ".join(
        f"{at[b.images].min():.0f} to {at[b.images].max():.0f} mm ({len(b.images)} slices)" for b in question.bands
    )
    return f"{said}, in two bands at {bands}."


def _drives(explored: Exploration, experiment: dict[str, Any]) -> str:
    said = experiment["verdict"]
    if said["word"] == "not run":
        return f"Whether features drive it was not tested: {said['reasons'][0]}."
    ways = [d for d in experiment["directions"] if d["kind"] == "sae" and d["ranked_by"] == "reference"]
    size = ways[0]["size"]
    mean, resample = (_flipped(ways, name, size) for name in ("mean", "resample"))
    tested = "/".join(dict.fromkeys(str(len(d["before_after"][0]["images"])) for d in ways))
    numbers = (
        f"{size} features chosen on one band turn {_percent(mean)} of the other's {tested} tested slices when replaced by "
        f"reference means and {_percent(resample)} when resampled (random sets of the same norm {_percent(_random(ways, size))})"
    )
    if said["word"] == "drives":
        return f"A small set drives it: {numbers}."
    return f"No small set does: {numbers}.{_zeroing(experiment)}"


def _zeroing(experiment: dict[str, Any]) -> str:
    """Say what zeroing would have claimed: of the set that zeroing itself ranks first, which is another one."""
    ways = [d for d in experiment["directions"] if d["kind"] == "sae" and d["ranked_by"] == "zero"]
    if not ways:
        return ""
    size = ways[0]["size"]
    zero = _flipped(ways, "zero", size)
    replaced = _flipped(ways, "mean", size) + _flipped(ways, "resample", size)
    said = (
        f" Another {size}, ranked by zeroing, turn {_percent(zero)} when zeroed and {_percent(replaced)} when replaced or "
        "resampled"
    )
    artefact = bool(zero) and min(zero) > 2 * max(replaced)
    return f"{said}{': an artefact of zeroing' if artefact else ''}."


def _follows(explored: Exploration, experiment: dict[str, Any]) -> str:
    tests = explored.matrix_tests
    best = tests["best"]
    if best["p_corrected"] is None:
        return f"Which quantity the features follow cannot be tested: {tests['text']}."
    pair = (
        f"feature {best['feature']} with {best['label']} (Spearman {best['rho_confirmation']:+.2f} on held-out slices, "
        f"corrected p = {best['p_corrected']:.3f})"
    )
    if not tests["n_findings"]:
        return f"No feature's relation to a physical quantity survives correction; the closest is {pair}."
    chosen = {f for d in experiment.get("directions", []) if d["kind"] == "sae" for f in d["chosen"]}
    among = [f for f in tests["findings"] if f["feature"] in chosen]
    return (
        f"{tests['n_findings']} of {tests['n_tested']} features follow a physical quantity after correction, the closest is {pair}; "
        f"{len(among)} of the {len(chosen)} features chosen above are among them."
    )


def _flipped(ways: list[dict[str, Any]], ablation: str, size: int) -> list[float]:
    curves = [next(c for c in d["curves"] if c["ablation"] == ablation) for d in ways]
    return [c["flipped"][c["sizes"].index(size)] for c in curves if size in c["sizes"]]


def _random(ways: list[dict[str, Any]], size: int) -> list[float]:
    found = []
    for d in ways:
        for name in ("mean", "resample"):
            curve = next(c for c in d["curves"] if c["ablation"] == name)
            if curve["control_flipped"]["median"]:
                found.append(curve["control_flipped"]["median"][curve["sizes"].index(size)])
    return found


def _percent(values: list[float]) -> str:
    if not values:
        return "–"
    low, high = np.min(values), np.max(values)
    return f"{low:.0%}" if round(low * 100) == round(high * 100) else f"{low:.0%} to {high:.0%}"
