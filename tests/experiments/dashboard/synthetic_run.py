"""A run as the brain study writes it, drawn instead of measured, so that every page has something to show."""

import json

import numpy as np
from PIL import Image

from mechinterp.claims import Claim, Control
from mechinterp.files import jsonable

CLASSES = ["glioma", "meningioma", "notumor", "pituitary"]
N, ROWS, COLUMNS = 24, 15, 15
HEIGHT_MM, WIDTH_MM = 233.0, 197.0
CENTRE_MM, STEP_MM = (10.4, 6.9), (15.2, 13.1)
ABLATIONS = ["zero", "mean", "resample", "towards"]


def head(i):
    """Return one slice, 233 x 197 at 1 mm: an ellipse of tissue with two darker ventricles."""
    row, column = np.mgrid[:233, :197]
    size = 1 - (abs(i - N / 2) / N) ** 2 * 1.6
    inside = ((row - 116) / (100 * size)) ** 2 + ((column - 98) / (78 * size)) ** 2
    pixels = np.where(inside < 1, 150 + 40 * np.cos(row / 9) * np.cos(column / 8), 0.0)
    for side in (-1, 1):
        ventricle = ((row - 116) / 30) ** 2 + ((column - 98 - 16 * side) / 9) ** 2
        pixels = np.where((ventricle < 1) & (inside < 1), 55, pixels)
    return pixels.clip(0, 255).astype(np.uint8)


def feature(i, rng, positions, area):
    values = np.round(np.maximum(0, rng.normal(size=N) + 2 * np.exp(-(((positions - 20 - 4 * (i % 6)) / 14) ** 2))), 4)
    top = []
    for image in np.argsort(-values)[:6]:
        grid = np.zeros((ROWS, COLUMNS))
        r, c = 3 + (i * 3) % 9, 3 + (i * 5) % 9
        grid[r : r + 3, c : c + 2] = values[image] * np.array([[0.5, 0.3], [1.0, 0.7], [0.4, 0.0]])
        top.append({"image": image, "value": values[image], "map": grid})
    attributes = [
        {
            "attribute": name,
            "unit": unit,
            "rho_discovery": rho,
            "rho_confirmation": 0.8 * rho,
            "p_corrected": min(1.0, 0.004 + 0.4 * (1 - abs(rho))),
        }
        for (name, unit), rho in zip(
            [("brain_area", "mm²"), ("grey_matter", "1"), ("slice_position", "mm")],
            rng.uniform(-0.9, 0.9, 3),
            strict=True,
        )
    ]
    best = max(attributes, key=lambda a: abs(a["rho_discovery"]))
    survives = best["p_corrected"] < 0.05
    counts, edges = np.histogram(np.concatenate([np.zeros(4000), rng.gamma(2, 0.5, 160)]), bins=24)
    return {
        "id": i * 7 + 3,
        "density": float((values > 0.5).mean() / 8),
        "max": values.max(),
        "mean_when_active": values[values > 0].mean() if (values > 0).any() else None,
        "alive": bool(values.any()),
        "best": {
            **best,
            "survives": survives,
            "text": f"Follows {best['attribute']} (ρ {best['rho_discovery']:+.2f}), "
            + ("which survives" if survives else "which does not survive")
            + " the correction over all features and attributes.",
        },
        "attributes": attributes,
        "effects": {
            ablation: dict(zip(CLASSES, rng.normal(0, 0.4, 4) * (2 if ablation == "zero" else 1), strict=True))
            for ablation in ABLATIONS
        },
        "values": values,
        "histogram": {"edges": edges, "counts": counts},
        "top": top,
    }


def curve(ablation, rng, strength):
    sizes = np.array([1, 2, 5, 10, 20, 40, 80])
    flipped = 1 - np.exp(-sizes * strength / 20)
    control = 1 - np.exp(-sizes * 0.08 / 20)
    delta = -6 * flipped - 0.02 * sizes
    return {
        "ablation": ablation,
        "sentence": f"The features are replaced: {ablation}.",
        "sizes": sizes,
        "flipped": flipped,
        "delta": delta,
        "control_flipped": {"median": control, "low": 0.4 * control, "high": np.minimum(1, 2.4 * control + 0.03)},
        "control_delta": {"median": -6 * control, "low": -14 * control - 0.2, "high": -1 * control + 0.2},
        "p": np.where(flipped > 2.4 * control + 0.03, 0.004, 0.31),
        "notumor_delta": delta * (1.4 if ablation == "zero" else 0.1),
        "notumor_kept": np.exp(-sizes / 200),
        "off_data": 1 + sizes / 60,
        "norm_removed": 3.1 * np.sqrt(sizes),
        "control_norm": 3.05 * np.sqrt(sizes),
    }


