import xml.etree.ElementTree as ET

import pytest

from circuits.graph import Effect, FeatureGraph, GraphEdge, GraphNode, difference
from mechinterp.errors import ConfigError, DamagedFileError


def node(name, site="s", index=0, kind="feature", **more):
    return GraphNode(name, site, index, kind, name, **more)


def edge(source, target, size=1.0, slope=1.0):
    return GraphEdge(source, target, Effect(-size, size, -2.0, -0.5), Effect(size / 2, size / 2, note="none"), slope)


@pytest.fixture
def graph():
    nodes = (
        node("s:0", effect=Effect(0.5, 0.6, 0.1, 0.9)),
        node("s:1", index=1, kind="error"),
        node("t:0", site="t", self_repair=True),
        node("metric", site="metric", kind="metric"),
    )
    edges = (edge("s:0", "t:0", 3.0), edge("s:1", "t:0", 1.0, -2.0), edge("t:0", "metric", 4.0, -1.0))
    return FeatureGraph(nodes, edges, "logit of tumour", 5.0, {"ablation": "mean"})


def test_json_gives_back_the_same_graph(graph, tmp_path):
    assert FeatureGraph.load(graph.save(tmp_path / "graph.json")) == graph
    assert graph.to_json()["edges"][1]["sign"] == -1


def test_graphml_holds_every_node_and_edge_with_their_values(graph, tmp_path):
    root = ET.fromstring(graph.save(tmp_path / "graph.graphml").read_text())
    space = {"g": "http://graphml.graphdrawing.org/xmlns"}
    assert len(root.findall(".//g:node", space)) == 4
    edges = root.findall(".//g:edge", space)
    values = {d.get("key"): d.text for d in edges[1].findall("g:data", space)}
    assert (values["edge_sign"], float(values["edge_size"])) == ("-1", 1.0)
    keys = {k.get("id") for k in root.findall("g:key", space)}
    assert {d.get("key") for d in root.iter() if d.get("key")} <= keys


def test_error_share_sizes_and_signs_by_hand(graph):
    assert graph.error_share == pytest.approx(1 / 8)
    assert [e.size for e in graph.edges_into("t:0")] == [3.0, 1.0]
    assert FeatureGraph((node("a"),), (), "m", 1.0).error_share == 0


def test_attributes_with_units_are_put_on_nodes_but_not_on_errors(graph):
    named = graph.named({("s", 0): ("lesion area", "mm²"), ("s", 1): ("age", "a")})
    assert (named.node("s:0").attribute, named.node("s:0").unit) == ("lesion area", "mm²")
    assert named.node("s:1").attribute == ""


def test_differences_of_two_graphs(graph):
    other = FeatureGraph(graph.nodes, (edge("s:0", "t:0", 1.0, -1.0), edge("s:0", "metric")), graph.metric, 10.0, {})
    found = difference(graph, other)
    assert [(e.source, e.target) for e in found.only_first] == [("s:1", "t:0"), ("t:0", "metric")]
    assert [(e.source, e.target) for e in found.only_second] == [("s:0", "metric")]
    assert found.shared == {("s:0", "t:0"): (3 / 5, 1 / 10)}
    assert found.turned == (("s:0", "t:0"),)
    assert found.overlap == 1 / 4
    empty = FeatureGraph((), (), "m", 1.0)
    assert difference(empty, empty).overlap != difference(empty, empty).overlap  # not a number


def test_the_figure_names_nodes_units_and_intervals(graph):
    drawn = graph.named({("s", 0): ("lesion area", "mm²")}).figure()
    texts = [str(t) for trace in drawn.data for t in (trace.text or ())]
    assert any("lesion area [mm²]" in t for t in texts)
    said = [c[0] for trace in drawn.data for c in (trace.customdata if trace.customdata is not None else ())]
    assert any("self-repair" in t for t in said)
    assert any("+0.1 to +0.9" in t for t in said)
    assert "1 smaller edges not drawn" in graph.figure(most_edges=2).layout.title.text


def test_mistakes_are_named(graph):
    with pytest.raises(ConfigError, match="no node 's:9'"):
        graph.node("s:9")
    with pytest.raises(ConfigError, match="same id"):
        FeatureGraph((node("a"), node("a")), (), "m", 1.0)
    with pytest.raises(ConfigError, match="an edge names the node 'b'"):
        FeatureGraph((node("a"),), (edge("a", "b"),), "m", 1.0)
    with pytest.raises(DamagedFileError, match="format 7"):
        FeatureGraph.from_json({"format_version": 7})
    with pytest.raises(DamagedFileError, match="no graph of ours"):
        FeatureGraph.from_json({"format_version": 1, "nodes": [{}]})
