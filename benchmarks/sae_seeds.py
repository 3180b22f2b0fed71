"""Five seeds on one stream from disk, against one read and five times one step's arithmetic."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from benchmarks.sae_training import synthetic
from benchmarks.timing import interleaved_numbers

if TYPE_CHECKING:
    from mechinterp import ActivationStore
    from sparse_autoencoders.single_training import SingleTraining
    from sparse_autoencoders.stream import TrainingStream

SEEDS = (0, 1, 2, 3, 4)
_TOKENS, _D_IN, _K, _BATCH = 64, 192, 32, 4096
T = TypeVar("T")


def measure(quick: bool) -> dict[str, Any]:
    """Time them in turns at (d_in 192, d_sae 3072, k 32, batch 4096), 48 steps (6 of batch 1024 at 768 latents when quick)."""
    from sparse_autoencoders.config import TrainSAEConfig
    from sparse_autoencoders.stream import TrainingStream

    torch.set_num_threads(2)
    steps, batch, expansion = (6, 1024, 4) if quick else (48, _BATCH, 16)
    config = TrainSAEConfig(
        k=_K, expansion=expansion, steps=steps, batch_size=batch, seeds=SEEDS, init="data", restarts=0, wake=0.0
    )
    with tempfile.TemporaryDirectory() as folder:
        store = _store(Path(folder) / "store", steps * batch)
        stream = TrainingStream.of(store, store.sites[0], None, config)
        seconds = interleaved_numbers(
            {
                "five seeds": lambda: _trained(stream, config),
                "one read": lambda: _read(stream),
                "one seed's arithmetic": lambda: _arithmetic(stream, config),
            },
            3 if quick else 5,
        )
    five, read, one = (seconds.medians[name] for name in seconds.medians)
    return {
        "seconds": seconds.medians,
        "ratios": {
            "seeds/seconds/five_on_one_stream": five,
            "seeds/seconds/one_read": read,
            "seeds/seconds/one_seed_arithmetic": one,
            "seeds/vs_read_and_arithmetic": seconds.ratio_of(
                lambda of: of["five seeds"] / (of["one read"] + len(SEEDS) * of["one seed's arithmetic"])
            ),
        },
    }


@dataclass
class _Clock:
    """A progress that times what it tracks."""

    seconds: float = field(default=0.0, init=False)

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield the items, and keep how long they all took."""
        before = time.perf_counter()
        yield from items
        self.seconds = time.perf_counter() - before

    def note(self, text: str) -> None:
        """Say nothing."""


class _Unsaved:
    """What this benchmark's trainings end with."""

    def save(self, folder: str | Path) -> Path:
        """Save nothing."""
        return Path(folder)


def _trained(stream: TrainingStream, config: Any) -> float:
    from sparse_autoencoders.training import train_on

    def nothing(_training: SingleTraining, _stream: TrainingStream) -> _Unsaved:
        return _Unsaved()

    clock = _Clock()
    train_on(stream, {"": config}, nothing, out=None, progress=clock, watch=None)
    return clock.seconds


def _read(stream: TrainingStream) -> float:
    before = time.perf_counter()
    for begin, rows in stream.blocks():
        if begin + len(rows) // stream.batch_size >= stream.steps:
            break
    return time.perf_counter() - before


def _arithmetic(stream: TrainingStream, config: Any) -> float:
    from sparse_autoencoders.schedules import learning_rate
    from sparse_autoencoders.single_training import SingleTraining

    learner = SingleTraining.begun("alone", stream, config, SEEDS[0]).learner
    size = stream.batch_size
    _, rows = next(iter(stream.blocks()))
    batches = [rows[at : at + size].clone() for at in range(0, len(rows), size)]
    before = time.perf_counter()
    for step in range(stream.steps):
        learner.step(batches[step % len(batches)], lr=learning_rate(step, stream.steps, config), k=config.k)
    return time.perf_counter() - before


def _store(folder: Path, rows: int) -> ActivationStore:
    """Capture a model that hands its pictures on as tokens: synthetic rows."""
    from mechinterp import ActivationStore, CaptureConfig, ImageSet, InputContract, Site, VisionModel, capture

    class Tokens(torch.nn.Module):
        """Gives a picture's lines to a site."""

        def __init__(self) -> None:
            super().__init__()
            self.site = torch.nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens: torch.Tensor = self.site(x[:, 0])
            return tokens.mean(1)

    made = torch.cat(synthetic(_D_IN, _BATCH, -(-rows // _BATCH)))[: rows // _TOKENS * _TOKENS]
    # pictures have values from 0 to 1; training centres and scales its rows anyway
    pictures = ((made - made.min()) / (made.max() - made.min())).view(-1, _TOKENS, _D_IN).numpy()
    site = Site("site", "site", "output", "tokens", _D_IN, _TOKENS)
    contract = InputContract(_TOKENS, _D_IN, channels=1, mean=(0.0,), std=(1.0,))
    model = VisionModel(Tokens().eval(), "py:tokens", contract, (), "logits", {"site": site})
    images = ImageSet(ids=tuple(f"image-{i}" for i in range(len(pictures))), read=lambda i: pictures[i])
    capture(model, images, out=folder, config=CaptureConfig(sites=("site",), dtype="float32"))
    return ActivationStore.open(folder)
