"""The controls against scikit-learn, by hand, and as encoders."""

import numpy as np
import pytest
import torch
from memory_store import MemoryStore, sparse_combinations
from sklearn.decomposition import PCA

from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import FeatureEncoder, Neurons
from sparse_autoencoders.baselines import LargestOf, control_encoders, metrics_table, principal_components, random_sae
from sparse_autoencoders.metrics import evaluate_sae


@pytest.fixture(scope="module")
def store():
    return MemoryStore(sparse_combinations(150, 6)[0], splits=["train"] * 120 + ["test"] * 30)


def test_principal_components_equal_scikit_learn(store):
    training = np.arange(120)
    found = principal_components(store, "site", training, 5)
    x = store.read("site", training).flatten(0, 1)
    expected = PCA(5).fit(x.numpy())
    cosine = (found.unit_directions.numpy() * expected.components_).sum(1)
    assert np.allclose(np.abs(cosine), 1, atol=1e-4)
    explained = evaluate_sae(found, store, training).explained_variance
    assert explained == pytest.approx(expected.explained_variance_ratio_.sum(), abs=1e-5)


def test_all_components_explain_everything(store):
    assert evaluate_sae(principal_components(store, "site", np.arange(120)), store).explained_variance == pytest.approx(
        1
    )


def test_the_largest_codes_by_absolute_value_stay():
    encoder = LargestOf(Neurons("site", 4), 2)
    x = torch.tensor([[1.0, -3, 2, 0.5]])
    assert encoder.encode(x).tolist() == [[0, -3, 2, 0]]
    assert encoder.decode(encoder.encode(x)).tolist() == [[0, -3, 2, 0]]
    assert (encoder.kind, encoder.site, encoder.d_in, encoder.width) == ("neurons", "site", 4, 4)
    assert torch.equal(encoder.directions, torch.eye(4))
    assert encoder.weights_hash != LargestOf(Neurons("site", 4), 3).weights_hash != Neurons("site", 4).weights_hash


def test_the_random_sae_is_what_its_seed_says_and_keeps_k(store):
    made = random_sae(store, "site", np.arange(120), 32, 3, seed=1)
    assert made.weights_hash == random_sae(store, "site", np.arange(120), 32, 3, seed=1).weights_hash
    assert made.weights_hash != random_sae(store, "site", np.arange(120), 32, 3, seed=2).weights_hash
    assert ((made.encode(store.read("site")) > 0).sum(-1) <= 3).all()
    assert 0 < evaluate_sae(made, store).explained_variance < 0.7


def test_every_control_is_an_encoder_of_the_asked_for_sparsity_in_one_table(store):
    controls = control_encoders(store, k=3, width=32)
    assert all(isinstance(c, FeatureEncoder) for c in controls.values())
    table = metrics_table(controls, store)
    assert list(table.index) == list(controls)
    assert (table["l0"] <= 3 + 1e-9).all()
    assert table.loc["PCA, largest 3", "explained_variance"] > table.loc["PCA, first 3", "explained_variance"]
    assert (table["images"] == 30).all()


def test_more_components_or_codes_than_there_are_is_refused(store):
    with pytest.raises(ConfigError, match="17 components asked for: site 'site' has 16"):
        principal_components(store, "site", np.arange(10), 17)
    with pytest.raises(ConfigError, match="k is 5: the neurons have 4 features"):
        LargestOf(Neurons("site", 4), 5)
