from dataclasses import replace

import numpy as np
import pytest
from planted_answers import an_always_on_vote, experiment_on, spread_over_forty, two_drivers, two_drivers_that_stand_out

from circuits.set_verdict import holm, verdict


@pytest.fixture(scope="module")
def drivers():
    return experiment_on(two_drivers())


def changed(experiment, **fields):
    """Return the experiment with fields of every small set under mean replaced."""

    def edit(curve):
        if curve.ablation.name != "mean":
            return curve
        return replace(curve, results=tuple(replace(r, **fields) for r in curve.results))

    ways = tuple(replace(w, curves=tuple(edit(c) for c in w.curves)) for w in experiment.directions)
    return replace(experiment, directions=ways)


def test_two_true_drivers_drive(drivers):
    word, reasons = verdict(drivers)
    assert word == "drives"
    assert reasons[0].startswith("lower → upper: 2 of 64 alive raw channels turn 100% under mean")
    assert "100% under resample" in reasons[0]
    assert "put into '1' images, the same 2 turn 100% of them to '0'" in reasons[1]


def test_drivers_that_no_other_pair_equals_in_norm_drive_too():
    found = experiment_on(two_drivers_that_stand_out())
    for way in found.select("neurons", "reference"):
        assert way.curve("mean").at(2).controls.scale > 1
        assert way.curve("mean").at(2).control_ratio == pytest.approx(1, abs=0.05)
    assert verdict(found)[0] == "drives"


def test_an_always_on_vote_is_named_an_artefact_of_zeroing():
    found = experiment_on(an_always_on_vote())
    for way in found.select("neurons", "zero"):
        assert way.curve("zero").at(1).flipped == 1
        assert way.curve("mean").at(1).flipped == way.curve("resample").at(1).flipped == 0
    word, reasons = verdict(found)
    assert word == "no small set does"
    artefacts = [r for r in reasons if "artefact of zeroing" in r]
    assert len(artefacts) == 2
    assert "ranked by zeroing to zero turns 100%, but 0% under mean, 0% under resample" in artefacts[0]


def test_what_is_spread_over_many_is_no_small_set():
    word, reasons = verdict(experiment_on(spread_over_forty()))
    assert word == "no small set does"
    assert any("only from 40 raw channels on, 62% of the alive ones" in r for r in reasons)
    assert not any("artefact" in r for r in reasons)


def test_it_is_a_pure_function_of_the_numbers(drivers):
    assert verdict(drivers) == verdict(drivers)
    assert verdict(changed(drivers)) == verdict(drivers)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flipped": 0.4}, r"mean turns 40% of the '0' images \(50% asked for\)"),
        ({"delta": 0.1}, r"mean does not lower the logit difference \(\+0.10\)"),
        ({"controls": None}, "mean has no random sets beside it"),
        ({"norm": 100.0}, "the random sets for mean remove 0.0. times the norm"),
        ({"reference_kept": 0.5}, "mean leaves only 50% of the '1' images their answer"),
        ({"reference_delta": -7.0}, r"mean moves '1' images too \(logit difference -7.00"),
    ],
)
def test_each_condition_alone_can_fail_it(drivers, fields, message):
    word, reasons = verdict(changed(drivers, **fields))
    assert word == "no small set does"
    assert any(np.char.find(r, "lower → upper, ") >= 0 for r in reasons)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(" | ".join(reasons))


def test_sets_that_random_ones_equal_do_not_drive(drivers):
    def edit(r):
        return replace(r, controls=replace(r.controls, flipped=np.ones_like(r.controls.flipped)))

    ways = []
    for w in drivers.directions:
        curves = tuple(
            replace(c, results=tuple(edit(r) if r.controls else r for r in c.results))
            if c.ablation.name == "resample"
            else c
            for c in w.curves
        )
        ways.append(replace(w, curves=curves))
    word, reasons = verdict(replace(drivers, directions=tuple(ways)))
    assert word == "no small set does"
    assert any(
        "not beyond random sets of the same norm under resample (they turn 100%, corrected p = 1.000)" in r
        for r in reasons
    )


def test_one_way_is_not_enough(drivers):
    one = replace(drivers, directions=drivers.select("neurons", "reference")[:1])
    word, reasons = verdict(one)
    assert word == "no small set does"
    assert "1 of 2 directions was run" in reasons[0]


def test_without_a_size_within_the_share_nothing_is_small(drivers):
    word, reasons = verdict(replace(drivers, config=replace(drivers.config, share=0.01)))
    assert word == "no small set does"
    assert any("more than 1% of the 64 alive raw channels" in r for r in reasons)


def test_features_that_cannot_turn_it_even_all_together_are_told(drivers):
    def edit(curve):
        return replace(curve, everything=replace(curve.everything, flipped=0.25))

    ways = tuple(replace(w, curves=tuple(edit(c) for c in w.curves)) for w in changed(drivers, flipped=0.2).directions)
    _, reasons = verdict(replace(drivers, directions=ways))
    assert any(
        "even all 64 alive raw channels together turn only 25% under mean and 25% under resample" in r for r in reasons
    )


def test_an_ablation_that_was_not_run_is_named(drivers):
    ways = tuple(replace(w, curves=tuple(c for c in w.curves if c.ablation.name != "mean")) for w in drivers.directions)
    word, reasons = verdict(replace(drivers, directions=ways))
    assert word == "no small set does"
    assert any("mean was not run" in r for r in reasons)


def test_holm_known_by_hand():
    assert holm(np.asarray([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.asarray([0.5, 0.9])) == pytest.approx([1.0, 1.0])
    assert len(holm(np.asarray([]))) == 0


def test_the_json_holds_word_reasons_and_every_curve(drivers):
    json = drivers.to_json()
    assert json["verdict"]["word"] == "drives"
    assert json["n_controls"] == 200
    way = json["directions"][0]
    assert way["name"] == "lower → upper"
    assert way["chosen"] == list(drivers.directions[0].order[:3])
    curve = way["curves"][1]
    assert curve["ablation"] == "mean"
    for key in (
        "sizes",
        "flipped",
        "delta",
        "p",
        "notumor_delta",
        "notumor_kept",
        "norm_removed",
        "control_norm",
        "off_data",
    ):
        assert len(curve[key]) == 4
    for key in ("control_flipped", "control_delta"):
        low, median, high = (np.asarray(curve[key][k]) for k in ("low", "median", "high"))
        assert (low <= median).all()
        assert (median <= high).all()
    contrast = next(w for w in json["directions"] if w["ranked_by"] == "zero")["curves"][0]
    assert contrast["control_flipped"] == {"low": [], "median": [], "high": []}
    assert contrast["p"] == [None] * 4
