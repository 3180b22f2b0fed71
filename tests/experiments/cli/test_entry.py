"""The command line's frame: quick help, one line for every mistake, the right exit code."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys

import pytest

from experiments.cli import entry


def run(capsys, *argv):
    code = entry.run(list(argv))
    out, err = capsys.readouterr()
    return code, out, err


def one_line(err):
    lines = [line for line in err.splitlines() if line.startswith("mechinterp:")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def test_help_answers_in_half_a_second_and_imports_nothing_heavy():
    code = "import sys; from experiments.cli.entry import run; run(['--help']); print(sorted(m for m in sys.modules if m in {'torch', 'numpy', 'plotly', 'sae_lens'}))"
    seconds = []
    for _ in range(5):
        # processor time, not the clock: what else the machine does must not matter
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.stdout.rstrip().endswith("[]")
    assert statistics.median(seconds) < 0.5


@pytest.mark.parametrize("command", list(entry.COMMANDS))
def test_every_command_explains_itself_with_an_example(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"mechinterp {command}" in out
    assert "Example" in out


def test_the_version(capsys):
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert out.startswith("mechinterp 0.")


def test_an_unknown_command_is_refused_with_the_nearest(capsys):
    code, _, err = run(capsys, "captrue")
    assert code == 2
    assert "did you mean 'capture'" in one_line(err)


def test_an_unknown_flag_is_refused_by_name(capsys):
    code, _, err = run(capsys, "sites", "timm:resnet18", "--colour")
    assert code == 2
    assert "--colour" in one_line(err)


def test_a_missing_flag_is_named(capsys):
    code, _, err = run(capsys, "capture", "--model", "timm:resnet18")
    assert code == 2
    assert "--images" in one_line(err) or "--site" in one_line(err)


def test_a_bug_of_ours_exits_70_in_one_line(capsys, monkeypatch):
    from experiments.cli.commands import models

    def broken(*_args, **_kwargs):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(models, "emit_table", broken)
    code, _, err = run(capsys, "models")
    assert code == 70
    line = one_line(err)
    assert "bug" in line
    assert "first line" in line
    assert "second line" not in line


def test_an_interruption_is_no_bug(capsys, monkeypatch):
    from experiments.cli.commands import models

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "emit_table", interrupted)
    code, _, err = run(capsys, "models")
    assert code == 130
    assert "interrupted" in one_line(err)


def test_models_and_doctor_speak_json(capsys):
    code, out, _ = run(capsys, "models", "--json")
    assert code == 0
    assert json.loads(out)["sources"][0]["spec"] == "timm:NAME"
    code, out, _ = run(capsys, "doctor", "--json")
    assert code == 0
    said = json.loads(out)
    assert said["ok"]
    assert {"what", "state", "detail"} == set(said["checks"][0])
