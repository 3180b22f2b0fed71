"""What training must guarantee: seeds, folding, sparsity of what is returned, and errors a user can act on."""

import json

import pytest
import torch
from memory_store import MemoryStore, sparse_combinations

from mechinterp.errors import ConfigError, DiskError, ImagesError, SiteError
from mechinterp.progress import Silent
from sparse_autoencoders.autoencoder import SparseAutoencoder
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.metrics import evaluate_sae
from sparse_autoencoders.training import train_saes

FAST = {"k": 3, "expansion": 2, "epochs": 6, "batch_size": 128, "lr": 3e-3}


@pytest.fixture(scope="module")
def acts():
    return sparse_combinations(50, 40)


@pytest.fixture(scope="module")
def store(acts):
    return MemoryStore(acts[0], splits=["train"] * 40 + ["test"] * 10)


@pytest.fixture(scope="module")
def sae(store):
    return train_saes(store, **FAST)[0]


def weights(sae):
    return [sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(store, sae):
    again, other = train_saes(store, **{**FAST, "seeds": (0, 1)})
    assert all(torch.equal(a, b) for a, b in zip(weights(sae), weights(again), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(weights(sae), weights(other), strict=True))
    assert again.weights_hash == sae.weights_hash != other.weights_hash


def test_the_seed_reaches_the_order_of_the_data_alone_too(store):
    # neurons and their opposites fill the dictionary, so both start alike
    first, second = train_saes(store, **{**FAST, "init": "neurons", "steps": 5, "seeds": (0, 1)})
    assert not torch.equal(first.W_enc, second.W_enc)


def test_neither_the_callers_random_state_nor_its_use_matters(store, sae):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = train_saes(store, **FAST)[0]
    assert torch.equal(torch.get_rng_state(), before)
    assert again.weights_hash == sae.weights_hash


def test_topk_has_k_active_features_and_explains_held_out_tokens(store, sae):
    codes = sae.encode(store.read("site"))
    assert ((codes != 0).sum(-1) == 3).all()
    assert evaluate_sae(sae, store).explained_variance > 0.6
    assert torch.allclose(sae.directions.norm(dim=-1), torch.ones(32), atol=1e-6)


def test_a_shift_and_a_scale_of_the_activations_are_folded_into_the_weights(acts, sae):
    moved = MemoryStore(acts[0] * 8 + 100, splits=["train"] * 40 + ["test"] * 10)
    there = train_saes(moved, **FAST)[0]
    here = evaluate_sae(sae, MemoryStore(acts[0], splits=["train"] * 40 + ["test"] * 10))
    assert evaluate_sae(there, moved).explained_variance == pytest.approx(here.explained_variance, abs=0.02)
    assert torch.allclose(there.encode(moved.acts).amax(), 8 * sae.encode(acts[0]).amax(), rtol=0.1)


def test_it_recovers_a_known_dictionary_better_than_its_start(acts):
    store = MemoryStore(acts[0])
    trained = train_saes(store, **{**FAST, "epochs": 20, "init": "data"})[0]
    begun = train_saes(store, **{**FAST, "steps": 1, "init": "data"})[0]
    matched = [(s.directions @ acts[1].T).amax(0).mean().item() for s in (trained, begun)]
    assert matched[0] > 0.75
    assert matched[0] > matched[1] + 0.05


def test_images_outside_the_training_split_do_not_reach_the_weights(acts, sae):
    changed = acts[0].clone()
    changed[40:] = 1e3
    store = MemoryStore(changed, splits=["train"] * 40 + ["test"] * 10)
    assert train_saes(store, **FAST)[0].weights_hash == sae.weights_hash


@pytest.mark.parametrize("arch", ["batchtopk", "jumprelu", "standard"])
def test_what_is_returned_is_as_sparse_and_as_good_as_at_the_end_of_training(store, arch):
    sae = train_saes(store, **{**FAST, "arch": arch, "epochs": 15})[0]
    metrics, curve = sae.provenance["metrics"]["train"], sae.provenance["curve"]
    if arch == "batchtopk":
        assert metrics["l0"] == pytest.approx(3, rel=0.02)
    assert metrics["l0"] == pytest.approx(curve["l0"][-1], rel=0.1)  # the curve's last value is of one batch
    assert metrics["explained_variance"] == pytest.approx(curve["explained_variance"][-1], abs=0.05)
    assert metrics["explained_variance"] > 0.5
    assert torch.allclose(sae.directions.norm(dim=-1), torch.ones(32), atol=1e-5)


def test_the_curve_and_the_provenance_say_how_it_was_made(store, sae):
    made = sae.provenance
    assert made["curve"]["step"][-1] == made["steps"] == 6 * (40 * 40 // 128)
    assert made["curve"]["loss"][-1] < made["curve"]["loss"][0]
    assert set(made["curve"]) == {"step", "loss", "explained_variance", "l0", "dead"}
    assert made["model"]["weights_hash"] == store.manifest.weights_hash
    assert made["store_hash"] == store.hash
    assert made["seed"] == 0
    assert made["training_images"][-1] == "image-39"
    assert "sae-lens" in made["versions"]
    assert "host" not in json.dumps(made)


def test_features_that_start_where_there_is_nothing_are_started_anew():
    g = torch.Generator().manual_seed(0)
    acts = (torch.randn(40, 30, 16, generator=g) - 1).relu()
    acts[..., 8:] = 0  # neurons 8 to 15 and their opposites can never fire
    settings = {
        "k": 2,
        "expansion": 2,
        "epochs": 8,
        "batch_size": 100,
        "lr": 3e-3,
        "aux": 0.0,
        "init": "neurons",
        "wake": 0.0,
    }
    with_restarts, without = (train_saes(MemoryStore(acts), **settings, restarts=n)[0].provenance for n in (4, 0))
    assert without["restarted"] == 0
    assert with_restarts["restarted"] >= 16
    assert without["metrics"]["train"]["dead"] >= 0.5
    assert with_restarts["metrics"]["train"]["dead"] < 0.4


def test_a_batchtopk_starts_with_a_reconstruction_and_not_with_its_multiple():
    g = torch.Generator().manual_seed(0)
    # one strong direction and rows of very different norm, as in a network's residual stream
    acts = torch.randn(40, 30, 16, generator=g) * 0.2
    acts[..., 0] += torch.randn(40, 30, generator=g).exp()
    made = train_saes(MemoryStore(acts), arch="batchtopk", k=4, expansion=8, init="data", steps=3, batch_size=400)[0]
    assert made.provenance["curve"]["explained_variance"][0] > 0


def test_units_give_way_to_tokens_where_their_start_explains_nothing():
    g = torch.Generator().manual_seed(0)
    # most values are zero, and the rest lie along one direction: what the units leave over is that direction again and again
    along = torch.nn.functional.normalize(torch.rand(96, generator=g), dim=0)
    on = (torch.rand(40, 30, 1, generator=g) < 0.3) * (1 + torch.rand(40, 30, 1, generator=g))
    store = MemoryStore(on * along + 0.0)
    settings = {"k": 16, "expansion": 4, "steps": 2, "batch_size": 400}
    units = train_saes(store, **settings, init="neurons")[0].provenance["start"]
    chosen = train_saes(store, **settings)[0].provenance["start"]
    assert units["explained_variance"] < 0
    assert chosen["name"] == "data"
    assert chosen["explained_variance"] > 0


def test_progress_sees_every_step_and_nothing_is_printed(store, capsys):
    class Counting(Silent):
        steps = 0

        def track(self, items, description, total=None):
            for item in items:
                self.steps += description.startswith("training")
                yield item

    counting = Counting()
    train_saes(store, **{**FAST, "steps": 7}, progress=counting)
    assert counting.steps == 7
    assert capsys.readouterr() == ("", "")


def test_each_seed_is_saved_in_its_folder(store, tmp_path):
    trained = train_saes(store, **{**FAST, "steps": 2, "seeds": (3, 5)}, out=tmp_path)
    for sae, name in zip(trained, ("seed-3", "seed-5"), strict=True):
        assert SparseAutoencoder.load(tmp_path / name).weights_hash == sae.weights_hash


def test_a_whole_config_may_be_given_and_overridden(store):
    config = TrainSAEConfig(k=2, expansion=1, steps=1, batch_size=64)
    assert train_saes(store, config=config)[0].k == 2
    assert train_saes(store, config=config, k=4)[0].k == 4


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_name_the_image(acts, bad):
    broken = acts[0].clone()
    broken[7, 3, 2] = bad
    with pytest.raises(
        ImagesError, match=r"^activations of site 'site' are NaN or infinite for image 'image-7'[^\n]*$"
    ):
        train_saes(MemoryStore(broken), **FAST)


def test_constant_activations_and_too_few_images_are_refused():
    with pytest.raises(ImagesError, match="same for all 8 tokens"):
        train_saes(MemoryStore(torch.ones(2, 4, 16)), k=1)
    with pytest.raises(ImagesError, match="capture more images"):
        train_saes(MemoryStore(torch.ones(1, 1, 16)), k=1)


def test_a_batch_larger_than_the_data_becomes_the_data(acts):
    sae = train_saes(MemoryStore(acts[0][:2]), k=2, expansion=1, steps=3)[0]
    assert sae.provenance["steps"] == 3


def test_unknown_sites_settings_and_a_k_above_the_width_are_one_line(store):
    with pytest.raises(SiteError, match="sight"):
        train_saes(store, site="sight")
    with pytest.raises(ConfigError, match="training has no setting 'epoch': did you mean 'epochs'"):
        train_saes(store, epoch=3)
    with pytest.raises(ConfigError, match=r"k is 40, above the 32 features .* smaller k"):
        train_saes(store, k=40, expansion=2)


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_one_line(store, device):
    with pytest.raises(ConfigError, match=f"^no device '{device}'"):
        train_saes(store, device=device)


def test_a_loss_that_explodes_is_reported(acts):
    with pytest.raises((ConfigError, ImagesError), match=r"smaller lr|values too large"):
        train_saes(MemoryStore(acts[0]), **{**FAST, "lr": 1e30})


def test_a_folder_that_cannot_be_written_is_one_line(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot write"):
        train_saes(store, **{**FAST, "steps": 1}, out=tmp_path / "file")
