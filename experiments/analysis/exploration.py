"""From a model and its images to features with attributes and effects: what every study and every stage-wise run shares."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits import FeatureEffects, feature_effects, mean, resample, towards, zero
from experiments.analysis.attribute_page import sentence_of
from experiments.analysis.feature_records import feature_records
from experiments.analysis.measurements import (
    evenly,
    held_out,
    matched_attributes,
    measured_decomposition,
    probed_attributes,
)
from experiments.analysis.pictures import image_facts, registration, write_pictures
from experiments.analysis.predictions import Question, answered, ask, positions
from experiments.run_directory import Run
from mechinterp.capturing import CaptureConfig, capture
from mechinterp.files import jsonable, read_json, write_json
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress
from mechinterp.provenance import versions
from mechinterp.store.reader import ActivationStore
from mechinterp.tails import Tail
from probes import AttributeMatrix
from sparse_autoencoders import (
    FeatureSummary,
    SparseAutoencoder,
    TrainSAEConfig,
    summarise_features,
    train_saes,
)

MOST_CLASSES = 6
MOST_IMAGES = 12


@dataclass(frozen=True)
class ExplorationConfig:
    """How a run is analysed.

    Parameters
    ----------
    target, reference, threshold
        See :func:`experiments.analysis.predictions.ask`.
    k, expansion, epochs
        Of the sparse autoencoder.
    primary_attribute
        The attribute whose probe is a claim; the first by default. All others are reported beside it.
    seed
        Decides every random choice.

    """

    target: str | None = None
    reference: str | None = None
    threshold: float = 0.9
    k: int = 32
    expansion: int = 2
    epochs: int = 10
    primary_attribute: str | None = None
    seed: int = 0


@dataclass
class Exploration:
    """Everything found out about one site of one model on one set of images."""

    run: Run
    model: VisionModel
    images: ImageSet
    preparation: Preparation
    site: str
    store: ActivationStore
    question: Question
    logits: Float[NDArray[np.float32], "image class"]
    probabilities: Float[NDArray[np.float32], "image class"]
    sae: SparseAutoencoder
    sae_metrics: dict[str, Any]
    sae_controls: list[dict[str, Any]]
    summary: FeatureSummary
    matrix: AttributeMatrix | None
    probes: list[dict[str, Any]]
    effects: FeatureEffects | None
    files: list[str] = field(default_factory=list)
    config: ExplorationConfig = field(default_factory=ExplorationConfig)

    @cached_property
    def acts(self) -> Float[Tensor, "image token width"]:
        """Activations of all images at the site."""
        return self.store.read(self.site)

    @cached_property
    def tail(self) -> Tail:
        """The model after the site."""
        return Tail(
            self.model,
            self.site,
            self.model.prepare([self.images[0], self.images[len(self.images) // 2]], self.preparation),
        )

    @property
    def primary_attribute(self) -> str | None:
        """The attribute whose probe is a claim, named before the run: the configured one, or the first probed."""
        return self.config.primary_attribute or next((p["attribute"] for p in self.probes), None)

    @cached_property
    def shown_classes(self) -> tuple[int, ...]:
        """Classes whose effects are shown: all, or the target, the reference and the most answered where there are many."""
        names = self.model.class_names
        if len(names) <= MOST_CLASSES:
            return tuple(range(len(names)))
        asked = (self.question.target, self.question.reference)
        first = [names.index(name) for name in asked if name in names]  # a finding is asked about against its absence
        rest = np.argsort(-self.probabilities.mean(0), kind="stable")
        return tuple(dict.fromkeys([*first, *(int(c) for c in rest)]))[:MOST_CLASSES]

    @cached_property
    def matrix_tests(self) -> dict[str, Any]:
        """The held-out test of features against attributes, in the words and numbers of the claims."""
        if self.matrix is None:
            best = dict.fromkeys(("feature", "attribute", "label", "rho_confirmation", "p_corrected"))
            why = "there are no attributes, or no split to hold out"
            return {"best": best, "n_findings": 0, "n_tested": 0, "findings": [], "text": why, "controls": []}
        confirmed = self.matrix.findings
        known = [f for f in (self.matrix[i] for i in range(len(self.matrix))) if np.isfinite(f.p_corrected)]
        closest = min(known, key=lambda f: (f.p_corrected, -abs(f.rho_confirmation)), default=self.matrix[0])
        label = self.images.attributes[closest.attribute].label if closest.attribute else ""
        return {
            "best": {
                **vars(closest),
                "label": label,
                "p_corrected": closest.p_corrected if np.isfinite(closest.p_corrected) else None,
            },
            "n_findings": len(confirmed),
            "n_tested": len(known),
            "findings": [vars(f) for f in confirmed],
            "text": sentence_of(self.matrix),
            "controls": [
                {"name": c.name, "n_findings": c.value, "passed": c.passed, "detail": c.detail}
                for c in self.matrix.as_controls()
            ],
        }

    def inputs_if_needed(self) -> Float[Tensor, "image channel height width"] | None:
        """Return the prepared images where effects need whole forward passes, ``None`` where the tail is enough."""
        return None if self.tail.exact else self.model.prepare(list(self.images), self.preparation)

    def results(self) -> dict[str, Any]:
        """Return the parts of ``results.json`` that are not a study's own."""
        model, site = self.model, self.model.site(self.site)
        return {
            "model": {
                "spec": model.name,
                "weights": model.weights,
                "weights_hash": model.weights_hash,
                "trained": model.trained,
                "class_names": [model.class_names[c] for c in range(len(model.class_names))],
                "output": model.output,
                "activation": model.activation,
                "licence": model.licence,
                "site": self.site,
                "notes": list(model.notes),
            },
            "images": image_facts(self.images, self.files, self.logits, self.probabilities),
            "target": self.question.to_json(),
            "sae": {
                "arch": self.sae.architecture,
                "k": self.sae.k,
                "width": self.sae.width,
                "d_in": self.sae.d_in,
                "weights_hash": self.sae.weights_hash,
                "held_out": not np.intersect1d(*held_out(self.store)).size,
                "metrics": self.sae_metrics,
                "controls": self.sae_controls,
            },
            "probes": self.probes,
            "attribute_named": self.config.primary_attribute is not None,
            "matrix": self._matrix_json(),
            "features": feature_records(self),
            "grid": registration(self.images, site, model.contract, self.preparation),
            "provenance": {"versions": versions(), "seed": self.config.seed, "store_hash": self.store.hash},
        }

    def _matrix_json(self) -> dict[str, Any]:
        if self.matrix is None:
            return {"attributes": [], "features": [], "rho": [], "tests": self.matrix_tests}
        return {
            "attributes": [a.name for a in self.matrix.attributes],
            "features": list(range(len(self.matrix))),
            "rho": self.matrix.rho_confirmation,
            "rho_discovery": self.matrix.rho_discovery,
            "left_out": self.matrix.left_out,
            "tests": self.matrix_tests,
        }


