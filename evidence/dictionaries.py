"""Known dictionaries: how much of them autoencoders find, beside SAELens' at equal steps and controls that were not trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.progress import Progress
from mechinterp.store import ActivationStore
from mechinterp.store.statistics import SiteStatistics
from sparse_autoencoders.autoencoder import SparseAutoencoder
from sparse_autoencoders.baselines import LargestOf, principal_components, random_sae
from sparse_autoencoders.explained_variance import ExplainedVariance
from sparse_autoencoders.ground_truth import (
    HARD,
    PLAIN,
    DictionarySettings,
    SyntheticDictionary,
    matching_pursuit_codes,
    recovery,
    topk_codes,
)
from sparse_autoencoders.initialisation import start
from sparse_autoencoders.training import train_saes

TITLE = "Known dictionaries"
SOURCES = ("sparse_autoencoders/ground_truth.py", "sparse_autoencoders/initialisation.py", "sparse_autoencoders/resampling.py",
           "sparse_autoencoders/architectures/matching_pursuit.py", "sparse_autoencoders/architectures/coherence.py",
           "sparse_autoencoders/schedules.py", "sparse_autoencoders/waking.py", "sparse_autoencoders/merged.py")  # fmt: skip
SITE, K, BATCH = "synthetic", 20, 512
ROWS, HELD_OUT = 100_000, 3_000
# each side has the one that is better for its own TopK on another dictionary of the kind
RATES = (1e-3, 3e-3)
RATE_STEPS = 1_500
# five passes over the rows leave rare children half found, ten do not; a Matryoshka's last features learn more slowly. More cost SAELens'
# classes minutes
STEPS = {"topk": 2_000, "batchtopk": 2_000, "matryoshka": 4_000, "matching-pursuit": 2_000}
GOAL_COSINE, GOAL_SHARE, GOAL_PURSUIT = 0.9, 0.95, 0.9


class _Rows:
    """Rows in memory, with what training asks of a store: one token an image."""

    def __init__(self, rows: Tensor) -> None:
        self.x = rows
        self.sites, self.hash = (SITE,), "0" * 64
        self.manifest = SimpleNamespace(
            model_spec="synthetic", weights_hash=self.hash, preparation_hash=self.hash, trained=True, aligned=True
        )
        ids = [str(i) for i in range(len(rows))]
        self.images = pd.DataFrame({"id": ids, "label": None, "group": ids, "split": None})

    def width(self, site: str) -> int:
        return self.x.shape[1]

    def tokens(self, site: str) -> int:
        return 1

    def rows(self, site: str, images: NDArray[np.int64] | None = None) -> Tensor:
        return self.x if images is None else self.x[torch.from_numpy(np.asarray(images, dtype=np.int64))]

    def rows_of(self, site: str, images: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        return np.ones(len(self.x) if images is None else len(images), dtype=np.int64)

    def statistics(self, site: str, images: NDArray[np.int64] | None = None) -> SiteStatistics:
        return SiteStatistics.of(self.rows(site, images))

    def batches(
        self,
        site: str,
        size: int,
        *,
        seed: int,
        epoch: int = 0,
        start: int = 0,
        images: NDArray[np.int64] | None = None,
    ) -> Any:
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(self.x)))
        for at in range(start * size, len(self.x) - size + 1, size):
            yield self.x[order[at : at + size]]


def run(small: bool, progress: Progress) -> dict[str, Any]:
    """Train on the plain and on the hard dictionary; small: one of 60 features, few steps."""
    if small:
        tiny = DictionarySettings(width=40, features=60, active=4)
        return {"k": 4, "batch": 128, "rows": 6000, "dictionaries": {
            "plain": _dictionary(tiny, 4, 6000, 500, {"topk": 400, "matching-pursuit": 400}, 128, progress)}}  # fmt: skip
    found = {
        name: _dictionary(settings, K, ROWS, HELD_OUT, STEPS, BATCH, progress)
        for name, settings in (("plain", PLAIN), ("hard", HARD))
    }
    return {"k": K, "batch": BATCH, "rows": ROWS, "dictionaries": found}


def _dictionary(
    settings: DictionarySettings, k: int, rows: int, held_out: int, steps: dict[str, int], batch: int, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    known = _Known.drawn(settings, k, rows, held_out, batch)
    other = _Known.drawn(replace(settings, seed=settings.seed + 100), k, rows, held_out, batch)
    tried = {
        side: {rate: train(other, "topk", min(RATE_STEPS, steps["topk"]), rate, progress)["cosine"] for rate in RATES}
        for side, train in _SIDES.items()
    }
    rates = {side: max(RATES, key=lambda rate: scores[rate]) for side, scores in tried.items()}
    progress.note(f"rates, by the cosine on another dictionary: {tried}")
    found: dict[str, Any] = {
        side: {
            arch: train(known, arch, steps[arch], rates[side], progress)
            for arch in progress.track(list(steps), f"training, {side}", total=len(steps))
        }
        for side, train in _SIDES.items()
    }
    controls = {
        name: known.measure(
            "topk", encoder.directions, encoder.encode(known.x), encoder.decode(encoder.encode(known.x))
        )
        for name, encoder in _controls(known.store, settings.features, k).items()
    }
    return {"settings": vars_of(settings), "steps": steps, "rates": rates, **found, "controls": controls}


@dataclass(frozen=True)
class _Known:
    """A dictionary, rows of it to train on and others to score."""

    store: ActivationStore
    x: Tensor
    measure: _Measure
    width: int
    k: int
    batch: int

    @classmethod
    def drawn(cls, settings: DictionarySettings, k: int, rows: int, held_out: int, batch: int) -> _Known:
        truth = SyntheticDictionary(settings)
        generator = torch.Generator().manual_seed(settings.seed + 1)
        drawn = [truth.draw(min(5_000, rows), generator)[0] for _ in range(-(-rows // 5_000))]
        store = cast(ActivationStore, _Rows(torch.cat(drawn)[:rows]))
        x, codes = truth.draw(held_out, generator)
        return cls(store, x, _Measure(truth, x, codes, k), settings.features, k, batch)


def _ours(known: _Known, arch: str, steps: int, rate: float, progress: Progress) -> dict[str, float]:
    expansion = known.width / known.x.shape[1]
    sae = train_saes(
        known.store, arch=arch, steps=steps, lr=rate, k=known.k, expansion=expansion, batch_size=known.batch, progress=progress
    )[0]  # fmt: skip
    codes = sae.encode(known.x)
    return known.measure(arch, sae.directions, codes, sae.decode(codes))


def _theirs(known: _Known, arch: str, steps: int, rate: float, progress: Progress) -> dict[str, float]:
    del progress  # SAELens' trainer is stepped without any
    return known.measure(arch, *_sae_lens(known, arch, steps, rate))


_SIDES = {"ours": _ours, "SAELens": _theirs}


class _Measure:
    """Scores on held-out rows, with the true dictionary read in the same way beside them."""

    def __init__(self, truth: SyntheticDictionary, x: Tensor, codes: Tensor, k: int) -> None:
        self.truth, self.x, self.codes = truth, x, codes
        d = truth.directions
        row, pursuit = topk_codes(x, d, k), matching_pursuit_codes(x, d, k)
        hidden = x @ d.T
        least = hidden.flatten().kthvalue(hidden.numel() - k * len(x) + 1).values
        of_batch = hidden.relu() * (hidden >= least)
        self.oracle = {"topk": row, "batchtopk": of_batch, "matryoshka": of_batch, "matching-pursuit": pursuit}

    def __call__(self, arch: str, directions: Tensor, codes: Tensor, reconstruction: Tensor) -> dict[str, float]:
        found = recovery(directions, codes, self.truth, self.codes, self.oracle[arch])
        variance = ExplainedVariance()
        variance.update(self.x, reconstruction)
        return {**vars(found), "explained_variance": variance.compute(), "dead": float((codes != 0).any(0).logical_not().float().mean())}  # fmt: skip


def _controls(store: ActivationStore, width: int, k: int) -> dict[str, FeatureEncoder]:
    every = np.arange(len(store.images))
    moments = store.statistics(SITE)
    scale = float(moments.variance.mean().sqrt())
    mean = moments.mean.float()
    sample = (store.rows(SITE)[: 1 << 12] - mean) / scale
    begin = start("data", sample, width, k, torch.Generator().manual_seed(0))
    untrained = SparseAutoencoder(SITE, "topk", begin.W_enc, torch.zeros(width), begin.W_dec, mean, k=k)
    return {
        "untrained (starts at tokens)": untrained,
        "frozen-random": random_sae(store, SITE, every, width, k),
        f"PCA, largest {k}": LargestOf(principal_components(store, SITE, every), k),
    }


def _sae_lens(known: _Known, arch: str, steps: int, rate: float) -> tuple[Tensor, Tensor, Tensor]:
    """Train SAELens' class by SAELens' trainer on as many steps; return directions, codes and reconstruction of held-out rows."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes import batchtopk_sae, matching_pursuit_sae, matryoshka_batchtopk_sae, topk_sae
    from sae_lens.training.sae_trainer import SAETrainer

    from sparse_autoencoders.config import TrainSAEConfig

    store, width, k, batch, x = known.store, known.width, known.k, known.batch, known.x
    moments = store.statistics(SITE)
    mean, scale = moments.mean.float(), float(moments.variance.mean().sqrt())
    size: dict[str, Any] = {"d_in": len(mean), "d_sae": width, "device": "cpu"}
    torch.manual_seed(0)
    sae: Any
    if arch == "topk":
        sae = topk_sae.TopKTrainingSAE(topk_sae.TopKTrainingSAEConfig(**size, k=k, use_sparse_activations=False))
    elif arch == "batchtopk":
        sae = batchtopk_sae.BatchTopKTrainingSAE(batchtopk_sae.BatchTopKTrainingSAEConfig(**size, k=k))
    elif arch == "matryoshka":
        widths = [round(share * width) for share in TrainSAEConfig().prefixes]
        made = matryoshka_batchtopk_sae.MatryoshkaBatchTopKTrainingSAEConfig(**size, k=k, matryoshka_widths=widths)
        sae = matryoshka_batchtopk_sae.MatryoshkaBatchTopKTrainingSAE(made)
    else:
        rounds = matching_pursuit_sae.MatchingPursuitTrainingSAEConfig(
            **size, max_iterations=k, residual_threshold=0.0, stop_on_duplicate_support=False, decoder_init_norm=1.0
        )
        sae = matching_pursuit_sae.MatchingPursuitTrainingSAE(rounds)
    config = SAETrainerConfig(
        total_training_samples=steps * batch, train_batch_size_samples=batch, lr=rate, lr_end=rate / 100,
        lr_warm_up_steps=steps // 20, lr_decay_steps=round(0.3 * steps), dead_feature_window=1000, feature_sampling_window=10**6,
    )  # fmt: skip
    trainer: Any = SAETrainer(config, sae, iter(()))
    taken, epoch = 0, 0
    while taken < steps:
        for rows in store.batches(SITE, batch, seed=0, epoch=epoch):
            trainer.step((rows - mean) / scale)
            trainer.n_training_steps += 1
            taken += 1
            if taken == steps:
                break
        epoch += 1
    with torch.no_grad():
        codes = sae.encode_with_hidden_pre((x - mean) / scale)[0].to_dense()
        return sae.W_dec.detach(), codes, sae.decode(codes) * scale + mean


