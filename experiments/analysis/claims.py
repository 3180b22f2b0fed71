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
        *exploration_claims(explored),
        _drives(explored, experiment),
    ]


def exploration_claims(explored: Exploration) -> list[Claim]:
    """Return the claims that need no question: the decomposition, what the site encodes, what features follow."""
    return [_decomposition(explored), _encodes(explored), _follows(explored)]


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
    trained, name = explored.model.trained, explored.primary_attribute
    probe = next((p for p in explored.probes if p["attribute"] == name), None)
    if name is None or probe is None:
        why = "an attribute named beforehand with enough values"
        return Claim("No attribute could be probed.", "correlational", None, "", False, why, trained=trained)
    unit = f" {probe['unit']}" if probe["unit"] not in {"", "1"} else ""
    error = "" if probe["mae"] is None else f", mean absolute error {probe['mae']:.3g}{unit}"
    return Claim(
        statement=(
            f"A linear probe reads {name.replace('_', ' ')} (the attribute named beforehand) off {explored.site} on images it "
            f"has not seen: {probe['score_name']} {probe['score']:.2f}{error}."
        ),
        strength="correlational",
        value=probe["score"],
        unit=probe["score_name"],
        holds=probe["score"] >= 0.5 and probe["p"] is not None and probe["p"] <= 0.05,
        criterion=f"{probe['score_name']} of at least 0.5, and p ≤ 0.05",
        controls=tuple(Control(c["name"], c["value"], bool(c["passed"]), c["detail"]) for c in probe["controls"]),
        interval=tuple(probe["interval"]) if probe["interval"] else None,
        interval_note=probe["interval_note"] or "",
        p_value=probe["p"],
        trained=trained,
    )


def _follows(explored: Exploration) -> Claim:
    tests = explored.matrix_tests
    best = tests["best"]
    found = tests["n_findings"]
    if best["p_corrected"] is None:
        statement = f"No pair of feature and attribute could be tested: {tests['text']}."
    else:
        statement = (
            f"{found} of {tests['n_tested']} features follow a physical attribute on held-out images after correction; the "
            f"closest pair is feature {best['feature']} and {best['attribute'].replace('_', ' ')} "
            f"(Spearman {best['rho_confirmation']:+.2f}, corrected p = {best['p_corrected']:.3f})."
        )
    return Claim(
        statement=statement,
        strength="correlational",
        value=best["rho_confirmation"],
        unit="Spearman's rho",
        holds=found > 0,
        criterion="at least one pair with p ≤ 0.05 on held-out images, corrected for all features and attributes",
        controls=tuple(Control(c["name"], c["n_findings"], c["passed"], c["detail"]) for c in tests["controls"]),
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
