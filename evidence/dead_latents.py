"""Dead latents: how many features of a wide autoencoder stay silent over a whole held-out pass, and what keeping them alive costs."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mechinterp.capturing import capture
from mechinterp.images.preparation import Preparation
from mechinterp.progress import SILENT, Progress
from mechinterp.store import ActivationStore
from sparse_autoencoders.autoencoder import SparseAutoencoder
from sparse_autoencoders.baselines import principal_components
from sparse_autoencoders.config import Architecture, TrainSAEConfig
from sparse_autoencoders.metrics import evaluate_sae
from sparse_autoencoders.training import train_sweep

TITLE = "Dead latents"
SOURCES = ("sparse_autoencoders/metrics.py", "sparse_autoencoders/initialisation.py", "sparse_autoencoders/resampling.py",
           "sparse_autoencoders/schedules.py", "sparse_autoencoders/waking.py", "sparse_autoencoders/merged.py", "sparse_autoencoders/sparse_learner.py", "sparse_autoencoders/fused/step.py")  # fmt: skip
SITES = {"cnn": "stages.2", "vit": "blocks.2.hook_resid_post"}
TRAIN, TEST, EPOCHS, EXPANSION, K = 2_000, 400, 10, 16.0, 16
ARCHITECTURES: tuple[Architecture, ...] = ("topk", "batchtopk", "matryoshka")
GOAL = 0.05
# cosine of two decoder directions that say the same
TWIN = 0.9
# against rounding and the last steps' noise: an explained variance this much lower is worse
WORSE = 0.002


def run(small: bool, progress: Progress) -> dict[str, Any]:
    """Train by default and with nothing that revives features on both reference models; small: one hasty model, few images, two epochs."""
    kinds = ("cnn",) if small else tuple(SITES)
    images, epochs, expansion = (24, 2, 2.0) if small else (TRAIN, EPOCHS, EXPANSION)
    found = {}
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            store = _store(kind, small, Path(folder), progress)
            found[kind] = _measured(store, SITES[kind], epochs, expansion, progress)
    return {"images": images, "epochs": epochs, "expansion": expansion, "k": K, "models": found}


def _store(kind: str, small: bool, folder: Path, progress: Progress) -> ActivationStore:
    from mechinterp.reference.recipes import TINY
    from mechinterp.reference.training import train_reference

    trained = train_reference(kind, recipe=TINY[kind] if small else None, progress=SILENT)  # type: ignore[index]
    phantoms = trained.phantoms()
    train, test = (24, 12) if small else (TRAIN, TEST)
    chosen = np.concatenate([phantoms.where("train")[:train], phantoms.where("test")[:test]])
    images = phantoms.images.subset(chosen.tolist())
    return capture(
        trained.model(), images, [SITES[kind]], out=folder / "store", preparation=Preparation(), progress=progress
    )


def _measured(store: ActivationStore, site: str, epochs: int, expansion: float, progress: Progress) -> dict[str, Any]:
    train, test = store.where("train"), store.where("test")
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for arch in ARCHITECTURES:
        own = TrainSAEConfig(arch=arch, k=K, expansion=expansion, epochs=epochs)
        configs = {"with": own, "without": replace(own, aux=0.0, restarts=0, wake=0.0)}
        rows[arch] = {}
        for name, sae in zip(
            configs, train_sweep(store, configs, site=site, images=train, progress=progress), strict=True
        ):
            held_out, seen = evaluate_sae(sae, store, test), evaluate_sae(sae, store, train)
            rows[arch][name] = {
                "dead": held_out.dead,
                "dead_in_training": seen.dead,
                "rare": held_out.rare,
                "twins": _twins(sae),
                "l0": held_out.l0,
                "explained_variance": held_out.explained_variance,
            }
    return {
        "site": site,
        "width": store.width(site),
        "features": round(expansion * store.width(site)),
        "tokens": int(store.rows_of(site, train).sum()),
        "held_out_tokens": int(store.rows_of(site, test).sum()),
        "spectrum": _spectrum(store, site),
        "rows": rows,
    }


def _twins(sae: SparseAutoencoder) -> float:
    """Return the share of features that write along nearly the same direction as another."""
    cosine = sae.W_dec @ sae.W_dec.T
    cosine.fill_diagonal_(-1.0)
    return float((cosine.amax(1) > TWIN).double().mean())


def _spectrum(store: ActivationStore, site: str) -> dict[str, float]:
    """Return how many principal components hold 90, 99 and 99.9 % of the variance, and the participation ratio."""
    train = store.where("train")
    components = principal_components(store, site, train)
    variance = torch.zeros(store.width(site), dtype=torch.float64)
    for first in range(0, len(train), 64):
        variance += components.encode(store.rows(site, train[first : first + 64])).double().square().sum(0)
    share = variance / variance.sum()
    held = share.cumsum(0)
    found = {f"{level:g}": float((held < level).sum() + 1) for level in (0.9, 0.99, 0.999)}
    return {**found, "participation": float(1 / share.square().sum())}


def render(figures: dict[str, Any]) -> str:
    """Return a table for each model, and in words which goals were missed."""
    said = [
        f"{figures['images']:,} images to train, {figures['epochs']} epochs, expansion {figures['expansion']:g}, k {figures['k']}, one seed. "
        "*Woken*: as `train-sae` does by default; *not*: `--wake 0 --aux 0 --restarts 0`. *Dead*: silent on every token of the "
        f"held-out images; *rare*: heard on fewer than one in a thousand; *twins*: writes along the direction of another, cosine above {TWIN:g}. "
        f"*Reached*: under {GOAL:.0%} dead, explained variance at most {WORSE:g} lower than without."
    ]
    for kind, model in figures["models"].items():
        s = model["spectrum"]
        said += ["", f"**{kind}, {model['site']}**: {model['features']:,} features of {model['width']} units, {model['tokens']:,} tokens to train, "
                 f"{model['held_out_tokens']:,} held out. 90 / 99 / 99.9 % of the variance lie in {s['0.9']:.0f} / {s['0.99']:.0f} / {s['0.999']:.0f} "
                 f"principal components (participation ratio {s['participation']:.1f}).", "",
                 "| | | dead | dead on the training tokens | rare | twins | explained variance | L0 | reached |",
                 "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
        for arch, pair in model["rows"].items():
            for name, row in (("woken", pair["with"]), ("not", pair["without"])):
                verdict = ("yes" if reached(pair) else "**no**") if name == "woken" else ""
                said.append(
                    f"| {arch} | {name} | {row['dead']:.1%} | {row['dead_in_training']:.1%} | {row['rare']:.1%} | {row['twins']:.1%} | "
                    f"{row['explained_variance']:.4f} | {row['l0']:.1f} | {verdict} |"
                )
    return "\n".join(said)


def reached(pair: dict[str, dict[str, float]]) -> bool:
    """Return whether few features are dead, at no cost in explained variance."""
    own, bare = pair["with"], pair["without"]
    return own["dead"] < GOAL and own["explained_variance"] >= bare["explained_variance"] - WORSE
