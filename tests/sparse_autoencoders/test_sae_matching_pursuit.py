"""Matching pursuit: its rounds by hand, its gradient against autograd, its files against SAELens."""

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_store import MemoryStore, sparse_combinations
from safetensors.torch import save_file

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.progress import Silent
from sparse_autoencoders.architectures.matching_pursuit import MatchingPursuitLearner, pursue, pursuit_codes
from sparse_autoencoders.autoencoder import SparseAutoencoder
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.importing import export_sae
from sparse_autoencoders.initialisation import start
from sparse_autoencoders.metrics import evaluate_sae
from sparse_autoencoders.training import train_saes

FAST = {"arch": "matching-pursuit", "k": 3, "expansion": 2, "epochs": 6, "batch_size": 128, "lr": 3e-3}


@pytest.fixture(scope="module")
def acts():
    return sparse_combinations(50, 40)


@pytest.fixture(scope="module")
def store(acts):
    return MemoryStore(acts[0], splits=["train"] * 40 + ["test"] * 10)


@pytest.fixture(scope="module")
def sae(store):
    return train_saes(store, **FAST)[0]


def learner_for(sample, k=3, width=12, **more):
    begin = start("data", sample, width, k, torch.Generator().manual_seed(1))
    return MatchingPursuitLearner(begin, TrainSAEConfig(k=k, arch="matching-pursuit", **more), 5)


def test_two_rounds_by_hand():
    root = 0.5**0.5
    directions = torch.tensor([[1.0, 0.0], [root, root], [-1.0, 0.0]])
    values, columns = pursue(torch.tensor([[2.0, 1.0], [0.0, 0.0]]), directions, 2)
    # (2, 1) lies most along the diagonal, 3 / sqrt 2; what is left, (0.5, -0.5), along the first
    assert columns[0].tolist() == [1, 0]
    assert values[0].tolist() == pytest.approx([3 * root, 0.5])
    assert values[1].tolist() == [0, 0]


def test_a_feature_that_is_chosen_twice_adds_up():
    root = 0.5**0.5
    directions = torch.tensor([[1.0, 0.0], [-root, root]])
    x = torch.tensor([[1.0, 0.5]])
    values, columns = pursue(x, directions, 6)
    assert columns[0].tolist()[:3] == [0, 1, 0]
    codes = pursuit_codes(x, directions, 6)
    assert codes[0, 0] == pytest.approx(float(values[0, columns[0] == 0].sum()))
    assert torch.allclose(codes @ directions, x, atol=0.1)


def test_what_is_chosen_by_the_gram_matrix_is_what_is_chosen_by_the_residual():
    g = torch.Generator().manual_seed(0)
    sample = torch.randn(300, 10, generator=g)
    learner = learner_for(sample, k=4)
    assert torch.equal(learner._chosen(sample, 4), pursue(sample, learner.decoder, 4)[1])


@given(st.integers(0, 10_000), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_the_gradient_is_autograds_through_every_round(seed, k):
    from sparse_autoencoders.architectures.matching_pursuit import _through

    g = torch.Generator().manual_seed(seed)
    x = torch.randn(7, 5, generator=g, dtype=torch.float64)
    directions = torch.nn.functional.normalize(torch.randn(9, 5, generator=g, dtype=torch.float64), dim=1)
    columns = pursue(x, directions, k)[1]
    d, bias = directions.clone().requires_grad_(), torch.zeros(5, dtype=torch.float64, requires_grad=True)
    left = x - bias
    for round_ in range(k):
        chosen = d[columns[:, round_]]
        left = left - (left * chosen).sum(1).relu()[:, None] * chosen
    loss = left.square().sum(1).mean()
    loss.backward()
    ours, _, to_rows, parts = _through(x, directions, columns, 2 / len(x))
    total = torch.zeros_like(directions).index_add_(0, columns.flatten(), parts.double().flatten(0, 1))
    assert torch.allclose(ours, left.detach())
    assert torch.allclose(total, d.grad, atol=1e-6)
    assert torch.allclose(-to_rows.sum(0), bias.grad, atol=1e-9)


def test_five_steps_are_those_of_autograd_and_adam():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=g)
    learner = learner_for(x)
    decoder, bias = (learner.trained()[name].clone().requires_grad_() for name in ("decoder", "bias"))
    optimiser = torch.optim.Adam([decoder, bias], lr=1e-2)
    for _ in range(5):
        with torch.no_grad():
            decoder /= decoder.norm(dim=1, keepdim=True)
        left = x - bias
        columns = pursue(left.detach(), decoder.detach(), 3)[1]
        for round_ in range(3):
            chosen = decoder[columns[:, round_]]
            left = left - (left * chosen).sum(1).relu()[:, None] * chosen
        loss = left.square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen = learner.step(x, lr=1e-2, k=3)
        assert seen.loss == pytest.approx(loss.item(), rel=1e-4)
        assert seen.l0 <= 3
    assert torch.allclose(learner.decoder, decoder.detach(), atol=1e-4)
    assert torch.allclose(learner.bias, bias.detach(), atol=1e-4)


