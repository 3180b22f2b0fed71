"""Exact effects of single features: only what comes after the site, against whole forward passes with a hook."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.timing import interleaved_medians


def measure(quick: bool) -> dict[str, Any]:
    """Time zero-ablating 64 channels of a ResNet-18's third stage, one by one, on 8 images (2 when quick), two threads."""
    from circuits import feature_effects, zero
    from mechinterp import Neurons, Tail, ablate, intervene, load_model, run_with_cache

    torch.set_num_threads(2)
    model = load_model("timm:resnet18", "random")
    site = next(name for name in model.sites if name.startswith("stages.2"))
    x = torch.randn(2 if quick else 8, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    channels = list(range(16 if quick else 64))
    with torch.inference_mode():
        acts = run_with_cache(model, x, [site])[site]
    tail = Tail(model, site, x[:2])
    encoder = Neurons(site, acts.shape[-1])

    def ours() -> None:
        feature_effects(tail, encoder, acts, acts, (zero(),), features=channels)

    def hooks() -> None:
        with torch.inference_mode():
            before = model.logits(x)
            for channel in channels:
                with intervene(model, {site: ablate(units=[channel])}):
                    model.logits(x) - before

    medians = interleaved_medians({"ours": ours, "hooks": hooks}, 3)
    return {"seconds": medians, "ratios": {"effects/ours_vs_whole_forward": medians["ours"] / medians["hooks"]}}
