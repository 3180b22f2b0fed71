"""Two circuits compared from their files."""

from __future__ import annotations

import json

import pytest

from circuits.graph import Effect, FeatureGraph, GraphEdge, GraphNode
from experiments.analysis.graph_differences import merged, read_graph
from experiments.cli import entry
from mechinterp.errors import ConfigError, DamagedFileError


def graph(edges, metric="logit of a", sites=("s", "t"), **claim):
    ids = sorted({end for e in edges for end in e[:2]} - {"metric"})
    nodes = [GraphNode(i, i.split(":")[0], int(i.split(":")[1]), "feature", f"name {i}") for i in ids]
    nodes.sort(key=lambda n: (sites.index(n.site), n.index))
    nodes.append(GraphNode("metric", "metric", 0, "metric", metric))
    drawn = [GraphEdge(s, t, Effect(-size, size), Effect(size, size), slope) for s, t, size, slope in edges]
    return FeatureGraph(tuple(nodes), tuple(drawn), metric, 1.0, claim)


FIRST = graph([("s:0", "t:0", 1.0, 1.0), ("s:1", "t:0", 0.5, 1.0), ("t:0", "metric", 2.0, 1.0)], ablation="mean")
SECOND = graph(
    [("s:0", "t:0", 0.8, -1.0), ("t:0", "metric", 2.0, 1.0), ("t:0", "u:3", 0.1, 1.0), ("u:3", "metric", 0.3, 1.0)],
    sites=("s", "t", "u"), ablation="zero",
)  # fmt: skip


@pytest.fixture
def both(tmp_path):
    FIRST.save(tmp_path / "a" / "circuit" / "circuit.json")
    SECOND.save(tmp_path / "b" / "circuit.json")
    return tmp_path


def test_the_command_says_what_is_shared_turned_and_alone(both, capsys):
    argv = [
        "diff-circuits",
        str(both / "a"),
        str(both / "b"),
        "--names",
        "2025,2026",
        "--out",
        str(both / "d"),
        "--json",
    ]
    assert entry.run(argv) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["overlap"] == pytest.approx(2 / 5)
    assert said["turned"] == [["s:0", "t:0"]]
    assert [e["source"] for e in said["only_first"]] == ["s:1"]
    assert len(said["only_second"]) == 2
    page = (both / "d" / "diff-circuits.html").read_text()
    assert "1 of the shared edges turned" in page
    assert "ablation (mean and zero)" in page
    assert "in both, turned" in page
    assert entry.run(argv[:-1]) == 0
    assert "only 2025" in capsys.readouterr().out


def test_sites_of_both_stand_in_an_order_that_both_keep():
    whole = merged(FIRST, SECOND, {("s:0", "t:0"): "in both"})
    assert list(dict.fromkeys(n.site for n in whole.nodes)) == ["s", "t", "u", "metric"]
    assert [(e.source, e.target) for e in whole.edges] == [("s:0", "t:0")]


def test_what_cannot_be_compared_is_refused(both, tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"holds no circuit\.json"):
        read_graph(tmp_path)
    other = tmp_path / "ratings.json"
    other.write_text('{"format": 1}')
    with pytest.raises(DamagedFileError, match=r"ratings\.json is no circuit\.json of mechinterp circuit"):
        read_graph(other)
    with pytest.raises(ConfigError, match="circuits of the same metric"):
        merged(FIRST, graph([("s:0", "metric", 1.0, 1.0)], metric="logit of b"), {})
    assert entry.run(["diff-circuits", str(both / "a"), str(both / "b"), "--names", "one"]) == 2
    assert "give two names" in capsys.readouterr().err