def test_training_explains_held_out_tokens_with_at_most_k_features_and_finds_the_true_ones(store, acts):
    made = train_saes(store, **{**FAST, "epochs": 100})[0]
    found = evaluate_sae(made, store)
    assert found.explained_variance > 0.9
    assert found.l0 <= 3
    train = made.provenance["metrics"]["train"]["explained_variance"]
    assert made.provenance["curve"]["explained_variance"][-1] == pytest.approx(train, abs=0.03)
    assert (acts[1] @ made.W_dec.T).max(1).values.mean() > 0.94
    # a feature that is chosen twice is one
    assert made.provenance["curve"]["l0"][-1] == pytest.approx(found.l0, abs=0.05)


def test_sparse_codes_are_the_largest(store, sae):
    values, columns = sae.encode_sparse(store.rows("site", [45]))
    assert torch.equal(sae.encode(store.rows("site", [45])).gather(1, columns), values)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(store, sae):
    again, other = train_saes(store, **{**FAST, "seeds": (0, 1)})
    assert again.weights_hash == sae.weights_hash != other.weights_hash


def test_a_killed_training_goes_on_to_the_same_bits(store, sae, tmp_path):
    class Killed(Silent):
        def track(self, items, description, total=None):
            for at, item in enumerate(items):
                if description.startswith("training") and at == 31:
                    raise KeyboardInterrupt
                yield item

    settings = {**FAST, "checkpoint_minutes": 1e-9}
    with pytest.raises(KeyboardInterrupt):
        train_saes(store, **settings, out=tmp_path, progress=Killed())
    assert train_saes(store, **settings, out=tmp_path)[0].weights_hash == sae.weights_hash


def test_averages_clipping_and_early_stopping_work_as_for_the_others(store):
    made = train_saes(store, **{**FAST, "ema": 0.5, "clip": 1.0, "patience": 2})[0]
    assert evaluate_sae(made, store).explained_variance > 0.7


def test_silent_features_start_anew(store):
    learner = learner_for(store.rows("site"))
    learner.step(store.rows("site")[:64], lr=1e-3, k=3)
    silent = torch.zeros(12, dtype=torch.bool)
    silent[[2, 7]] = True
    directions = torch.nn.functional.normalize(torch.ones(2, 16), dim=1)
    learner.restart(silent, directions, 0.3)
    assert torch.equal(learner.decoder[silent], directions)
    state = learner.state()
    assert (state["exp_avg.decoder"][silent] == 0).all()
    assert (state["exp_avg.decoder"][~silent] != 0).any()


def test_what_is_no_number_stops_the_training(store):
    learner = learner_for(store.rows("site"))
    assert learner.step(torch.full((4, 16), float("nan")), lr=1e-3, k=3).loss != 0
    with pytest.raises(ConfigError, match="smaller lr"):
        train_saes(store, **{**FAST, "lr": 1e30})


def test_what_is_saved_loads_to_the_same_codes_and_what_chooses_otherwise_is_refused(store, sae, tmp_path):
    folder = sae.save(tmp_path / "sae")
    loaded = SparseAutoencoder.load(folder)
    x = store.rows("site", [45])
    assert loaded.weights_hash == sae.weights_hash
    assert torch.equal(loaded.encode(x), sae.encode(x))
    with pytest.raises(ShapeError, match="capture that site"):
        sae.encode(x[:, :3])
    with pytest.raises(ConfigError, match="export this one as saelens"):
        export_sae(sae, tmp_path / "o.pt", library="overcomplete")
    with pytest.raises(ConfigError, match="has no 'matching_pursuit'"):
        export_sae(sae, tmp_path / "d", library="dictionary_learning")
    (folder / "mechinterp.json").unlink()
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**config, "residual_threshold": 0.01}))
    with pytest.raises(ConfigError, match="stops early has no fixed k"):
        SparseAutoencoder.load(folder)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file({"W_dec": sae.W_dec * 2, "b_dec": sae.b_dec}, folder / "sae_weights.safetensors")
    with pytest.raises(ConfigError, match="no unit norm"):
        SparseAutoencoder.load(folder)


WITH_SAELENS = """
import sys, torch
from safetensors.torch import load_file
from sae_lens import SAE
given = load_file(sys.argv[2])
sae = SAE.load_from_disk(sys.argv[1])
with torch.no_grad():
    z = sae.encode(given["x"])
print(type(sae).__name__, float((z - given["z"]).abs().max()), float((sae.decode(z) - given["y"]).abs().max()))
"""


@pytest.mark.slow
def test_saelens_reads_the_same_codes(store, sae, tmp_path):
    x = store.rows("site", [45]).contiguous()
    z = sae.encode(x)
    save_file({"x": x, "z": z, "y": sae.decode(z)}, tmp_path / "given.safetensors")
    command = [sys.executable, "-c", WITH_SAELENS, str(sae.save(tmp_path / "sae")), str(tmp_path / "given.safetensors")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name, codes, outputs = done.stdout.split()[-3:]
    assert name == "MatchingPursuitSAE"
    assert float(codes) < 1e-5
    assert float(outputs) < 1e-5
