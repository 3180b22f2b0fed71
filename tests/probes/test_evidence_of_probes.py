"""Small runs of what is measured over hundreds of seeds: the figures hold what their page says."""

import json

import pytest

from evidence import deconfounding, probes
from mechinterp.progress import SILENT


def test_planted_readouts_are_told_apart_by_what_is_held_fixed(monkeypatch):
    monkeypatch.setattr(deconfounding, "PATIENTS", 60)
    figures = deconfounding.planted(1, SILENT)
    rows = {(r["used"], r["shape"], r["method"]): r for r in figures["rows"]}
    assert len(rows) == 16
    assert rows["area", "straight", "naive"]["cover"] == 0
    assert figures["correlation"] == pytest.approx(0.78, abs=0.15)


def test_tcav_on_nothing_is_counted():
    figures = probes.tcav_on_nothing(2, SILENT)
    assert figures["runs"] == 2
    assert 0 <= figures["rate"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("check", [deconfounding, probes])
def test_a_small_run_renders_as_a_page(check):
    figures = json.loads(json.dumps(check.run(True, SILENT)))
    page = check.render(figures)
    assert "**met**" in page or "**not met**" in page
    assert page.count("|---|") > 1
