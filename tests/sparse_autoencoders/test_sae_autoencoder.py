import pytest
import torch
from memory_store import MemoryStore

from mechinterp.errors import ConfigError, HashMismatchError, ShapeError, SiteError
from sparse_autoencoders.autoencoder import SparseAutoencoder, only_site, require_same_source


def made(architecture="topk", d_in=4, width=9, k=2, seed=0, **more):
    g = torch.Generator().manual_seed(seed)
    return SparseAutoencoder(
        "site",
        architecture,
        torch.randn(d_in, width, generator=g),
        torch.randn(width, generator=g),
        torch.nn.functional.normalize(torch.randn(width, d_in, generator=g), dim=-1),
        torch.randn(d_in, generator=g),
        k=k if architecture == "topk" else None,
        **more,
    )


X = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1))


def by_hand(sae, row):
    hidden = [float((row - sae.b_dec) @ sae.W_enc[:, j] + sae.b_enc[j]) for j in range(sae.width)]
    if sae.architecture == "topk":
        kept = sorted(range(sae.width), key=lambda j: -hidden[j])[: sae.k]
    elif sae.architecture == "jumprelu":
        kept = [j for j in range(sae.width) if hidden[j] > sae.threshold[j]]
    else:
        kept = range(sae.width)
    return [max(hidden[j], 0) if j in kept else 0 for j in range(sae.width)]


@pytest.mark.parametrize("architecture", ["topk", "jumprelu", "standard"])
def test_codes_equal_the_definition(architecture):
    sae = made(architecture, threshold=torch.linspace(0, 2, 9) if architecture == "jumprelu" else None)
    codes = sae.encode(X)
    expected = torch.tensor([[by_hand(sae, row) for row in image] for image in X])
    assert torch.allclose(codes, expected, atol=1e-5)
    assert torch.allclose(sae.decode(codes), codes @ sae.W_dec + sae.b_dec)


@pytest.mark.parametrize("architecture", ["topk", "jumprelu", "standard"])
def test_the_largest_codes_are_those_of_encode(architecture):
    sae = made(architecture, threshold=torch.ones(9) if architecture == "jumprelu" else None)
    values, columns = sae.encode_sparse(X, 2)
    assert torch.allclose(values, sae.encode(X).gather(-1, columns))
    assert torch.allclose(values, sae.encode(X).topk(2).values)


def test_a_change_of_codes_changes_the_activation_along_the_directions():
    sae = made()
    z = sae.encode(X)
    changed = z.clone()
    changed[..., 3] += 2
    assert torch.allclose(sae.decode(changed) - sae.decode(z), (changed - z) @ sae.directions, atol=1e-5)


def test_the_hash_knows_every_weight_and_setting():
    same, others = made().weights_hash, [made(k=3), made(seed=1), made("standard")]
    assert made().weights_hash == same
    assert len({same, *(o.weights_hash for o in others)}) == 4


def test_gradients_flow_to_the_activation():
    x = X.clone().requires_grad_()
    made().encode(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_it_moves_to_a_device_whole():
    sae = made("jumprelu", threshold=torch.ones(9))
    assert sae.to("cpu").weights_hash == sae.weights_hash


def test_shapes_and_settings_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match="3 wide, the SAE of site 'site' reads 4"):
        made().encode(X[..., :3])
    with pytest.raises(ShapeError, match=r"threshold has shape \(2,\), \(9,\)"):
        made("jumprelu", threshold=torch.ones(2))
    with pytest.raises(ConfigError, match="k is 10"):
        made(k=10)
    with pytest.raises(ConfigError, match="threshold per feature"):
        made("jumprelu")


def test_activations_of_other_weights_or_another_preparation_are_refused_unless_asked_for():
    store = MemoryStore(torch.randn(2, 3, 4))
    ours = {"model": {"weights_hash": store.manifest.weights_hash}, "preparation_hash": store.manifest.preparation_hash}
    require_same_source(made(provenance=ours), store)
    require_same_source(made(), store)  # an SAE from elsewhere says nothing
    other = made(provenance={**ours, "model": {"weights_hash": "v" * 64}})
    with pytest.raises(HashMismatchError, match=r"other model weights \(vvvvvvvvvvvv\)"):
        require_same_source(other, store)
    require_same_source(other, store, allow_mismatch=True)
    with pytest.raises(HashMismatchError, match="other preparation"):
        require_same_source(made(provenance={**ours, "preparation_hash": "p" * 64}), store)
    with pytest.raises(ShapeError, match="5 wide in this store, the sae reads 4"):
        require_same_source(made(), MemoryStore(torch.randn(2, 3, 5)))


def test_a_store_of_several_sites_wants_one_named():
    store = MemoryStore(torch.randn(2, 3, 4))
    assert only_site(store, None) == "site"
    store.manifest.sites["other"] = store.manifest.sites["site"]
    with pytest.raises(SiteError, match="2 sites: name one of site, other"):
        only_site(store, None)


def test_an_untrained_model_is_remembered():
    assert made().trained_model
    assert not made(provenance={"model": {"trained": False}}).trained_model
