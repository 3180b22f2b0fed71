"""Whether a planted shortcut is found by its use, how often nothing is mistaken for one, and what removing it wins and costs.

The planted shortcut counts as *ranked first* when the first feature is the one of all that carries most of the mark's effect:
the one whose value, put back to what it is in the same image without the mark, moves the log-odds most. That, and the ranking, were settled on another seed of training.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.stats import binom
from torch import Tensor

from circuits.acting.edit_bill import WON_BACK, EditBill
from circuits.acting.editing import MOST_CLEAN_LOST, EditedModel, EditMethod, edit
from circuits.acting.shortcuts import ShortcutSearch, find_shortcuts
from circuits.nodes import neurons
from mechinterp.capturing import run_with_cache
from mechinterp.feature_encoder import Neurons
from mechinterp.models.loading import load_model
from mechinterp.models.vision_model import VisionModel
from mechinterp.phantoms.datasets import PhantomSet, fundus_phantoms
from mechinterp.phantoms.fundus_population import FundusStudy
from mechinterp.phantoms.planted_shortcut import assign_mark
from mechinterp.progress import SILENT, Progress
from mechinterp.reference import cnn
from mechinterp.reference.fitting import fit
from mechinterp.reference.recipes import Recipe
from mechinterp.reference.training_data import CELL_PX, LESIONS, TrainingData
from mechinterp.tails import Tail

TITLE = "Shortcuts: found by use, removed, and what that costs"
SOURCES = (
    *(
        f"circuits/acting/{name}.py"
        for name in (
            "bench",
            "collateral",
            "decision",
            "edit_bill",
            "editing",
            "head",
            "scores",
            "shortcuts",
            "site_edits",
            "use_differences",
        )
    ),
    "circuits/measuring.py",
    "circuits/exact.py",
    "circuits/corrupting.py",
)

SEEDS, RHO, NULLS, ALPHA = 10, 0.9, 100, 0.05
SITE, LAST = "stages.2", "stages.3"
EDITED_FEATURES = 24
WAYS: tuple[tuple[EditMethod, str], ...] = (("ablate", SITE), ("leace", LAST), ("retrain-head", LAST))
# patients to train on (of whom each seed draws some), held out, and tested
SIZES = {False: (1750, 1250, 2000), True: (60, 80, 60)}
TRAINED, SEARCHED, CHOSEN_ON = {False: 1000, True: 48}, {False: 400, True: 40}, {False: 300, True: 40}
RANDOM = 5


@dataclass(frozen=True)
class Pairs:
    """Phantoms, each without and with the mark."""

    phantoms: PhantomSet
    pixels: Tensor
    lesions_mm2: Tensor
    labels: NDArray[np.bool_]

    def shown(self, images: NDArray[np.int64], marks: NDArray[np.int64]) -> Tensor:
        """Return the pixels of some images with or without the mark."""
        return self.pixels[torch.from_numpy(marks), torch.from_numpy(images)]

    def data(self, images: NDArray[np.int64], marks: NDArray[np.int64]) -> TrainingData:
        """Return some images as the reference models' training takes them."""
        chosen = torch.from_numpy(images)
        picked = replace(
            self.phantoms,
            parameters=tuple(self.phantoms.parameters[i] for i in images),
            identities=tuple(self.phantoms.identities[i] for i in images),
            splits=("train",) * len(images),
        )
        labels = torch.from_numpy(self.labels[images])
        return TrainingData(
            picked, self.shown(images, marks), self.lesions_mm2[chosen], labels, torch.ones(len(images))
        )

    def inputs(self, images: NDArray[np.int64], marks: NDArray[np.int64]) -> Tensor:
        """Return some images as the model's input."""
        return self.data(images, marks).inputs(torch.arange(len(images)))


