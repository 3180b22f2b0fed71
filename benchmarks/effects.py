"""Effects of single features: exact from the site onwards, and by one gradient, each beside what one would write by hand."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks import memory
from benchmarks.timing import interleaved_medians


def measure(quick: bool) -> dict[str, Any]:
    """Time effects of one site's channels in one batch, two threads.

    Zero-ablating 64 channels of a ResNet-18's third stage one by one on 8 images (16 on 2 when quick), by
    ``feature_effects``, by ``effects``, and by whole forward passes with a hook; all channels by one gradient, by us and by
    captum's layer gradient × activation. Not when quick: 1,000 exact ablations of MLP neurons of a ViT-S, for their memory.
    """
    from captum.attr import LayerGradientXActivation

    from circuits import effects, feature_effects, features, neurons, zero
    from mechinterp import Neurons, Tail, ablate, intervene, load_model, logit, run_with_cache

    torch.set_num_threads(2)
    model = load_model("timm:resnet18", "random")
    site = next(name for name in model.sites if name.startswith("stages.2"))
    x = torch.randn(2 if quick else 8, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    channels = list(range(16 if quick else 64))
    with torch.inference_mode():
        acts = run_with_cache(model, x, [site])[site]
    tail = Tail(model, site, x[:2])
    encoder = Neurons(site, acts.shape[-1])
    captum = LayerGradientXActivation(model.module, model.module.get_submodule(model.site(site).module))

    def ours() -> None:
        feature_effects(tail, encoder, acts, acts, (zero(),), features=channels)

    def one_call() -> None:
        effects(logit(1), features(encoder, channels), model=model, images=x, ablation=zero())

    def hooks() -> None:
        with torch.inference_mode():
            before = model.logits(x)
            for channel in channels:
                with intervene(model, {site: ablate(units=[channel])}):
                    model.logits(x) - before

    def attribution() -> None:
        effects(logit(1), neurons(model, site), model=model, images=x, ablation=zero(), method="attribution")

    def by_captum() -> None:
        captum.attribute(x, target=1)

    def one_pass() -> None:
        model.module.zero_grad()
        model.logits(x)[:, 1].sum().backward()

    candidates = {
        "ours": ours, "one_call": one_call, "hooks": hooks, "attribution": attribution, "captum": by_captum,
        "one_pass": one_pass,
    }  # fmt: skip
    medians = interleaved_medians(candidates, 3)
    found: dict[str, Any] = {
        "seconds": medians,
        "ratios": {
            "effects/ours_vs_whole_forward": medians["ours"] / medians["hooks"],
            "effects/one_call_vs_whole_forward": medians["one_call"] / medians["hooks"],
            "effects/attribution_vs_captum": medians["attribution"] / medians["captum"],
            "effects/attribution_in_forward_backward_passes": medians["attribution"] / medians["one_pass"],
        },
    }
    if not quick:
        found["memory"] = _thousand_ablations()
    return found


def _thousand_ablations() -> dict[str, float]:
    """Return by how many MiB the peak of memory grows over 1,000 exact ablations on a ViT-S, after the first hundred."""
    from circuits import effects, features, zero
    from mechinterp import Neurons, load_model, logit

    model = load_model("timm:vit_small_patch16_224", "random")
    site = "blocks.10.mlp.hook_post"
    encoder = Neurons(site, model.site(site).width)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    peaks = []
    for n in (100, 1000):
        effects(logit(1), features(encoder, range(n)), model=model, images=x[:1], reference=x, ablation=zero(), rows=16)
        peaks.append(memory.peak())
    return {"peak_mib": peaks[1], "growth_mib": peaks[1] - peaks[0]}
