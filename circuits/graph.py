"""A circuit as a graph: typed nodes with names, attributes and units; signed effects with intervals; JSON and GraphML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechinterp.errors import ConfigError, DamagedFileError, nearest
from mechinterp.files import read_json, write_bytes, write_json

if TYPE_CHECKING:
    import plotly.graph_objects as go

FORMAT_VERSION = 1
METRIC_ID = "metric"


@dataclass(frozen=True)
class Effect:
    """A signed effect on the metric, with its interval over patients.

    Parameters
    ----------
    mean
        Changed minus unchanged metric, averaged over images.
    size
        Mean of its absolute value: what a threshold is applied to, since signs differ between images.
    low, high
        Interval of the mean over patients; ``None`` where it cannot be estimated.
    note
        Why there is none.

    """

    mean: float
    size: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class GraphNode:
    """One node.

    Parameters
    ----------
    id
        Unique in the graph: site and number.
    site, index
        Where it is: the number of the node among those of its site.
    kind
        ``neuron``, ``channel``, ``head``, ``layer``, ``feature``, ``error`` or ``metric``.
    name
        How pages call it.
    attribute, unit
        What it follows, and in which unit, from an attribute matrix; empty where nothing is known.
    effect
        Of the node alone on the metric.
    self_repair
        True for a node that is silent until another one is changed.

    """

    id: str
    site: str
    index: int
    kind: str
    name: str
    attribute: str = ""
    unit: str = ""
    effect: Effect | None = None
    self_repair: bool = False


@dataclass(frozen=True)
class GraphEdge:
    """One edge; its claim is an intervention, never a correlation.

    Parameters
    ----------
    source, target
        Ids of nodes.
    noising
        Effect on the metric when the target alone gets what it becomes without the source.
    denoising
        Effect when, in the corrupted run, the target alone gets what the source restores.
    slope
        By how much the target moves per unit of the source.

    """

    source: str
    target: str
    noising: Effect
    denoising: Effect
    slope: float

    @property
    def sign(self) -> int:
        """1 where the source drives the target up, −1 where it drives it down."""
        return (self.slope > 0) - (self.slope < 0)

    @property
    def size(self) -> float:
        """The larger of both directions' sizes."""
        return max(self.noising.size, self.denoising.size)


