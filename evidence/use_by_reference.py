"""Whether the trained reference models use the lesions' area through a direction found without looking at their answer.

Protocol. On 120 *discovery* patients (seed 303) the direction of every site is learned: what single tokens do as a
structure covers more of their tile (the pattern of the tokens' activations). On 20 more of them, and 12 for calibration,
the site is chosen where moving the tokens by the growing structure's footprint comes nearest to the true counterfactual.
The footprint (own tiles, the ring around them, everywhere) is three numbers, fitted to the direction's code on the
calibration patients' tokens. On 30 *confirmation* patients (seed 505), with 15 others for the calibration, the test is made
once at that site, and for comparison with every token moved by the same amount. (Seed 404 was opened when the mean over all
tokens was moved onto the structure's tiles; its patients took no part again.) Margin: half a logit per mm², set beforehand;
100 random directions of the same norm, moved by the same footprint.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from evidence.probes import SITES
from mechinterp.capturing import run_with_cache
from mechinterp.feature_encoder import Directions
from mechinterp.images.image_set import MedicalImage
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import VisionModel
from mechinterp.objectives import logit_difference
from mechinterp.phantoms.datasets import fundus_phantoms
from mechinterp.phantoms.fundus_population import FundusStudy
from mechinterp.phantoms.phantom import PhantomImage
from mechinterp.progress import SILENT, Progress
from mechinterp.reference.recipes import TINY
from mechinterp.reference.training import train_reference
from mechinterp.token_grid import TokenGrid
from probes import UsageResult, fit_concept_vector, validate_used
from probes.regions import cell_coverage

TITLE = "Used by the reference models, not only decodable"
SOURCES = (
    "evidence/probes.py", "probes/usage.py", "probes/usage_result.py", "probes/footprints.py", "probes/concept_vectors.py",
    "probes/regions.py",
    "probes/random_directions.py", "mechinterp/statistics/equivalence.py", "mechinterp/statistics/bootstrap.py",
    "mechinterp/phantoms/fundus*.py", "mechinterp/reference/fitting.py", "mechinterp/reference/networks.py",
    "mechinterp/reference/training_data.py", "mechinterp/reference/recipes.py",
)  # fmt: skip

DISCOVERY_SEED, CONFIRMATION_SEED = 303, 505
LEARN, CHOOSE, CALIBRATE = 120, 20, 12
CONFIRM, CONFIRM_CALIBRATE = 30, 15
STRUCTURES = {"haemorrhages": "haemorrhage", "exudates": "exudate"}
STEPS_MM2, MARGIN = (0.3, 0.6, 0.9), 0.5
Eyes = list[PhantomImage[Any]]
_OF_A_DIRECTION = (
    "A verdict is one of this direction at this site: *unused* or *undecided* says nothing of the lesion, which the model "
    "may use through other directions. What the true counterfactual moves, the model uses."
)


def run(small: bool, progress: Progress = SILENT) -> dict[str, Any]:
    """Choose a site, then test once; small: a hasty CNN, few patients."""
    rows, choices = [], []
    for structure, lesion in list(STRUCTURES.items())[: 1 if small else 2]:
        found = eyes(DISCOVERY_SEED, 24 if small else LEARN + CHOOSE + CALIBRATE, lesion)
        learn, rest = (found[:10], found[10:]) if small else (found[:LEARN], found[LEARN:])
        choose, calibrate = rest[: len(rest) - CALIBRATE], rest[-CALIBRATE:]
        confirm = eyes(CONFIRMATION_SEED, 24 if small else CONFIRM + CONFIRM_CALIBRATE, lesion)
        test, fixed = confirm[: 12 if small else CONFIRM], confirm[12 if small else CONFIRM :]
        for kind in ("cnn",) if small else ("cnn", "vit"):
            model = train_reference(kind, recipe=TINY["cnn"] if small else None, progress=progress).model()
            directions = {site: direction(model, site, learn, structure) for site in SITES[kind][-2 if small else 0 :]}
            tried = {
                site: used(model, d, choose, calibrate, lesion, structure, 20)
                for site, d in progress.track(directions.items(), f"sites of {kind}", total=len(directions))
            }
            best = min(tried, key=lambda s: distance(tried[s]))
            choices += [
                {"model": kind, "structure": structure, "site": s, "ratio": r.ratio, "chosen": s == best}
                for s, r in tried.items()
            ]
            for where in (structure, None):
                result = used(model, directions[best], test, fixed, lesion, where, 20 if small else 100)
                rows.append(
                    {"model": kind, "structure": structure, "where": where or "everywhere", **described(result)}
                )
    return {"rows": rows, "choices": choices, "margin": MARGIN, "steps": list(STEPS_MM2)}


def eyes(seed: int, patients: int, lesion: str) -> Eyes:
    """Return one photograph of each of some new patients who have the lesion."""
    drawn = fundus_phantoms(FundusStudy(patients=4 * patients, images_per_patient=1, seed=seed))
    have = [i for i, p in enumerate(drawn.parameters) if getattr(p, f"{lesion}_area_mm2") > 0.05]
    return [drawn.phantom(i) for i in have[:patients]]


def direction(model: VisionModel, site: str, phantoms: Eyes, structure: str) -> Directions:
    """Return what single tokens do as the structure covers more of their tile, of norm 1."""
    grid, prefix = cast(TokenGrid, model.site(site).grid), model.site(site).prefix_tokens
    acts, shares = [], []
    for start in range(0, len(phantoms), 40):
        part = phantoms[start : start + 40]
        batch = [MedicalImage(str(i), p.pixels, spacing_mm=p.spacing_mm) for i, p in enumerate(part)]
        with torch.no_grad():
            found = run_with_cache(model, model.prepare(batch), [site])[site][:, prefix:]
        acts.append(found.flatten(0, 1).double().numpy())
        for phantom in part:
            mask = phantom.coverage[structure]
            placement = Preparation().placement(mask.shape, phantom.spacing_mm, model.contract)
            shares.append(cell_coverage(mask, grid, placement))
    x: NDArray[np.float64] = np.concatenate(acts)
    concept = fit_concept_vector(x, np.concatenate(shares), estimator="pattern", name=structure, site=site)
    return Directions(
        site, torch.tensor(concept.direction, dtype=torch.float32)[None], torch.tensor(concept.mean, dtype=torch.float32),
        "pattern of",
    )  # fmt: skip


def used(
    model: VisionModel, along: Directions, phantoms: Eyes, calibration: Eyes, lesion: str, structure: str | None,
    n_random: int,
) -> UsageResult:  # fmt: skip
    """Move along the direction, by the structure's footprint or everywhere."""
    return validate_used(
        model, along, 0, phantoms, calibration, parameter=f"{lesion}_area_mm2", steps=STEPS_MM2, margin=MARGIN,
        objective=logit_difference("referable", "not referable"), structure=structure, n_random=n_random,
    )  # fmt: skip