def pairs(small: bool, progress: Progress) -> Pairs:
    """Render every phantom without and with the mark."""
    sizes = SIZES[small]
    n = sum(sizes)
    study = FundusStudy(
        patients=n, images_per_patient=1, validation_share=sizes[1] / n, test_share=sizes[2] / n, seed=77
    )
    phantoms, size = fundus_phantoms(study), study.size_px
    cells = size // CELL_PX
    pixels = torch.empty(2, n, 3, size, size, dtype=torch.uint8)
    lesions = torch.empty(n, len(LESIONS), cells, cells)
    for i in progress.track(range(n), "rendering phantoms without and with the mark", total=n):
        plain = phantoms.phantom(i)
        for k, shown in enumerate((plain, plain.counterfactual(camera_tag=1))):
            pixels[k, i] = torch.from_numpy(np.round(shown.pixels * 255).astype(np.uint8).transpose(2, 0, 1))
        for k, name in enumerate(LESIONS):
            by_cell = plain.coverage[name].reshape(cells, CELL_PX, cells, CELL_PX).sum((1, 3))
            lesions[i, k] = torch.from_numpy(by_cell * plain.spacing_mm[0] * plain.spacing_mm[1])
    return Pairs(phantoms, pixels, lesions, np.array([p.referable for p in phantoms.parameters]))


def run(small: bool, progress: Progress) -> dict[str, Any]:
    """Train, search and edit for every seed; small: one seed on a few images."""
    known = pairs(small, progress)
    seeds = range(1 if small else SEEDS)
    rows = [one_seed(known, seed, small) for seed in progress.track(seeds, "seeds", len(seeds))]
    runs = sum(r["null"]["of"] for r in rows)
    alarms = sum(r["null"]["alarms"] for r in rows)
    low, high = binom.interval(0.95, runs, ALPHA)
    return {
        "rows": rows, "rho": RHO, "test_images": 2 * SIZES[small][2],
        "first": sum(r["true_rank"] == 1 for r in rows),
        "null": {"alarms": alarms, "of": runs, "bounds": [float(low), float(high)]},
    }  # fmt: skip


def one_seed(known: Pairs, seed: int, small: bool) -> dict[str, Any]:
    """Train a model on images whose mark goes with the label; find and remove what it took from that."""
    random = np.random.default_rng([31, seed])
    train = random.permutation(known.phantoms.where("train"))[: TRAINED[small]]
    held = random.permutation(known.phantoms.where("validation"))
    searched, validation = held[: SEARCHED[small]], held[SEARCHED[small] :][: CHOSEN_ON[small]]
    model = trained(known, train, assign_mark(known.labels[train], RHO, random), seed, 1 if small else 3)
    half = len(searched) // 2
    search = searched_in(model, known, searched, half, RHO, random, 0)
    null = searched_in(model, known, searched, half, 0.0, random, NULLS)
    use = true_use(model, known, searched)
    (top,) = search.ranked(1)
    made = {method: edited_by(model, known, validation, method, site, search, seed) for method, site in WAYS}
    # chosen on the validation patients alone
    loss = {m: next(t.scores.worst.loss for t in e.tried if t.strength == e.strength) for m, e in made.items()}
    chosen = min(made, key=lambda m: (loss[m], m))
    return {
        "seed": seed,
        "top": top.node.index,
        "difference": top.difference,
        "p": top.p,
        "true_rank": int(np.flatnonzero(np.argsort(-np.abs(use), kind="stable") == top.node.index)[0]) + 1,
        "share_of_tag": float(use[top.node.index] / use.sum()),
        "found": len(search.found),
        "null": {"alarms": null.placebo_alarms, "of": null.placebos, "at_most": null.placebo_bound},
        "null_alarm": null.alarm,
        "chosen": chosen,
        "bills": {m: short(billed(known, e, small, collateral=m == chosen)) for m, e in made.items()},
    }


def trained(known: Pairs, train: NDArray[np.int64], marks: NDArray[np.int64], seed: int, epochs: int) -> VisionModel:
    """Train the reference CNN hastily."""
    recipe = Recipe(study=FundusStudy(), epochs=epochs, learning_rate=2e-3)
    network = fit("cnn", recipe, known.data(train, marks), seed, SILENT)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        save_file({name: t.contiguous() for name, t in network.state_dict().items()}, weights)
        return load_model(f"py:{cnn.__file__}:architecture", weights=weights)


