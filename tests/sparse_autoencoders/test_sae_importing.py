"""Other libraries' files: the codes that their own formulas give, to 1e-5, there and back."""

import pytest
import torch
from torch import nn

from mechinterp.errors import ConfigError, DamagedFileError
from mechinterp.files import write_json
from sparse_autoencoders.autoencoder import SparseAutoencoder
from sparse_autoencoders.importing import AE, AE_CONFIG, export_sae, import_sae

D, F, K = 6, 20, 3
X = torch.randn(40, D, generator=torch.Generator().manual_seed(9))


def weights(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear_state(**more):
    return {"encoder.weight": weights(F, D), "encoder.bias": weights(F, seed=1),
            "decoder.weight": weights(D, F, seed=2), **more}  # fmt: skip


def named_state(**more):
    return {"W_enc": weights(D, F), "b_enc": weights(F, seed=1), "W_dec": weights(F, D, seed=2),
            "b_dec": weights(D, seed=3), **more}  # fmt: skip


def relu(s):
    z = ((X - s["bias"]) @ s["encoder.weight"].T + s["encoder.bias"]).relu()
    return z, z @ s["decoder.weight"].T + s["bias"]


def topk(s):
    z = ((X - s["b_dec"]) @ s["encoder.weight"].T + s["encoder.bias"]).relu()
    z = torch.zeros_like(z).scatter(1, *reversed(z.topk(int(s["k"]), dim=1)))
    return z, z @ s["decoder.weight"].T + s["b_dec"]


def batch_topk(s):
    z = ((X - s["b_dec"]) @ s["encoder.weight"].T + s["encoder.bias"]).relu()
    z = z * (z > s["threshold"])
    return z, z @ s["decoder.weight"].T + s["b_dec"]


def matryoshka(s):
    z = ((X - s["b_dec"]) @ s["W_enc"] + s["b_enc"]).relu()
    z = z * (z > s["threshold"])
    return z, z @ s["W_dec"] + s["b_dec"]


def jumprelu(s):
    z = X @ s["W_enc"] + s["b_enc"]
    z = (z * (z > s["threshold"])).relu()
    return z, z @ s["W_dec"] + s["b_dec"]


K_AND_ONE = {"k": torch.tensor(K, dtype=torch.int32), "threshold": torch.tensor(1.5)}
SOURCES = {
    "AutoEncoder": (linear_state(bias=weights(D, seed=3)), relu),
    "AutoEncoderTopK": (linear_state(b_dec=weights(D, seed=3), **K_AND_ONE), topk),
    "BatchTopKSAE": (linear_state(b_dec=weights(D, seed=3), **K_AND_ONE), batch_topk),
    "MatryoshkaBatchTopKSAE": (named_state(group_sizes=torch.tensor([5, 15]), **K_AND_ONE), matryoshka),
    "JumpReluAutoEncoder": (named_state(threshold=weights(F, seed=4).abs()), jumprelu),
}


def write_source(folder, kind, state):
    torch.save(state, folder / AE)
    write_json(folder / AE_CONFIG, {"trainer": {"dict_class": kind, "submodule_name": "blocks.1", "k": K}})
    return folder


def agrees(sae, codes, x_hat):
    """Codes are those of the source up to the length of its decoder rows; the reconstruction is the same."""
    z = sae.encode(X)
    assert (sae.decode(z) - x_hat).abs().max() <= 1e-5 * x_hat.abs().max()
    assert ((z > 0) == (codes > 0)).all()


@pytest.mark.parametrize("kind", SOURCES)
def test_dictionary_learning_is_read_and_written_back(kind, tmp_path):
    state, formula = SOURCES[kind]
    sae = import_sae(write_source(tmp_path, kind, state))
    agrees(sae, *formula(state))
    assert sae.site == "blocks.1"
    again = import_sae(export_sae(sae, tmp_path / "back", library="dictionary_learning"))
    assert (again.encode(X) - sae.encode(X)).abs().max() <= 1e-5 * sae.encode(X).abs().max()
    through = import_sae(export_sae(sae, tmp_path / "sae_lens"))
    assert (through.encode(X) - sae.encode(X)).abs().max() <= 1e-5 * sae.encode(X).abs().max()


def test_sources_without_a_config_are_told_by_their_names_where_that_is_possible(tmp_path):
    for kind in ("AutoEncoder", "JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        torch.save(SOURCES[kind][0], tmp_path / AE)
        agrees(import_sae(tmp_path / AE, site="here"), *SOURCES[kind][1](SOURCES[kind][0]))
    torch.save(SOURCES["BatchTopKSAE"][0], tmp_path / AE)
    with pytest.raises(ConfigError, match="TopK or a BatchTopK"):
        import_sae(tmp_path, site="here")


class Overcomplete(nn.Module):
    """The layers and names of overcomplete's SAE with its default encoder."""

    def __init__(self, normalised):
        super().__init__()
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(F) if normalised else nn.Identity()
        self.encoder = nn.Module()
        self.encoder.final_block = nn.Sequential(nn.Linear(D, F), norm)
        self.dictionary = nn.Module()
        self.dictionary._weights = nn.Parameter(nn.functional.normalize(weights(F, D), dim=1))
        self.dictionary.register_buffer("multiplier", torch.tensor(0.3))
        if normalised:
            self.encoder.final_block(weights(200, D, seed=5))
        self.eval()

    @torch.no_grad()
    def codes(self, k):
        z = self.encoder.final_block(X).relu()
        z = torch.zeros_like(z).scatter(1, *reversed(z.topk(k, dim=1))) if k else z
        return z, z @ (self.dictionary._weights * self.dictionary.multiplier.exp())


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("k", [None, K])
def test_overcomplete_is_read_with_its_batch_norm_folded(normalised, k, tmp_path):
    source = Overcomplete(normalised)
    torch.save(source.state_dict(), tmp_path / "sae.pt")
    sae = import_sae(tmp_path / "sae.pt", site="stages.2", k=k)
    agrees(sae, *source.codes(k))
    if k is None:
        again = import_sae(export_sae(sae, tmp_path / "back.pt", library="overcomplete"), site="stages.2")
        assert torch.allclose(again.encode(X), sae.encode(X), atol=1e-5)


def ours(architecture="topk", b_dec=0.0, **more):
    W_dec = nn.functional.normalize(weights(F, D), dim=1)
    return SparseAutoencoder(
        "site", architecture, weights(D, F), weights(F, seed=1), W_dec, torch.full((D,), b_dec), **more
    )


def test_what_a_library_has_not_is_not_written(tmp_path):
    jump = ours("jumprelu", threshold=torch.ones(F))
    with pytest.raises(ConfigError, match="overcomplete has no threshold"):
        export_sae(jump, tmp_path / "a", library="overcomplete")
    with pytest.raises(ConfigError, match="dictionary has no bias"):
        export_sae(ours(b_dec=1.0, k=K), tmp_path / "a", library="overcomplete")
    long = SparseAutoencoder("site", "topk", weights(D, F), weights(F), 2 * ours(k=K).W_dec, torch.zeros(D), k=K)
    with pytest.raises(ConfigError, match="rows of unit length"):
        export_sae(long, tmp_path / "a", library="overcomplete")
    with pytest.raises(ConfigError, match="no library 'onnx'"):
        export_sae(ours(k=K), tmp_path / "a", library="onnx")
    assert not (tmp_path / "a").exists()


def test_what_cannot_be_read_says_why(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        import_sae(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"holds neither cfg\.json"):
        import_sae(tmp_path)
    file = tmp_path / "sae.pt"
    torch.save(nn.Linear(2, 2), file)
    with pytest.raises(ConfigError, match="pickled module"):
        import_sae(file, site="s")
    torch.save({"a": 1}, file)
    with pytest.raises(ConfigError, match="holds no state dict"):
        import_sae(file, site="s")
    file.write_bytes(b"")
    with pytest.raises(DamagedFileError, match="not a PyTorch file"):
        import_sae(file, site="s")
    torch.save({"x": X}, file)
    with pytest.raises(DamagedFileError, match=r"lacks 'dictionary\._weights'"):
        import_sae(file, site="s")
    with pytest.raises(ConfigError, match="no library 'tf'"):
        import_sae(file, site="s", library="tf")
    state = Overcomplete(False).state_dict()
    torch.save(state, file)
    with pytest.raises(ConfigError, match="does not say which site"):
        import_sae(file)
    torch.save({**state, "encoder.final_block.1.weight": X}, file)
    with pytest.raises(ConfigError, match="layer norm"):
        import_sae(file, site="s")
    torch.save({**state, "encoder.mlp_blocks.0.0.weight": X}, file)
    with pytest.raises(ConfigError, match="only a linear encoder"):
        import_sae(file, site="s")
    write_source(tmp_path, "GatedAutoEncoder", SOURCES["BatchTopKSAE"][0])
    with pytest.raises(ConfigError, match="a GatedAutoEncoder of dictionary_learning does not fold"):
        import_sae(tmp_path)
    write_source(tmp_path, "AutoEncoder", {"encoder.weight": weights(F, D)})
    with pytest.raises(DamagedFileError, match=r"lacks 'encoder\.bias'"):
        import_sae(tmp_path)
