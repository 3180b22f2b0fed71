"""Transcoder graphs on a small ViT with random transcoders: every sum is complete, every edge is what removing it does."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from small_models import one_thread, small_images, small_vit
from torch import Tensor

from circuits.metrics import as_metric
from circuits.transcoder_paths import EMBEDDING, LinearRun
from circuits.transcoder_tracing import transcoder_graph
from circuits.wiring import holding
from mechinterp import logit, logit_difference
from mechinterp.errors import ConfigError, SiteError

WIDTH = 12


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


@dataclass(frozen=True, eq=False)
class Random:
    """A transcoder with random weights: it need explain nothing, since its error is kept."""

    site: str
    to_site: str
    w_enc: Tensor
    b_enc: Tensor
    directions: Tensor
    b_dec: Tensor
    w_skip: Tensor

    @property
    def width(self):
        return self.w_enc.shape[1]

    def preactivations(self, x):
        return x @ self.w_enc + self.b_enc

    def encode(self, x):
        return self.preactivations(x).relu()

    def decode(self, z):
        return z @ self.directions + self.b_dec

    def skipped(self, x):
        return x @ self.w_skip


def random_transcoder(block, seed=0, skip=0.0):
    rng = torch.Generator().manual_seed(seed + 10 * block)

    def draw(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    places = f"blocks.{block}.norm2", f"blocks.{block}.hook_mlp_out"
    return Random(*places, draw(8, WIDTH), draw(WIDTH) / 2, draw(WIDTH, 8), draw(8), skip * draw(8, 8))


@pytest.fixture(scope="module")
def vit():
    return small_vit(depth=3)


def linear_run(vit, transcoders, n=3, metric=None):
    return LinearRun(vit, transcoders, as_metric(metric or logit("a"), vit), small_images(n))


@pytest.mark.parametrize("skip", [0.0, 0.5])
@pytest.mark.parametrize("blocks", [(0, 1, 2), (0, 2)])
def test_all_that_flows_into_a_feature_adds_up_to_what_it_sees(vit, blocks, skip):
    transcoders = [random_transcoder(b, skip=skip) for b in blocks]
    run = linear_run(vit, transcoders)
    seen = {}
    with torch.no_grad(), holding(vit, {}, ["blocks.2.norm2"], seen):
        vit.logits(run.x)
    expected = transcoders[-1].preactivations(seen["blocks.2.norm2"])
    for token, feature in ((0, 0), (4, 7), (9, 11)):
        inflow = run.into("blocks.2.hook_mlp_out", token, feature)
        torch.testing.assert_close(inflow.total, expected[:, token, feature], rtol=0, atol=1e-8)
        torch.testing.assert_close(inflow.summed, inflow.total, rtol=0, atol=1e-8)
        # the last block's own features reach nothing there
        assert float(inflow.features["blocks.2.hook_mlp_out"].abs().max()) == 0
        assert float(inflow.features["blocks.0.hook_mlp_out"].abs().max()) > 0
    assert set(run.wholes) == {f"blocks.{b}.hook_mlp_out" for b in range(3)} - {t.to_site for t in transcoders}


def test_all_that_flows_into_the_metric_adds_up_to_it(vit):
    run = linear_run(vit, [random_transcoder(b) for b in range(3)], metric=logit_difference("a", "b"))
    with torch.no_grad():
        logits = vit.logits(run.x)
    inflow = run.into_metric()
    torch.testing.assert_close(inflow.total, logits[:, 0] - logits[:, 1], rtol=0, atol=1e-8)
    torch.testing.assert_close(inflow.summed, inflow.total, rtol=0, atol=1e-8)


def test_an_edge_is_what_taking_its_source_away_does_under_the_same_holding(vit):
    """Independent of the gradients: the source's part is subtracted in a real run, and the target read."""
    first, second = random_transcoder(0), random_transcoder(2)
    run = linear_run(vit, [first, second])
    token, target, source = 5, 3, 8
    predicted = run.into(second.to_site, token, target).features[first.to_site][..., source].sum(1)
    with torch.no_grad():
        seen = {}
        sites = [EMBEDDING, *(f"blocks.{b}.hook_mlp_out" for b in range(3))]
        with holding(vit, {}, [*sites, second.site, first.site], seen):
            vit.logits(run.x)
        active = first.encode(seen[first.site])[..., source]
        put = {s: seen[s] for s in sites}
        put[first.to_site] = seen[first.to_site] - active[..., None] * first.directions[source]
        after = {}
        with run.frozen.replaying(), holding(vit, put, [second.site], after):
            vit.logits(run.x)
        moved = second.preactivations(seen[second.site]) - second.preactivations(after[second.site])
    assert float(predicted.abs().max()) > 1e-3
    torch.testing.assert_close(moved[:, token, target], predicted, rtol=1e-6, atol=1e-9)


