"""The reference models of stimuli: say whether a Gabor, a face, a scene or a scrambled one is shown, and are asked at every cell.

Measured on 300 exemplars never seen: accuracy 1.0. Rendering and training take half a minute of one core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from mechinterp.errors import ConfigError, DamagedFileError
from mechinterp.files import read_json, sha256_file, sha256_json, write_atomically, write_json
from mechinterp.phantoms.datasets import stimulus_phantoms
from mechinterp.phantoms.stimuli.parameters import SHOWN
from mechinterp.phantoms.stimuli.population import StimulusStudy
from mechinterp.progress import SILENT, Progress
from mechinterp.reference.networks import ReferenceCNN
from mechinterp.reference.recipes import Kind, check_kind
from mechinterp.reference.stimulus_networks import GREY_MEAN, GREY_STD, SIZE_PX, stimulus_cnn, stimulus_vit
from mechinterp.reference.training import REPORT, WEIGHTS, cache_folder, code_version

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mechinterp.models.vision_model import VisionModel

CELL_PX = 8
SCRAMBLED_SHARE = 0.4
_DECIDING_SOURCES = (
    *(
        f"mechinterp.phantoms.{name}"
        for name in (
            "coverage",
            "fundus_optics",
            "random_streams",
            "studies",
            "textures",
            "view",
        )
    ),
    *(
        f"mechinterp.phantoms.stimuli.{name}"
        for name in ("parameters", "patterns", "population", "renderer", "scrambling")
    ),
    "mechinterp.reference.networks",
    "mechinterp.reference.stimulus_networks",
    __name__,
)


@dataclass(frozen=True, kw_only=True)
class StimulusRecipe:
    """Images and training of the reference model.

    Raises
    ------
    ConfigError
        If a number cannot be meant.

    """

    study: Annotated[StimulusStudy, "which stimuli; the test split's exemplars are never trained on"] = field(
        default_factory=lambda: StimulusStudy(
            patients=1500,
            images_per_patient=1,
            size_px=SIZE_PX,
            validation_share=0.0,
            test_share=0.2,
            scrambled_share=SCRAMBLED_SHARE,
            seed=1,
        )
    )
    epochs: Annotated[int, "passes over the training images"] = 8
    batch_size: Annotated[int, "images per step"] = 32
    learning_rate: Annotated[float, "peak of the one-cycle schedule (AdamW)"] = 2e-3
    cell_loss: Annotated[float, "weight of the loss that asks every cell what it shows"] = 1.0
    threads: Annotated[int, "threads of the arithmetic: bits depend on it, so it is part of the recipe"] = 1

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate is {self.learning_rate:g}: it must be above 0")
        for name in ("epochs", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.study.size_px != SIZE_PX:
            raise ConfigError(f"size_px is {self.study.size_px}: the reference model takes stimuli of {SIZE_PX} pixels")


RECIPES: dict[Kind, StimulusRecipe] = {"cnn": StimulusRecipe(), "vit": StimulusRecipe(learning_rate=1e-3)}


@dataclass(frozen=True)
class TrainedStimulusModel:
    """The trained model on disk.

    Parameters
    ----------
    kind
        ``cnn`` or ``vit``.
    folder
        Holds ``weights.safetensors`` and ``reference.json``.
    report
        What ``reference.json`` says: recipe, seed, held-out accuracy, seconds.

    """

    kind: Kind
    folder: Path
    report: dict[str, Any]

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.folder / WEIGHTS

    @property
    def spec(self) -> str:
        """What :func:`mechinterp.models.loading.load_model` takes, together with :attr:`weights`."""
        return f"py:{Path(__file__).with_name('stimulus_networks.py')}:stimulus_{self.kind}"

    @property
    def accuracy(self) -> float:
        """Share of the stimuli never seen whose content it names."""
        return float(self.report["accuracy"])

    def model(self) -> VisionModel:
        """Load it as every other model is loaded, with its sites."""
        from mechinterp.models.loading import load_model

        return load_model(self.spec, weights=self.weights)


def train_stimulus_reference(
    kind: str = "cnn",
    *,
    recipe: StimulusRecipe | None = None,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    progress: Progress = SILENT,
) -> TrainedStimulusModel:
    """Train a reference model on stimuli, unless the cache holds it.

    Parameters
    ----------
    kind
        ``cnn`` or ``vit``.
    recipe
        Data and schedule; the full one by default (a minute or two for the CNN, three for the ViT).
    seed
        Of initial weights and order of the images.
    cache_dir
        Where models are kept; see :func:`mechinterp.reference.training.train_reference`.
    progress
        Told of every image rendered and every step.

    Raises
    ------
    ConfigError
        If there is no such kind.
    DamagedFileError
        If the cached weights are not those that were trained.

    """
    import torch
    from safetensors.torch import save_file

    known = check_kind(kind)
    chosen = recipe or RECIPES[known]
    described: dict[str, Any] = {
        "phantom": "stimuli", "kind": known, "recipe": asdict(chosen), "seed": seed, "code": code_version(_DECIDING_SOURCES)
    }  # fmt: skip
    folder = cache_folder(cache_dir) / "reference" / f"stimuli-{known}-{sha256_json(described)[:16]}"
    if not (folder / REPORT).is_file():
        progress.note(f"training the reference {known} of stimuli into {folder}")
        start = time.perf_counter()
        data = _rendered(chosen.study, progress)
        rendered = time.perf_counter()
        with _deterministic(seed, chosen.threads):
            network = _fitted(known, chosen, data, seed, progress)
            test = data.where("test")
            right = torch.cat([network(data.inputs(part)).argmax(1) for part in test.split(128)]) == data.content[test]  # type: ignore[no-untyped-call]
        state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        write_atomically(folder / WEIGHTS, lambda path: save_file(state, path))
        report = {
            **described,
            "weights_sha256": sha256_file(folder / WEIGHTS),
            "accuracy": float(right.double().mean()),
            "test_images": len(test),
            "rendering_seconds": rendered - start,
            "training_seconds": time.perf_counter() - rendered,
            "torch": torch.__version__,
        }
        write_json(folder / REPORT, report)
    report = read_json(folder / REPORT)
    found = TrainedStimulusModel(known, folder, report)
    if not found.weights.is_file() or sha256_file(found.weights) != report["weights_sha256"]:
        raise DamagedFileError(f"{found.weights} is not what was trained: remove {folder}, it will be trained again")
    return found


@dataclass(frozen=True)
class _Data:
    """Rendered stimuli: grey 8-bit pixels, the content's number, and how much of each cell each content covers."""

    pixels: Tensor
    content: Tensor
    cells: Tensor
    splits: tuple[str, ...]

    def where(self, split: str) -> Tensor:
        import torch

        return torch.from_numpy(np.flatnonzero(np.array(self.splits) == split))

    def inputs(self, images: Tensor) -> Tensor:
        x: Tensor = ((self.pixels[images].float() / 255 - GREY_MEAN) / GREY_STD)[:, None].expand(-1, 3, -1, -1)
        return x


