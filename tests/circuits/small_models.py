"""What the tests of circuits share: small models, and one thread."""

from __future__ import annotations

from contextlib import contextmanager

import torch

from circuits.corrupting import corrupted_batches
from circuits.metrics import as_metric
from circuits.nodes import neurons
from circuits.planted.random_circuits import RandomCircuitConfig, random_circuit
from circuits.wiring import Wiring
from mechinterp.models.discovery import discover_sites
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.objectives import logit


@contextmanager
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def small_vit(depth=2, act=None):
    """An untrained timm ViT in double precision, with normalisation and GELU: 9 patches, two heads."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(3)
    settings = {} if act is None else {"act_layer": act}
    module = VisionTransformer(
        img_size=12,
        patch_size=4,
        in_chans=1,
        num_classes=3,
        embed_dim=8,
        depth=depth,
        num_heads=2,
        mlp_ratio=2,
        **settings,
    ).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    contract = InputContract(12, 12, 1, mean=(0.0,), std=(1.0,))
    sites = discover_sites(module, contract)
    return VisionModel(module.double(), "tests:vit", contract, ("a", "b", "c"), "logits", sites)


def small_images(n, seed=0):
    return torch.randn(n, 1, 12, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted_wiring(kind="cnn", seed=0, images=12, freeze=frozenset(), **config):
    planted = random_circuit(RandomCircuitConfig(kind=kind, **config), seed=seed)
    shown = planted.images(images, seed=1)
    layers = [neurons(planted.model, site) for site in planted.sites]
    return planted, shown, Wiring(planted.model, layers, as_metric(logit(1), planted.model), shown.x, freeze)


def both_runs(wiring, x, ablation):
    return next(iter(corrupted_batches(wiring, x, None, ablation, batch=len(x))))