def test_effects_on_the_metric_follow_the_features_behind(vit):
    """The total effect of a feature is its direct one and, over every later feature, what it brings there times what that does."""
    transcoders = [random_transcoder(b) for b in range(3)]
    graph = transcoder_graph(vit, small_images(4), transcoders, metric=logit("a"), features=3 * WIDTH, edges=10_000)
    out = {}
    for edge in graph.edges:
        out[edge.source] = out.get(edge.source, 0.0) + edge.denoising.mean
    for node in graph.nodes:
        if node.kind == "feature":
            assert -node.effect.mean == pytest.approx(out[node.id], abs=1e-8)


def test_edges_into_a_node_and_its_bias_are_its_effect(vit):
    """In the graph too nothing is lost: edges into the metric add up to it but for what biases alone give."""
    transcoders = [random_transcoder(b) for b in range(3)]
    images = small_images(4)
    graph = transcoder_graph(vit, images, transcoders, metric=logit("a"), features=3 * WIDTH, edges=10_000)
    run = LinearRun(vit, transcoders, as_metric(logit("a"), vit), images)
    inflow = run.into_metric()
    into = sum(e.denoising.mean for e in graph.edges_into("metric"))
    assert into == pytest.approx(float((inflow.total - inflow.bias).mean()), abs=1e-8)
    assert run.metric_without_sources().tolist() == pytest.approx(inflow.bias.tolist())


def test_the_graph_keeps_the_largest_has_intervals_and_saves(vit, tmp_path):
    images = small_images(24)
    settings = {"metric": logit("a"), "groups": [f"p{i // 2}" for i in range(24)], "boot": 100, "batch": 10}
    names = {("blocks.1.hook_mlp_out", f): ("lesion area", "mm²") for f in range(WIDTH)}
    graph = transcoder_graph(vit, images, [random_transcoder(1)], features=5, edges=12, attributes=names, **settings)
    assert len(graph.edges) <= 12
    assert sum(n.kind == "feature" for n in graph.nodes) <= 5
    assert {n.unit for n in graph.nodes if n.kind == "feature"} == {"mm²"}
    assert all(e.noising.mean == -e.denoising.mean for e in graph.edges)
    assert any(e.noising.low is not None and e.noising.low < e.noising.mean < e.noising.high for e in graph.edges)
    assert graph.claim["frozen"] == ["attention", "gates", "norm"]
    assert graph.claim["patients"] == 12
    again = type(graph).load(graph.save(tmp_path / "graph.json"))
    assert again.edges == graph.edges
    # batches change nothing but rounding
    whole = transcoder_graph(
        vit, images, [random_transcoder(1)], features=5, edges=12, attributes=names, **{**settings, "batch": 24}
    )
    assert [(e.source, e.target) for e in whole.edges] == [(e.source, e.target) for e in graph.edges]
    np.testing.assert_allclose([e.slope for e in whole.edges], [e.slope for e in graph.edges], rtol=1e-8)


def test_what_does_not_fit_is_refused(vit):
    images, one = small_images(2), random_transcoder(0)
    with pytest.raises(ConfigError, match="there is no transcoder"):
        transcoder_graph(vit, images, [], metric=logit("a"))
    with pytest.raises(ConfigError, match="two transcoders write the same site"):
        transcoder_graph(vit, images, [one, one], metric=logit("a"))
    with pytest.raises(ConfigError, match="which is no MLP's output"):
        transcoder_graph(vit, images, [replace(one, to_site="blocks.0.hook_attn_out")], metric=logit("a"))
    with pytest.raises(ConfigError, match="features is 0"):
        transcoder_graph(vit, images, [one], metric=logit("a"), features=0)
    bare = replace(vit, sites={k: v for k, v in vit.sites.items() if "hook_mlp_out" not in k})
    with pytest.raises(SiteError, match="no blocks whose MLPs add up"):
        transcoder_graph(bare, images, [one], metric=logit("a"))
