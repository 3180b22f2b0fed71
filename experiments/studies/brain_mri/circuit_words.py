"""What can honestly be said of the brain study's circuit: names of its nodes, and sentences made from its numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from circuits.agreements import agreement_sentence
from circuits.node_curves import WITHIN

if TYPE_CHECKING:
    from circuits.circuit import Place
    from circuits.graph import FeatureGraph, GraphNode
    from circuits.node_curves import NodeCurves
    from experiments.studies.brain_mri.circuit import BrainCircuit
    from experiments.studies.brain_mri.circuit_channels import Closest

NO_ATTRIBUTE = "no measured quantity"


def named(
    graph: FeatureGraph, results: Mapping[str, Any], channels: Mapping[Place, Closest] | None = None
) -> FeatureGraph:
    """Return the graph with names that say what is known: an attribute only where held-out slices confirmed it.

    The closest quantity of a node that none was confirmed for is said in its name, with its unit and as unconfirmed.

    Parameters
    ----------
    graph
        As it was drawn.
    results
        Of the study: its features' attributes.
    channels
        Attributes of the channels of earlier stages.

    """
    return replace(graph, nodes=tuple(_named(node, results, channels or {}) for node in graph.nodes))


def _named(node: GraphNode, results: Mapping[str, Any], channels: Mapping[Place, Closest]) -> GraphNode:
    if node.kind == "metric":
        return node
    if node.kind == "error":
        return replace(node, name="what the features leave out")
    kind = "feature" if node.kind == "feature" else "channel"
    best = results["features"][node.index]["best"] if kind == "feature" else channels.get((node.site, node.index))
    if not best or not best["attribute"]:
        return replace(node, name=f"{kind} {node.index}: {NO_ATTRIBUTE}")
    attribute, unit, rho = best["attribute"].replace("_", " "), best["unit"], best["rho_confirmation"]
    quantity = attribute + (f" [{unit}]" if unit not in {"", "1"} else "")
    if not best["survives"]:
        return replace(node, name=f"{kind} {node.index}, unnamed (closest: {quantity}, ρ {rho:+.2f}, not confirmed)")
    return replace(
        node, name=f"{kind} {node.index}: {quantity}, ρ {rho:+.2f} on held-out slices", attribute=attribute, unit=unit
    )


def columns_named(results: Mapping[str, Any], sites: list[str]) -> dict[str, str]:
    """Return words for every site: a reader knows no module's path."""
    explored = results["model"]["site"]
    before = [s for s in sites if s not in {explored, "metric"}]
    words = {
        s: f"channels, {len(before) - k} stage{'s' if len(before) - k > 1 else ''} before" for k, s in enumerate(before)
    }
    question = results["target"]
    return words | {
        explored: "features of the last convolution",
        "metric": f"“{question['class']}” against “{question['reference']}”",
    }


