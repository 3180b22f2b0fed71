"""A claim is met only if everything that could speak against it was tried and did not."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.claims import Claim, Control, without_signed_zero

GOOD = Control("200 random sets of the same norm", 0.01, True)
BAD = Control("shuffled attributes", 0.4, False, "p = 0.4 on 1,000 shuffles")


def claim(**changes):
    fields = {
        "statement": "ten features drive the answer",
        "strength": "interventional",
        "value": 0.62,
        "unit": "flipped fraction",
        "holds": True,
        "criterion": "at least half of the slices flip",
        "controls": (GOOD,),
    }
    return Claim(**{**fields, **changes})


def test_a_claim_that_holds_with_controls_passed_on_a_trained_model_is_met():
    assert claim().verdict == "met"
    assert claim().reasons == ()


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"holds": False}, ("the criterion does not hold: at least half of the slices flip",)),
        ({"controls": ()}, ("no control was run",)),
        ({"controls": (GOOD, BAD)}, ("control failed: shuffled attributes (p = 0.4 on 1,000 shuffles)",)),
        ({"controls": (dataclasses.replace(BAD, detail=""),)}, ("control failed: shuffled attributes",)),
        ({"trained": False}, ("the model is untrained (random weights)",)),
        (
            {"trained": False, "holds": False, "controls": ()},
            (
                "the model is untrained (random weights)",
                "the criterion does not hold: at least half of the slices flip",
                "no control was run",
            ),
        ),
    ],
)
def test_what_speaks_against_it_is_said_in_words(changes, reasons):
    assert claim(**changes).verdict == "not met"
    assert claim(**changes).reasons == reasons


@given(holds=st.booleans(), trained=st.booleans(), passed=st.lists(st.booleans(), max_size=5))
@settings(deadline=None)
def test_the_verdict_is_that_and_nothing_else(holds, trained, passed):
    controls = tuple(Control(f"control {i}", None, p) for i, p in enumerate(passed))
    got = claim(holds=holds, trained=trained, controls=controls)
    assert (got.verdict == "met") == (holds and trained and bool(passed) and all(passed))
    assert (got.reasons == ()) == (got.verdict == "met")


def test_a_claim_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        claim().holds = False


def test_json_holds_everything_failed_controls_too():
    text = json.loads(
        json.dumps(claim(controls=(GOOD, BAD), interval=(0.5, 0.7), p_value=0.03, interval_note="").to_json())
    )
    assert text == {
        "statement": "ten features drive the answer",
        "strength": "interventional",
        "value": 0.62,
        "unit": "flipped fraction",
        "interval": [0.5, 0.7],
        "interval_note": "",
        "p_value": 0.03,
        "criterion": "at least half of the slices flip",
        "holds": True,
        "trained": True,
        "controls": [
            {"name": "200 random sets of the same norm", "value": 0.01, "passed": True, "detail": ""},
            {"name": "shuffled attributes", "value": 0.4, "passed": False, "detail": "p = 0.4 on 1,000 shuffles"},
        ],
        "verdict": "not met",
        "reasons": ["control failed: shuffled attributes (p = 0.4 on 1,000 shuffles)"],
    }


def test_an_interval_that_cannot_be_had_is_said_so():
    got = claim(interval_note="not estimable (n = 1)").to_json()
    assert got["interval"] is None
    assert got["interval_note"] == "not estimable (n = 1)"


def test_an_interval_of_zero_to_zero_is_one():
    assert claim(interval=(0.0, 0.0)).to_json()["interval"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("said", "reads"),
    [
        ("loses -0.00 (-0.01 to -0.0)", "loses 0.00 (-0.01 to 0.0)"),
        ("changes by −0 %.", "changes by 0 %."),
        ("it is -0.00.", "it is 0.00."),
        ("-0.000, -0", "0.000, 0"),
        ("-0.001 and -0.5 and -10 and -0.00e-3", "-0.001 and -0.5 and -10 and -0.00e-3"),
        ("1-0 at block-0.0 and 3.-0", "1-0 at block-0.0 and 3.-0"),
    ],
)
def test_what_is_rounded_to_zero_has_no_sign(said, reads):
    assert without_signed_zero(said) == reads
    got = claim(statement=said, controls=(Control("other", 0.0, False, said),))
    assert got.statement == got.controls[0].detail == reads
    assert got.reasons == (f"control failed: other ({reads})",)


@given(st.floats(-20, 20), st.integers(0, 4))
def test_a_sign_is_taken_off_exactly_where_every_digit_is_zero(value, digits):
    shown = f"{value:.{digits}f}"
    assert without_signed_zero(f"({shown} to {shown})") == "({0} to {0})".format(
        shown if float(shown) else shown.lstrip("-")
    )
