"""Runs that were made stage by stage from the command line: find their parts again, and analyse them for the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from experiments.run_directory import Run
from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import ConfigError, HashMismatchError, ImagesError
from mechinterp.files import read_json, sha256_file, sha256_json, write_json
from mechinterp.images.image_set import ImageSet, own_patient
from mechinterp.images.metadata_table import TABLES
from mechinterp.progress import SILENT, Progress
from mechinterp.store.reader import ActivationStore

if TYPE_CHECKING:
    from experiments.analysis.exploration import Exploration


def images_of(store: ActivationStore, path: Path | None = None) -> ImageSet:
    """Open the images that a store was captured from.

    Parameters
    ----------
    store
        The store.
    path
        Where they are, if not where they were.

    Raises
    ------
    ImagesError
        If they cannot be found.
    HashMismatchError
        If they are other images than those captured, or a patient, a split, a spacing or what is shown as black and white has
        changed since: what was trained on would be tested on, or a token lie elsewhere.

    """
    from mechinterp.images.opening import open_images

    source = store.manifest.images["source"]
    if path is None and not source:
        raise ImagesError(f"{store.folder} does not say where its images came from: give --images")
    images = open_images(path if path is not None else source)
    there = {image: i for i, image in enumerate(images.ids)}
    ids = store.images["id"].tolist()
    missing = [i for i in ids if i not in there]
    if missing:
        raise HashMismatchError(
            f"image '{missing[0]}' of {store.folder} is not among '{images.name}': give the --images it was captured from"
        )
    chosen = [there[i] for i in ids]
    found = images if chosen == list(range(len(images))) else images.subset(chosen)
    _require_as_captured(store, found)
    return found


def _require_as_captured(store: ActivationStore, images: ImageSet) -> None:
    """Compare what is known of the images with what was when they were captured; what was not known then may be now."""
    for what, now in (("group", images.groups), ("split", images.splits)):
        for name, before, after in zip(images.ids, store.images[what], now or (None,) * len(images), strict=True):
            if before not in {None, own_patient(name)} and after != before:
                shown = f" ('{after}', was '{before}')" if what == "split" else ""  # a group may be a patient's name
                raise HashMismatchError(
                    f"image '{name}' has another {what} than when {store.folder} was captured{shown}: capture again, or put "
                    "it back"
                )
    segments = store.manifest.segments
    if len(segments) == 1 and sha256_json(images.scale) != segments[0]["images"]["scale_hash"]:
        raise HashMismatchError(
            f"'{images.name}' has another spacing, or other values shown as black and white, than when {store.folder} was "
            "captured: capture again, or put them back"
        )


def ensure_results(folder: Path, *, progress: Progress = SILENT) -> None:
    """Analyse a run that has a store and an autoencoder but no results, or results of other ones.

    Raises
    ------
    ConfigError
        If the folder is no run, or lacks a stage; it names the command that makes it.

    """
    # stages run from Python write no run.json: where their store stands, the run begins here
    began = (Path(folder) / "activations" / "manifest.json").exists()
    run = Run.create(folder) if began else Run.open(folder)
    if "study" in run.stages and run.results_path.exists():
        return
    store_folder, sae_folders = run.store_folder, sorted((run.folder / "saes").glob("*/cfg.json"))
    if not sae_folders:
        raise ConfigError(
            f"{folder} has no autoencoder: mechinterp train-sae --activations {store_folder} --out {folder}/saes"
        )
    manifest = read_json(store_folder / "manifest.json")
    saes = [sha256_file(file) for folder in sae_folders for file in sorted(folder.parent.glob("*.safetensors"))]
    made_from = sha256_json([manifest, [read_json(f) for f in sae_folders], saes, _probes(run)])
    tables = _tables(manifest["images"]["source"])
    before = read_json(run.results_path) if run.results_path.exists() else {}
    # a run that is looked at where its images are not keeps its numbers
    if before.get("made_from") == made_from and (tables is None or before.get("made_from_tables") == tables):
        return
    found = _explored(run, sae_folders[0].parent, progress)
    results = found.results()
    words = _page_texts(found, results)
    write_json(run.results_path, {**words, **results, "made_from": made_from, "made_from_tables": tables})


def _explored(run: Run, sae_folder: Path, progress: Progress) -> Exploration:
    from experiments.analysis.exploration import ExplorationConfig, analyse
    from experiments.analysis.predictions import ask, positions, predict
    from mechinterp.images.preparation import Preparation
    from mechinterp.models.loading import load_model
    from sparse_autoencoders import SparseAutoencoder

    store, sae = ActivationStore.open(run.folder / "activations"), SparseAutoencoder.load(sae_folder)
    asked = _asked(run)
    images = _with_measured(images_of(store), asked, progress)
    made = store.manifest.model
    model = load_model(
        made["spec"], None if made["weights"] == "embedded" else made["weights"], class_names=tuple(made["class_names"])
    )
    if model.weights_hash != made["weights_hash"]:
        raise HashMismatchError(
            f"'{made['spec']}' has other weights now than when {store.folder} was captured: capture again"
        )
    preparation = Preparation(**store.manifest.preparation)
    logits = (
        store.logits().numpy() if store.manifest.outputs else predict(model, images, preparation, progress=progress)
    )
    probabilities = model.probabilities(torch.from_numpy(logits)).numpy()
    study = _of_study(run)
    question = ask(
        probabilities,
        model.class_names,
        positions(images),
        target=study.get("target"),
        reference=study.get("reference"),
        several=model.activation == "sigmoid",
    )
    config = ExplorationConfig(
        k=sae.k or 0,
        expansion=round(sae.width / sae.d_in),
        primary_attribute=asked[0] if asked else study.get("attribute"),
    )
    return analyse(
        run, model, images, preparation, store, sae, question, logits, probabilities, config, progress=progress
    )


def _of_study(run: Run) -> Mapping[str, str]:
    """Return what a study asks about of which this run shows the features: title, target, reference, attribute; else nothing."""
    found: Mapping[str, str] = run.stages.get("capture", {}).get("of_study", {})
    return found


def _asked(run: Run) -> list[str]:
    """Return the attributes that were probed, the one that was asked for first in front: the report is about it."""
    stages, names = run.stages, sorted(p.stem for p in (run.folder / "probes").glob("*.json"))
    return sorted(names, key=lambda name: stages.get(f"probe {name}", {}).get("asked", len(names) + 1))


def _with_measured(images: ImageSet, asked: Sequence[str], progress: Progress) -> ImageSet:
    """Return the images with those attributes that ``mechinterp probe --measure`` took from their masks."""
    missing = [name for name in asked if name not in images.attributes.names]
    if not missing or images.read_masks is None:
        return images
    from mechinterp.attributes.from_masks import attributes_from_masks

    measured = attributes_from_masks(images, progress=progress)
    known = [(measured[name], measured.column(name)) for name in missing if name in measured.names]
    if not known:
        return images
    return replace(images, attributes=AttributeTable.from_columns(known).joined(images.attributes))


def _probes(run: Run) -> list[Mapping[str, Any]]:
    return [read_json(p) for p in sorted((run.folder / "probes").glob("*.json"))]


def _tables(source: Mapping[str, Any]) -> str | None:
    """Return a hash of the tables that say what the images' attributes are; ``None`` where the images are not there."""
    folder = Path(str(source.get("path", "")))
    if not source.get("path") or not folder.exists():
        return None
    files = [folder / name for name in (*TABLES, "dataset.yaml")]
    return sha256_json({file.name: sha256_file(file) for file in files if file.is_file()})