def direction(name, chosen_on, tested_on, kind, images, features, rng, ranked_by="reference"):
    strengths = {"zero": 3.0, "mean": 0.12, "resample": 0.2, "towards": 0.5}
    before = rng.uniform(0.91, 0.999, len(images))
    return {
        "name": name,
        "chosen_on": chosen_on,
        "tested_on": tested_on,
        "kind": kind,
        "ranked_by": ranked_by,
        "alive": 310,
        "rank_agreement": 0.38,
        "size": 20,
        "chosen": [f["id"] for f in features[:20]],
        "curves": [curve(a, rng, strengths[a]) for a in ABLATIONS],
        "before_after": [
            {
                "ablation": a,
                "images": images,
                "before": before,
                "after": (before - strengths[a] * rng.uniform(0.05, 0.4, len(images))).clip(0.001, 1),
            }
            for a in ABLATIONS
        ],
    }


def claims(trained=True):
    matched = Control("200 random sets of the same norm", 0.06, True, "median 6 %, 95 % band 2 to 17 %")
    return [
        Claim(
            "20 features chosen on the lower band flip 95 % of the upper band when set to zero.",
            "interventional", 0.95, "1", False, "mean and resample agree and beat their controls",
            (matched, Control("notumor slices move less", -8.1, False, "they move by −8.1, more than the band itself")),
            interval_note="not estimable (n = 1)", p_value=0.005, trained=trained,
        ),
        Claim(
            "Feature 10 follows slice position on blocks it was not chosen on.",
            "correlational", 0.71, "1", True, "p < 0.05 after correction on the confirmation blocks",
            (Control("shuffled attributes", 0.31, True, "ρ at most 0.31 in 95 % of shifts"),),
            interval=(0.52, 0.83), p_value=0.02, trained=trained,
        ),
    ]  # fmt: skip


