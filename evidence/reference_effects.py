"""How near attribution, integration and relevance come to exact effects on the trained reference models, site by site."""

from __future__ import annotations

from typing import Any

import numpy as np

from circuits.ablations import Ablation, mean, resample, zero
from circuits.measuring import Method, effects
from circuits.node_results import Effects
from circuits.nodes import neurons
from mechinterp.models.vision_model import VisionModel
from mechinterp.objectives import logit_difference
from mechinterp.progress import SILENT, Progress
from mechinterp.reference.recipes import TINY
from mechinterp.reference.training import train_reference
from mechinterp.statistics import spearman

TITLE = "Effects: attribution against exact, on the reference models"
SOURCES = ("circuits/measuring.py", "circuits/exact.py", "circuits/node_scores.py", "circuits/nodes.py",
           "circuits/corrupting.py", "circuits/quadrature.py", "circuits/wiring.py", "circuits/relevance_patching.py",
           "circuits/localization/lrp_rules.py")  # fmt: skip
SITES = {
    "cnn": tuple(f"stages.{i}" for i in range(4)),
    "vit": tuple(f"blocks.{i}.hook_resid_post" for i in range(4)),
}
IMAGES = {"cnn": 24, "vit": 8}
GOAL = 0.9
ESTIMATES: tuple[Method, ...] = ("attribution", "integrated", "relevance")
OWN_STEPS = (1, 2, 4)
SAME = 0.0005
"""Coefficients nearer than this print as one."""
METRIC = logit_difference("referable", "not referable")


def run(small: bool, progress: Progress) -> dict[str, Any]:
    """Change every neuron of every site in images of patients never trained on; small: a hasty CNN on four images."""
    rows = []
    for kind in ("cnn",) if small else ("cnn", "vit"):
        trained = train_reference(kind, recipe=TINY["cnn"] if small else None, progress=SILENT)
        model, phantoms = trained.model(), trained.phantoms()
        chosen = phantoms.where("test")[: 4 if small else IMAGES[kind]]
        images = phantoms.images.subset(chosen.tolist())
        x = model.prepare([images[i] for i in range(len(images))])
        sites = SITES[kind][-2:] if small else SITES[kind]
        for site in progress.track(sites, f"effects of {kind}", len(sites)):
            rows += [{"model": kind, **row} for row in _site(model, x, site)]
    return {"rows": rows, "images": IMAGES}


def _site(model: VisionModel, x: Any, site: str) -> list[dict[str, Any]]:
    found = []
    for ablation in (zero(), mean(), resample(1)):
        settings: dict[str, Any] = {"model": model, "images": x, "ablation": ablation}
        exact = effects(METRIC, neurons(model, site), **settings)
        row: dict[str, Any] = {"site": site, "ablation": ablation.name, "off_data": float(np.nanmedian(exact.off_data))}
        for method in ESTIMATES:
            row[method] = _agreement(exact, effects(METRIC, neurons(model, site), method=method, steps=10, **settings))
        if row["attribution"] < GOAL:
            row["mended"] = _mended(model, x, site, ablation, exact)
        found.append(row)
    return found


def _mended(model: VisionModel, x: Any, site: str, ablation: Ablation, exact: Effects) -> dict[str, float]:
    """Return what better estimates reach where a single gradient falls short; only those that the model has a place for."""
    settings: dict[str, Any] = {"model": model, "images": x, "ablation": ablation}
    found = {
        f"own way, {steps} point{'s' if steps > 1 else ''}": _agreement(
            exact, effects(METRIC, neurons(model, site), method="integrated-own", steps=steps, **settings)
        )
        for steps in OWN_STEPS
    }
    if any(name.startswith("blocks.") for name in model.sites):
        dropped = effects(METRIC, neurons(model, site), method="graddrop", **settings)
        # GradDrop's are sizes: compared with the size of what is exact
        found["GradDrop (sizes)"] = float(
            spearman(np.abs(exact.per_image).reshape(-1, 1), dropped.per_image.reshape(-1, 1))[0, 0]
        )
    return found


def _agreement(exact: Effects, near: Effects) -> float:
    # over images and neurons: means over images of a mean ablation's effects are 0 where the rest is linear
    return float(spearman(exact.per_image.reshape(-1, 1), near.per_image.reshape(-1, 1))[0, 0])


def render(figures: dict[str, Any]) -> str:
    """Return the table as Markdown, the sites that fall short, and what mends them."""
    lines = [
        f"Spearman's ρ over images and neurons; {figures['images']['cnn']} (CNN) and {figures['images']['vit']} (ViT) phantoms "
        "of patients never trained on; logit difference. *Distance*: how far off the data the changed tokens lie, as a multiple "
        "of usual (median neuron).",
        "",
        "| model | site | ablation | attribution | integrated | relevance | distance |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['model']} | `{r['site']}` | {r['ablation']} | {r['attribution']:.3f} | {r['integrated']:.3f} | "
        f"{r['relevance']:.3f} | {r['off_data']:.2f} |"
        for r in figures["rows"]
    ]
    alike = all(abs(r["relevance"] - r["attribution"]) < SAME for r in figures["rows"] if r["model"] == "cnn")
    better = sum(r["relevance"] > r["attribution"] + SAME for r in figures["rows"])
    lines += ["", f"*Relevance*: coefficients of relevance × change, at attribution's cost; nearer to exact than attribution in {better} of "
              f"{len(figures['rows'])} rows." + (" In the CNN its rules are the gradient's: ReLUs and folded normalisation." if alike else "")]  # fmt: skip
    short = [r for r in figures["rows"] if r["attribution"] < GOAL]
    if not short:
        return "\n".join([*lines, "", f"Attribution reaches {GOAL} at every site."])
    named = ", ".join(f"`{r['site']}` ({r['model']}, {r['ablation']})" for r in short)
    lines += ["", f"Attribution falls short of {GOAL} at {named}. What better estimates reach there:", ""]
    lines += [
        f"- `{r['site']}` ({r['model']}, {r['ablation']}): attribution {r['attribution']:.3f}, "
        + ", ".join(f"{way} {value:.3f}" for way, value in r.get("mended", {}).items())
        + "."
        for r in short
    ]
    lines += ["", "*Own way*: `integrated-own`, the gradient averaged along each node's own way; it costs a forward and a backward "
              "a node and point, where exact costs a forward a node. AtP*'s other correction changes queries and keys, which "
              "these sites' neurons are not. So: measure exactly there."]  # fmt: skip
    return "\n".join(lines)
