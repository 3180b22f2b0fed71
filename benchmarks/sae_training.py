"""Sparse autoencoder training against the peers: the same data, seeds and step count, interleaved, on two threads.

Every toolkit steps by its own code. Peers run in float32 and under bfloat16 autocast; the faster of the two counts. Beside it
stands the floor: the encoder's dense float32 product alone. Explained variance is that of tokens that no step saw, after the same
number of steps, and after the time that ours took for them. No latent counts as dead in so few steps, on any side, and all read the
same centred and scaled rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks import sae_peers
from benchmarks.sae_peers import PEERS, Candidate, Task
from benchmarks.timing import Interleaved, asleep, interleaved

ARCHITECTURES: tuple[Literal["topk", "batchtopk"], ...] = ("topk", "batchtopk")
SIZES = {"192": (192, 3072, 32, 4096), "768": (768, 12288, 32, 2048)}
QUICK_SIZES = {"192": (192, 768, 32, 1024)}


# steps after which explained variance is compared; timed in a turn are some, since the first finds cold caches and sleeping threads
# and a training takes thousands, but few where a peer's takes up to three seconds
_COMPARED, _TIMED = 60, {"192": 6, "768": 1}


def measure(quick: bool) -> dict[str, Any]:
    """Time TopK and BatchTopK at both sizes; explained variance at the first."""
    torch.set_num_threads(2)
    ratios: dict[str, float] = {}
    seconds: dict[str, dict[str, float]] = {}
    variance: dict[str, dict[str, float]] = {}
    for size, (d_in, d_sae, k, batch) in (QUICK_SIZES if quick else SIZES).items():
        batches = synthetic(d_in, batch, max(4, _TIMED[size]))
        for arch in ARCHITECTURES:
            task = Task(arch, d_in, d_sae, k, batch, steps=300)
            name = f"{arch}/{size}"
            timed = _step_seconds(task, batches, _TIMED[size], repeats=3 if quick else 5)
            seconds[name] = timed.medians
            ratios |= _ratios(name, timed, batch)
            if size == "192":
                variance[name] = _explained(task, 20 if quick else _COMPARED)
                ratios |= {f"{name}/explained_variance/{who}": value for who, value in variance[name].items()}
    return {"seconds_a_step": seconds, "explained_variance": variance, "ratios": ratios}


def synthetic(d_in: int, batch: int, n: int, seed: int = 0) -> list[Tensor]:
    """Return batches of sparse sums of unit directions about a mean, of mean squared norm `d_in`."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(1024, d_in, generator=g), dim=1)
    frequency = 1 / torch.arange(1, 1025) ** 0.5
    batches = []
    for _ in range(n):
        active = torch.multinomial(frequency.expand(batch, -1), 20, generator=g)
        values = 0.5 + torch.rand(batch, 20, generator=g)
        batches.append(
            (directions[active] * values.unsqueeze(-1)).sum(1) + 0.05 * torch.randn(batch, d_in, generator=g)
        )
    mean = torch.cat(batches).mean(0)
    scale = torch.cat(batches).sub(mean).square().mean().sqrt()
    return [(x - mean) / scale for x in batches]


def _candidates(task: Task, sample: Tensor) -> dict[str, Candidate]:
    made = {"ours": sae_peers.ours(task, sample)}
    for name in sae_peers.available():
        made[name] = PEERS[name](task, sample)
        made[f"{name}, bfloat16"] = PEERS[name](task, sample, bfloat16=True)
    return made


def _step_seconds(task: Task, batches: list[Tensor], steps: int, repeats: int) -> Interleaved:
    """Return the seconds that a step takes, in turns."""
    candidates = _candidates(task, batches[0])
    weights = torch.randn(task.d_sae, task.d_in)

    def some_steps(step: Callable[[Tensor], Any]) -> None:
        for x in batches[:steps]:
            step(x)

    timed = {name: partial(some_steps, candidate.step) for name, candidate in candidates.items()}
    timed["floor"] = partial(some_steps, lambda x: x @ weights.t())
    found = interleaved(timed, repeats, between=asleep).seconds
    return Interleaved({name: [t / steps for t in taken] for name, taken in found.items()})


def _ratios(name: str, seconds: Interleaved, batch: int) -> dict[str, float]:
    """Return medians over the rounds of ratios within a round; of two precisions of a peer the faster counts."""
    peers = sae_peers.available()
    fastest = {
        peer: min((who for who in seconds.medians if who.startswith(peer)), key=lambda who: seconds.medians[who])
        for peer in peers
    }
    found = {f"{name}/vs_{peer}": seconds.ratio(fastest[peer], "ours") for peer in peers}
    found[f"{name}/vs_fastest_peer"] = min(found.values())
    found[f"{name}/vs_floor"] = seconds.ratio("ours", "floor")
    return found | {f"{name}/samples_a_second/{who}": batch / t for who, t in seconds.medians.items()}


def _explained(task: Task, steps: int) -> dict[str, float]:
    """Return the explained variance of unseen tokens after the same steps, and of peers after the time that ours took."""
    data = synthetic(task.d_in, task.batch, 41)
    unseen, training = data[-1], data[:-1]
    found: dict[str, float] = {}
    allowed = 0.0
    for name in ("ours", *sae_peers.available()):
        made = sae_peers.ours if name == "ours" else PEERS[name]
        candidate = made(Task(**{**vars(task), "steps": steps}), training[0])
        candidate.step(training[-1])  # compiles; counts for nobody's time
        spent = 0.0
        for at in range(steps - 1):
            before = time.perf_counter()
            candidate.step(training[at % len(training)])
            spent += time.perf_counter() - before
            if name != "ours" and f"{name}, same time" not in found and spent >= allowed:
                found[f"{name}, same time"] = _variance(candidate, unseen)
        if name == "ours":
            allowed = spent
        found[name] = _variance(candidate, unseen)
    return found


def _variance(candidate: Candidate, x: Tensor) -> float:
    error = (x - candidate.reconstruct(x)).double().square().sum()
    return 1 - float(error / (x - x.mean(0)).double().square().sum())
