"""Shuffled reading of a store against a sequential copy of the same files."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import interleaved_medians


def measure(quick: bool) -> dict[str, Any]:
    """Time one shuffled epoch over a store of random activations (64 MiB when quick, else 1 GiB)."""
    from mechinterp import ActivationStore, CaptureConfig, ImageSet, InputContract, Site, VisionModel, capture

    torch.set_num_threads(2)
    n, width = (256, 256) if quick else (4096, 256)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, width, 1))
    model = VisionModel(
        module.eval(),
        "random convolution",
        InputContract(16, 16, channels=1, mean=(0.0,), std=(1.0,)),
        (),
        "logits",
        {"0": Site("0", "0", "output", "map", width, 256)},
    )
    pixels = np.random.default_rng(0).random((n, 16, 16), dtype=np.float32)
    images = ImageSet(ids=tuple(f"image-{i}" for i in range(n)), read=lambda i: pixels[i])
    folder = Path(tempfile.mkdtemp())
    capture(model, images, out=folder / "store", config=CaptureConfig(sites=("0",)))
    files = sorted((folder / "store").rglob("*.safetensors"))
    total = sum(f.stat().st_size for f in files)

    def copy() -> None:
        for file in files:
            shutil.copyfile(file, folder / "copy")

    def shuffled() -> None:
        store = ActivationStore.open(folder / "store")
        for _ in store.batches("0", 4096, seed=0, buffer_mib=256):
            pass

    try:
        medians = interleaved_medians({"copy": copy, "shuffled": shuffled}, 3)
    finally:
        shutil.rmtree(folder)
    return {
        "mebibytes": total / 2**20,
        "seconds": medians,
        "ratios": {"store/shuffled_bandwidth_vs_copy": medians["copy"] / medians["shuffled"]},
    }
