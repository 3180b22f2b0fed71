"""Spoil each thing that a verdict rests on, and the verdict falls."""

import dataclasses

import made_report as made
import pytest

from experiments.report import ELEMENTS, ElementEvidence, PlanRecord
from experiments.report.verdicts import WORDS
from mechinterp.claims import Bound, Control

NAMES = tuple(ELEMENTS)


def rank(report, name):
    return WORDS.index(report.verdicts[name].word)


def spoiled(at, **changes):
    test = made.TESTS[at]
    claims = {t.element: (made.claim(t),) for t in made.TESTS}
    claims[test.element] = (made.claim(test, **changes),)
    return made.report(claims)


def test_everything_right_is_met_and_passes_strictly():
    report = made.report()
    assert {v.word for v in report.verdicts.values()} == {"met"}
    assert report.strict() == 0
    assert report.unmet == ()


@pytest.mark.parametrize("at", range(5), ids=NAMES)
@pytest.mark.parametrize("control", [0, 1])
@pytest.mark.parametrize("value", [0.9, None])
def test_each_control_spoiled_lets_its_element_fall_and_no_other(at, control, value):
    controls = list(made.CONTROLS)
    controls[control] = dataclasses.replace(controls[control], value=value)
    report = spoiled(at, controls=tuple(controls))
    assert report.verdicts[NAMES[at]].word == ("not met" if value else "inconclusive")
    assert made.CONTROLS[control].name in report.verdicts[NAMES[at]].reasons[0]
    assert report.strict() == 1
    assert all(rank(report, name) == 0 for name in NAMES if name != NAMES[at])


@pytest.mark.parametrize("control", [0, 1])
def test_a_planned_control_that_was_left_out_is_noticed(control):
    report = spoiled(0, controls=(made.CONTROLS[1 - control],))
    verdict = report.verdicts[NAMES[0]]
    assert verdict.word == "inconclusive"
    assert f"planned control not run: {made.CONTROLS[control].name}" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"interval": (0.2, 0.4)}, "not met"),
        ({"interval": (0.3, 0.9)}, "inconclusive"),
        ({"interval": None, "interval_note": "not estimable (n = 1)"}, "partly"),
        ({"trained": False}, "not met"),
        ({"test": ""}, "inconclusive"),
        ({"largest_p": 0.05, "p_value": 0.01}, "not met"),
    ],
)
def test_metric_plan_and_training_decide(changes, word):
    report = spoiled(0, **changes)
    assert report.verdicts[NAMES[0]].word == word
    assert report.verdicts[NAMES[0]].reasons


def test_inconclusive_says_the_smallest_effect_that_could_have_been_seen():
    seen = spoiled(0, interval=(0.3, 0.9)).verdicts[NAMES[0]].smallest_visible[0]
    assert seen.value == pytest.approx(0.5 + 2.80 * 0.6 / 3.92, abs=1e-3)


def test_a_looser_bound_than_planned_is_no_way_out():
    test = made.TESTS[0]
    loose = dataclasses.replace(made.claim(test), bound=Bound("at least", 0.1))
    report = made.report({test.element: (loose,)})
    assert report.verdicts[test.element].word == "not met"
    assert "another criterion" in report.verdicts[test.element].reasons[0]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"interval": (0.45, 0.95)}, "not met"),
        ({"value": 0.4}, "not met"),
        ({"trained": False}, "not met"),
        ({"value": None, "interval": None}, "partly"),
        ({"interval": None, "interval_note": "not estimable (n = 4)"}, "partly"),
    ],
)
def test_the_models_task_comes_first(changes, word):
    report = made.report(check=dataclasses.replace(made.CHECK, **changes))
    assert {v.word for v in report.verdicts.values()} == {word}
    assert report.strict() == 1


def test_a_model_at_chance_is_not_met_where_needed_even_without_claims():
    check = dataclasses.replace(made.CHECK, trained=False)
    report = made.report({}, check=check, case=made.use_case(needs=("localization",)))
    assert report.verdicts["localization"].word == "not met"
    assert report.verdicts["actionability"].word == "not addressed"


def test_no_claim_about_a_model_at_chance_is_shown_as_met():
    report = made.report(check=dataclasses.replace(made.CHECK, interval=(0.45, 0.95)))
    for evidence in report.elements:
        assert {stands.word for stands in report.standings(evidence)} == {"not met"}
    assert all(part["n_held"] == 0 for part in report.to_json()["elements"])


def test_images_outside_what_the_model_knows_leave_nothing_wholly_met():
    outside = dataclasses.replace(made.CHECK.out_of_distribution, share_outside=0.7)
    report = made.report(check=dataclasses.replace(made.CHECK, out_of_distribution=outside))
    assert {v.word for v in report.verdicts.values()} == {"partly"}


def test_without_a_registered_plan_nothing_is_wholly_met():
    report = made.report(record=PlanRecord(made.PLAN))
    assert {v.word for v in report.verdicts.values()} == {"partly"}
    assert "no plan was registered" in report.verdicts[NAMES[0]].reasons[0]


def test_correlation_alone_does_not_make_a_model_transparent():
    weak = {t.element: (dataclasses.replace(made.claim(t), strength="correlational"),) for t in made.TESTS}
    words = {name: v.word for name, v in made.report(weak).verdicts.items()}
    assert words == {
        "localization": "partly", "visual recognizability": "met", "physical attribution": "met",
        "model transparency": "partly", "actionability": "partly",
    }  # fmt: skip


def test_truth_is_never_claimed_of_real_images():
    known = {t.element: (dataclasses.replace(made.claim(t), strength="ground-truth-verified"),) for t in made.TESTS}
    assert {v.word for v in made.report(known).verdicts.values()} == {"met"}
    real = made.report(known, case=made.use_case(truth_known=False))
    assert {v.word for v in real.verdicts.values()} == {"not met"}


def test_what_was_planned_and_not_run_is_said():
    report = made.report({})
    assert {v.word for v in report.verdicts.values()} == {"not addressed"}
    assert report.verdicts[NAMES[0]].reasons == (f"planned and not run: test of {NAMES[0]}",)


def test_one_of_two_tests_is_partly():
    name = NAMES[0]
    second = dataclasses.replace(made.TESTS[0], name="second")
    plan = dataclasses.replace(made.PLAN, tests=(*made.TESTS, second))
    record = dataclasses.replace(made.RECORD, plan=plan)
    good, bad = made.claim(made.TESTS[0]), made.claim(second, interval=(0.1, 0.2))
    assert made.report({name: (good,)}, record=record).verdicts[name].word == "partly"
    assert made.report({name: (good, bad)}, record=record).verdicts[name].word == "partly"


def test_a_claims_own_bounds_cannot_be_overruled_by_hand():
    control = Control("shuffled", 0.9, passed=True, bound=Bound("at most", 0.2))
    assert control.passed is False
    assert dataclasses.replace(made.claim(made.TESTS[0]), holds=True, interval=(0.1, 0.2)).verdict == "not met"


def test_evidence_under_another_name_is_refused():
    from mechinterp.errors import ConfigError

    with pytest.raises(ConfigError, match="under its own name"):
        dataclasses.replace(made.report(), evidence={"localization": ElementEvidence("actionability")})
    with pytest.raises(ConfigError, match="no element 'localisation'"):
        ElementEvidence("localisation")