def _rendered(study: StimulusStudy, progress: Progress) -> _Data:
    import torch

    phantoms = stimulus_phantoms(study)
    n, side = len(phantoms), study.size_px // CELL_PX
    pixels = np.zeros((n, study.size_px, study.size_px), dtype=np.uint8)
    cells = np.zeros((n, len(SHOWN), side, side), dtype=np.float32)
    for i in progress.track(range(n), "rendering stimuli", total=n):
        image = phantoms.phantom(i)
        pixels[i] = np.round(image.pixels * 255)
        for k, name in enumerate(SHOWN):
            cells[i, k] = image.coverage[name].reshape(side, CELL_PX, side, CELL_PX).mean((1, 3))
    content = torch.tensor([SHOWN.index(p.shown) for p in phantoms.parameters])
    return _Data(torch.from_numpy(pixels), content, torch.from_numpy(cells), phantoms.splits)


_NETWORKS: dict[Kind, Callable[[], nn.Module]] = {"cnn": stimulus_cnn, "vit": stimulus_vit}
_CELL_WIDTH: dict[Kind, int] = {"cnn": 64, "vit": 96}


def _answers(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits, and what is there at every cell of 8 pixels: image × cell × width."""
    seen = network.forward_features(x)  # type: ignore[operator]  # of any nn.Module, torch says Tensor | Module
    if isinstance(network, ReferenceCNN):
        return network.forward_head(seen[-1]), seen[2].flatten(2).transpose(1, 2)
    return network.forward_head(seen), seen[:, network.num_prefix_tokens :]  # type: ignore[operator]


def _fitted(kind: Kind, recipe: StimulusRecipe, data: _Data, seed: int, progress: Progress) -> nn.Module:
    import torch
    from torch import nn
    from torch.nn import functional

    network = _NETWORKS[kind]()
    readout = nn.Linear(_CELL_WIDTH[kind], len(SHOWN))
    order = torch.Generator().manual_seed(seed)
    weights = [*network.parameters(), *readout.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.05)
    train = data.where("train")
    batches = [
        batch
        for _ in range(recipe.epochs)
        for batch in train[torch.randperm(len(train), generator=order)].split(recipe.batch_size)  # type: ignore[no-untyped-call]
        if len(batch) == min(recipe.batch_size, len(train))
    ]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=len(batches), pct_start=0.15
    )
    network.train()
    for images in progress.track(batches, "training on stimuli", total=len(batches)):
        logits, seen = _answers(network, data.inputs(images))
        cells = readout(seen).transpose(1, 2).reshape(data.cells[images].shape)
        loss = functional.cross_entropy(logits, data.content[images])
        loss = loss + recipe.cell_loss * functional.binary_cross_entropy_with_logits(cells, data.cells[images])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
    return network.eval().requires_grad_(False)


@contextmanager
def _deterministic(seed: int, threads: int) -> Iterator[None]:
    """Seed PyTorch and pin its threads, and put both back."""
    import torch

    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
