"""Peak memory of three training steps, ours and the peers', each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Literal

import torch

from benchmarks import memory, sae_peers
from benchmarks.sae_training import ARCHITECTURES, QUICK_SIZES, SIZES, synthetic

_STEPS = 3


def measure(quick: bool) -> dict[str, Any]:
    """Measure TopK and BatchTopK at the larger size; a peer counts in float32 or bfloat16, whichever takes less."""
    size = "192" if quick else "768"
    peaks: dict[str, dict[str, float]] = {}
    ratios: dict[str, float] = {}
    for arch in ARCHITECTURES:
        name = f"{arch}/{size}"
        who = ["ours", *(f"{peer}{how}" for peer in sae_peers.available() for how in ("", ", bfloat16"))]
        peaks[name] = {one: _asked(arch, one, quick) for one in who}
        least = min(peak for one, peak in peaks[name].items() if one != "ours")
        ratios[f"{name}/peak_memory_vs_smallest_peer"] = peaks[name]["ours"] / least
    return {"mebibytes": peaks, "ratios": ratios}


def _asked(arch: str, who: str, quick: bool) -> float:
    command = [sys.executable, "-m", "benchmarks.sae_memory", arch, who, "quick" if quick else "whole"]
    said = subprocess.run(command, capture_output=True, check=True, text=True)
    return float(json.loads(said.stdout.splitlines()[-1]))


def _peak(arch: Literal["topk", "batchtopk"], who: str, quick: bool) -> float:
    """Train, and return how far this process's peak lies above the memory that it held with everything imported [MiB]."""
    torch.set_num_threads(2)
    d_in, d_sae, k, batch = QUICK_SIZES["192"] if quick else SIZES["768"]
    task = sae_peers.Task(arch, d_in, d_sae, k, batch, steps=300)
    small = sae_peers.Task(arch, 16, 64, 4, 64, steps=300)
    batches = synthetic(d_in, batch, 2)
    name, _, precision = who.partition(", ")
    sae_peers.available()

    def trained(task: sae_peers.Task, rows: list[torch.Tensor]) -> None:
        if name == "ours":
            step = sae_peers.ours(task, rows[0]).step
        else:
            step = sae_peers.PEERS[name](task, rows[0], bfloat16=bool(precision)).step
        for at in range(_STEPS):
            step(rows[at % len(rows)])

    trained(small, [x[:64, :16].contiguous() for x in batches])  # imports and compiles
    before = memory.held()
    trained(task, batches)
    return memory.peak() - before


if __name__ == "__main__":
    asked = next(arch for arch in ARCHITECTURES if arch == sys.argv[1])
    print(json.dumps(_peak(asked, sys.argv[2], sys.argv[3] == "quick")))
