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
from experiments.analysis.feature_records import feature_records
from experiments.analysis.pictures import image_facts, registration, write_pictures
from experiments.analysis.predictions import Question, ask, positions
from experiments.run_directory import Run
from mechinterp.capturing import CaptureConfig, capture
from mechinterp.errors import AttributeTableError, ConfigError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.files import jsonable, read_json, write_json
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress
from mechinterp.provenance import versions
from mechinterp.store.reader import ActivationStore
from mechinterp.tails import Tail
from probes import AttributeMatrix, attribute_matrix, probe_store
from sparse_autoencoders import (
    FeatureSummary,
    SparseAutoencoder,
    TrainSAEConfig,
    control_encoders,
    evaluate_sae,
    loss_recovered,
    summarise_features,
    train_saes,
)

MOST_CLASSES = 6
MOST_IMAGES = 12
MOST_SPLICED = 12


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
        """The attribute whose probe is a claim, named before any result is seen: the configured one, or the first probed."""
        return self.config.primary_attribute or next((p["attribute"] for p in self.probes), None)

    @cached_property
    def shown_classes(self) -> tuple[int, ...]:
        """Classes whose effects are shown: all, or the target, the reference and the most answered where there are many."""
        names = self.model.class_names
        if len(names) <= MOST_CLASSES:
            return tuple(range(len(names)))
        first = [names.index(self.question.target), names.index(self.question.reference)]
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
            "text": self.matrix.text,
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
                "metrics": self.sae_metrics,
                "controls": self.sae_controls,
            },
            "probes": self.probes,
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
        Settings, made before any result is seen.
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
    metrics, controls = _decomposition(model, images, preparation, store, sae, config.seed, progress)
    found = Exploration(
        run, model, images, preparation, sae.site, store, question, logits, probabilities, sae, metrics, controls,
        summarise_features(sae, store, progress=progress),
        _matrix(sae, store, images, config.seed, progress),
        _probes(store, sae.site, images, config.seed, progress),
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
    if marker.exists() and read_json(marker) == wanted:
        progress.note("autoencoder taken over from an earlier run with the same settings")
        return SparseAutoencoder.load(folder)
    sae = train_saes(store, site=site, config=settings, out=run.folder / "saes", progress=progress)[0]
    write_json(marker, wanted)
    return sae


def held_out(store: ActivationStore) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the images to train or choose on, and those to test on: by split, or all and all where there is none."""
    splits = store.images["split"].to_numpy(dtype=object)
    train = np.flatnonzero([s == "train" for s in splits])
    test = np.flatnonzero([s == "test" for s in splits])
    everything = np.arange(len(splits))
    return (train if len(train) else everything), (test if len(test) else everything)


def _matrix(
    sae: SparseAutoencoder, store: ActivationStore, images: ImageSet, seed: int, progress: Progress
) -> AttributeMatrix | None:
    if not images.attributes.attributes:
        return None
    train, test = held_out(store) if images.units_are_patients else _middle(len(images))
    if np.intersect1d(train, test).size or min(len(train), len(test)) < 3:
        progress.note("attributes not matched: no images are held out (give the images a split `test`)")
        return None
    try:
        return attribute_matrix(
            sae, store, images.attributes, discovery=train, confirmation=test, seed=seed, progress=progress
        )
    except (AttributeTableError, ConfigError) as error:
        progress.note(f"attributes not matched: {error}")
        return None


def _middle(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the outer images of one volume to choose on, and its middle to test on, two images apart.

    The attributes are tested by shifting them along the volume, and only slices with room on both sides can be tested: 19
    shifts are the fewest that reach p = 0.05. A volume too short for them is matched all the same, and the test says that
    nothing can be significant. See :mod:`mechinterp.statistics.shifts`.
    """
    room, gap = min(19, n // 4), 2
    everything = np.arange(n)
    outer = (everything < room - gap) | (everything >= n - room + gap)
    return everything[outer], everything[room : n - room]


def _probes(store: ActivationStore, site: str, images: ImageSet, seed: int, progress: Progress) -> list[dict[str, Any]]:
    found = []
    table = images.attributes
    baseline = np.stack([[float(i.scaled().mean()), float((i.scaled() > 0.05).mean())] for i in images])
    for attribute in progress.track(table.attributes, "probes", total=len(table.attributes)):
        if attribute.kind == "categorical":
            continue
        try:
            result = probe_store(store, site, table, attribute.name, baseline=baseline, gap=_gap(images), seed=seed)
        except (AttributeTableError, ConfigError) as error:
            progress.note(f"{attribute.name} not probed: {error}")
            continue
        found.append(probe_record(result))
    return found


def probe_record(result: Any) -> dict[str, Any]:
    """Return a probe's result as pages read it."""
    raw = result.to_json()
    ends = result.interval.ends
    return {
        **{k: raw[k] for k in ("attribute", "unit", "kind", "score", "spearman", "mae", "mae_of_mean", "predicted", "images", "controls", "text", "smallest_p", "p_scheme", "site")},
        "score_name": raw["metric"],
        "interval": list(ends) if ends else None,
        "interval_note": result.interval.reason or result.interval.warning,
        "p": raw["p_value"],
        "true": raw["truth"],
    }  # fmt: skip


def _gap(images: ImageSet) -> int:
    return 0 if images.units_are_patients else 2


def _decomposition(
    model: VisionModel,
    images: ImageSet,
    preparation: Preparation,
    store: ActivationStore,
    sae: SparseAutoencoder,
    seed: int,
    progress: Progress,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure the autoencoder on held-out images, beside baselines with as many active features."""
    train, test = held_out(store)
    encoders: dict[str, FeatureEncoder] = {
        "sae": sae,
        **control_encoders(store, site=sae.site, width=sae.width, k=sae.k or MOST_CLASSES, images=train, seed=seed),
    }
    rows: dict[str, dict[str, Any]] = {}
    for name, encoder in progress.track(list(encoders.items()), "held-out metrics, baselines", total=len(encoders)):
        rows[name] = evaluate_sae(encoder, store, images=test).to_json()
    some = _evenly(test, MOST_SPLICED)
    mean = store.statistics(sae.site, train).mean
    tail = Tail(model, sae.site, model.prepare([images[0], images[len(images) // 2]], preparation))
    for name in ("sae", "frozen-random SAE"):
        batches = [model.prepare([images[int(i)] for i in some], preparation)]
        spliced = loss_recovered(model, encoders[name], batches, mean, tail=tail, progress=progress)
        rows[name] |= {
            "kl_spliced": spliced.reconstruction.kl,
            "kl_zero": spliced.zero.kl,
            "kl_mean": spliced.mean.kl,
            "kl_identity": spliced.identity.kl,
            "kl_recovered_against_mean": spliced.kl_recovered["mean"],
            "cross_entropy_recovered_against_zero": spliced.cross_entropy_recovered["zero"],
            "cross_entropy_recovered_against_mean": spliced.cross_entropy_recovered["mean"],
            "prediction_agreement": spliced.reconstruction.agreement,
            "images_spliced": spliced.images,
        }
    return rows.pop("sae"), [{"name": name, "metrics": metrics} for name, metrics in rows.items()]


def _evenly(values: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most so many of the values, evenly spread."""
    chosen: NDArray[np.int64] = values[np.linspace(0, len(values) - 1, min(len(values), most)).round().astype(int)]
    return chosen


def _effects(found: Exploration, progress: Progress) -> FeatureEffects | None:
    """Measure what each feature does alone, on positive images, with values of reference images."""
    question = found.question
    changed = question.positive if len(question.positive) else _answered(found, question.target)
    reference = question.reference_images
    if len(changed) < 2 or len(reference) < 2:
        progress.note("single effects not measured: fewer than two images of the target or of the reference")
        return None
    changed, reference = _evenly(changed, MOST_IMAGES), _evenly(reference, MOST_IMAGES)
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
    return np.flatnonzero(found.probabilities.argmax(1) == found.model.class_names.index(name))