def distance(result: UsageResult) -> float:
    """Return how far the steered slope is from the true one, in factors of e; a wrong sign is farthest."""
    return abs(float(np.log(result.ratio))) if result.ratio > 0 else np.inf


def described(result: UsageResult) -> dict[str, Any]:
    """Return the numbers of a test."""
    footprint = result.calibration.footprint
    return {
        "footprint": None if footprint is None else [footprint.own, footprint.ring, footprint.everywhere],
        "site": result.site, "verdict": result.verdict, "true": result.true_slope.mean,
        "true_interval": list(result.true_slope.interval.ends or ()), "steered": result.steered_slope.mean,
        "steered_interval": list(result.steered_slope.interval.ends or ()), "ratio": result.ratio,
        "ratio_interval": list(result.ratio_interval.ends or ()), "swapped": result.swapped_slope.mean,
        "random": float(np.quantile(np.abs(result.random_slopes), 0.95)), "p_random": result.p_random,
        "patients": len(set(result.patients)), "shortfalls": list(result.shortfalls),
    }  # fmt: skip


def render(figures: dict[str, Any]) -> str:
    """Return the table, what was chosen, and what speaks against."""
    rows = figures["rows"]
    lines = [
        f"Logit difference referable − not referable per mm², over {rows[0]['patients']} patients never seen. *True*: the "
        "image rendered again with more of the lesion. *Steered*: the activation moved along the token's direction by as much "
        "as the lesion moves it in other patients: by the lesion's footprint (own tiles, the ring around, everywhere), or on "
        "all tokens by the same amount. *Swapped*: only the direction's code replaced, token by token, by that of the image "
        "rendered again: no footprint can carry more. *Random*: 95 % of random directions of the same norm, laid the same "
        "way, move it by less. " + _OF_A_DIRECTION,
        "",
        "| model | lesion | site | moved | true | steered | 95 % interval | ratio | 95 % interval | swapped | random | direction |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        ends, of_ratio = (" to ".join(f"{e:.2f}" for e in r[k]) or "–" for k in ("steered_interval", "ratio_interval"))
        lines.append(
            f"| {r['model']} | {r['structure']} | {r['site']} | {'footprint' if r['where'] != 'everywhere' else 'everywhere'} | "
            f"{r['true']:.2f} | {r['steered']:.2f} | {ends} | {r['ratio']:.2f} | {of_ratio} | {r['swapped']:.2f} | {r['random']:.2f} | "
            f"{r['verdict']} |"
        )
    tried = [
        f"{c['model']} {c['structure']} `{c['site']}` {c['ratio']:.2f}{' (chosen)' if c['chosen'] else ''}"
        for c in figures["choices"]
    ]
    there = [r for r in rows if r["where"] != "everywhere"]
    met = all(r["verdict"] == "used" for r in there)
    against = [
        f"{r['model']}, {r['structure']}, {r['where'] if r['where'] == 'everywhere' else 'by its footprint'}: {'; '.join(r['shortfalls'])}."
        for r in rows
        if r["shortfalls"]
    ]
    lines += [
        "",
        f"Ratio of steered to true slope at every site, on the discovery patients: {', '.join(tried)}.",
        "",
        "Footprints, in the direction's code per mm² (own tiles, ring, everywhere; their sum moves the mean token): "
        + "; ".join(
            f"{r['model']} {r['structure']} {', '.join(f'{part:.3f}' for part in r['footprint'])}" for r in there
        )
        + ".",
        "",
        "Moved by its footprint, every lesion's area is used through the direction, at 0.5 to 2 times the true slope: "
        f"{'**met**' if met else '**not met**'} ({sum(r['verdict'] == 'used' for r in there)} of {len(there)}).",
    ]
    return "\n".join(
        [*lines, *(["", "What speaks against *used*:", "", *(f"- {a}" for a in against)] if against else [])]
    )