@dataclass(frozen=True)
class FeatureGraph:
    """A circuit.

    Parameters
    ----------
    nodes, edges
        The metric is a node too, the only one without a site.
    metric
        Its name.
    scale
        Mean size of the metric's change when the whole first site is replaced: effects are shares of it.
    claim
        How the effects were won: ``method``, ``ablation``, ``frozen``, ``images``, ``patients``, ``model``, ``trained``.

    """

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    metric: str
    scale: float
    claim: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = {node.id for node in self.nodes}
        if len(ids) < len(self.nodes):
            raise ConfigError("two nodes of the graph have the same id: give each its own")
        for edge in self.edges:
            for end in (edge.source, edge.target):
                if end not in ids:
                    raise ConfigError(f"an edge names the node '{end}', which the graph has not: {nearest(end, ids)}")

    def node(self, node_id: str) -> GraphNode:
        """Return a node by its id.

        Raises
        ------
        ConfigError
            If there is none.

        """
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise ConfigError(f"the graph has no node '{node_id}': {nearest(node_id, [n.id for n in self.nodes])}")

    def edges_into(self, node_id: str) -> Iterator[GraphEdge]:
        """Yield the edges that end at a node."""
        return (edge for edge in self.edges if edge.target == node_id)

    @property
    def error_share(self) -> float:
        """Share of the edges' total size that starts at error nodes: what the features leave unexplained."""
        errors = {node.id for node in self.nodes if node.kind == "error"}
        total = sum(edge.size for edge in self.edges)
        return sum(edge.size for edge in self.edges if edge.source in errors) / total if total else 0.0

    def named(self, attributes: Mapping[tuple[str, int], tuple[str, str]]) -> FeatureGraph:
        """Return the graph with attributes and units.

        Parameters
        ----------
        attributes
            (site, feature) → attribute and unit, as an attribute matrix has them.

        """
        found = [
            replace(node, attribute=attributes[key][0], unit=attributes[key][1])
            if (key := (node.site, node.index)) in attributes and node.kind != "error"
            else node
            for node in self.nodes
        ]
        return replace(self, nodes=tuple(found))

    def figure(self, *, most_edges: int = 200) -> go.Figure:
        """Draw it in layers; see :func:`circuits.graph_figures.graph_figure`."""
        from circuits.graph_figures import graph_figure

        return graph_figure(self, most_edges=most_edges)

    def to_json(self) -> dict[str, Any]:
        """Return the graph as plain JSON; the documentation holds the schema."""
        return {
            "format_version": FORMAT_VERSION,
            "metric": self.metric,
            "scale": self.scale,
            "claim": dict(self.claim),
            "nodes": [asdict(node) for node in self.nodes],
            "edges": [{**asdict(edge), "sign": edge.sign} for edge in self.edges],
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> FeatureGraph:
        """Undo :meth:`to_json`.

        Raises
        ------
        DamagedFileError
            If it is no graph, or of a newer format.

        """
        version = raw.get("format_version")
        if version != FORMAT_VERSION:
            raise DamagedFileError(f"a graph of format {version}: this version reads format {FORMAT_VERSION}")
        try:
            nodes = tuple(
                GraphNode(**{**n, "effect": None if n["effect"] is None else Effect(**n["effect"])})
                for n in raw["nodes"]
            )
            edges = tuple(
                GraphEdge(e["source"], e["target"], Effect(**e["noising"]), Effect(**e["denoising"]), e["slope"])
                for e in raw["edges"]
            )
            return cls(nodes, edges, raw["metric"], raw["scale"], raw["claim"])
        except (KeyError, TypeError) as error:
            raise DamagedFileError(f"this is no graph of ours ({error}): write it again") from None

    def save(self, path: str | Path) -> Path:
        """Write JSON, or GraphML where the name ends so; return the path."""
        target = Path(path)
        if target.suffix == ".graphml":
            write_bytes(target, self.to_graphml().encode())
        else:
            write_json(target, self.to_json())
        return target

    @classmethod
    def load(cls, path: str | Path) -> FeatureGraph:
        """Read what :meth:`save` wrote as JSON."""
        return cls.from_json(read_json(Path(path)))

    def to_graphml(self) -> str:
        """Return the graph as GraphML, which Gephi, Cytoscape and networkx read."""
        columns = {
            "node": {
                "name": "string", "site": "string", "index": "int", "kind": "string", "attribute": "string",
                "unit": "string", "self_repair": "boolean", "effect": "double",
            },
            "edge": {"noising": "double", "denoising": "double", "size": "double", "slope": "double", "sign": "int"},
        }  # fmt: skip
        root = ET.Element("graphml", xmlns="http://graphml.graphdrawing.org/xmlns")
        for what, names in columns.items():
            for name, kind in names.items():
                key = {"id": f"{what}_{name}", "for": what, "attr.name": name, "attr.type": kind}
                ET.SubElement(root, "key", key)
        graph = ET.SubElement(root, "graph", edgedefault="directed")
        for node in self.nodes:
            values = {**asdict(node), "effect": "" if node.effect is None else node.effect.mean}
            _data(ET.SubElement(graph, "node", id=node.id), "node", values, columns["node"])
        for edge in self.edges:
            values = {
                "noising": edge.noising.mean, "denoising": edge.denoising.mean, "size": edge.size, "slope": edge.slope,
                "sign": edge.sign,
            }  # fmt: skip
            element = ET.SubElement(graph, "edge", source=edge.source, target=edge.target)
            _data(element, "edge", values, columns["edge"])
        return ET.tostring(root, encoding="unicode", xml_declaration=True)


def _data(element: ET.Element, what: str, values: Mapping[str, Any], names: Sequence[str] | Mapping[str, str]) -> None:
    for name in names:
        if values[name] != "":
            value = values[name]
            ET.SubElement(element, "data", key=f"{what}_{name}").text = (
                str(value).lower() if isinstance(value, bool) else str(value)
            )


@dataclass(frozen=True)
class GraphDifference:
    """What two graphs do not share: of two models, two sites, right against wrong cases.

    Parameters
    ----------
    only_first, only_second
        Edges that one of them has alone.
    shared
        Edges of both: the size in the first and in the second, each as a share of its graph's scale.
    turned
        Shared edges whose sign differs.

    """

    only_first: tuple[GraphEdge, ...]
    only_second: tuple[GraphEdge, ...]
    shared: Mapping[tuple[str, str], tuple[float, float]]
    turned: tuple[tuple[str, str], ...]

    @property
    def overlap(self) -> float:
        """Shared edges as a share of all (Jaccard); NaN where neither graph has any."""
        total = len(self.only_first) + len(self.only_second) + len(self.shared)
        return len(self.shared) / total if total else float("nan")


def difference(first: FeatureGraph, second: FeatureGraph) -> GraphDifference:
    """Return what two graphs over the same nodes do not share."""
    a, b = ({(e.source, e.target): e for e in graph.edges} for graph in (first, second))
    both = sorted(a.keys() & b.keys())
    sizes = {key: (a[key].size / (first.scale or 1), b[key].size / (second.scale or 1)) for key in both}
    return GraphDifference(
        tuple(edge for key, edge in a.items() if key not in b),
        tuple(edge for key, edge in b.items() if key not in a),
        sizes,
        tuple(key for key in both if a[key].sign * b[key].sign < 0),
    )
