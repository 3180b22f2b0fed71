"""What a command prints where."""

from __future__ import annotations

import json

from experiments.cli.console import ConsoleProgress, emit, emit_table


def test_progress_passes_items_through_and_speaks_on_stderr(capsys):
    progress = ConsoleProgress()
    assert list(progress.track([1, 2, 3], "counting")) == [1, 2, 3]
    progress.note("a note with [brackets]")
    out, err = capsys.readouterr()
    assert out == ""
    assert "counting (3)" in err
    assert "[brackets]" in err


def test_a_bar_is_drawn_on_a_terminal(monkeypatch):
    progress = ConsoleProgress()
    progress.console = type(progress.console)(force_terminal=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    assert list(progress.track(iter(range(4)), "drawing", total=4)) == [0, 1, 2, 3]


def test_json_is_one_object_without_nan(capsys):
    emit({"a": float("nan"), "b": (1, 2)}, "text", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1, 2]}
    emit({"a": 1}, "text", as_json=False)
    assert capsys.readouterr().out == "text\n"


def test_a_piped_table_keeps_rows_whole(capsys):
    emit_table({}, "title", ["name"], [["x" * 120]], as_json=False)
    assert "x" * 120 in capsys.readouterr().out


def test_a_note_in_a_log_file_is_one_line_however_long(capsys):
    said = "a sentence that goes on and on " * 20
    ConsoleProgress().note(said)
    assert capsys.readouterr().err == said + "\n"
