"""The brain study's circuit: from the features of the last convolution back two stages, and what can honestly be said of it.

It asks what makes a slice “meningioma” where a slice of the same head that is answered “notumor” is not: nodes of positive
slices take their mean over those reference slices. It is found on slices that the autoencoder was trained on and tested on
positive slices of held-out blocks. All are of one head, so no number here has an interval.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mechinterp.errors import ConfigError
from mechinterp.files import read_json, write_bytes, write_json
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from circuits import Faithfulness
    from circuits.faithfulness import UnderAblation
    from circuits.graph import FeatureGraph, GraphNode

STAGES_BEFORE = ("functional_1/block3_pool_1/MaxPool2d", "functional_1/block4_pool_1/MaxPool2d")
"""What the published classifier hands from its third and fourth stage to the next."""

CARRIES = 0.8
"""Least faithfulness, under every ablation, of a circuit that is said to carry the answer."""

NO_ATTRIBUTE = "no attribute found"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrainCircuitConfig:
    """How large the circuit's search and tests are: each node of a test costs the network one run per slice."""

    found_on: int = 4
    tested_on: int = 4
    references: int = 4
    edges: int = 12
    max_nodes: int = 4
    random_circuits: int = 5
    stages: tuple[str, ...] = STAGES_BEFORE
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("found_on", "tested_on", "references", "edges", "max_nodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")


@dataclass(frozen=True, eq=False)
class BrainCircuit:
    """What was found.

    Parameters
    ----------
    graph
        Its nodes carry names that say what is known of them.
    tested
        Its faithfulness on held-out slices, beside random circuits and as many edges between neurons.
    slices
        Numbers of the images: ``found_on``, ``tested_on``, ``references``.
    sentences
        What can be said, made from these numbers.

    """

    graph: FeatureGraph
    tested: Faithfulness
    slices: Mapping[str, tuple[int, ...]]
    sentences: tuple[str, ...]


def find_brain_circuit(
    folder: Path, config: BrainCircuitConfig | None = None, *, progress: Progress = SILENT
) -> BrainCircuit:
    """Find and test the circuit of a finished run of the brain study.

    Parameters
    ----------
    folder
        The run's: its store, autoencoder and ``results.json``.
    config
        Sizes.
    progress
        Told of every step.

    Raises
    ------
    ConfigError
        If the run is not finished, or has too few slices of a kind.
    SiteError
        If the model has not the stages.

    """
    from circuits import FindConfig, find_circuit, mean, measure_faithfulness, resample, zero
    from circuits.inputs import Batch
    from experiments.analysis.circuit_runs import opened_for_circuit
    from mechinterp.objectives import logit_difference

    config = config or BrainCircuitConfig()
    if not (folder / "results.json").exists():
        raise ConfigError(f"{folder} has no results.json: run mechinterp study brain-mri --out {folder} first")
    results = read_json(folder / "results.json")
    opened = opened_for_circuit(folder)
    if not opened.saes:
        raise ConfigError(f"{folder} has no autoencoder: run mechinterp study brain-mri --out {folder} first")
    slices = chosen_slices(results, config)
    question = results["target"]
    metric = logit_difference(question["class"], question["reference"])
    batches = {what: opened.batch(rows) for what, rows in slices.items()}
    # blocks of one head are no patients
    found_on, tested_on = (Batch(batches[w].x, batches[w].groups, False) for w in ("found_on", "tested_on"))
    settings = FindConfig(
        method="attribution", discovery="top-n", top=config.edges, max_nodes=config.max_nodes, batch=8, rows=32,
        seed=config.seed,
    )  # fmt: skip
    sae = opened.saes[0]
    reference = batches["references"].x
    circuits = [
        find_circuit(
            opened.model, found_on.x, metric=metric, saes=saes, sites=sites, reference=reference, ablation=mean(),
            groups=None, config=settings, progress=progress,
        )
        for saes, sites in (([sae], config.stages), ([], (*config.stages, sae.site)))
    ]  # fmt: skip
    circuit, neurons = circuits
    tested = measure_faithfulness(
        circuit, images=tested_on, ablations=(zero(), mean(), resample(1)), reference=reference,
        subgroups=bands_of(question["bands"], slices["tested_on"]), random_circuits=config.random_circuits,
        neuron_circuit=neurons, minimality=False, curve=(len(circuit.edges),), progress=progress,
    )  # fmt: skip
    graph = named(circuit.graph, results)
    return BrainCircuit(graph, tested, slices, sentences(graph, tested, results, slices))


