"""What is measured of a site and its autoencoder: on held-out images, beside baselines, against attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.errors import AttributeTableError, ConfigError
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import Progress
from mechinterp.store.reader import ActivationStore
from mechinterp.tails import Tail
from probes import AttributeMatrix, attribute_matrix, pixel_baseline, probe_store
from sparse_autoencoders import SparseAutoencoder, control_encoders, evaluate_sae, loss_recovered
from sparse_autoencoders.metrics import held_out_images

MOST_SPLICED = 12


def held_out(store: ActivationStore) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the images to train or choose on, and those to test on: by split, or all and all where there is none.

    Where no split is called ``test``, those of any other than ``train`` are for testing; where none is called ``train``, the rest is
    for training.
    """
    splits = store.images["split"].to_numpy(dtype=object)
    everything, test = np.arange(len(splits)), held_out_images(store)
    train = np.flatnonzero([s == "train" for s in splits])
    rest = np.setdiff1d(everything, test)
    return (train if len(train) else rest if len(rest) else everything), test


def said_of_training_images(
    encoders: Mapping[str, object], store: ActivationStore, chosen: NDArray[np.int64]
) -> str | None:
    """Say that what is measured was trained on some of the images, or on others of their patients; nothing where it was not.

    Parameters
    ----------
    encoders
        By name; the training images are known of what was trained here.
    store, chosen
        Activations, and positions of the images that are measured on.

    """
    ids, groups = (store.images[name].to_numpy(dtype=object) for name in ("id", "group"))
    worst: tuple[int, int, str] = (0, 0, "")
    for name, encoder in encoders.items():
        trained = set(getattr(encoder, "provenance", {}).get("training_images", []))
        patients = {group for i, group in zip(ids, groups, strict=True) if str(i) in trained and group is not None}
        same = sum(str(ids[i]) in trained for i in chosen)
        worst = max(worst, (same, sum(groups[i] in patients for i in chosen), name))
    same, of_patients, name = worst
    if same:
        return f"{name} was trained on {same} of these {len(chosen)} images: they are not held out"
    if of_patients:
        return f"{name} was trained on other images of the patients of {of_patients} of these {len(chosen)}: they are not held out"
    return None


def said_of_images(site: str, chosen: NDArray[np.int64], store: ActivationStore, caution: str | None) -> str:
    """Return the title of a table of metrics: where and on what they were measured, and what is to be held against that."""
    said = f"{site}, {len(chosen)} images" + ("" if len(chosen) < len(store) else " (all: no split is held out)")
    return said if caution is None else f"{said}. CAUTION: {caution}"


def matched_attributes(
    sae: SparseAutoencoder, store: ActivationStore, images: ImageSet, seed: int, progress: Progress
) -> AttributeMatrix | None:
    """Match every feature with the attributes: chosen on some images, tested on others; ``None`` where none are held out."""
    if not images.attributes.attributes:
        return None
    train, test = held_out(store) if images.units_are_patients else middle_of_volume(len(images))
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


def middle_of_volume(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the outer images of one volume to choose on, and its middle to test on, two images apart.

    The attributes are tested by shifting them along the volume, and only slices with room on both sides can be tested: 19
    shifts are the fewest that reach p = 0.05. A volume too short for them is matched all the same, and the test says that
    nothing can be significant. See :mod:`mechinterp.statistics.shifts`.
    """
    room, gap = min(19, n // 4), 2
    everything = np.arange(n)
    outer = (everything < room - gap) | (everything >= n - room + gap)
    return everything[outer], everything[room : n - room]


def probed_attributes(
    store: ActivationStore, site: str, images: ImageSet, seed: int, progress: Progress
) -> list[dict[str, Any]]:
    """Probe every attribute that has an order, beside what is plain in the pixels, as ``mechinterp probe`` does."""
    found = []
    table = images.attributes
    baseline = pixel_baseline(images, progress=progress)
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


def measured_decomposition(
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
    own = evaluate_sae(sae, store, images=test)
    encoders = control_encoders(
        store, site=sae.site, width=sae.width, k=active_at_once(sae.k, own.l0, sae.width), images=train, seed=seed
    )
    rows: dict[str, dict[str, Any]] = {"sae": own.to_json()}
    for name, encoder in progress.track(list(encoders.items()), "held-out metrics, baselines", total=len(encoders)):
        rows[name] = evaluate_sae(encoder, store, images=test).to_json()
    some = evenly(test, MOST_SPLICED)
    mean = store.statistics(sae.site, train).mean
    tail = Tail(model, sae.site, model.prepare([images[0], images[len(images) // 2]], preparation))
    for name, encoder in {"sae": sae, "frozen-random SAE": encoders["frozen-random SAE"]}.items():
        batches = [model.prepare([images[int(i)] for i in some], preparation)]
        spliced = loss_recovered(model, encoder, batches, mean, tail=tail, progress=progress)
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


def active_at_once(k: int | None, l0: float, width: int) -> int:
    """Return how many features of a baseline are active: `k`, or what the autoencoder has in the mean where that varies."""
    return min(k or max(1, round(l0)), width)


def evenly(values: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most so many of the values, evenly spread."""
    chosen: NDArray[np.int64] = values[np.linspace(0, len(values) - 1, min(len(values), most)).round().astype(int)]
    return chosen