def explore(
    run: Run,
    model: VisionModel,
    images: ImageSet,
    preparation: Preparation,
    site: str,
    config: ExplorationConfig,
    *,
    progress: Progress = SILENT,
) -> Exploration:
    """Capture, decompose, attribute and measure effects at one site.

    Parameters
    ----------
    run
        Where stages are written; what is whole there and made with the same settings is taken over.
    model, images, preparation
        What to explain.
    site
        Where to look.
    config
        Settings, fixed when the run starts.
    progress
        Sees every long step.

    """
    with run.stage("capture", model=model.spec, site=site) as record:
        settings = CaptureConfig(sites=(site,), outputs=True)
        store = capture(
            model, images, out=run.folder / "activations", config=settings, preparation=preparation, progress=progress
        )
        record.update(activations="activations", hash=store.hash)
    logits = store.logits().numpy()
    probabilities = model.probabilities(torch.from_numpy(logits)).numpy()
    question = ask(
        probabilities,
        model.class_names,
        positions(images),
        target=config.target,
        reference=config.reference,
        threshold=config.threshold,
        several=model.activation == "sigmoid",
    )
    with run.stage("train-sae", site=site) as record:
        sae = _trained(run, store, site, config, progress)
        record.update(sae=f"saes/seed-{config.seed}", weights_hash=sae.weights_hash)
    return analyse(
        run, model, images, preparation, store, sae, question, logits, probabilities, config, progress=progress
    )