def chosen_slices(results: Mapping[str, Any], config: BrainCircuitConfig) -> dict[str, tuple[int, ...]]:
    """Return which slices the circuit is found on, tested on, and compared with: spread evenly over those there are.

    Raises
    ------
    ConfigError
        If there are none of a kind.

    """
    splits, positive = results["images"]["splits"], results["target"]["positive"]
    kinds = {
        "found_on": ([i for i in positive if splits[i] == "train"], config.found_on, "positive training slices"),
        "tested_on": ([i for i in positive if splits[i] == "test"], config.tested_on, "positive held-out slices"),
        "references": (results["target"]["reference_images"], config.references, "reference slices"),
    }
    found = {}
    for kind, (rows, most, words) in kinds.items():
        if not rows:
            raise ConfigError(f"the run has no {words}: a circuit is found on some and tested on others")
        at = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)
        found[kind] = tuple(int(rows[i]) for i in at)
    return found


def bands_of(bands: Sequence[Mapping[str, Any]], rows: Sequence[int]) -> list[str]:
    """Return the band of each slice, ``between`` for those in none."""
    return [next((b["name"] for b in bands if i in b["images"]), "between") for i in rows]


def named(graph: FeatureGraph, results: Mapping[str, Any]) -> FeatureGraph:
    """Return the graph with names that say what is known: an attribute only where held-out slices confirmed it."""
    return replace(graph, nodes=tuple(_named(node, results) for node in graph.nodes))


def _named(node: GraphNode, results: Mapping[str, Any]) -> GraphNode:
    if node.kind == "feature":
        best = results["features"][node.index]["best"]
        if not best or not best["survives"]:
            return replace(node, name=f"feature {node.index}: {NO_ATTRIBUTE}")
        attribute, unit, rho = best["attribute"].replace("_", " "), best["unit"], best["rho_confirmation"]
        return replace(
            node, name=f"feature {node.index}: {attribute} [{unit}], ρ {rho:+.2f} on held-out slices",
            attribute=attribute, unit=unit,
        )  # fmt: skip
    if node.kind == "error":
        return replace(node, name="what the features leave out")
    return node if node.kind == "metric" else replace(node, name=f"channel {node.index}")


def sentences(
    graph: FeatureGraph, tested: Faithfulness, results: Mapping[str, Any], slices: Mapping[str, Sequence[int]]
) -> tuple[str, ...]:
    """Return what the circuit shows, how far it carries, and what it leaves open: three sentences, from numbers alone."""
    features = [n for n in graph.nodes if n.kind == "feature"]
    confirmed = sum(bool(n.attribute) for n in features)
    question = results["target"]
    shares = "; ".join(_carries(u) for u in tested.under)
    carried = (
        f"On {len(slices['tested_on'])} held-out “{question['class']}” slices these {tested.edges} of {tested.possible:,} "
        f"possible edges alone restore this share of the difference to “{question['reference']}”: {shares}."
    )
    errors = (
        f"The error node, what the autoencoder does not reconstruct, is the source of {tested.error_share:.0%} of the size of "
        "the edges drawn"
        if any(n.kind == "error" for n in graph.nodes)
        else "No edge drawn starts at the error node, which may still carry what the few largest edges do not"
    )
    left = f"{errors}; without the circuit {_without(tested.under)} of the difference is still there."
    carries = min(u.faithfulness.value for u in tested.under) >= CARRIES
    why = (
        f"Of the {len(features)} features drawn {confirmed or 'none'} follow{'s' if confirmed == 1 else ''} a measured quantity "
        f"on held-out slices, and all slices are of one head (n = 1, so no interval): "
        + (
            f"the graph says what the answer passes through in this head, not why another would be “{question['class']}”."
            if carries
            else f"the graph shows the largest single effects and is no explanation of “{question['class']}”, since it does not "
            "carry the answer alone."
        )
    )
    return carried, left, why


