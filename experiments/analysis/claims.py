"""What a run claims, each claim with its controls, from the numbers of ``results.json``; the words change when these do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from experiments.analysis.planned import (
    DECOMPOSITION,
    DRIVES,
    ENCODES,
    FALSE_ANSWER,
    FALSE_ANSWER_CRITERION,
    FOLLOWS,
)
from experiments.report.plan import PlannedTest
from mechinterp.claims import Bound, Claim, Control, Strength

Results: TypeAlias = Mapping[str, Any]

NO_INTERVAL = "not estimable (n = 1): all slices are of one head"
NO_INTERVAL_MADE = "no interval over patients was computed"
DECIDING = ("mean", "resample")
"""The replacements that decide in a set experiment; zeroing never does."""


def study_claims(results: Results, primary_attribute: str | None) -> list[Claim]:
    """Return the claims of a study: the false answer, what the site encodes, what features follow, what drives the answer."""
    return [false_answer(results), *exploration_claims(results, primary_attribute), drives(results)]


def exploration_claims(results: Results, primary_attribute: str | None) -> list[Claim]:
    """Return the claims that need no question: the decomposition, what the site encodes, what features follow."""
    return [decomposition(results), encodes(results, primary_attribute), follows(results)]


def false_answer(results: Results) -> Claim:
    """Claim that a wrong answer is no accident of how the images were prepared."""
    question, n, sensitivity = results["target"], results["images"]["n"], results["preparation"]
    found, unchanged, others = len(question["positive"]), sensitivity[0], sensitivity[1:]
    kept = [s for s in others if s["n_positive"] * 2 >= unchanged["n_positive"] > 0]
    return Claim.measured(
        f"The model calls {found} of {n} images “{question['class']}” with probability above {question['threshold']:g}, "
        "although they show none.",
        "interventional",
        found,
        "images",
        FALSE_ANSWER,
        FALSE_ANSWER_CRITERION,
        controls=(
            Control(
                "other preparations of the same images",
                len(kept) / len(others) if others else None,
                len(kept) * 2 > len(others),
                f"at least half of the false answers remain under {len(kept)} of {len(others)} changes of preparation "
                f"({', '.join(s['name'] + ' ' + str(s['n_positive']) for s in others)}; unchanged {unchanged['n_positive']} "
                f"of {unchanged['n_images']})",
            ),
        ),
        numbers={
            "images": n,
            "threshold": question["threshold"],
            "preparations kept": len(kept),
            "preparations": len(others),
            "images asked again": unchanged["n_images"],
            "false answers, unchanged": unchanged["n_positive"],
            **{f"false answers, {s['name']}": s["n_positive"] for s in others},
        },
        **_of_the_model(results),
    )


def decomposition(results: Results) -> Claim:
    """Claim that the features hold most of what the site carries."""
    sae = results["sae"]
    ours = sae["metrics"]["explained_variance"]
    rivals = {c["name"]: c["metrics"]["explained_variance"] for c in sae["controls"]}
    held_out, site = sae.get("held_out", True), results["model"]["site"]
    seen = Control("images it was not trained on", None, None, "no image was held out: give the images a split `test`")
    return _answering(
        DECOMPOSITION,
        f"The sparse autoencoder explains {ours:.0%} of the held-out variance of {site}."
        if held_out
        else f"The sparse autoencoder explains {ours:.0%} of the variance of {site} on images that it was trained on.",
        "correlational",
        ours,
        controls=(() if held_out else (seen,))
        + tuple(
            Control(
                name,
                value,
                detail=f"explains {value:.0%} with as many active features per cell",
                bound=Bound("at most", ours),
            )
            for name, value in rivals.items()
        ),
        **_of_the_model(results),
    )


def encodes(results: Results, name: str | None) -> Claim:
    """Claim that an attribute can be read off the site: the one named beforehand, or the first there is."""
    of_the_model = _of_the_model(results)
    probe = next((p for p in results["probes"] if p["attribute"] == name), None)
    if name is None or probe is None:
        why = "an attribute named beforehand with enough values"
        return Claim(
            "No attribute could be probed.", "correlational", None, "", False, why, trained=of_the_model["trained"]
        )
    named = "the attribute named beforehand"
    if not results.get("attribute_named", True):
        named = f"none was named beforehand: the first of {len(results['probes'])} probed"
    unit = f" {probe['unit']}" if probe["unit"] not in {"", "1"} else ""
    error = "" if probe["mae"] is None else f", mean absolute error {probe['mae']:.3g}{unit}"
    return _answering(
        ENCODES,
        f"A linear probe reads {name.replace('_', ' ')} ({named}) off {results['model']['site']} on "
        f"images it has not seen: {probe['score_name']} {probe['score']:.2f}{error}.",
        "correlational",
        probe["score"],
        unit=probe["score_name"],
        controls=tuple(Control(c["name"], c["value"], bool(c["passed"]), c["detail"]) for c in probe["controls"]),
        interval=tuple(probe["interval"]) if probe["interval"] else None,
        interval_note=probe["interval_note"] or "",
        p_value=probe["p"],
        trained=of_the_model["trained"],
        numbers={} if probe["mae"] is None else {f"mean absolute error{unit and f' [{unit[1:]}]'}": probe["mae"]},
    )


def follows(results: Results) -> Claim:
    """Claim that features follow physical attributes on images that took no part in pairing them."""
    tests = results["matrix"]["tests"]
    best, found = tests["best"], tests["n_findings"]
    testable = best["p_corrected"] is not None
    if testable:
        statement = (
            f"{found} of {tests['n_tested']} features follow a physical attribute on held-out images after correction; the "
            f"closest pair is feature {best['feature']} and {best['attribute'].replace('_', ' ')} "
            f"(Spearman {best['rho_confirmation']:+.2f}, corrected p = {best['p_corrected']:.3f})."
        )
    else:
        statement = f"No pair of feature and attribute could be tested: {tests['text']}."
    return _answering(
        FOLLOWS,
        statement,
        "correlational",
        found if testable else None,
        controls=tuple(Control(c["name"], c["n_findings"], c["passed"], c["detail"]) for c in tests["controls"]),
        p_value=best["p_corrected"],
        numbers={
            "features tested": tests["n_tested"],
            "feature of the closest pair": best["feature"],
            "Spearman's rho of the closest pair": best["rho_confirmation"],
        },
        **_of_the_model(results),
    )


def drives(results: Results) -> Claim:
    """Claim that a small set of features drives the answer: what the set experiment found."""
    experiment, target = results["experiment"], results["target"]["class"]
    said, beside = experiment["verdict"], experiment.get("verdicts", {})
    found, ran = said["word"] == "drives", said["word"] != "not run"
    random = beside.get("random")
    turned = weakest_turn(experiment) if ran else None
    return _answering(
        DRIVES,
        f"A small set of features drives “{target}”: {said['reasons'][0]}."
        if found
        else f"No small set of features was shown to drive “{target}”. {said['reasons'][0]}.",
        "interventional",
        turned,
        unit="share of images turned",
        controls=(
            Control(
                DRIVES.controls[0],
                None,
                found if ran else None,
                f"the experiment's verdict: “{said['word']}”; {said['reasons'][-1 if found else 0]}",
            ),
            Control(
                DRIVES.controls[1],
                None,
                random["word"] != "drives" if random else None,
                f"verdict “{random['word']}”" if random else "",
            ),
        ),
        numbers={
            f"features that are ever active, {d['name']}": d["alive"]
            for d in experiment["directions"]
            if d["kind"] == "sae"
        },
        **_of_the_model(results),
    )


def weakest_turn(experiment: Results) -> float | None:
    """Return the share of images that a small set turns: the best size, in the weaker direction, under the weaker replacement.

    ``None`` where not both directions were run.
    """
    share = experiment["config"]["share"]
    ways = [d for d in experiment["directions"] if d["kind"] == "sae" and d["ranked_by"] == "reference"]
    best = []
    for way in ways:
        curves = [c for c in way["curves"] if c["ablation"] in DECIDING]
        sizes = enumerate(curves[0]["sizes"]) if len(curves) == len(DECIDING) else ()
        turned = [min(c["flipped"][at] for c in curves) for at, size in sizes if size <= share * way["alive"]]
        best.append(max(turned, default=0.0))
    return min(best) if len(best) == 2 else None


def _answering(
    test: PlannedTest,
    statement: str,
    strength: Strength,
    value: float | None,
    *,
    unit: str = "",
    controls: tuple[Control, ...],
    **more: Any,
) -> Claim:
    """Return a claim that answers a planned test, judged by that test's criterion."""
    bound = test.bound or Bound("at least", 0.0)
    return Claim.measured(
        statement, strength, value, unit or test.metric, bound, test.criterion,
        controls=controls, largest_p=test.largest_p, test=test.name, **more,
    )  # fmt: skip


def _of_the_model(results: Results) -> dict[str, Any]:
    note = NO_INTERVAL_MADE if results["images"]["units_are_patients"] else NO_INTERVAL
    return {"interval_note": note, "trained": results["model"]["trained"]}
