"""Transcoders and crosscoders: what training, folding and files must guarantee, as for autoencoders."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from memory_store import sparse_combinations
from paired_store import PairedStore
from safetensors.torch import save_file

from mechinterp.errors import ConfigError, DamagedFileError, HashMismatchError, ImagesError, ShapeError, SiteError
from mechinterp.progress import Silent
from sparse_autoencoders.autoencoder import SparseAutoencoder
from sparse_autoencoders.crosscoder import Crosscoder
from sparse_autoencoders.explained_variance import ExplainedVariance
from sparse_autoencoders.joint_format import load_trained
from sparse_autoencoders.joint_metrics import evaluate_crosscoder, evaluate_transcoder, linear_map
from sparse_autoencoders.joint_training import train_crosscoders, train_transcoders
from sparse_autoencoders.transcoder import Transcoder

FAST = {"k": 4, "expansion": 4, "epochs": 12, "batch_size": 128, "lr": 3e-3}
SPLITS = ["train"] * 50 + ["test"] * 10


@pytest.fixture(scope="module")
def store():
    x, _ = sparse_combinations(60, 20)
    g = torch.Generator().manual_seed(1)
    # a layer with a nonlinearity between the sites, of another width and with a mean of its own
    y = torch.relu(x @ torch.randn(16, 40, generator=g)) @ torch.randn(40, 24, generator=g) + 3
    return PairedStore({"in": x, "out": y}, splits=SPLITS)


@pytest.fixture(scope="module")
def made(store):
    return {
        arch: train_transcoders(store, site="in", to_site="out", arch=arch, skip=arch == "batchtopk", **FAST)[0]
        for arch in ("topk", "batchtopk", "matryoshka")
    }


@pytest.fixture(scope="module")
def crosscoder(store):
    return train_crosscoders(store, sites=["in", "out"], **FAST)[0]


def tensors(trained):
    return list(trained.tensors().values())


@pytest.mark.parametrize("arch", ["topk", "batchtopk", "matryoshka"])
def test_a_transcoder_explains_the_site_it_writes_and_says_so(made, store, arch):
    found, train = evaluate_transcoder(made[arch], store), made[arch].provenance["metrics"]["train"]
    assert found.images == 10
    assert found.explained_variance > 0.6
    assert found.l0 == pytest.approx(4, rel=0.05)
    assert train["l0"] == pytest.approx(4, rel=0.02)
    # what is saved reads raw activations and explains what the last steps explained
    curve = made[arch].provenance["curve"]["explained_variance"]
    assert train["explained_variance"] == pytest.approx(curve[-1], abs=0.05)
    assert torch.allclose(made[arch].W_dec.norm(dim=1), torch.ones(64), atol=1e-5)


def test_the_metrics_are_those_of_the_obvious_computation(made, store):
    for trained in made.values():
        x, y = (store.rows(site, store.where("test")) for site in ("in", "out"))
        z = torch.relu(x @ trained.W_enc + trained.b_enc)
        z = z * (z >= z.topk(trained.k).values[:, -1:]) if trained.k else z * (z > trained.threshold)
        y_hat = z @ trained.W_dec + trained.b_dec + (0 if trained.W_skip is None else x @ trained.W_skip.T)
        variance = ExplainedVariance()
        variance.update(y, y_hat)
        assert evaluate_transcoder(trained, store).explained_variance == pytest.approx(variance.compute(), abs=1e-6)
        assert torch.allclose(trained(x), y_hat, atol=1e-4)


def test_a_skip_takes_what_is_linear_and_the_linear_map_is_least_squares(store):
    x, y = (store.rows(site) for site in ("in", "out"))
    every = np.arange(60)
    linear = linear_map(store, "in", "out", every)
    design = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    best = design @ torch.linalg.lstsq(design, y.double()).solution
    assert torch.allclose(linear(x).double(), best, atol=1e-2)
    assert (linear.encode(x) == 0).all()
    straight = PairedStore({"in": x.reshape(60, 20, 16), "out": (x @ linear.W_skip.T + 1).reshape(60, 20, 24)})
    settings = {**FAST, "epochs": 40, "k": 1, "lr": 1e-2}
    with_skip, without = (
        train_transcoders(straight, site="in", to_site="out", skip=skip, **settings)[0] for skip in (True, False)
    )
    assert evaluate_transcoder(with_skip, straight).explained_variance > 0.99
    assert evaluate_transcoder(without, straight).explained_variance < 0.8


def test_a_step_with_a_skip_is_that_of_dense_autograd(store):
    from sparse_autoencoders.config import TrainSAEConfig
    from sparse_autoencoders.initialisation import paired_start
    from sparse_autoencoders.transcoder_learner import TranscoderLearner

    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 6, generator=g), torch.randn(64, 5, generator=g)
    begin = paired_start(x, y, 12, 3, g)
    learner = TranscoderLearner(begin, TrainSAEConfig(k=3, skip=True, aux=0.0), 100)
    named = {n: t.clone().requires_grad_() for n, t in learner.trained().items()}
    optimiser = torch.optim.Adam(named.values(), lr=1e-2)
    for _ in range(5):
        hidden = x @ named["encoder"].T + named["bias"]
        kept = hidden.topk(3, dim=1)
        z = torch.zeros_like(hidden).scatter(1, kept.indices, kept.values.relu())
        y_hat = z @ named["decoder"].T.T + x @ named["skip"].T + named["out_bias"]
        loss = (y_hat - y).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            named["decoder"] /= named["decoder"].norm(dim=1, keepdim=True)
        step = learner.step(torch.cat([x, y], 1), lr=1e-2, k=3)
        assert step.loss == pytest.approx(loss.item(), rel=1e-4)
    for name, tensor in learner.trained().items():
        assert torch.allclose(tensor, named[name], atol=2e-4), name


def test_a_crosscoder_explains_every_site_and_says_whose_a_feature_is(crosscoder, store):
    found = evaluate_crosscoder(crosscoder, store)
    assert set(found) == {"in", "out"}
    assert all(metrics.explained_variance > 0.5 for metrics in found.values())
    assert crosscoder.provenance["metrics"]["train"]["in"]["l0"] == pytest.approx(4, rel=0.02)
    assert torch.allclose(crosscoder.shares.sum(1), torch.ones(64))
    acts = {site: store.rows(site, [55]) for site in store.sites}
    z = crosscoder.encode(acts)
    assert (z != 0).sum(1).max() == 4
    assert crosscoder.directions("out").shape == (64, 24)
    # one unit of a feature moves each site along its direction there
    more = z.clone()
    more[:, 7] += 1
    for site, after in crosscoder.decode(more).items():
        moved = after - crosscoder.decode(z)[site]
        assert torch.allclose(moved, crosscoder.directions(site)[7].expand_as(moved), atol=1e-4)


def test_a_crosscoder_finds_what_one_site_alone_holds():
    both, _ = sparse_combinations(60, 20, width=16, features=12, active=1)
    alone, _ = sparse_combinations(60, 20, width=8, features=6, active=1, seed=5)
    store = PairedStore({"a": both, "same": both * 2 + 1, "alone": alone})
    settings = {**FAST, "k": 2, "expansion": 1.5, "epochs": 60}
    crosscoder = train_crosscoders(store, sites=store.sites, **settings)[0]
    living = evaluate_crosscoder(crosscoder, store)["a"].density > 0.01
    shares = crosscoder.shares[torch.from_numpy(living)]
    # a feature's shares of two sites with the same content are alike, whatever the sites' scales
    assert torch.allclose(shares[:, 0], shares[:, 1], atol=0.1)
    assert int((shares[:, 2] > 0.8).sum()) >= 4
    assert int((shares[:, 2] < 0.2).sum()) >= 8


def test_the_same_seed_gives_the_same_bits_and_a_killed_training_goes_on_to_them(store, tmp_path):
    class Killed(Silent):
        def track(self, items, description, total=None):
            for at, item in enumerate(items):
                if description.startswith("training") and at == 20:
                    raise KeyboardInterrupt
                yield item

    def transcoders(**more):
        settings = {**FAST, "epochs": 6, "skip": True, "arch": "batchtopk", "checkpoint_minutes": 1e-9, "seeds": (0, 1)}
        return train_transcoders(store, site="in", to_site="out", **settings, **more)

    def crosscoders(**more):
        settings = {**FAST, "epochs": 6, "checkpoint_minutes": 1e-9, "seeds": (0, 1)}
        return train_crosscoders(store, sites=["in", "out"], **settings, **more)

    for name, train in (("t", transcoders), ("c", crosscoders)):
        whole = train()
        assert whole[0].weights_hash != whole[1].weights_hash
        with pytest.raises(KeyboardInterrupt):
            train(out=tmp_path / name, progress=Killed())
        resumed = train(out=tmp_path / name)
        for one, other in zip(whole, resumed, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def test_early_stopping_looks_at_the_site_that_is_written(store):
    settings = {**FAST, "epochs": 40, "patience": 2, "lr": 2e-2}
    stopped = train_transcoders(store, site="in", to_site="out", **settings)[0].provenance
    assert stopped["steps"] < 40 * (45 * 20 // 128)


def test_whoever_watches_is_told_that_it_ended_early(store):
    settings = {**FAST, "epochs": 40, "patience": 2, "lr": 2e-2}
    seen = []
    train_transcoders(store, site="in", to_site="out", watch=seen.append, **settings)
    assert [status.finished for status in seen] == [False] * (len(seen) - 1) + [True]
    assert seen[-1].step < seen[-1].steps


def test_what_is_saved_loads_to_the_same_codes(made, crosscoder, store, tmp_path):
    x = {site: store.rows(site, [55]) for site in store.sites}
    for name, transcoder in made.items():
        loaded = Transcoder.load(transcoder.save(tmp_path / name))
        assert loaded.weights_hash == transcoder.weights_hash == load_trained(tmp_path / name).weights_hash
        assert torch.equal(loaded(x["in"]), transcoder(x["in"]))
        assert loaded.provenance["config"]["arch"] == name
        with pytest.raises(ConfigError, match="is no SAE of one site"):
            SparseAutoencoder.load(tmp_path / name)
    loaded = Crosscoder.load(crosscoder.save(tmp_path / "cross"))
    assert loaded.weights_hash == crosscoder.weights_hash == load_trained(tmp_path / "cross").weights_hash
    assert torch.equal(loaded.encode(x), crosscoder.encode(x))
    with pytest.raises(ConfigError, match="holds no transcoder but a 'crosscoder'"):
        Transcoder.load(tmp_path / "cross")
    with pytest.raises(ConfigError, match="holds no crosscoder but a 'topk_transcoder'"):
        Crosscoder.load(tmp_path / "topk")


def test_a_folder_that_lacks_a_part_or_a_site_is_one_line(made, crosscoder, tmp_path):
    folder = made["batchtopk"].save(tmp_path / "cut")
    ours = json.loads((folder / "mechinterp.json").read_text())
    (folder / "mechinterp.json").write_text(json.dumps({**ours, "files": {}}))
    kept = {name: t for name, t in made["batchtopk"].tensors().items() if name != "threshold"}
    save_file(kept, folder / "sae_weights.safetensors")
    with pytest.raises(DamagedFileError, match="lacks 'threshold'"):
        Transcoder.load(folder)
    (folder / "mechinterp.json").unlink()
    with pytest.raises(ConfigError, match="which sites it reads and writes"):
        Transcoder.load(folder)
    config = json.loads((folder / "cfg.json").read_text())
    config["metadata"] |= {"hook_name_out": "out"}
    (folder / "cfg.json").write_text(json.dumps({**config, "normalize_activations": "layer_norm"}))
    with pytest.raises(ConfigError, match="activations normalised"):
        Transcoder.load(folder)
    cross = crosscoder.save(tmp_path / "cross")
    (cross / "mechinterp.json").unlink()
    save_file({"W_enc": crosscoder.W_enc.contiguous()}, cross / "sae_weights.safetensors")
    with pytest.raises(DamagedFileError, match="lacks 'b_enc'"):
        Crosscoder.load(cross)


def test_a_transcoder_from_elsewhere_is_brought_to_unit_directions(made, store, tmp_path):
    folder = made["matryoshka"].save(tmp_path / "theirs")
    ours = json.loads((folder / "mechinterp.json").read_text())
    (folder / "mechinterp.json").write_text(json.dumps({**ours, "files": {}}))
    parts = made["matryoshka"].tensors()
    scaled = {name: t / 2 for name, t in parts.items()} | {"W_dec": parts["W_dec"] * 2, "b_dec": parts["b_dec"]}
    save_file({name: t.contiguous() for name, t in scaled.items()}, folder / "sae_weights.safetensors")
    loaded, x = Transcoder.load(folder), store.rows("in", [55])
    assert torch.allclose(loaded.W_dec.norm(dim=1), torch.ones(64), atol=1e-5)
    assert torch.allclose(loaded(x), made["matryoshka"](x), atol=1e-4)


WITH_SAELENS = """
import sys, torch
from safetensors.torch import load_file
from sae_lens import SAE
given = load_file(sys.argv[2])
for name in sys.argv[3:]:
    loaded = SAE.load_from_disk(sys.argv[1] + "/" + name)
    with torch.no_grad():
        y, z = loaded.forward_with_activations(given["x"])
    print(type(loaded).__name__, float((z - given[name + ".z"]).abs().max()), float((y - given[name + ".y"]).abs().max()))