def _carries(u: UnderAblation) -> str:
    low, high = (float(u.random.min()), float(u.random.max())) if len(u.random) else (float("nan"), float("nan"))
    neurons = "" if u.neurons is None else f", as many edges between channels {u.neurons.value:z.2f}"
    beside = f"{len(u.random)} random circuit(s) {low:z.2f} to {high:z.2f}" if len(u.random) else "no random circuits"
    return f"{u.faithfulness.value:z.2f} under {u.ablation.name} ({beside}{neurons})"


def _without(under: Sequence[UnderAblation]) -> str:
    return ", ".join(f"{u.completeness.value:z.2f} under {u.ablation.name}" for u in under)


def write_brain_circuit(found: BrainCircuit, folder: Path, out: Path) -> Path:
    """Write the graph, its faithfulness, and a page with both, the sentences and each feature's most active slice.

    Parameters
    ----------
    found
        The circuit.
    folder
        The study's run, which holds the slices' pictures.
    out
        Where ``circuit.json``, ``circuit.graphml``, ``faithfulness.json`` and ``circuit.html`` are written.

    Returns
    -------
    Path
        The page.

    """
    from circuits.graph_figures import graph_figure

    found.graph.save(out / "circuit.json")
    found.graph.save(out / "circuit.graphml")
    record = {**found.tested.to_json(), "slices": dict(found.slices), "sentences": list(found.sentences)}
    write_json(out / "faithfulness.json", record)
    results = read_json(folder / "results.json")
    sites = list(dict.fromkeys(n.site for n in found.graph.nodes if n.kind != "metric"))
    figures = [graph_figure(found.graph, columns_named=_columns(sites, results)), found.tested.figure()]
    graph, tested = (f.to_html(full_html=False, include_plotlyjs=(k == 0)) for k, f in enumerate(figures))
    said = "".join(f"<li>{html.escape(s)}</li>" for s in found.sentences)
    question = results["target"]
    title = html.escape(f"Circuit: “{question['class']}” against “{question['reference']}” in this head")
    pictures = "".join(_picture(n, results, folder) for n in found.graph.nodes if n.kind == "feature")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>'
        f"<body><main><h1>{title}</h1><ul>{said}</ul>{graph}<h2>Where each feature speaks most</h2>"
        f'<div class="slices">{pictures}</div><h2>How much the circuit carries alone</h2>{tested}'
        "<p>Research use only.</p></main></body></html>"
    )
    write_bytes(out / "circuit.html", page.encode())
    return out / "circuit.html"


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;color:#222;margin:0}main{max-width:1180px;margin:0 auto;padding:24px}"
    ".slices{display:flex;flex-wrap:wrap;gap:16px}figure{margin:0;width:150px}figure img{width:150px}"
    "figcaption{font-size:13px;line-height:1.3}"
)


def _columns(sites: Sequence[str], results: Mapping[str, Any]) -> dict[str, str]:
    explored = results["model"]["site"]
    before = [s for s in sites if s != explored]
    words = {
        s: f"channels, {len(before) - k} stage{'s' if len(before) - k > 1 else ''} before" for k, s in enumerate(before)
    }
    return words | {explored: "features of the last convolution"}


def _picture(node: GraphNode, results: Mapping[str, Any], folder: Path) -> str:
    feature = results["features"][node.index]
    if not feature["top"]:
        return ""
    slice_number = feature["top"][0]["image"]
    file = folder / results["images"]["files"][slice_number]
    at = f"{results['images']['ids'][slice_number]}"
    source = base64.b64encode(file.read_bytes()).decode()
    caption = html.escape(f"{node.name}; most active on {at}")
    return f'<figure><img alt="{html.escape(at)}" src="data:image/png;base64,{source}"><figcaption>{caption}</figcaption></figure>'
