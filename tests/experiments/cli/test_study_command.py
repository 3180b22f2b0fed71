"""The flags of several studies behind one command: each study takes its own."""

from __future__ import annotations

import pytest

from experiments.cli import entry


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dr-screenin", "--out", "x"], "no study 'dr-screenin'"),
        (["dr-screening", "--out", "x", "--threshold", "0.5"], "study dr-screening has no --threshold"),
        (["brain-mri", "--out", "x", "--condition", "shortcut"], "study brain-mri has no --condition"),
        (["dr-screening", "--out", "x", "--patients", "3"], "patients is 3"),
    ],
)
def test_what_a_study_does_not_take_is_refused_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(["study", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_help_says_which_study_takes_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["study", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--condition" in shown
    assert "dr-screening" in shown