assert not any(name.split(".")[0] in {"mechinterp", "sparse_autoencoders"} for name in sys.modules)
"""


@pytest.mark.slow
def test_saelens_reads_the_same_codes_in_a_process_without_ours(made, store, tmp_path):
    x = store.rows("in", [55]).contiguous()
    given = {"x": x}
    for name in ("batchtopk", "matryoshka"):
        made[name].save(tmp_path / name)
        given |= {f"{name}.z": made[name].encode(x), f"{name}.y": made[name](x)}
    save_file(given, tmp_path / "given.safetensors")
    command = [sys.executable, "-c", WITH_SAELENS, str(tmp_path), str(tmp_path / "given.safetensors")]
    done = subprocess.run([*command, "batchtopk", "matryoshka"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["JumpReLUSkipTranscoder", "JumpReLUTranscoder"]
    assert all(float(value) < 1e-4 for row in rows for value in row[1:])


def test_what_cannot_be_meant_is_one_line(store, made, crosscoder):
    with pytest.raises(SiteError, match="wants two sites or more"):
        train_crosscoders(store, sites=["in"])
    with pytest.raises(SiteError, match="name each once"):
        train_transcoders(store, site="in", to_site="in", **FAST)
    with pytest.raises(ConfigError, match="arch gated on cpu is not trained here: take batchtopk, matryoshka, topk"):
        train_transcoders(store, site="in", to_site="out", arch="gated", **FAST)
    with pytest.raises(ConfigError, match="matching-pursuit codes one site, round by round"):
        train_crosscoders(store, sites=["in", "out"], arch="matching-pursuit", **FAST)
    with pytest.raises(ConfigError, match="a crosscoder is one product and an activation function"):
        replace(crosscoder, architecture="matching_pursuit")
    fewer = PairedStore({"in": store.parts["in"], "out": store.parts["out"][:, :10]})
    with pytest.raises(SiteError, match=r"hold different tokens \(20 and 10 of an image\)"):
        train_crosscoders(fewer, sites=["in", "out"])
    with pytest.raises(ShapeError, match="activations are 24 wide"):
        made["topk"].encode(store.rows("out"))
    with pytest.raises(SiteError, match="'out' is missing"):
        crosscoder.encode({"in": store.rows("in")})
    with pytest.raises(SiteError, match="no site 'oat' in this crosscoder"):
        crosscoder.directions("oat")
    with pytest.raises(ImagesError, match="no image to measure on"):
        evaluate_transcoder(made["topk"], store, [])
    other = PairedStore(store.parts, weights="x" * 64)
    for evaluate, trained in ((evaluate_transcoder, made["topk"]), (evaluate_crosscoder, crosscoder)):
        with pytest.raises(HashMismatchError, match="trained on other model weights"):
            evaluate(trained, other)
        evaluate(trained, other, allow_mismatch=True)
    swapped = PairedStore({"in": store.parts["out"], "out": store.parts["in"]})
    with pytest.raises(ShapeError, match="site 'in' is 24 wide in this store, the transcoder has 16"):
        evaluate_transcoder(made["topk"], swapped)
    one = made["topk"]
    with pytest.raises(ShapeError, match="b_dec has shape"):
        Transcoder("a", "b", "topk", one.W_enc, one.b_enc, one.W_dec, torch.zeros(3), k=2)
    with pytest.raises(ConfigError, match="k is None"):
        Transcoder("a", "b", "topk", one.W_enc, one.b_enc, one.W_dec, one.b_dec)
    with pytest.raises(ConfigError, match="wants a threshold"):
        Transcoder("a", "b", "jumprelu", one.W_enc, one.b_enc, one.W_dec, one.b_dec)
    parts = (crosscoder.W_enc, crosscoder.b_enc, crosscoder.W_dec, crosscoder.b_dec)
    with pytest.raises(ShapeError, match="scales has shape"):
        Crosscoder(("a", "b"), (16, 24), "topk", *parts, torch.ones(3), k=2)
    with pytest.raises(ConfigError, match="k is 65"):
        Crosscoder(("a", "b"), (16, 24), "topk", *parts, torch.ones(2), k=65)
    with pytest.raises(ConfigError, match="wants a threshold"):
        Crosscoder(("a", "b"), (16, 24), "jumprelu", *parts, torch.ones(2))


def test_sparse_codes_are_the_largest_and_a_copy_moves(made, store):
    x = store.rows("in", [3])
    values, columns = made["topk"].encode_sparse(x)
    dense = made["topk"].encode(x)
    assert torch.equal(dense.gather(1, columns), values)
    assert made["topk"].to("cpu").weights_hash == made["topk"].weights_hash
    assert (made["topk"].kind, made["topk"].d_in, made["topk"].d_out) == ("transcoder", 16, 24)