def vars_of(settings: DictionarySettings) -> dict[str, Any]:
    """Return the settings that describe a dictionary."""
    return {
        name: getattr(settings, name)
        for name in ("width", "features", "active", "zipf", "correlation", "children", "noise")
    }


def render(figures: dict[str, Any]) -> str:
    """Return a table for each dictionary, and in words what was aimed at and missed."""
    said = [
        f"Autoencoders as wide as the dictionary, {figures['k']} active features, batches of {figures['batch']} rows, one "
        f"seed, {figures['rows']:,} rows to train; scores on other rows. *Cosine*: of each true direction with the feature matched to it "
        "one to one, mean over the true ones; *found*: share above 0.9. *F1* of firing stands beside the *oracle's*: the true dictionary "
        "read by the same kind of encoder. SAELens' classes are trained by its trainer with the same rows, steps and schedule. The rate of "
        "each side is the better one (1e-3 or 3e-3) for its own TopK, trained more briefly on another dictionary of the kind."
    ]
    for name, found in figures["dictionaries"].items():
        s = found["settings"]
        said += ["", f"**{name}**: {s['features']} directions in {s['width']} dimensions, {s['active']:g} active; frequencies rank^−{s['zipf']:g}, "
                 f"correlation {s['correlation']:g} within groups, {s['children']} features fire only with their parent. "
                 f"Rates: ours {found['rates']['ours']:g}, SAELens {found['rates']['SAELens']:g}.", "",
                 "| | steps | cosine | found | F1 | oracle | F1 / oracle | explained variance | dead |", "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
        for which, label in (("ours", "ours, {}"), ("SAELens", "SAELens, {}"), ("controls", "control: {}")):
            said += [
                f"| {label.format(row)} | {found['steps'].get(row, 0):,} | {r['cosine']:.3f} | {r['found']:.1%} | {r['f1']:.3f} | {r['oracle_f1']:.3f} | "
                f"{r['f1'] / r['oracle_f1']:.2f} | {r['explained_variance']:.3f} | {r['dead']:.1%} |"
                for row, r in found[which].items()
            ]
        said += ["", *(f"- {line}" for line in verdicts(name, found))]
    return "\n".join(said)


def verdicts(name: str, found: dict[str, Any]) -> list[str]:
    """Say for each aim whether it was reached."""
    ours, peers = found["ours"], found["SAELens"]
    best = max(ours, key=lambda arch: ours[arch]["cosine"])
    theirs = max(peers, key=lambda arch: peers[arch]["cosine"])
    lines = []
    if name == "plain":
        above = [arch for arch, row in ours.items() if row["cosine"] > GOAL_COSINE]
        lines.append(f"mean matched cosine above {GOAL_COSINE}: {', '.join(above) or '**none**'}.")
    reached = ours[best]["cosine"] >= peers[theirs]["cosine"]
    lines.append(
        f"our best ({best}, {ours[best]['cosine']:.3f}) is {'at least' if reached else '**below**'} SAELens' best "
        f"({theirs}, {peers[theirs]['cosine']:.3f})."
    )
    near = [arch for arch, row in ours.items() if row["f1"] >= GOAL_SHARE * row["oracle_f1"]]
    far = [arch for arch in ours if arch not in near]
    missed = f"; **not** {', '.join(far)}" if far else ""
    lines.append(f"F1 at least {GOAL_SHARE:.0%} of the oracle's: {', '.join(near) or '**none**'}{missed}.")
    pursuit = ours["matching-pursuit"]["f1"]
    lines.append(
        f"F1 of matching pursuit above {GOAL_PURSUIT}: {'yes' if pursuit > GOAL_PURSUIT else '**no**'}, {pursuit:.3f}."
    )
    controls = {**found["controls"]}
    worst = min(ours, key=lambda arch: ours[arch]["cosine"])
    high = max(controls, key=lambda control: controls[control]["cosine"])
    below = controls[high]["cosine"] < ours[worst]["cosine"]
    lines.append(
        f"controls: the highest cosine is {controls[high]['cosine']:.3f} ({high}), {'below' if below else '**not below**'} every trained one's."
    )
    return lines
