"""The second line of the answer: every number is of the set it is said of."""

from __future__ import annotations

from experiments.studies.brain_mri.answer import _drives


def way(ranked_by, flipped, random=None):
    curves = [
        {
            "ablation": name,
            "sizes": [50],
            "flipped": [value],
            "control_flipped": {"median": [] if random is None else [random]},
        }
        for name, value in flipped.items()
    ]
    shown = [{"images": list(range(10))}]
    return {"kind": "sae", "ranked_by": ranked_by, "size": 50, "curves": curves, "before_after": shown}


def experiment(word, *directions):
    return {"verdict": {"word": word, "reasons": ["why"]}, "directions": list(directions)}


def test_what_zeroing_does_is_said_of_the_set_that_zeroing_ranked():
    chosen = way("reference", {"zero": 0.5, "mean": 0.0, "resample": 0.2}, random=0.3)
    zeroed = way("zero", {"zero": 0.8, "mean": 0.1, "resample": 0.15})
    line = _drives(None, experiment("no small set does", chosen, zeroed))
    first, second = line.split(". ")
    assert "turn 0% of the other's 10 tested slices" in first
    assert "20% when resampled (random sets of the same norm 30%)" in first
    assert "80%" not in first
    assert "50%" not in line
    assert second.startswith("Another 50, ranked by zeroing, turn 80% when zeroed and 10% to 15%")
    assert second.endswith("an artefact of zeroing.")


def test_a_set_that_turns_replaced_answers_too_is_no_artefact():
    chosen = way("reference", {"zero": 0.5, "mean": 0.4, "resample": 0.4}, random=0.1)
    zeroed = way("zero", {"zero": 0.8, "mean": 0.6, "resample": 0.7})
    assert "artefact" not in _drives(None, experiment("no small set does", chosen, zeroed))


def test_a_driving_set_and_an_experiment_that_was_not_run():
    chosen = way("reference", {"zero": 1.0, "mean": 0.9, "resample": 0.8}, random=0.1)
    assert _drives(None, experiment("drives", chosen)).startswith("A small set drives it: 50 features")
    assert _drives(None, experiment("not run")) == "Whether features drive it was not tested: why."
