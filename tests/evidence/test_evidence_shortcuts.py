"""A small run of the check on shortcuts: every figure that the page shows is there."""

from __future__ import annotations

import pytest

from evidence import shortcuts
from mechinterp.progress import SILENT


@pytest.mark.slow
def test_a_small_run_searches_edits_and_says_so():
    figures = shortcuts.run(True, SILENT)
    (row,) = figures["rows"]
    assert set(row["bills"]) == {"ablate", "leace", "retrain-head"}
    assert row["bills"][row["chosen"]]["read"] > 10
    assert 0 < row["p"] <= 1
    page = shortcuts.render(figures)
    assert "ranked first in" in page
    assert page.count("| retrain-head |") == 1
