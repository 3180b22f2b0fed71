"""Older decompositions as encoders: against scikit-learn, by hand, and in the table with the others."""

import numpy as np
import pytest
import torch
from memory_store import MemoryStore, sparse_combinations
from scipy.optimize import nnls
from sklearn.decomposition import FastICA

from mechinterp.errors import ShapeError
from mechinterp.feature_encoder import FeatureEncoder
from sparse_autoencoders.baselines import metrics_table, random_sae
from sparse_autoencoders.classical import LinearCodes, NearestCentroid, _unit, classical_encoders, trained_decoder
from sparse_autoencoders.metrics import evaluate_sae


@pytest.fixture(scope="module")
def store():
    return MemoryStore(sparse_combinations(150, 6)[0], splits=["train"] * 120 + ["test"] * 30)


@pytest.fixture(scope="module")
def encoders(store):
    return classical_encoders(store, k=3, width=32)


def test_all_are_encoders_in_one_table(store, encoders):
    assert list(encoders) == ["frozen encoder, trained decoder", "ICA, largest 3", "NMF, largest 3", "k-means"]
    assert all(isinstance(e, FeatureEncoder) for e in encoders.values())
    assert len({e.weights_hash for e in encoders.values()}) == 4
    table = metrics_table(encoders, store)
    assert (table["l0"] <= 3 + 1e-9).all()
    assert table.loc["k-means", "l0"] == 1
    assert (table["explained_variance"] > 0).sum() >= 3
    again = classical_encoders(store, k=3, width=32)
    assert [e.weights_hash for e in again.values()] == [e.weights_hash for e in encoders.values()]


def test_decoding_is_affine_with_the_directions(encoders, store):
    x = store.rows("site", [0])
    for encoder in encoders.values():
        z = encoder.encode(x)
        changed = z + 1
        assert torch.allclose(
            encoder.decode(changed) - encoder.decode(z), (changed - z) @ encoder.directions, atol=1e-4
        )


def test_ica_reads_what_scikit_learn_reads_and_all_components_reconstruct(store):
    x = store.rows("site")
    ica = FastICA(16, whiten="unit-variance", random_state=0).fit(x.double().numpy())
    ours = _unit("site", "ica", ica.components_.T, ica.mixing_.T, x.mean(0))
    z = ours.encode(x)
    assert np.allclose(z / np.linalg.norm(ica.mixing_.T, axis=1), ica.transform(x.double().numpy()), atol=1e-3)
    assert torch.allclose(ours.decode(z), x, atol=1e-3)


def test_codes_of_nmf_are_the_best_non_negative_ones():
    g = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.rand(5, 8, generator=g), dim=1)
    x = torch.rand(20, 8, generator=g)
    ours = LinearCodes("site", rows, torch.zeros(8), "nmf", reading=torch.linalg.pinv(rows), positive=True)
    best = np.stack([nnls(rows.T.double().numpy(), row)[0] for row in x.double().numpy()])
    error = (ours.decode(ours.encode(x)) - x).square().sum()
    assert (ours.encode(x) >= 0).all()
    assert error <= 1.001 * ((torch.from_numpy(best).float() @ rows) - x).square().sum()


def test_the_nearest_centroid_has_the_only_code():
    ours = NearestCentroid("site", torch.tensor([[0.0, 0], [4, 0], [0, 4]]), torch.tensor([1.0, 1]))
    x = torch.tensor([[3.0, 1], [0.5, 0], [1, 9]])
    assert ours.encode(x).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert ours.decode(ours.encode(x)).tolist() == [[4, 0], [0, 0], [0, 4]]
    with pytest.raises(ShapeError, match="3 wide, the k-means of 'site' reads 2"):
        ours.encode(torch.zeros(1, 3))


def test_the_decoder_alone_can_be_trained_and_no_other_is_better(store):
    training = np.arange(120)
    frozen = random_sae(store, "site", training, 32, 3)
    x = store.rows("site", training)
    trained = trained_decoder(frozen, x)
    assert torch.equal(trained.encode(x), frozen.encode(x))
    error = (trained.decode(trained.encode(x)) - x).square().sum()
    assert error < (frozen.decode(frozen.encode(x)) - x).square().sum()
    expected = np.linalg.lstsq(frozen.encode(x).numpy(), (x - frozen.b_dec).numpy(), rcond=None)[1].sum()
    assert error == pytest.approx(expected, rel=1e-3)
    assert evaluate_sae(trained, store).explained_variance > evaluate_sae(frozen, store).explained_variance


def test_another_width_is_refused(encoders):
    with pytest.raises(ShapeError, match="3 wide"):
        encoders["ICA, largest 3"].encode(torch.zeros(1, 3))
