"""Peak memory of a capture of 20,000 images against that of 1,000: what is held must not grow with the store."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import memory

_WIDTH, _TOKENS = 384, 197


def measure(quick: bool) -> dict[str, Any]:
    """Measure each in a process of its own: three sites of ViT-S/16's size as float16, by a model that costs nothing.

    20,000 images are 8.5 GiB on disk; 2,000 when quick.
    """
    few, many = (100, 2_000) if quick else (1_000, 20_000)
    peaks, seconds = {}, {}
    for n in (few, many):
        with tempfile.TemporaryDirectory() as folder:
            before = time.perf_counter()
            said = subprocess.run(
                [sys.executable, "-m", "benchmarks.capture_memory", str(n), folder], capture_output=True, check=True
            )
            seconds[f"{n:,} images"] = time.perf_counter() - before
        peaks[n] = json.loads(said.stdout)
    return {
        "mebibytes": {f"{n:,} images": peak for n, peak in peaks.items()},
        "seconds": seconds,
        "ratios": {f"capture/peak_memory_{many}_vs_{few}_images": peaks[many] / peaks[few]},
    }


def _capture(n: int, folder: Path) -> float:
    """Capture and return this process's peak resident memory [MiB]."""
    import numpy as np
    import torch

    from mechinterp import CaptureConfig, ImageSet, InputContract, Site, VisionModel, capture

    class Thrice(torch.nn.Module):
        """Hands the same tokens to three sites."""

        def __init__(self) -> None:
            super().__init__()
            self.sites = torch.nn.ModuleList(torch.nn.Identity() for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = x.flatten(1)[:, :_TOKENS, None] + torch.linspace(-1, 1, _WIDTH)
            for site in self.sites:
                tokens = site(tokens)
            return tokens.mean(1)

    torch.set_num_threads(2)
    sites = {f"sites.{i}": Site(f"sites.{i}", f"sites.{i}", "output", "tokens", _WIDTH, _TOKENS, 1) for i in range(3)}
    contract = InputContract(16, 16, channels=1, mean=(0.0,), std=(1.0,))
    model = VisionModel(Thrice().eval(), "py:thrice", contract, (), "logits", sites)
    images = ImageSet(
        ids=tuple(f"image-{i}" for i in range(n)),
        read=lambda i: np.random.default_rng(i).random((16, 16), dtype=np.float32),
    )
    capture(
        model, images, out=folder / "store", config=CaptureConfig(sites=tuple(sites), dtype="float16", batch_size=32)
    )
    return memory.peak()


if __name__ == "__main__":
    print(json.dumps(_capture(int(sys.argv[1]), Path(sys.argv[2]))))
