"""What two circuits do not share: of two models, two sites, two ablations, or right against wrong cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.dashboard.circuit_page import write_circuit_page
from mechinterp.errors import ConfigError, DamagedFileError
from mechinterp.files import write_json

if TYPE_CHECKING:
    from circuits.graph import FeatureGraph, GraphDifference, GraphEdge


def read_graph(path: Path) -> FeatureGraph:
    """Read a circuit's graph: a ``circuit.json``, or the folder or run that holds one.

    Raises
    ------
    ConfigError
        If there is none.
    DamagedFileError
        If the file holds something else.

    """
    from circuits.graph import FeatureGraph

    for candidate in (path, path / "circuit.json", path / "circuit" / "circuit.json"):
        if candidate.is_file():
            try:
                return FeatureGraph.load(candidate)
            except DamagedFileError as error:
                raise DamagedFileError(f"{candidate} is no circuit.json of mechinterp circuit: {error}") from error
    raise ConfigError(f"{path} holds no circuit.json: mechinterp circuit RUN --metric … writes one")


def difference_lines(
    found: GraphDifference, first: FeatureGraph, second: FeatureGraph, names: tuple[str, str]
) -> list[str]:
    """Return what differs, from the numbers alone."""
    lines = [
        f"{names[0]}: {len(first.edges)} edges; {names[1]}: {len(second.edges)}. {len(found.shared)} are in both "
        f"(overlap {found.overlap:.2f}), {len(found.only_first)} only in {names[0]}, {len(found.only_second)} only in {names[1]}."
    ]
    if found.turned:
        lines.append(f"{len(found.turned)} of the shared edges turned: they drive their target the other way.")
    unlike = [
        f"{key} ({first.claim.get(key)} and {second.claim.get(key)})"
        for key in ("method", "ablation", "threshold", "discovery", "images")
        if first.claim.get(key) != second.claim.get(key)
    ]
    if unlike:
        lines.append(f"The two were not found alike: {', '.join(unlike)}. That alone can make edges differ.")
    lines.append("No test stands behind a single difference: an edge near the threshold may be in one by chance.")
    return lines


def merged(first: FeatureGraph, second: FeatureGraph, words: Mapping[tuple[str, str], str]) -> FeatureGraph:
    """Return one graph with the edges of both; of an edge in both the first's effects, and none of nodes.

    Raises
    ------
    ConfigError
        If the two are about other metrics.

    """
    from circuits.graph import FeatureGraph

    if first.metric != second.metric:
        raise ConfigError(
            f"the circuits are of '{first.metric}' and '{second.metric}': compare circuits of the same metric"
        )
    nodes = {n.id: n for n in second.nodes} | {n.id: n for n in first.nodes}
    edges = {(e.source, e.target): e for e in second.edges} | {(e.source, e.target): e for e in first.edges}
    order = _order(first, second)
    ranked = sorted(nodes.values(), key=lambda n: (n.kind == "metric", order.index(n.site), n.index))
    kept = tuple(edge for key, edge in edges.items() if key in words)
    return FeatureGraph(
        tuple(replace(n, effect=None) for n in ranked),
        kept,
        first.metric,
        first.scale,
        {**first.claim, "compared": True},
    )


def write_graph_difference(
    found: GraphDifference, first: FeatureGraph, second: FeatureGraph, names: tuple[str, str], out: Path
) -> dict[str, str]:
    """Write what two circuits do not share as JSON and as a page whose edges say which circuit has them."""
    words = {(e.source, e.target): f"only {names[0]}" for e in found.only_first}
    words |= {(e.source, e.target): f"only {names[1]}" for e in found.only_second}
    words |= dict.fromkeys(found.shared, "in both")
    words |= dict.fromkeys(found.turned, "in both, turned")
    lines = difference_lines(found, first, second, names)
    graph = merged(first, second, words)
    write_json(out / "diff-circuits.json", {**difference_json(found, names), "sentences": lines})
    page = out / "diff-circuits.html"
    write_circuit_page(page, f"{names[0]} and {names[1]}: what their circuits share", lines, graph, edge_words=words)
    return {name: str(out / name) for name in ("diff-circuits.json", "diff-circuits.html")}


def difference_json(found: GraphDifference, names: tuple[str, str]) -> dict[str, Any]:
    """Return a difference as plain JSON."""

    def listed(edges: tuple[GraphEdge, ...]) -> list[dict[str, Any]]:
        return [{"source": e.source, "target": e.target, "size": e.size, "sign": e.sign} for e in edges]

    return {
        "names": list(names), "overlap": found.overlap, "only_first": listed(found.only_first),
        "only_second": listed(found.only_second),
        "shared": [{"source": s, "target": t, "shares": list(v)} for (s, t), v in found.shared.items()],
        "turned": [list(edge) for edge in found.turned],
    }  # fmt: skip


def _order(first: FeatureGraph, second: FeatureGraph) -> list[str]:
    """Return the sites of both graphs in an order that both keep."""
    order = list(dict.fromkeys(n.site for n in first.nodes))
    at = 0
    for site in dict.fromkeys(n.site for n in second.nodes):
        if site in order:
            at = order.index(site) + 1
        else:
            order.insert(at, site)
            at += 1
    return order
