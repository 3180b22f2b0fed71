"""What a study claims, each claim with its controls; the words change when the numbers do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mechinterp.claims import Claim, Control

if TYPE_CHECKING:
    from experiments.analysis.exploration import Exploration

NO_INTERVAL = "not estimable (n = 1): all slices are of one head"
LEAST_POSITIVE = 5


def study_claims(explored: Exploration, experiment: dict[str, Any], sensitivity: list[dict[str, Any]]) -> list[Claim]:
    """Return the claims of a study: the false answer, what the site encodes, what features follow, what drives the answer."""
    return [
        _false_answer(explored, sensitivity),
        _decomposition(explored),
        _encodes(explored),
        _follows(explored),
        _drives(explored, experiment),
    ]


def _false_answer(explored: Exploration, sensitivity: list[dict[str, Any]]) -> Claim:
    question, n = explored.question, len(explored.images)
    found = len(question.positive)
    others = sensitivity[1:]
    kept = [s for s in others if s["n_positive"] * 2 >= sensitivity[0]["n_positive"] > 0]
    return Claim(
        statement=(
            f"The model calls {found} of {n} images “{question.target}” with probability above {question.threshold:g}, "
            "although they show none."
        ),
        strength="interventional",
        value=found,
        unit="images",
        holds=found >= LEAST_POSITIVE,
        criterion=f"at least {LEAST_POSITIVE} images",
        controls=(
            Control(
                "other preparations of the same images",
                len(kept) / len(others) if others else None,
                len(kept) * 2 > len(others),
                f"at least half of the false answers remain under {len(kept)} of {len(others)} changes of preparation "
                f"({', '.join(s['name'] + ' ' + str(s['n_positive']) for s in others)}; unchanged {sensitivity[0]['n_positive']} "
                f"of {sensitivity[0]['n_images']})",
            ),
        ),
        interval_note=_interval_note(explored),
        trained=explored.model.trained,
    )


def _decomposition(explored: Exploration) -> Claim:
    ours = explored.sae_metrics["explained_variance"]
    rivals = {c["name"]: c["metrics"]["explained_variance"] for c in explored.sae_controls}
    return Claim(
        statement=f"The sparse autoencoder explains {ours:.0%} of the held-out variance of {explored.site}.",
        strength="correlational",
        value=ours,
        unit="share of variance",
        holds=ours >= 0.5,
        criterion="at least half of the variance of held-out images",
        controls=tuple(
            Control(name, value, value < ours, f"explains {value:.0%} with as many active features per cell")
            for name, value in rivals.items()
        ),
        interval_note=_interval_note(explored),
        trained=explored.model.trained,
    )


def _encodes(explored: Exploration) -> Claim:
    scored = [p for p in explored.probes if p["score"] is not None]
    if not scored:
        return Claim(
            "No attribute could be probed.", "correlational", None, "", False, "at least one attribute with enough values",
            trained=explored.model.trained,
        )
    best = max(scored, key=lambda p: p["score"])
    unit = f" {best['unit']}" if best["unit"] not in {"", "1"} else ""
    return Claim(
        statement=(
            f"A linear probe reads {best['attribute'].replace('_', ' ')} off {explored.site} in blocks it has not seen: "
            f"{best['score_name']} {best['score']:.2f}"
            + (f", mean absolute error {best['mae']:.3g}{unit}." if best["mae"] is not None else ".")
        ),
        strength="correlational",
        value=best["score"],
        unit=best["score_name"],
        holds=best["score"] >= 0.5,
        criterion=f"{best['score_name']} of at least 0.5",
        controls=tuple(
            Control(c["name"], c.get("value"), bool(c["passed"]), c.get("detail", "")) for c in best["controls"]
        ),
        interval=tuple(best["interval"]) if best["interval"] else None,
        interval_note=best["interval_note"] or "",
        p_value=best["p"],
        trained=explored.model.trained,
    )


def _follows(explored: Exploration) -> Claim:
    tests = explored.matrix_tests
    best = tests["best"]
    found = tests["n_findings"]
    label = f"feature {best['feature']} and {best['attribute'].replace('_', ' ')}"
    return Claim(
        statement=(
            f"{found} of {tests['n_tested']} features follow a physical attribute on held-out images after correction; "
            f"the closest pair is {label} (Spearman {best['rho_confirmation']:+.2f}, corrected p = {best['p_corrected']:.3f})."
            if best["p_corrected"] is not None
            else f"No pair of feature and attribute could be tested: {tests['text']}."
        ),
        strength="correlational",
        value=best["rho_confirmation"],
        unit="Spearman's rho",
        holds=found > 0,
        criterion="at least one pair with p ≤ 0.05 on held-out images, corrected for all features and attributes",
        controls=tuple(
            Control(
                c["name"], c["n_findings"], c["passed"], c["detail"]
            )
            for c in tests["controls"]
        ),
        interval_note=_interval_note(explored),
        p_value=best["p_corrected"],
        trained=explored.model.trained,
    )


def _drives(explored: Exploration, experiment: dict[str, Any]) -> Claim:
    question, said = explored.question, experiment["verdict"]
    drives = said["word"] == "drives"
    beside = experiment.get("verdicts", {})
    control = beside.get("random")
    return Claim(
        statement=(
            f"A small set of features drives “{question.target}”: {said['reasons'][0]}."
            if drives
            else f"No small set of features was shown to drive “{question.target}”. {said['reasons'][0]}."
        ),
        strength="interventional",
        value=None,
        unit="",
        holds=drives,
        criterion=(
            "one small set, chosen on one band, turns at least half of the other band under mean and under resampled "
            "replacement, both ways, more than random sets of the same norm (Holm-corrected p ≤ 0.05), and leaves reference "
            "images their answer"
        ),
        controls=()
        if control is None
        else (
            Control(
                "random directions through the same experiment",
                None,
                control["word"] != "drives",
                f"verdict “{control['word']}”",
            ),
        ),
        interval_note=_interval_note(explored),
        trained=explored.model.trained,
    )


def _interval_note(explored: Exploration) -> str:
    return "" if explored.images.units_are_patients else NO_INTERVAL
