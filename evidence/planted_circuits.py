"""Are planted circuits found, by every method, and are the found ones faithful on images held out?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch

from circuits.ablations import counterfactual, mean, resample, zero
from circuits.circuit import Circuit, leading_to_metric
from circuits.faithfulness import measure_faithfulness, random_edges
from circuits.finding import find_circuit
from circuits.finding_config import FindConfig
from circuits.inputs import Batch
from circuits.nodes import NodeSet, features, neurons
from circuits.planted.model import PlantedModel
from circuits.planted.random_circuits import RandomCircuitConfig, random_circuit
from circuits.planted.scoring import score, score_edges
from mechinterp.feature_encoder import Directions
from mechinterp.objectives import logit
from mechinterp.progress import Progress

TITLE = "Circuits: found where they were planted"
SOURCES = ("circuits/planted/*.py", "circuits/edges.py", "circuits/quadrature.py", "circuits/finding.py", "circuits/repair.py", "circuits/wiring.py",
           "circuits/nodes.py", "circuits/corrupting.py", "circuits/frozen.py", "circuits/faithfulness.py",
           "circuits/running_alone.py")  # fmt: skip

Way = Literal["exact", "integrated", "attribution"]
WAYS: tuple[Way, ...] = ("exact", "integrated", "attribution")
THRESHOLDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)
IMAGES = 64
SHARED, MOST_EDGES = 1.25, 0.1
"""Features per neuron, and the share of the edges that is kept there, where circuits are run alone."""

Basis = Literal["true", "neurons", "incomplete", "shared"]
WORDS: dict[Basis, str] = {
    "neurons": "",
    "incomplete": ", features and errors of dictionaries that miss every fourth neuron",
    "shared": f", {SHARED:g} features per neuron, the largest {MOST_EDGES:.0%} of the edges",
}


def run(small: bool, progress: Progress) -> dict[str, Any]:
    """Fix thresholds on some circuits, find others, and vary effect size, superposition and backups."""
    circuits, tuning = (1, 1) if small else (25, 6)
    kinds: tuple[Literal["cnn", "vit"], ...] = ("cnn", "vit")
    seeds = {"tuning": range(1000, 1000 + tuning), "test": range(circuits)}
    planted = {
        part: [
            _draw(kind, seed) for kind in kinds for seed in progress.track(some, f"planting {part} {kind}", len(some))
        ]
        for part, some in seeds.items()
    }
    thresholds = {way: _best_threshold(planted["tuning"], way, progress) for way in WAYS}
    found: dict[str, Any] = {}
    for way in WAYS:
        rows = []
        for p in progress.track(planted["test"], f"finding, {way}", len(planted["test"])):
            circuit = _find(p, way, thresholds[way])
            rows.append((score(p, circuit), _random_f1(p, circuit)))
        found[way] = _summary(rows, len(planted["test"]) // 2)
    few = range(2000, 2001 if small else 2003)
    return {
        "thresholds": thresholds,
        "found": found,
        "superposition": _superposition(few, thresholds["exact"], progress, small),
        "effect_size": _effect_size(few, thresholds["exact"], progress, small),
        "repair": _repair(range(2000, 2001 if small else 2006), thresholds, progress),
        "faithful": _faithful(range(3000, 3001 if small else 3003), progress),
    }


def _draw(kind: Literal["cnn", "vit"], seed: int) -> PlantedModel:
    return random_circuit(RandomCircuitConfig(kind=kind, depth=2 + seed % 2), seed=seed)


def _find(p: PlantedModel, way: Way, threshold: float, *, basis: Basis = "true") -> Circuit:
    shown = p.images(IMAGES, seed=1)
    sets = [_nodes(p, site, basis) for site in p.sites]
    config = FindConfig(method=way, threshold=threshold, steps=4, batch=IMAGES, rows=2048, boot=100)
    return find_circuit(p.model, shown.x, nodes=sets, metric=logit(1), groups=shown.groups, config=config)


def _nodes(p: PlantedModel, site: str, basis: Basis) -> NodeSet:
    if basis == "incomplete":
        width = p.model.site(site).width
        kept = torch.eye(width, dtype=torch.float64)[[n for n in range(width) if n % 4 != 3]]
        return features(Directions(site, kept, torch.zeros(width, dtype=torch.float64)))
    if basis in {"true", "shared"} and site in p.dictionaries:
        return features(p.dictionaries[site], error=basis == "shared")
    return neurons(p.model, site)


def _best_threshold(planted: Sequence[PlantedModel], way: Way, progress: Progress) -> float:
    """Return the threshold with the best mean F1 of edges; of equals the one in the middle."""
    totals = np.zeros(len(THRESHOLDS))
    for p in progress.track(planted, f"threshold of {way}", len(planted)):
        wide = _find(p, way, min(THRESHOLDS))
        for k, threshold in enumerate(THRESHOLDS):
            kept = leading_to_metric([e for e in wide.edges if e.size >= threshold * wide.scale])
            totals[k] += score_edges(p, {e.edge: e.sign for e in kept}).edges
    best = np.flatnonzero(totals >= totals.max() - 1e-9)
    return THRESHOLDS[int(best[len(best) // 2])]


def _random_f1(p: PlantedModel, circuit: Circuit) -> float:
    rng = np.random.default_rng(0)
    return float(
        np.mean(
            [score_edges(p, dict.fromkeys(random_edges(circuit, len(circuit.edges), rng), 1)).edges for _ in range(20)]
        )
    )


def _summary(rows: Sequence[tuple[Any, float]], cnns: int) -> dict[str, Any]:
    edges = [s.edges for s, _ in rows]
    return {
        "circuits": len(rows),
        "nodes": float(np.mean([s.nodes for s, _ in rows])),
        "edges": float(np.mean(edges)),
        "edges_cnn": float(np.mean(edges[:cnns])),
        "edges_vit": float(np.mean(edges[cnns:])),
        "worst": float(np.min(edges)),
        "signs": float(np.min([s.signs for s, _ in rows])),
        "random": float(np.mean([r for _, r in rows])),
    }


def _curve(values: Sequence[float], make: Callable[[float, int], PlantedModel], seeds: range, threshold: float,
           bases: Sequence[Basis], progress: Progress, what: str) -> list[dict[str, float]]:  # fmt: skip
    rows = []
    for value in progress.track(values, what, len(values)):
        row = {"value": value}
        for basis in bases:
            scores = [
                score(p, _find(p, "exact", threshold, basis=basis)).edges for p in (make(value, s) for s in seeds)
            ]
            row[basis] = float(np.mean(scores))
        rows.append(row)
    return rows


def _superposition(seeds: range, threshold: float, progress: Progress, small: bool) -> dict[str, Any]:
    values = (1.0, 1.5) if small else (1.0, 1.1, 1.25, 1.5)
    found = {}
    for kind in ("cnn",) if small else ("cnn", "vit"):

        def make(value: float, seed: int, kind: Any = kind) -> PlantedModel:
            return random_circuit(RandomCircuitConfig(kind=kind, superposition=value), seed=seed)

        bases: tuple[Basis, ...] = ("true", "neurons") if kind == "cnn" else ("true",)
        found[kind] = _curve(values, make, seeds, threshold, bases, progress, f"superposition, {kind}")
    return found


def _effect_size(seeds: range, threshold: float, progress: Progress, small: bool) -> list[dict[str, float]]:
    values = (1.0, 0.01) if small else (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)

    def make(value: float, seed: int) -> PlantedModel:
        return random_circuit(RandomCircuitConfig(weak_share=0.5, weak_scale=value), seed=seed)

    return _curve(values, make, seeds, threshold, ("true",), progress, "effect size")


def _repair(seeds: range, thresholds: dict[Way, float], progress: Progress) -> dict[str, Any]:
    """Find circuits with a backup, with both directions and with each alone."""
    found: dict[str, list[float]] = {"both": [], "noising alone": [], "denoising alone": []}
    reported = silent = 0
    for seed in progress.track(seeds, "backups", len(seeds)):
        p = random_circuit(RandomCircuitConfig(kind="vit", depth=2, backup=True), seed=seed)
        circuit = _find(p, "exact", thresholds["exact"])
        least = thresholds["exact"] * circuit.scale
        found["both"].append(score(p, circuit).edges)
        for way in ("noising", "denoising"):
            kept = leading_to_metric(
                [e for e in circuit.edges if np.abs(getattr(e, way)).mean() >= least and not e.repair]
            )
            found[f"{way} alone"].append(score_edges(p, {e.edge: e.sign for e in kept}).edges)
        # a backup whose primary is a threshold speaks below it: only one that never does is found by repair alone
        values = p.plan.values(p.images(IMAGES, seed=1).amplitudes)
        backups = {p.places[g.name][0] for g in p.plan.gates if g.kind == "backup" and not values[g.name].any()}
        silent += len(backups)
        reported += len(backups & set(circuit.self_repair))
    return {
        "circuits": len(seeds),
        "silent": silent,
        "reported": reported,
        **{k: float(np.mean(v)) for k, v in found.items()},
    }


def _faithful(seeds: range, progress: Progress) -> list[dict[str, Any]]:
    """Run circuits alone that are a tenth of all edges or less: much of what their models detect is not used.

    Nodes are neurons; or the features and errors of dictionaries that miss every fourth neuron; or the features and errors of
    the known dictionaries where features share neurons, of whose circuit the largest edges are kept, a tenth of all.
    """
    rows = []
    cases: list[tuple[Basis, Literal["cnn", "vit"]]] = [
        ("neurons", "cnn"),
        ("neurons", "vit"),
        ("incomplete", "cnn"),
        ("incomplete", "vit"),
        ("shared", "cnn"),
    ]
    planted = [(basis, _small_part(basis, kind, seed)) for basis, kind in cases for seed in seeds]
    for basis, p in progress.track(planted, "faithfulness", len(planted)):
        circuit, held = _find(p, "exact", 0.01, basis=basis), p.images(IMAGES, seed=77)
        if basis == "shared":
            circuit = circuit.largest(int(MOST_EDGES * circuit.possible))
        settings: dict[str, Any] = {
            "images": Batch(held.x, held.groups), "random_circuits": 20, "minimality": False, "curve": [len(circuit.edges)],
            "subgroups": [f"{p.plan.inputs[0]} {'shown' if a else 'absent'}" for a in held.amplitudes[:, 0]],
            "neuron_circuit": None if basis == "neurons" else _find(p, "exact", 0.01, basis="neurons"),
        }  # fmt: skip
        found = measure_faithfulness(circuit, ablations=[zero(), mean(), resample(1)], **settings)
        other = p.counterfactual(held).x
        turned = measure_faithfulness(circuit, ablations=[counterfactual()], reference=other, **settings)
        rows += [
            {
                "model": p.model.name + WORDS[basis],
                "edges": found.edges / found.possible,
                "ablation": u.ablation.name,
                "faithfulness": u.faithfulness.value,
                "worst": u.faithfulness.worst[1],
                "completeness": u.completeness.value,
                "random_high": u.random_interval[1],
                "errors": found.error_share,
                "neurons": None if u.neurons is None else u.neurons.value,
            }
            for u in (*found.under, *turned.under)
        ]
    return rows


def _small_part(basis: Basis, kind: Literal["cnn", "vit"], seed: int) -> PlantedModel:
    """Return a model of whose nodes the circuit is a small part."""
    shared = SHARED if basis == "shared" else 1.0
    return random_circuit(RandomCircuitConfig(kind=kind, distractors=9, superposition=shared), seed=seed)


def render(figures: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    found = figures["found"]
    n = found["exact"]["circuits"]
    lines = [
        f"{n} random circuits, half CNN, half ViT, none of which thresholds were chosen on. F1 is a mean over circuits; "
        "signs are the worst circuit's share of right ones; *random* is the F1 of as many edges drawn at random.",
        "",
        "| method | threshold | nodes | edges | CNN | ViT | worst circuit | signs | random |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for way, f in found.items():
        lines.append(
            f"| {way} | {figures['thresholds'][way]:g} | {f['nodes']:.3f} | {f['edges']:.3f} | {f['edges_cnn']:.3f} | "
            f"{f['edges_vit']:.3f} | {f['worst']:.3f} | {f['signs']:.3f} | {f['random']:.3f} |"
        )
    lines += ["", "F1 of edges (exact) as features share neurons; at 1 they do not:", "",
              "| model | features per neuron | known dictionary | its neurons |", "|---|---|---|---|"]  # fmt: skip
    for kind, rows in figures["superposition"].items():
        for row in rows:
            neurons_only = f"{row['neurons']:.3f}" if "neurons" in row else "the stream is not looked at"
            lines.append(f"| {kind} | {row['value']:g} | {row['true']:.3f} | {neurons_only} |")
    lines += ["", "F1 of edges (exact) as half of the read-out's weights get weaker:", "",
              "| weak weights times | F1 |", "|---|---|"]  # fmt: skip
    lines += [f"| {row['value']:g} | {row['true']:.3f} |" for row in figures["effect_size"]]
    r = figures["repair"]
    lines += [
        "",
        f"With a backup ({r['circuits']} ViTs): F1 {r['both']:.3f} with noising and "
        f"denoising, {r['noising alone']:.3f} with noising alone, {r['denoising alone']:.3f} with denoising alone; "
        f"of {r['silent']} backups that are silent until their primary fails {r['reported']} were found and marked as self-repair.",
        "",
        "Circuits run alone on held-out patients; *left* is what everything but the circuit still explains, *neurons* the "
        "circuit of as many edges found between neurons, where nodes are features and their errors. Counterfactual: the same "
        "picture with every pattern taken away that was there, and shown where it was not.",
        "",
        "| model | share of all edges | everything else | faithfulness | worst subgroup | left | random, 97.5 % | neurons | errors' share |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in figures["faithful"]:
        lines.append(
            f"| {row['model']} | {row['edges']:.1%} | {row['ablation']} | {row['faithfulness']:.2f} | {row['worst']:.2f} | "
            f"{row['completeness']:.2f} | {row['random_high']:.2f} | "
            f"{'' if row['neurons'] is None else format(row['neurons'], '.2f')} | {row['errors']:.0%} |"
        )
    return "\n".join(lines)
