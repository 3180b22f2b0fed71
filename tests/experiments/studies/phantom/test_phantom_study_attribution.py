"""How far a mark moves answers, and when an answer counts as following a quantity through a direction."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.studies.breast_cancer import BREAST_CANCER
from experiments.studies.dr_screening import DR_SCREENING
from experiments.studies.phantom import attribution
from experiments.studies.phantom.attribution import MARKS, SWAPPED, _either_way, _rendered_once, _used, planned
from mechinterp.claims import Claim, Control
from mechinterp.phantoms.mammogram.parameters import MammogramParameters
from mechinterp.phantoms.mammogram.renderer import MammogramRenderer
from mechinterp.progress import SILENT
from probes import Interchange

MARGIN = BREAST_CANCER.quantities[0]
N = 40
TRUE = np.random.default_rng(0).uniform(8, 12, (N, 1)) * np.array(MARGIN.steps)


def test_a_mark_that_moves_answers_both_ways_does_not_cancel():
    assert _either_way(np.array([2.0, -2.0, 1.0, -1.0])) == pytest.approx(1.5)


def used(
    monkeypatch: pytest.MonkeyPatch, *, share: float = 0.8, beyond: bool = True, ratio: float = 0.3, rivals: float = 0.1,
    mark: float = 0.2,
) -> Claim:  # fmt: skip
    """The claim where so much goes through the direction, and moving along it does so much."""
    claim = Claim("moved", "ground-truth-verified", 3.0, "logit", False, "any", (Control("dose response", 1.0, True),))
    result = SimpleNamespace(
        claims=(claim, claim), true_slope=SimpleNamespace(mean=10.0), ratio=ratio,
        steered_slope=SimpleNamespace(mean=10.0 * ratio, beyond=beyond),
    )  # fmt: skip
    through = Interchange(
        MARGIN.steps, tuple(f"p{i}" for i in range(N)), TRUE, share * TRUE,
        rivals * TRUE * np.linspace(-1, 1, 40)[:, None, None],
    )  # fmt: skip
    monkeypatch.setattr(attribution, "validate_used", lambda *_, **__: result)
    monkeypatch.setattr(attribution, "swap_along", lambda *_, **__: through)
    bench: Any = SimpleNamespace(
        model=None, objective=None, case=SimpleNamespace(bystander=None),
        config=SimpleNamespace(seed=0, sizes=SimpleNamespace(n_random=40)), progress=SILENT,
    )  # fmt: skip
    direction: Any = None  # both tests of it are replaced
    return _used(bench, direction, MARGIN, [], [], {"view_marker": np.full(N, mark)})


def test_an_answer_follows_where_the_true_effect_goes_through_the_direction(monkeypatch):
    claim = used(monkeypatch)
    assert claim.verdict == "met"
    # by hand: four fifths of every effect, of whatever size, are four fifths of the mean
    assert claim.value == pytest.approx(0.8)
    assert claim.interval == pytest.approx((0.8, 0.8))
    assert claim.numbers["slope through the direction"] == pytest.approx(8.0)
    assert claim.numbers["steered, times the true slope"] == pytest.approx(0.3)
    control = next(c for c in claim.controls if c.name == SWAPPED)
    # 95 % of 40 rivals from -0.1 to 0.1 lie within the 39th of them
    assert control.value == pytest.approx(np.quantile(np.abs(np.linspace(-0.1, 0.1, 40)), 0.95))
    assert "p 0.024" in control.detail


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        ({"share": 0.4}, "0.5 to 2 times"),
        ({"share": 2.5}, "0.5 to 2 times"),
        ({"beyond": False}, "beyond ±0.5"),
        ({"rivals": 0.9}, SWAPPED),
        ({"mark": 2.0}, MARKS),
    ],
)
def test_each_part_of_it_spoiled_the_claim_falls(monkeypatch, spoiled, said):
    claim = used(monkeypatch, **spoiled)
    assert claim.verdict != "met"
    assert any(said in reason for reason in (*claim.reasons, claim.criterion))


def test_the_plan_says_what_is_taken_over_where_a_structure_grows_and_moved_elsewhere():
    (_, margin, _), (_, exudates, _) = (
        planned(case, 40, case.primary, truth_known=True) for case in (BREAST_CANCER, DR_SCREENING)
    )
    assert "taken over, cell by cell" in margin.method
    assert SWAPPED in margin.controls
    assert "taken over" not in exudates.method + exudates.criterion
    assert SWAPPED not in exudates.controls


def test_a_counterfactual_asked_for_twice_is_rendered_once_and_is_the_same():
    image = MammogramRenderer(64)(MammogramParameters(mass_diameter_mm=20.0))
    (kept,) = _rendered_once([image])
    first, second = (kept.counterfactual(mass_spiculation=0.5) for _ in range(2))
    assert first is second
    assert np.array_equal(first.pixels, image.counterfactual(mass_spiculation=0.5).pixels)
    assert not np.array_equal(first.pixels, kept.counterfactual(mass_spiculation=0.9).pixels)
