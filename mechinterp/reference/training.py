"""Train a reference model, or take it from the cache: ``train_reference`` and ``load_reference``."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechinterp.errors import DamagedFileError
from mechinterp.files import read_json, sha256_file, sha256_json, write_atomically, write_json
from mechinterp.phantoms.datasets import PhantomSet, draw_phantoms, phantom_kind, study_of
from mechinterp.progress import SILENT, Progress
from mechinterp.provenance import code_without_comments
from mechinterp.reference.recipes import FULL, Kind, Recipe, check_kind

if TYPE_CHECKING:
    from torch import nn

    from mechinterp.models.vision_model import VisionModel
    from mechinterp.reference.training_data import TrainingData

WEIGHTS, REPORT = "weights.safetensors", "reference.json"
DECIDING_SOURCES = (
    *(f"mechinterp.phantoms.{name}" for name in (
        "burnt_in", "coverage", "fundus", "fundus_lesions", "fundus_optics", "fundus_parameters",
        "fundus_population", "planted_shortcut", "random_streams", "studies", "vessels", "view",
    )),
    *(f"mechinterp.reference.{name}" for name in ("fitting", "networks", "training_data")),
)  # fmt: skip


@dataclass(frozen=True)
class TrainedReference:
    """A trained reference model on disk.

    Parameters
    ----------
    kind
        ``cnn`` or ``vit``.
    folder
        Holds ``weights.safetensors`` and ``reference.json``.
    report
        What ``reference.json`` says: recipe, seed, held-out AUROC, number of weights, seconds, versions.

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
        if self.phantom != "fundus":
            return f"py:{Path(__file__).with_name('radiograph_networks.py')}:{self.phantom}_{self.kind}"
        return f"py:{Path(__file__).with_name(f'{self.kind}.py')}:architecture"

    @property
    def phantom(self) -> str:
        """The kind of phantom it was trained on."""
        return str(self.report.get("phantom", "fundus"))

    @property
    def auroc(self) -> float:
        """Area under the ROC curve for patients never seen."""
        return float(self.report["auroc"])

    def model(self) -> VisionModel:
        """Load it as every other model is loaded, with its sites."""
        from mechinterp.models.loading import load_model

        return load_model(self.spec, weights=self.weights)

    def phantoms(self) -> PhantomSet:
        """Return the phantoms it was trained and, in the ``test`` split, scored on."""
        settings = dict(self.report["recipe"]["study"])
        planted = settings.pop("shortcut")
        return draw_phantoms(phantom_kind(self.phantom), study_of(self.phantom, settings, planted))


def train_reference(
    kind: str,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    progress: Progress = SILENT,
) -> TrainedReference:
    """Train a reference model on the fundus phantom, unless the cache holds it.

    Parameters
    ----------
    kind
        ``cnn`` or ``vit``.
    recipe
        Data and schedule; the full one by default (minutes on two cores).
    seed
        Of initial weights and order of the images.
    cache_dir
        Where models are kept: ``$MECHINTERP_CACHE`` or ``~/.cache/mechinterp`` by default. The name of a model's
        folder is a hash of recipe, seed and the code that decides its weights, so changed code trains anew.
    progress
        Told of every image rendered and every step.

    Raises
    ------
    ConfigError
        If there is no such kind.
    DamagedFileError
        If the cached weights are not those that were trained.

    """
    known = check_kind(kind)
    chosen = recipe or FULL[known]
    folder = _folder(known, chosen, seed, cache_dir)
    if (folder / REPORT).is_file():
        return cached(known, folder)
    progress.note(f"training the reference {known} into {folder}")
    return _trained(known, chosen, seed, folder, progress)


def load_reference(
    kind: str,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    progress: Progress = SILENT,
) -> VisionModel:
    """Return a reference model with its sites; trains it first if the cache does not hold it.

    Parameters are those of :func:`train_reference`.
    """
    return train_reference(kind, recipe=recipe, seed=seed, cache_dir=cache_dir, progress=progress).model()


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Return where models are kept: the argument, ``$MECHINTERP_CACHE``, or ``~/.cache/mechinterp``."""
    return Path(cache_dir or os.environ.get("MECHINTERP_CACHE") or Path.home() / ".cache" / "mechinterp")


def _folder(kind: Kind, recipe: Recipe, seed: int, cache_dir: str | Path | None) -> Path:
    decides = {"kind": kind, "recipe": asdict(recipe), "seed": seed, "code": code_version()}
    return cache_folder(cache_dir) / "reference" / f"{kind}-{sha256_json(decides)[:16]}"


@lru_cache(maxsize=4)
def code_version(sources: tuple[str, ...] = DECIDING_SOURCES) -> str:
    """Return a hash of the code that decides a reference model's weights; comments and docstrings do not count."""
    digest = hashlib.sha256()
    for name in sources:
        found = find_spec(name)
        if found is None or found.origin is None:
            raise DamagedFileError(f"module {name} is missing: install mechinterp-vision again")
        digest.update(f"{name}\n{code_without_comments(Path(found.origin).read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()


def cached(kind: Kind, folder: Path) -> TrainedReference:
    """Return a model that lies in a folder.

    Raises
    ------
    DamagedFileError
        If its weights are not those that were trained.

    """
    report = read_json(folder / REPORT)
    weights = folder / WEIGHTS
    if not weights.is_file() or sha256_file(weights) != report["weights_sha256"]:
        raise DamagedFileError(f"{weights} is not what was trained: remove {folder}, it will be trained again")
    return TrainedReference(kind, folder, report)


def _trained(kind: Kind, recipe: Recipe, seed: int, folder: Path, progress: Progress) -> TrainedReference:
    from mechinterp.reference.training_data import training_data

    start = time.perf_counter()
    data = training_data(recipe.study, progress)
    described = {"recipe": asdict(recipe), "code": code_version(), "rendering_seconds": time.perf_counter() - start}
    return fit_and_save(kind, recipe, data, seed, folder, described, progress)


def fit_and_save(
    kind: Kind,
    recipe: Recipe,
    data: TrainingData,
    seed: int,
    folder: Path,
    described: dict[str, Any],
    progress: Progress,
    *,
    trained: Callable[[], nn.Module] | None = None,
) -> TrainedReference:
    """Train a network on rendered images, score it on patients never seen, and write both.

    Parameters
    ----------
    kind
        ``cnn`` or ``vit``.
    recipe
        Schedule and losses.
    data
        The images.
    seed
        Of initial weights and order of the images.
    folder
        Where it is written.
    described
        What the report says besides.
    progress
        Told of every step.
    trained
        Trains the network in another way than the fundus models'.

    """
    import torch
    from safetensors.torch import save_file

    from mechinterp.reference.fitting import auroc, count_parameters, fit, scores

    start = time.perf_counter()
    network = fit(kind, recipe, data, seed, progress) if trained is None else trained()
    seconds = time.perf_counter() - start
    test = data.where("test")
    scored, truth = scores(network, data, test), data.referable[test]
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    write_atomically(folder / WEIGHTS, lambda path: save_file(state, path))
    report = {
        "kind": kind,
        "seed": seed,
        **described,
        "weights_sha256": sha256_file(folder / WEIGHTS),
        "parameters": count_parameters(network),
        "auroc": auroc(scored, truth),
        "accuracy": float(((scored > 0) == truth).float().mean()),
        "test_patients": len({data.phantoms.groups[i] for i in test.tolist()}),
        "test_images": len(test),
        "training_seconds": seconds,
        "torch": torch.__version__,
    }
    write_json(folder / REPORT, report)
    # what is returned is what a later call reads
    return cached(kind, folder)
