"""Galleries of a frozen-random autoencoder are those of random weights, and stand among a plan's items as such."""

import numpy as np
import torch

from experiments.dashboard.desk.opening import encoder_of_run
from experiments.dashboard.rating.frozen import TOP, frozen_random_examples
from experiments.dashboard.rating.items import RatingConfig, make_plan
from experiments.dashboard.run_view import RunView
from mechinterp.store.reader import ActivationStore
from sparse_autoencoders.baselines import random_sae


def test_their_images_are_the_strongest_of_random_features(made_run):
    view = RunView.read(made_run)
    store, trained = ActivationStore.open(made_run / "activations"), encoder_of_run(view)
    frozen = random_sae(store, trained.site, np.arange(len(store)), trained.width, trained.k, 3)
    with torch.no_grad():
        strongest = frozen.encode(store.read(trained.site)).amax(1).numpy()
    found = frozen_random_examples(view, 5, seed=3)
    assert found
    rows, columns = view["grid"]["rows"].integer(), view["grid"]["columns"].integer()
    for shown in found:
        assert len(shown) == TOP
        values = np.array(shown[0].values)
        assert values.shape == (rows, columns)
        peaks = [np.max(s.values) for s in shown]
        np.testing.assert_allclose(peaks, sorted(peaks, reverse=True))
        # one feature of the random autoencoder has just these peaks on just these images
        images = [s.image for s in shown]
        gaps = np.abs(strongest[images] - np.array(peaks)[:, None]).max(0)
        assert gaps.min() < 1e-4


def test_they_are_planted_without_a_number(made_run):
    view = RunView.read(made_run)
    config = RatingConfig(features=6, controls=2, frozen=3, gallery=2, candidates=2)
    plan = make_plan(view, config, frozen_random_examples(view, 8))
    kinds = [item.kind for item in plan.items]
    assert kinds.count("frozen-random feature") == 3
    assert all(item.feature is None for item in plan.items if item.kind != "feature")
    assert "frozen-random feature" not in {item.kind for item in make_plan(view, config).items}
