"""A plan is written before the confirmation patients are opened; later changes are refused or shown."""

import dataclasses
import json

import made_report as made
import pytest

from experiments.report import Plan, PlanRecord, groups_hash, open_confirmation, read_plan, register_plan
from mechinterp.errors import ConfigError, DamagedFileError
from mechinterp.files import write_json

PLAN = dataclasses.replace(made.PLAN, discovery=groups_hash([1, 2]), confirmation=groups_hash([3, 4]))
OTHER = dataclasses.replace(PLAN, tests=PLAN.tests[1:])


def test_patients_have_one_hash_in_any_order_and_number():
    assert groups_hash(["b", "a", "a"]) == groups_hash(["a", "b"]) != groups_hash(["a"])


def test_registered_opened_and_read_again(tmp_path):
    assert read_plan(tmp_path) is None
    assert register_plan(tmp_path, OTHER).plan == OTHER
    registered = register_plan(tmp_path, PLAN)
    opened = open_confirmation(tmp_path, [4, 3, 3])
    assert opened.opened
    assert opened.registered == registered.registered
    assert register_plan(tmp_path, PLAN) == read_plan(tmp_path) == open_confirmation(tmp_path, [3, 4]) == opened


def test_confirmation_patients_stay_closed_without_a_plan_for_them(tmp_path):
    with pytest.raises(ConfigError, match="register the plan before"):
        open_confirmation(tmp_path, [3, 4])
    register_plan(tmp_path, PLAN)
    with pytest.raises(ConfigError, match="other confirmation patients"):
        open_confirmation(tmp_path, [3])


def test_a_later_change_is_refused_or_a_deviation(tmp_path):
    register_plan(tmp_path, PLAN)
    open_confirmation(tmp_path, [3, 4])
    with pytest.raises(ConfigError, match="test 'test of localization' taken out"):
        register_plan(tmp_path, OTHER)
    changed = register_plan(tmp_path, OTHER, deviation="the masks were missing")
    assert changed.deviations[0].startswith("the masks were missing (test 'test of localization' taken out")


@pytest.mark.parametrize(("again", "said"), [(PLAN, "the plan is the same as then"), (OTHER, "test '")])
def test_a_plan_that_was_taken_away_after_the_patients_were_opened_is_a_deviation(tmp_path, again, said):
    register_plan(tmp_path, PLAN)
    opened = open_confirmation(tmp_path, [3, 4])
    write_json(tmp_path / "report.json", {"plan": opened.to_json()})
    (tmp_path / "plan.json").unlink()
    record = register_plan(tmp_path, again)
    assert record.opened == opened.opened
    (deviation,) = record.deviations
    assert (
        f"plan.json was gone when this plan was written, and the run's report of before had opened the same patients on {opened.opened}"
        in deviation
    )
    assert opened.plan.hash[:12] in deviation
    assert said in deviation
    assert open_confirmation(tmp_path, [3, 4]) == record == read_plan(tmp_path)


@pytest.mark.parametrize("report", ["{", "{}", '{"plan": {}}'])
def test_a_report_that_cannot_be_read_or_opened_nobody_hinders_no_plan(tmp_path, report):
    (tmp_path / "report.json").write_text(report)
    assert register_plan(tmp_path, PLAN).deviations == ()
    (tmp_path / "plan.json").unlink()
    other = dataclasses.replace(PLAN, confirmation=groups_hash([9]))
    write_json(tmp_path / "report.json", {"plan": {**PlanRecord(other, opened="then").to_json()}})
    assert register_plan(tmp_path, PLAN).deviations == ()  # other patients


def test_a_plan_that_was_altered_is_noticed(tmp_path):
    register_plan(tmp_path, PLAN)
    path = tmp_path / "plan.json"
    record = json.loads(path.read_text())
    record["tests"][0]["bound"]["threshold"] = 0.1
    path.write_text(json.dumps(record))
    with pytest.raises(DamagedFileError, match="altered after it was made"):
        read_plan(tmp_path)


def test_every_change_has_words():
    changed = dataclasses.replace(
        PLAN,
        tests=(dataclasses.replace(PLAN.tests[0], metric="other"), dataclasses.replace(PLAN.tests[1], name="new")),
        discovery=None,
        note="x",
    )
    said = " ".join(PLAN.changes_to(changed))
    for part in ("taken out", "'new' added", "localization' changed", "other patients", "note changed"):
        assert part in said


def test_names_are_unique_and_controls_needed():
    with pytest.raises(ConfigError, match="two planned tests"):
        Plan("x", (PLAN.tests[0], PLAN.tests[0]))
    with pytest.raises(ConfigError, match="has no control"):
        dataclasses.replace(PLAN.tests[0], controls=())
