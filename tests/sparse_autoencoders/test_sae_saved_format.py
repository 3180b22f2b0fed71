"""A saved SAE, read by SAELens in a process that never imports ours, gives the same codes; and what goes wrong says so."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from memory_store import MemoryStore, sparse_combinations
from safetensors.torch import load_file, save_file

from mechinterp.errors import ConfigError, DamagedFileError
from mechinterp.feature_encoder import FeatureEncoder
from sparse_autoencoders.autoencoder import SparseAutoencoder
from sparse_autoencoders.saved_format import CONFIG, OURS, WEIGHTS
from sparse_autoencoders.training import train_saes

WITH_SAELENS = """
import sys, torch
from safetensors.torch import load_file, save_file
from sae_lens import SAE
folder, inputs, outputs = sys.argv[1:]
x = load_file(inputs)["x"]
sae = SAE.load_from_disk(folder)
with torch.no_grad():
    z = sae.encode(x)
    save_file({"z": z, "x_hat": sae.decode(z), "forward": sae(x)}, outputs)
assert not any(name.split(".")[0] in {"mechinterp", "sparse_autoencoders"} for name in sys.modules)
"""


@pytest.fixture(scope="module")
def store():
    return MemoryStore(sparse_combinations(30, 20)[0] * 3 + 2)


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    """Each architecture, trained and saved."""
    folder = tmp_path_factory.mktemp("saes")
    made = {}
    for arch in ("topk", "batchtopk", "jumprelu", "standard"):
        sae = train_saes(store, arch=arch, k=3, expansion=2, epochs=8, batch_size=128, lr=3e-3, out=folder / arch)[0]
        made[arch] = (sae, folder / arch / "seed-0")
    return made


def by_saelens(folder, x, tmp_path):
    save_file({"x": x.contiguous()}, tmp_path / "x.safetensors")
    command = [sys.executable, "-c", WITH_SAELENS, folder, tmp_path / "x.safetensors", tmp_path / "z.safetensors"]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return load_file(tmp_path / "z.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["topk", "batchtopk", "jumprelu", "standard"])
def test_saelens_gives_the_same_codes_without_our_code(trained, store, arch, tmp_path):
    _check_against_saelens(*trained[arch], store, tmp_path)


def test_saelens_gives_the_same_codes_of_a_topk_without_our_code(trained, store, tmp_path):
    _check_against_saelens(*trained["topk"], store, tmp_path)


def _check_against_saelens(sae, folder, store, tmp_path):
    x = store.read("site").flatten(0, 1)
    theirs = by_saelens(folder, x, tmp_path)
    ours = SparseAutoencoder.load(folder)
    z = ours.encode(x)
    scale = z.abs().max()
    assert (theirs["z"] - z).abs().max() <= 1e-5 * scale
    assert (theirs["x_hat"] - ours.decode(z)).abs().max() <= 1e-5 * x.abs().max()
    metrics = sae.provenance["metrics"]["train"]
    error = (theirs["forward"] - x).double().square().sum() / (x - x.mean(0)).double().square().sum()
    assert 1 - error.item() == pytest.approx(metrics["explained_variance"], rel=0.02)
    assert (theirs["z"] > 0).sum(-1).double().mean().item() == pytest.approx(metrics["l0"], rel=0.02)


@pytest.mark.parametrize("arch", ["topk", "batchtopk", "jumprelu", "standard"])
def test_what_is_loaded_is_what_was_saved(trained, store, arch):
    sae, folder = trained[arch]
    loaded = SparseAutoencoder.load(folder)
    assert torch.equal(loaded.encode(store.read("site")), sae.encode(store.read("site")))
    assert loaded.weights_hash == sae.weights_hash
    assert loaded.provenance["curve"]["step"] == sae.provenance["curve"]["step"]
    assert loaded.site == "site"
    assert isinstance(loaded, FeatureEncoder)


def test_saving_twice_gives_the_same_bytes(trained, tmp_path):
    sae, folder = trained["topk"]
    again = sae.save(tmp_path / "again")
    for name in (WEIGHTS, CONFIG, OURS):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_loading_does_not_import_saelens(trained):
    code = (
        "import sys; from sparse_autoencoders import SparseAutoencoder;"
        "SparseAutoencoder.load(sys.argv[1]);"
        "assert not {'sae_lens', 'transformer_lens', 'plotly', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(trained["topk"][1])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arch", ["topk", "jumprelu", "standard"])
def test_saelens_variants_are_brought_to_one_form(arch, tmp_path):
    """Decoder rows of any norm, rescaled selection, bias not taken off the input: codes times norm, same reconstruction."""
    from sae_lens import SAE
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    size = {"d_in": 6, "d_sae": 20, "apply_b_dec_to_input": arch == "topk"}
    their: SAE = {
        "topk": lambda: TopKSAE(TopKSAEConfig(**size, k=3, rescale_acts_by_decoder_norm=True)),
        "jumprelu": lambda: JumpReLUSAE(JumpReLUSAEConfig(**size)),
        "standard": lambda: StandardSAE(StandardSAEConfig(**size)),
    }[arch]()
    g = torch.Generator().manual_seed(0)
    for parameter in their.parameters():
        parameter.data = torch.randn(parameter.shape, generator=g)
    if arch == "jumprelu":
        their.threshold.data.abs_()
    their.cfg.metadata.hook_name = "blocks.1.hook_resid_post"
    their.save_model(tmp_path)
    ours = SparseAutoencoder.load(tmp_path)
    x = torch.randn(50, 6, generator=g)
    with torch.no_grad():
        z = their.encode(x)
        expected = z if arch == "topk" else z * their.W_dec.norm(dim=-1)
        assert torch.allclose(ours.encode(x), expected, atol=1e-4)
        assert torch.allclose(ours.decode(ours.encode(x)), their.decode(z), atol=1e-4)
    assert ours.site == "blocks.1.hook_resid_post"
    assert ours.provenance == {}


def test_a_topk_chosen_before_rescaling_keeps_its_norms(trained, store, tmp_path):
    sae, _ = trained["topk"]
    scaled = replace(sae, W_dec=sae.W_dec * torch.linspace(0.5, 2, sae.width)[:, None])
    loaded = SparseAutoencoder.load(scaled.save(tmp_path))
    assert torch.equal(loaded.encode(store.read("site")), sae.encode(store.read("site")))
    assert torch.equal(loaded.directions, scaled.W_dec)


def broken(folder, tmp_path, **changes):
    """Copy without our file, with some keys of cfg.json changed."""
    for name in (WEIGHTS, CONFIG):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**config, **changes}))
    return tmp_path


def test_an_empty_folder_and_formats_that_do_not_fold_are_refused(trained, tmp_path):
    _, folder = trained["topk"]
    with pytest.raises(ConfigError, match=r"holds no SAE \(cfg.json is missing\)"):
        SparseAutoencoder.load(tmp_path)
    with pytest.raises(ConfigError, match="architecture 'gated'"):
        SparseAutoencoder.load(broken(folder, tmp_path, architecture="gated"))
    with pytest.raises(ConfigError, match="normalize_activations 'layer_norm'"):
        SparseAutoencoder.load(broken(folder, tmp_path, normalize_activations="layer_norm"))
    with pytest.raises(ConfigError, match="which site"):
        SparseAutoencoder.load(broken(folder, tmp_path, metadata={}))
    assert SparseAutoencoder.load(broken(folder, tmp_path, metadata={}), site="here").site == "here"


def test_damage_names_the_file(trained, tmp_path):
    sae, _ = trained["topk"]
    folder = sae.save(tmp_path / "sae")
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-8])
    with pytest.raises(DamagedFileError, match=r"sae_weights.safetensors does not match its checksum"):
        SparseAutoencoder.load(folder)
    (folder / OURS).unlink()
    with pytest.raises(DamagedFileError, match="not a safetensors file"):
        SparseAutoencoder.load(folder)
    save_file({"W_enc": sae.W_enc}, folder / WEIGHTS)
    with pytest.raises(DamagedFileError, match="lacks 'b_enc'"):
        SparseAutoencoder.load(folder)
    (folder / CONFIG).write_text("{")
    with pytest.raises(DamagedFileError, match="not readable JSON"):
        SparseAutoencoder.load(folder)