def answer_counts(
    probabilities: Float[NDArray[np.float32], "image class"], *, several: bool
) -> Int[NDArray[np.int64], " class"]:
    """Return of how many images each class is the answer: the likeliest, or of several findings all above a half."""
    if several:
        counts: NDArray[np.int64] = (probabilities > 0.5).sum(0)
        return counts
    return np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1])


def _page_texts(found: Exploration, results: Mapping[str, Any]) -> dict[str, Any]:
    from experiments.analysis.claims import exploration_claims

    question, n = found.question, len(found.images)
    answers = answer_counts(found.probabilities, several=found.model.activation == "sigmoid")
    said = (
        ", ".join(f"{answers[c]} “{found.model.class_names[c]}”" for c in np.argsort(-answers)[:4] if answers[c])
        or "none of its classes"
    )
    claims = exploration_claims(results, found.primary_attribute)
    untrained = "" if found.model.trained else "UNTRAINED MODEL – "
    return {
        "format": 1,
        "title": _of_study(found.run).get("title") or f"{found.model.name} on {found.images.name}",
        "question": f"What are the features of {found.site}, which physical attributes do they follow, and what does each do to the answer?",
        "answer": [
            f"{untrained}The model answers {said} on {n} images.",
            f"{untrained}{found.matrix_tests['text']}",
            f"{untrained}{sum(c.verdict == 'met' for c in claims)} of {len(claims)} claims are met.",
        ],
        "research_use_only": True,
        "primary_attribute": found.primary_attribute,
        "claims": [c.to_json() for c in claims],
        "experiment": {
            "verdict": {"word": "not run", "reasons": [f"asked for “{question.target}” by a study only"]},
            "directions": [],
        },
    }
