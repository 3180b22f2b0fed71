"""How large a circuit must be before it does what the trained reference models do: curves over size, held out, as they fall."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from circuits.ablations import counterfactual, mean, resample, zero
from circuits.corrupting import corrupted_batches
from circuits.inputs import Batch
from circuits.metrics import as_metric
from circuits.node_circuits import rank_nodes
from circuits.node_curves import WITHIN, NodeCurves, Ranked, measure_curves
from circuits.nodes import NodeSet, features, neurons
from circuits.wiring import Wiring
from mechinterp.capturing import capture
from mechinterp.models.vision_model import VisionModel
from mechinterp.objectives import logit_difference
from mechinterp.phantoms.datasets import PhantomSet
from mechinterp.progress import SILENT, Progress
from mechinterp.reference.recipes import TINY
from mechinterp.reference.training import train_reference
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.metrics import evaluate_sae
from sparse_autoencoders.training import train_saes

TITLE = "Circuits of the reference models: what they restore, over their size"
SOURCES = ("circuits/node_circuits.py", "circuits/node_curves.py", "circuits/shares.py", "circuits/node_scores.py",
           "circuits/nodes.py", "circuits/corrupting.py", "circuits/wiring.py", "circuits/quadrature.py")  # fmt: skip
SITES = {
    "cnn": ("stages.1", "stages.2", "stages.3"),
    "vit": tuple(f"blocks.{i}.hook_resid_post" for i in (1, 2, 3)),
}
TRAINED_ON, FOUND_ON, TESTED_ON, RANDOM, STEPS = 240, 40, 40, 12, 8
SIZES = (2, 8, 32, 64, 128)
"""Nodes kept of every site; all nodes are the last size."""
ADDED_MM2 = 1.5
"""Haemorrhages that turn an eye that is not referable into one that is, for its counterfactual."""


@dataclass(frozen=True)
class Shown:
    """Images as the models take them, with what is known of them."""

    x: Tensor
    partners: Tensor
    groups: NDArray[Any]
    subgroups: tuple[str, ...]


def run(small: bool, progress: Progress) -> dict[str, Any]:
    """Rank nodes on patients trained on, and run circuits of every size on others; small: a hasty CNN, few images."""
    found: dict[str, Any] = {}
    for kind in ("cnn",) if small else ("cnn", "vit"):
        trained = train_reference(kind, recipe=TINY["cnn"] if small else None, progress=SILENT)
        model, phantoms = trained.model(), trained.phantoms()
        sites = SITES[kind][-2:] if small else SITES[kind]
        shown = {
            split: _shown(model, phantoms, split, 6 if small else count)
            for split, count in (("train", FOUND_ON), ("test", TESTED_ON))
        }
        with tempfile.TemporaryDirectory() as folder:
            sets, explained = _dictionaries(model, phantoms, sites, Path(folder), small, progress)
        curves = _curves(model, sets, shown, 2 if small else RANDOM, progress)
        smallest = curves.smallest()
        found[kind] = {
            **curves.to_json(),
            "sites": list(sites),
            "explained_variance": explained,
            "auroc": trained.auroc,
            "smallest": None if smallest is None else smallest.most,
        }
    return {"models": found, "found_on": FOUND_ON, "tested_on": TESTED_ON, "random": RANDOM}


def _shown(model: VisionModel, phantoms: PhantomSet, split: str, count: int) -> Shown:
    """Return images of as many patients, half of them referable, each with its counterfactual."""
    groups, labels = np.asarray(phantoms.groups), np.asarray(phantoms.labels)
    first = np.sort(np.unique(groups, return_index=True)[1])
    inside = first[np.asarray(phantoms.splits)[first] == split]
    by_class = [inside[labels[inside] == name] for name in sorted(set(labels.tolist()))]
    chosen = np.sort(np.concatenate([part[: count // 2] for part in by_class]))
    other = []
    for i in chosen.tolist():
        phantom = phantoms.phantom(i)
        changes = {"haemorrhage_area_mm2": 0.0, "exudate_area_mm2": 0.0}
        if not phantom.parameters.referable:
            changes = {"haemorrhage_area_mm2": ADDED_MM2}
        other.append(phantom.counterfactual(**changes).pixels)
    own = phantoms.images.subset(chosen.tolist())
    prepared = [
        model.prepare([images[i] for i in range(len(images))])
        for images in (own, replace(own, read=lambda i: other[i]))
    ]
    names = tuple(f"{labels[i]}, camera {phantoms.parameters[i].camera}" for i in chosen)
    return Shown(prepared[0], prepared[1], groups[chosen], names)


def _dictionaries(
    model: VisionModel, phantoms: PhantomSet, sites: Sequence[str], folder: Path, small: bool, progress: Progress
) -> tuple[list[NodeSet], dict[str, float]]:
    """Train a small autoencoder for every site; return their nodes and what they explain of held-out tokens."""
    count = 12 if small else TRAINED_ON
    chosen = np.concatenate([phantoms.where("train")[:count], phantoms.where("test")[: count // 4]])
    store = capture(model, phantoms.images.subset(chosen.tolist()), sites, out=folder / "store", progress=progress)
    sets, explained = [], {}
    for site in sites:
        config = TrainSAEConfig(arch="topk", k=16, expansion=4.0, seeds=(0,), epochs=1 if small else 6)
        (sae,) = train_saes(store, site=site, images=store.where("train"), config=config, progress=progress)
        sets.append(features(sae))
        explained[site] = float(evaluate_sae(sae, store, store.where("test")).explained_variance)
    return sets, explained


def _curves(
    model: VisionModel, sets: Sequence[NodeSet], shown: dict[str, Shown], random: int, progress: Progress
) -> NodeCurves:
    train, test = shown["train"], shown["test"]
    metric = as_metric(logit_difference("referable", "not referable"), model)
    ranked = []
    for layers in (list(sets), [neurons(model, s.site) for s in sets]):
        wiring = Wiring(model, layers, metric, train.x)
        both = corrupted_batches(wiring, train.x, None, resample(1), batch=16)
        ranked.append(Ranked(wiring, rank_nodes(wiring, both, steps=STEPS)))
    every = max(len(layer) for layer in ranked[0].wiring.layers)
    return measure_curves(
        ranked[0], images=Batch(test.x, test.groups), neurons=ranked[1],
        ablations=(zero(), mean(), resample(1), counterfactual()), reference=train.x, partners=test.partners,
        sizes=[*(n for n in SIZES if n < every), every], subgroups=test.subgroups, random_circuits=random, batch=40, boot=300, progress=progress,
    )  # fmt: skip


def render(figures: dict[str, Any]) -> str:
    """Return the tables as Markdown, and the smallest size that is faithful."""
    lines = [
        f"Nodes (features of small autoencoders, one a site, with their error nodes) were ranked on {figures['found_on']} eyes "
        f"trained on; the largest of every site were run alone on {figures['tested_on']} eyes of patients never trained on, half "
        "of them referable; all edges between kept nodes count. Logit difference; intervals over patients. *Worst* is the "
        "worst of label × camera; *left* is what everything else restores; *no error* the same without error nodes; *random* "
        f"is 95 % of {figures['random']} circuits with as many nodes that the two runs tell apart, and the same error nodes; "
        "*neurons* as many neurons. Counterfactual: the same eye without haemorrhages and exudates, or with "
        f"{ADDED_MM2} mm² of haemorrhages where it was not referable.",
    ]
    for kind, model in figures["models"].items():
        possible = model["possible_edges"]
        explained = ", ".join(f"`{s}` {v:.2f}" for s, v in model["explained_variance"].items())
        alone = ", ".join(f"{u['errors_alone']:.2f} ({u['ablation']})" for u in model["under"])
        lines += [
            "",
            f"**{kind.upper()}**: {model['possible_nodes']:,} nodes, {possible:,} edges; explained variance {explained}. Error "
            f"nodes alone restore {alone}.",
            "",
            "| others replaced | nodes a site | edges | faithfulness | worst | left | no error | random | neurons |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for u in model["under"]:
            lines += [_row(u["ablation"], p, possible) for p in u["points"]]
        lines += ["", _verdict(model)]
    return "\n".join(lines)


def _row(ablation: str, p: dict[str, Any], possible: int) -> str:
    f = p["faithfulness"]
    interval = "" if f["interval"] is None else f" ({f['interval'][0]:.2f} to {f['interval'][1]:.2f})"
    low, high = p["random"]["interval"]
    return (
        f"| {ablation} | {p['most_nodes_a_site']} | {p['edges'] / possible:.2%} | {f['value']:.2f}{interval} | "
        f"{f['worst_subgroup']['value']:.2f} | {p['completeness']['value']:.2f} | {p['without_errors']:.2f} | "
        f"{low:.2f} to {high:.2f} | {p['neurons']['value']:.2f} |"
    )


def _verdict(model: dict[str, Any]) -> str:
    bounds = f"{WITHIN[0]} to {WITHIN[1]}"
    if model["smallest"] is None:
        return f"No size stays within {bounds} under all four ablations."
    points = [p for u in model["under"] for p in u["points"] if p["most_nodes_a_site"] == model["smallest"]]
    share, left = points[0]["edges"] / model["possible_edges"], max(p["completeness"]["value"] for p in points)
    small = share <= 0.1 and left <= 0.2
    return (
        f"From {model['smallest']} nodes a site on ({share:.1%} of the edges, error nodes counted) faithfulness stays within "
        f"{bounds} under all four ablations; what is left without that circuit is at most {left:.2f}. "
        + (
            "That is a small circuit."
            if small
            else "That is no small circuit: 10 % of the edges and 0.2 left were asked for."
        )
    )