def results(n_features=12, trained=True, seed=0):
    """Return results in the study's format."""
    rng = np.random.default_rng(seed)
    positions = np.linspace(-40, 75, N)
    area = 15000 - 3 * (positions - 15) ** 2
    meningioma = 0.98 * (np.exp(-(((positions + 5) / 14) ** 4)) + np.exp(-(((positions - 50) / 12) ** 4))).clip(0, 1)
    rest = 1 - meningioma
    probabilities = np.stack([0.06 * rest, meningioma, 0.9 * rest, 0.04 * rest], axis=1)
    positive = np.flatnonzero(meningioma > 0.9)
    lower, upper = [positive[positions[positive] < 20], positive[positions[positive] >= 20]]
    features = [feature(i, rng, positions, area) for i in range(n_features)]
    names = ["brain_area", "grey_matter", "slice_position"]
    made = {
        "format": 1,
        "title": "Why a healthy brain is called “meningioma”",
        "question": "The tumour-free MNI template is called meningioma on many slices. Which features drive that, which "
        "physical quantity do they follow, and does the answer change when they are replaced?",
        "answer": [
            f"The model calls {len(positive)} of {N} slices of a tumour-free template meningioma above 0.9, in two bands.",
            "No small set of features drives it: setting twenty to zero flips 95 %, but replacing them by notumor values flips 11 %.",
            "Feature 10 follows slice position [mm] (ρ = 0.71 on blocks it was not chosen on, p = 0.02 corrected).",
        ],
        "research_use_only": True,
        "model": {
            "spec": "onnx:brain_tumor.onnx",
            "weights_hash": "9f2c41e6a1b7d0c3",
            "trained": trained,
            "class_names": CLASSES,
            "output": "probabilities; effects are measured on the logits before the softmax",
            "licence": "MIT",
            "site": "functional_1/block5_conv3_1/BiasAdd",
            "notes": ["VGG16 trained on a public tumour set; 240 × 240 × 3 in 0..1."],
        },
        "images": {
            "name": "MNI ICBM152 T1, axial",
            "licence": "see the template's own",
            "n": N,
            "units_are_patients": False,
            "ids": [f"slice-{i:03d}" for i in range(N)],
            "labels": ["notumor"] * N,
            "groups": [f"block-{i // 4}" for i in range(N)],
            "splits": ["discovery" if i // 4 % 2 == 0 else "confirmation" for i in range(N)],
            "position": positions,
            "position_label": "slice position [mm]",
            "files": [f"images/slice-{i:03d}.png" for i in range(N)],
            "size_mm": [[HEIGHT_MM, WIDTH_MM]] * N,
            "orientation_labels": {"top": "A", "bottom": "P", "left": "L", "right": "R"},
            "attributes": [
                {"name": "brain_area", "unit": "mm²", "label": "brain area [mm²]", "measured": True, "values": area},
                {
                    "name": "grey_matter", "unit": "1", "label": "grey matter fraction", "measured": True,
                    "values": 0.4 + 0.1 * np.sin(positions / 20),
                },
                {"name": "slice_position", "unit": "mm", "label": "slice position", "measured": True, "values": positions},
            ],
            "probabilities": probabilities,
            "logits": np.log(probabilities + 1e-6),
        },
        "target": {
            "class": "meningioma", "reference": "notumor", "threshold": 0.9, "positive": positive,
            "note": "The bands are cut where no image is called meningioma.",
            "bands": [{"name": "lower", "images": lower}, {"name": "upper", "images": upper}],
        },
        "sae": {
            "arch": "topk", "k": 32, "width": 1024, "d_in": 512,
            "metrics": {"explained_variance": 0.83, "l0": 32.0, "dead_fraction": 0.11, "loss_recovered": 0.97},
            "controls": [{"name": "frozen random", "metrics": {"explained_variance": 0.41, "l0": 32.0, "loss_recovered": 0.35}}],
        },
        "probes": [
            {
                "attribute": name, "unit": unit, "kind": "continuous", "score_name": "R²", "score": 0.9 - 0.2 * i, "mae": 4.2,
                "interval": None, "interval_note": "not estimable (n = 1)", "p": 0.01 * (i + 1),
                "controls": [{"name": "shuffled attribute", "score": -0.1, "passed": True, "detail": "R² below 0.1 in 95 %"}],
                "true": positions, "predicted": positions + rng.normal(0, 8, N), "images": list(range(N)),
            }
            for i, (name, unit) in enumerate([("slice_position", "mm"), ("brain_area", "mm²")])
        ],
        "matrix": {
            "attributes": names,
            "features": [f["id"] for f in features],
            "rho": [[f["attributes"][j]["rho_confirmation"] for j in range(3)] for f in features],
            "rho_discovery": [[f["attributes"][j]["rho_discovery"] for j in range(3)] for f in features],
            "tests": {
                "text": "3 of 12 features follow an attribute on blocks they were not chosen on",
                "best": {"feature": 10, "attribute": "slice_position"},
                "n_findings": 1, "n_tested": 12, "permutations": [500, 500], "scheme": {"shift": "blocks", "exact": True},
                "findings": [{"feature": 10, "attribute": "slice_position", "unit": "mm", "rho_discovery": -0.89,
                              "rho_confirmation": -0.71, "p_corrected": 0.048}],
                "controls": [{"name": "shuffled attributes", "n_findings": 0, "passed": True, "detail": "0 findings"}],
            },
        },
        "features": features,
        "grid": {"rows": ROWS, "columns": COLUMNS, "shared": {"centre_mm_first": CENTRE_MM, "step_mm": STEP_MM}},
        "experiment": {
            "unit_kinds": ["sae features", "raw channels"],
            "directions": [
                direction("lower → upper", "the lower band", "the upper band", "sae", upper, features, rng),
                direction("upper → lower", "the upper band", "the lower band", "sae", lower, features, rng),
                direction("lower → upper", "the lower band", "the upper band", "neurons", upper, features, rng),
                direction("lower → upper", "the lower band", "the upper band", "sae", upper, features, rng, "zero"),
            ],
            "n_controls": 200,
            "verdicts": {"neurons": {"word": "no small set does", "reasons": ["the same holds for raw channels"]}},
            "verdict": {
                "word": "no small set does",
                "reasons": ["under mean and resample the chosen twenty stay inside the band of the random sets"],
            },
        },
        "preparation": [
            {
                "name": name, "n_positive": n, "n_images": N, "text": text,
                "same_answer": n / len(positive), "mean_probability": n / N,
            }
            for name, n, text in [
                ("as studied", len(positive), "axial, re-oriented, scaled to 0..1"),
                ("synthetic skull ring", 3, "a ring of 6 mm at the brain's edge"),
                ("gain 0.8", 6, "intensities times 0.8"),
            ]
        ],
        "replication": {
            "name": "ch2", "present": True, "n_positive": 31, "n_images": 80,
            "text": "A single real head shows the same two bands.", "spearman": 0.62,
            "with_skull": {"n_positive": 4, "n_images": 80},
            "sets": [{"chosen_on": "lower", "ablation": a, "flipped": 0.1} for a in ("zero", "mean")],
        },
        "claims": [claim.to_json() for claim in claims(trained)],
        "provenance": {"versions": {"torch": "2.14.1", "mechinterp": "0.1.0"}, "seed": 0, "started": "2026-11-23", "seconds": 214.2},
    }  # fmt: skip
    return jsonable(made)


def write_run(folder, value=None):
    """Write a run folder: results, record and pictures."""
    value = results() if value is None else value
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(value), encoding="utf-8")
    (folder / "run.json").write_text(
        json.dumps({"command": "study brain-mri", "model": {"hash": "9f2c"}, "seeds": [0, 1]})
    )
    for i in range(N):
        Image.fromarray(head(i)).save(folder / "images" / f"slice-{i:03d}.png")
    return folder
