"""Capture into a store against the bare forward pass over the same loader, and against nnsight and TransformerBridge."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.timing import interleaved

if TYPE_CHECKING:
    from mechinterp import ImageSet, VisionModel

_BATCH = 32
_BLOCKS = (3, 7, 11)


def measure(quick: bool) -> dict[str, Any]:
    """Time ViT-S/16 at 224 (two blocks' width of it when quick), batch 32, three sites to disk as float16, two threads.

    All sides are fed by the same loader, which prepares one batch ahead. nnsight runs timm's model, TransformerBridge Hugging
    Face's of the same size, the only kind that it takes; each is compared with a capture of the model that it runs. The last
    capture's files are removed between the runs, not while the clock runs: the peers write over theirs.
    """
    from mechinterp import CaptureConfig, ImageSet, capture, load_model

    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(2)
    n = 64 if quick else 128
    pixels = np.random.default_rng(0).random((n, 224, 224), dtype=np.float32)
    images = ImageSet(ids=tuple(f"image-{i}" for i in range(n)), read=lambda i: pixels[i])
    folder = Path(tempfile.mkdtemp())
    sites = tuple(f"blocks.{b}.hook_resid_post" for b in _BLOCKS)
    config = CaptureConfig(sites=sites, dtype="float16", batch_size=_BATCH)

    def clean() -> None:
        shutil.rmtree(folder / "store", ignore_errors=True)

    def captured(model: VisionModel) -> None:
        capture(model, images, out=folder / "store", config=config)

    repeats = 3 if quick else 7
    try:
        ours = load_model("timm:vit_tiny_patch16_224" if quick else "timm:vit_small_patch16_224", "random")
        timm = interleaved(
            {
                "bare": lambda: _bare(ours, images),
                "ours": lambda: captured(ours),
                "nnsight": lambda: _nnsight(ours, images, folder),
            },
            repeats,
            clean,
        )
        theirs = load_model(f"hf:{_hugging_face_vit(folder, quick)}", "random")
        hugging_face = interleaved(
            {
                "bare, Hugging Face": lambda: _bare(theirs, images),
                "ours, Hugging Face": lambda: captured(theirs),
                "TransformerBridge": _bridge(theirs, images, folder),
            },
            repeats,
            clean,
        )
    finally:
        shutil.rmtree(folder)
    return {
        "seconds": timm.medians | hugging_face.medians,
        "ratios": {
            "capture/vs_bare_forward": timm.ratio("ours", "bare"),
            "capture/vs_nnsight": timm.ratio("ours", "nnsight"),
            "capture/hf_vs_bare_forward": hugging_face.ratio("ours, Hugging Face", "bare, Hugging Face"),
            "capture/vs_transformer_bridge": hugging_face.ratio("ours, Hugging Face", "TransformerBridge"),
        },
        "rounds": timm.seconds | hugging_face.seconds,
    }


def _batches(model: VisionModel, images: ImageSet) -> Iterator[torch.Tensor]:
    """Prepare batches, one ahead of what is computed, as the capture does."""

    def load(first: int) -> torch.Tensor:
        return model.prepare([images[i] for i in range(first, min(first + _BATCH, len(images)))])

    starts = range(0, len(images), _BATCH)
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead = reader.submit(load, 0)
        for following in [*starts[1:], None]:
            x = ahead.result()
            if following is not None:
                ahead = reader.submit(load, following)
            yield x


def _bare(model: VisionModel, images: ImageSet) -> None:
    with torch.inference_mode():
        for x in _batches(model, images):
            model.run(x)


def _to_disk(folder: Path, saved: list[list[torch.Tensor]]) -> None:
    for i, parts in enumerate(zip(*saved, strict=True)):
        np.save(folder / f"{i}.npy", torch.cat(parts).numpy())


def _nnsight(model: VisionModel, images: ImageSet, folder: Path) -> None:
    from nnsight import NNsight

    traced = NNsight(model.module)
    saved = []
    for x in _batches(model, images):
        with torch.inference_mode():  # noqa: SIM117  nnsight rewrites the body of its own `with`
            with traced.trace(x):
                first = traced.blocks[3].output.save()
                second = traced.blocks[7].output.save()
                third = traced.blocks[11].output.save()
        saved.append([o.half() for o in (first, second, third)])
    _to_disk(folder, saved)


def _hugging_face_vit(folder: Path, quick: bool) -> Path:
    """Write the configuration of a ViT of the same size."""
    from transformers import ViTConfig

    width = 192 if quick else 384
    config = ViTConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=width // 64,
        architectures=["ViTForImageClassification"],
    )
    config.save_pretrained(folder / "vit")
    return folder / "vit"


def _bridge(model: VisionModel, images: ImageSet, folder: Path) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers("vit", hf_model=model.module)
    names = [f"blocks.{b}.hook_out" for b in _BLOCKS]

    def run() -> None:
        saved = []
        with torch.inference_mode():
            for x in _batches(model, images):
                _, cache = bridge.run_with_cache(x, names_filter=names)
                saved.append([cache[name].half() for name in names])
        _to_disk(folder, saved)

    return run
