"""Capture into a store against the bare forward pass, and against nnsight doing the same."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import interleaved_medians


def measure(quick: bool) -> dict[str, Any]:
    """Time ViT-S/16 at 224 (ViT-Ti when quick), batch 32, three sites to disk as float16, on two threads."""
    from nnsight import NNsight

    from mechinterp import CaptureConfig, ImageSet, Preparation, capture, load_model

    torch.set_num_threads(2)
    name, n = ("vit_tiny_patch16_224", 32) if quick else ("vit_small_patch16_224", 64)
    model = load_model(f"timm:{name}", "random")
    pixels = np.random.default_rng(0).random((n, 224, 224), dtype=np.float32)
    images = ImageSet(ids=tuple(f"image-{i}" for i in range(n)), read=lambda i: pixels[i])
    sites = tuple(f"blocks.{b}.hook_resid_post" for b in (3, 7, 11))
    folder = Path(tempfile.mkdtemp())
    config = CaptureConfig(sites=sites, dtype="float16", batch_size=32)

    def batches() -> Any:
        for first in range(0, n, 32):
            yield model.prepare([images[i] for i in range(first, min(first + 32, n))], Preparation())

    def bare() -> None:
        with torch.inference_mode():
            for x in batches():
                model.run(x)

    def ours() -> None:
        shutil.rmtree(folder / "ours", ignore_errors=True)
        capture(model, images, out=folder / "ours", config=config)

    traced = NNsight(model.module)

    def nnsight() -> None:
        saved = []
        for x in batches():
            with torch.inference_mode():  # noqa: SIM117  nnsight rewrites the body of its own `with`
                with traced.trace(x):
                    first = traced.blocks[3].output.save()
                    second = traced.blocks[7].output.save()
                    third = traced.blocks[11].output.save()
            saved.append([o.half() for o in (first, second, third)])
        for i, parts in enumerate(zip(*saved, strict=True)):
            np.save(folder / f"{i}.npy", torch.cat(parts).numpy())

    try:
        medians = interleaved_medians({"bare": bare, "ours": ours, "nnsight": nnsight}, 3 if quick else 5)
    finally:
        shutil.rmtree(folder)
    return {
        "seconds": medians,
        "ratios": {
            "capture/vs_bare_forward": medians["ours"] / medians["bare"],
            "capture/vs_nnsight": medians["ours"] / medians["nnsight"],
        },
    }