def sentences(found: BrainCircuit, graph: FeatureGraph, results: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the circuit shows, from which size on it carries the answer, and what it leaves open."""
    return (
        _short(found, graph, results),
        _drawn(found, graph, results),
        f"{_smallest(found.curves, 'nodes a stage')} {_last(found)}",
        _errors(found),
        _why(found, graph, results),
        _estimates(found, columns_named(results, list(found.circuit.wiring.sites))),
    )


def _short(found: BrainCircuit, graph: FeatureGraph, results: Mapping[str, Any]) -> str:
    """Return what a reader takes away, in plain words, and what the four replacements are."""
    curves, question = found.curves, results["target"]
    point = curves.smallest()
    if point is None:
        size = "no part of the network that was run alone carries the answer"
    elif point.edges == curves.possible_edges:
        size = "only all that was looked at carries the answer, no smaller part that was run alone does"
    else:
        size = (
            f"it takes {point.nodes:,} of the {curves.possible_nodes:,} parts looked at to carry “{question['class']}”"
        )
    confirmed = sum(bool(n.attribute) for n in graph.nodes)
    named = (
        f"{confirmed or 'none'} of the {len(graph.nodes) - 1} parts drawn {'follow' if confirmed > 1 else 'follows'} a quantity "
        "that slices held out confirmed"
    )
    return (
        f"In short: {size}, and {named}. So the graph shows where the answer passes in this head, not why it is given. Parts that "
        "are left out are replaced in four ways: switched off (zero), or given their values in "
        f"“{question['reference']}” slices: the mean, another slice's (resample), the nearest slice's (counterfactual)."
    )


def _drawn(found: BrainCircuit, graph: FeatureGraph, results: Mapping[str, Any]) -> str:
    curves, question = found.curves, results["target"]
    first = curves.under[0].points[0]
    shares = ", ".join(f"{u.points[0].faithfulness.value:z.2f} under {u.ablation.name}" for u in curves.under)
    return (
        f"The {first.most} most effective nodes of each of {len(found.circuit.wiring.sites)} stages "
        f"({first.nodes} of {curves.possible_nodes:,} nodes, {_share(first.edges / curves.possible_edges)} of the edges, the error "
        f"node counted) alone restore this share of what separates {len(found.slices['tested_on'])} held-out "
        f"“{question['class']}” slices from “{question['reference']}”: {shares}{_beside(curves)}. The {len(graph.edges)} edges "
        f"drawn are the largest between them, as complete paths; with every other edge cut they restore {found.drawn_alone:z.2f} "
        "under mean."
    )


def _beside(curves: NodeCurves) -> str:
    """Return what random nodes and neurons of the smallest size restore, at most, over all replacements."""
    points = [u.points[0] for u in curves.under]
    said = []
    if all(len(p.random) for p in points):
        said.append(f"random nodes up to {max(p.random_range[1] for p in points):z.2f}")
    neurons = [p.neurons.value for p in points if p.neurons is not None]
    if neurons:
        said.append(f"as many channels {min(neurons):z.2f} to {max(neurons):z.2f}")
    return f" ({', '.join(said)})" if said else ""


def _share(share: float) -> str:
    return f"{share:.2%}" if share >= 0.0001 else "less than 0.01 %"


def _smallest(curves: NodeCurves, what: str) -> str:
    """Return from which size on circuits are faithful, and what is left without the smallest of them."""
    point, bounds = curves.smallest(), f"{WITHIN[0]} to {WITHIN[1]}"
    if point is None:
        return f"No size measured, not even all nodes, stays within {bounds} under every replacement."
    at = [u.at(point.most) for u in curves.under]
    if point.edges == curves.possible_edges:
        return (
            "Only all nodes together carry the answer: no smaller size that was run stays within "
            f"{bounds} under all {len(at)} replacements."
        )
    worst = max((p.faithfulness.worst for p in at), key=lambda w: abs(w[1] - 1))
    left = max(p.completeness.value for p in at)
    return (
        f"From {point.most} {what} on ({point.nodes:,} of {curves.possible_nodes:,} nodes, "
        f"{_share(point.edges / curves.possible_edges)} of the edges, the error node counted) a circuit carries the answer: its share "
        f"stays within {bounds} under all {len(at)} replacements (worst band: {worst[0]}, {worst[1]:z.2f}); what is left without it is at most {left:z.2f}."
    )


def _last(found: BrainCircuit) -> str:
    return "With the stages before left as they are: " + _lower(
        _smallest(found.last_curves, "nodes of the last convolution")
    )


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _errors(found: BrainCircuit) -> str:
    alone = ", ".join(f"{u.errors_alone:z.2f} under {u.ablation.name}" for u in found.curves.under)
    without = ", ".join(f"{u.points[0].without_errors:z.2f}" for u in found.curves.under)
    return (
        f"The error node, what the autoencoder does not reconstruct, alone restores {alone}; the drawn nodes with another "
        f"feature in its place restore {without} in the same order."
    )


def _why(found: BrainCircuit, graph: FeatureGraph, results: Mapping[str, Any]) -> str:
    target, point = results["target"]["class"], found.curves.smallest()
    first = found.curves.under[0].points[0]
    carries = point is not None and point.most == first.most
    known = (
        f"Why “{target}”? {_following(graph, 'feature')} of the last convolution and {_following(graph, 'channel').lower()} of "
        "the stages before follow a measured quantity on held-out slices"
    )
    if carries:
        said = "the graph says what the answer passes through in this head, not why another would be answered so"
    else:
        said = (
            "the graph shows the largest of many small parts: it says where the answer passes in this head and is no "
            "explanation of it, since it does not carry the answer alone"
        )
    return f"{known}, and all slices are of one head (n = 1, so no interval): {said}."


def _following(graph: FeatureGraph, kind: str) -> str:
    """Return how many of the drawn nodes of a kind have a confirmed attribute."""
    drawn = [n for n in graph.nodes if n.kind == kind]
    return f"{sum(bool(n.attribute) for n in drawn) or 'None'} of the {len(drawn)} {kind}s drawn"


def _estimates(found: BrainCircuit, words: Mapping[str, str]) -> str:
    check = found.edge_check
    agreements = [replace(a, site=f"the {words[a.site]}") for a in found.agreements]
    return (
        f"{agreement_sentence(agreements)} When their sources were really replaced, the "
        f"effects of {check.same_sign:.0%} of the {check.edges} drawn edges had the estimated sign (ρ {check.rho:.2f} over "
        f"{check.slices} slices). Run again with plain hooks, every size "
        f"restored what its curve says to {found.rerun_difference:.1g}."
    )
