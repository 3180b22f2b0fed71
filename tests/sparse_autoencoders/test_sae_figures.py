import pandas as pd
import pytest
import torch
from memory_store import MemoryStore

from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import Neurons
from sparse_autoencoders.autoencoder import SparseAutoencoder
from sparse_autoencoders.features import summarise_features
from sparse_autoencoders.figures import comparison_figure, density_figure, pareto_figure, training_figure

CURVE = {"step": [1, 2], "loss": [2.0, 1.0], "explained_variance": [0.1, 0.5], "l0": [3, 3], "dead": [0, 0.1]}


def sae(**provenance):
    return SparseAutoencoder(
        "s", "standard", torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), provenance=provenance
    )


def test_one_line_per_sae_in_each_panel():
    assert len(training_figure(sae(curve=CURVE, seed=0)).data) == 4
    figure = training_figure([sae(curve=CURVE, seed=s, config={"arch": "topk"}) for s in (0, 1)])
    assert len(figure.data) == 8
    assert {t.name for t in figure.data} == {"topk, seed 0", "topk, seed 1"}
    assert list(figure.data[0].y) == CURVE["loss"]


def test_an_sae_without_a_curve_has_no_figure():
    with pytest.raises(ConfigError, match="training curve"):
        training_figure(sae())


def test_silent_features_are_counted_in_the_legend():
    acts = torch.ones(2, 5, 3)
    acts[..., 0] = 0
    figure = density_figure({"neurons": summarise_features(Neurons("site", 3), MemoryStore(acts)).density})
    assert figure.data[0].name == "neurons (1 of 3 silent)"
    assert sum(figure.data[0].y) == 2


def test_controls_are_grey_and_the_best_stands_on_top():
    table = pd.DataFrame({"explained_variance": [0.9, 0.7], "l0": [32.0, 32.0]}, index=["SAE", "PCA"])
    bars = comparison_figure(table, ["SAE"]).data[0]
    assert list(bars.y) == ["PCA", "SAE"]
    assert bars.marker.color[0] != bars.marker.color[1]
    assert bars.text[1] == "0.900  (L0 32.0)"


def test_a_control_far_below_the_mean_is_named_and_does_not_press_the_rest_together():
    found = {
        "k-16/seed-0": (16, 0.97),
        "k-8/seed-0": (8, 0.95),
        "NMF, largest 8": (8, -4.5),
        "PCA, largest 8": (8, 0.9),
    }
    table = pd.DataFrame.from_dict(found, orient="index", columns=["l0", "explained_variance"])
    figure = pareto_figure(table, ["k-16/seed-0", "k-8/seed-0"])
    assert figure.layout.yaxis.range == (-0.02, 1.02)
    assert [note.text for note in figure.layout.annotations] == ["below the axis: NMF, largest (down to -4.5)"]
    over = {trace.name: trace.zorder for trace in figure.data}
    assert over == {"k-8": 1, "k-16": 1, "NMF, largest": None, "PCA, largest": None}
    worst = table.assign(explained_variance=[0.97, -0.5, -4.5, 0.9])
    assert pareto_figure(worst, ["k-16/seed-0", "k-8/seed-0"]).layout.yaxis.range[0] == pytest.approx(-0.52)