def analyse(
    run: Run,
    model: VisionModel,
    images: ImageSet,
    preparation: Preparation,
    store: ActivationStore,
    sae: SparseAutoencoder,
    question: Question,
    logits: Float[NDArray[np.float32], "image class"],
    probabilities: Float[NDArray[np.float32], "image class"],
    config: ExplorationConfig,
    *,
    progress: Progress = SILENT,
) -> Exploration:
    """Say what the features of a trained autoencoder are, what they follow, and what each does alone."""
    metrics, controls = measured_decomposition(model, images, preparation, store, sae, config.seed, progress)
    found = Exploration(
        run, model, images, preparation, sae.site, store, question, logits, probabilities, sae, metrics, controls,
        summarise_features(sae, store, progress=progress),
        matched_attributes(sae, store, images, config.seed, progress),
        probed_attributes(store, sae.site, images, config.seed, progress),
        None,
        config=config,
    )  # fmt: skip
    found.effects = _effects(found, progress)
    found.files = write_pictures(images, run.folder / "images", progress=progress)
    return found


def _trained(
    run: Run, store: ActivationStore, site: str, config: ExplorationConfig, progress: Progress
) -> SparseAutoencoder:
    """Train the autoencoder, or take over one that was trained on this very store with these settings."""
    settings = TrainSAEConfig(k=config.k, expansion=config.expansion, epochs=config.epochs, seeds=(config.seed,))
    marker, folder = run.folder / "saes" / "trained-with.json", run.folder / "saes" / f"seed-{config.seed}"
    wanted = jsonable({"store_hash": store.hash, "site": site, **asdict(settings)})
    made = read_json(marker) if marker.exists() else {}
    weights = made.pop("weights_hash", None)
    if made == wanted:
        sae = SparseAutoencoder.load(folder)
        if weights in {None, sae.weights_hash}:  # another may have been trained into the folder since
            progress.note("autoencoder taken over from an earlier run with the same settings")
            return sae
    sae = train_saes(store, site=site, config=settings, out=run.folder / "saes", progress=progress)[0]
    write_json(marker, {**wanted, "weights_hash": sae.weights_hash})
    return sae


def _effects(found: Exploration, progress: Progress) -> FeatureEffects | None:
    """Measure what each feature does alone, on positive images, with values of reference images."""
    question = found.question
    changed = question.positive if len(question.positive) else _answered(found, question.target)
    reference = question.reference_images
    if len(changed) < 2 or len(reference) < 2:
        progress.note("single effects not measured: fewer than two images of the target or of the reference")
        return None
    changed, reference = evenly(changed, MOST_IMAGES), evenly(reference, MOST_IMAGES)
    x = found.inputs_if_needed()
    return feature_effects(
        found.tail,
        found.sae,
        found.acts[torch.from_numpy(changed)],
        found.acts[torch.from_numpy(reference)],
        (zero(), mean(), resample(1), towards(1)),
        features=found.summary.living,
        seed=found.config.seed,
        x=None if x is None else x[torch.from_numpy(changed)],
        x_reference=None if x is None else x[torch.from_numpy(reference)],
        progress=progress,
    )


def _answered(found: Exploration, name: str) -> NDArray[np.int64]:
    said = answered(torch.from_numpy(found.logits), found.model.activation)
    return np.flatnonzero(said[:, found.model.class_names.index(name)].numpy())