def searched_in(
    model: VisionModel,
    known: Pairs,
    images: NDArray[np.int64],
    half: int,
    rho: float,
    random: np.random.Generator,
    placebos: int,
) -> ShortcutSearch:
    """Search between a first environment where the mark goes with the label and a second where it does not."""
    labels = known.labels[images]
    marks = np.concatenate([assign_mark(labels[:half], rho, random), assign_mark(labels[half:], 0.0, random)])
    return find_shortcuts(
        model, neurons(model, SITE), known.inputs(images, marks), target="referable", labels=labels,
        environments=np.repeat(["first", "second"], [half, len(images) - half]), placebos=placebos, alpha=ALPHA,
    )  # fmt: skip


def true_use(model: VisionModel, known: Pairs, images: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how much of the mark's effect on the log-odds each feature carries, by the true counterfactual."""
    with torch.no_grad():
        without, marked = (
            run_with_cache(model, known.inputs(images, np.full(len(images), k)), [SITE])[SITE] for k in (0, 1)
        )
        tail = Tail(model, SITE, known.inputs(images[:2], np.zeros(2, dtype=np.int64)))
        before, found = tail.logits(marked), []
        for f in range(marked.shape[2]):
            changed = marked.clone()
            changed[..., f] = without[..., f]
            moved = before - tail.logits(changed)
            found.append(float((moved[:, 1] - moved[:, 0]).mean()))
    return np.array(found)


def edited_by(
    model: VisionModel, known: Pairs, validation: NDArray[np.int64], method: EditMethod, site: str,
    search: ShortcutSearch, seed: int,
) -> EditedModel:  # fmt: skip
    """Edit by one method, its strength chosen on validation patients without and with the mark."""
    seen, marked = np.tile(validation, 2), np.repeat([0, 1], len(validation))
    return edit(
        model, Neurons(site, model.site(site).width), known.inputs(seen, marked), target="referable", method=method,
        shortcut=marked, labels=known.labels[seen], groups=seen, features=search.order[:EDITED_FEATURES].tolist(), seed=seed,
    )  # fmt: skip


def billed(known: Pairs, edited: EditedModel, small: bool, *, collateral: bool) -> EditBill:
    """Measure an edit on test patients without and with the mark; what else is lost, where it is the one chosen."""
    test = known.phantoms.where("test")
    shown, tagged = np.tile(test, 2), np.repeat([0, 1], len(test))
    return edited.bill(
        known.inputs(shown, tagged), shortcut=tagged, labels=known.labels[shown], groups=shown,
        attributes=known.phantoms.attributes().select(shown) if collateral else None, leave_out=("camera_tag",),
        n_random=2 if small else RANDOM, n_boot=0,
    )  # fmt: skip


def short(bill: EditBill) -> dict[str, Any]:
    """Return what the page shows of a bill."""
    return {
        "strength": bill.strength, "won_back": bill.won_back, "clean_lost": bill.clean_lost,
        "worst": [bill.before.worst.loss, bill.after.worst.loss],
        "worst_accuracy": [bill.before.worst_accuracy, bill.after.worst_accuracy],
        "clean": [bill.before.clean_accuracy, bill.after.clean_accuracy],
        "calibration": [bill.before.calibration_error, bill.after.calibration_error],
        "sensitivity": [bill.before.sensitivity, bill.after.sensitivity],
        "specificity": [bill.before.specificity, bill.after.specificity],
        "random_features": sorted(bill.won_back_by(s) for s in bill.random_features),
        "random_directions": sorted(bill.won_back_by(s) for s in bill.random_directions),
        "lost": [c.attribute for c in bill.lost], "read": len(bill.collateral),
    }  # fmt: skip


def met(bill: dict[str, Any]) -> bool:
    """Say whether an edit keeps its promise."""
    return bool(bill["won_back"] >= WON_BACK and bill["clean_lost"] <= MOST_CLEAN_LOST)


def render(figures: dict[str, Any]) -> str:
    """Return what was found, the false alarms and the bills."""
    rows, null = figures["rows"], figures["null"]
    low, high = null["bounds"]
    within = max(r["null"]["alarms"] for r in rows) <= rows[0]["null"]["at_most"] and low <= null["alarms"] <= high
    lines = [
        f"A small CNN is trained on fundus phantoms whose camera tag goes with the label (φ = {figures['rho']}). Two "
        f"environments of other patients, the tag at φ = {figures['rho']} and at 0, are searched for channels of `{SITE}` "
        "whose use differs. *Ranked first*: the first channel is the one that carries most of the tag's effect, by the same "
        "images without the tag.",
        "",
        f"The planted shortcut is ranked first in {figures['first']} of {len(rows)} seeds: "
        f"{'**met**' if figures['first'] >= 0.9 * len(rows) else '**not met**'}.",
        "",
        f"With the tag at φ = 0 in both environments and patients dealt to them at random: {null['alarms']} alarms in "
        f"{null['of']} ({low:.0f} to {high:.0f} agrees with 5 %), at most {max(r['null']['alarms'] for r in rows)} in 100 of "
        f"one seed (at most {rows[0]['null']['at_most']} allowed): {'**met**' if within else '**not met**'}.",
        "",
        "| seed | channel | true rank | share of the tag's effect | difference in use [log-odds] | p | channels that differ | null alarms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['seed']} | {r['top']} | {r['true_rank']} | {r['share_of_tag']:.0%} | {r['difference']:+.2f} | {r['p']:.4f} | "
        f"{r['found']} | {r['null']['alarms']} of {r['null']['of']} |"
        for r in rows
    ]
    kept = sum(met(r["bills"][r["chosen"]]) for r in rows)
    lines += [
        "",
        f"Edits, measured on {figures['test_images']} test images (each patient without and with the tag). Medians over seeds; "
        "*won back*: of the worst group's loss; *kept*: seeds in which at least half is won back for at most a point of the "
        "accuracy on images without the tag. Method and strength are chosen on validation patients: "
        f"kept in {kept} of {len(rows)} seeds, {'**met**' if kept == len(rows) else '**not met**'}.",
        "",
        "| edit | site | chosen | kept | won back | random features | random directions | worst loss | clean accuracy | "
        "calibration error | sensitivity | specificity | attributes lost |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method, site in WAYS:
        of = [r["bills"][method] for r in rows]

        def change(name: str, form: str, of: list[dict[str, Any]] = of) -> str:
            before, after = (float(np.median([b[name][k] for b in of])) for k in (0, 1))
            return f"{before:{form}} → {after:{form}}"

        def middle(name: str, of: list[dict[str, Any]] = of) -> str:
            values = [v for b in of for v in b[name]]
            return f"{np.median(values):.0%}" if values else "–"

        lost = sorted({name for b in of for name in b["lost"]})
        read = max(b["read"] for b in of)
        lines.append(
            f"| {method} | `{site}` | {sum(r['chosen'] == method for r in rows)} | {sum(met(b) for b in of)} of {len(of)} | "
            f"{np.median([b['won_back'] for b in of]):.0%} | {middle('random_features')} | {middle('random_directions')} | "
            f"{change('worst', '.2f')} | {change('clean', '.0%')} | {change('calibration', '.2f')} | "
            f"{change('sensitivity', '.0%')} | {change('specificity', '.0%')} | {', '.join(lost) or ('none' if read else '–')}{f' of {read}' if read else ''} |"
        )
    lines += [
        "",
        "Sensitivity and specificity stand at the threshold at which the model as it was reached a sensitivity of 90 % on the "
        "validation patients: an edit that moves all log-odds moves them too, so an edited model needs its threshold anew.",
    ]
    return "\n".join(lines)
