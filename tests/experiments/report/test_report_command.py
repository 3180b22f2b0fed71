"""``mechinterp report RUN``: rebuilt from what the run holds, strict when asked."""

import json

import made_report as made
import pytest

from experiments.cli import entry
from experiments.report import write_report
from experiments.run_directory import Run


def finished(folder, report):
    run = Run.create(folder)
    with run.stage("study"):
        write_report(folder, report)
    (folder / "results.json").write_text("{}")
    return folder


def test_all_met_is_zero_strictly_and_the_page_is_made_again(tmp_path, capsys):
    run = finished(tmp_path, made.report())
    (run / "report.html").unlink()
    assert entry.run(["report", str(run), "--strict"]) == 0
    said = capsys.readouterr().out
    assert "5 of 5 needed elements are met" in said
    assert (run / "report.html").exists()


def test_one_element_short_is_one_strictly_and_zero_otherwise(tmp_path, capsys):
    run = finished(tmp_path, made.report({"localization": (made.claim(made.TESTS[0]),)}))
    assert entry.run(["report", str(run)]) == 0
    assert entry.run(["report", str(run), "--strict", "--json"]) == 1
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["summary"] == {
        "n_needed": 5, "n_needed_met": 1, "strict": 1,
        "unmet": ["visual recognizability", "physical attribution", "model transparency", "actionability"],
    }  # fmt: skip


def test_a_folder_that_is_no_run_is_one_line(tmp_path, capsys):
    assert entry.run(["report", str(tmp_path / "nothing")]) == 2
    assert "is no run" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--help"])
def test_help_has_examples(flag, capsys):
    assert entry.run(["report", flag]) == 0
    assert "--strict" in capsys.readouterr().out
