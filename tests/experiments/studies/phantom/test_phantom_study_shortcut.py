"""Two hospitals from one set of patients, and a plan that grows only where the discovery patients give reason."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from experiments.studies.dr_screening import DR_SCREENING
from experiments.studies.phantom.config import PhantomStudyConfig
from experiments.studies.phantom.marks import ENVIRONMENTS, MarkedPairs
from experiments.studies.phantom.patients import study_patients
from experiments.studies.phantom.shortcut import (
    ALIKE,
    EDITED,
    OTHERS,
    SEEN,
    Suspected,
    _seen_control,
    confirm,
    counted,
    planned,
)
from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import ConfigError
from mechinterp.progress import SILENT


def pairs(n: int) -> MarkedPairs:
    inputs = torch.zeros(2, n, 1, 1, 1)
    inputs[1] = 1.0  # the mark, and nothing else
    inputs += 10 * torch.arange(n)[:, None, None, None]
    positive = np.arange(n) % 2 == 1
    return MarkedPairs(inputs, positive, np.array([f"p{i}" for i in range(n)], dtype=object), AttributeTable.empty(n))


def bench(*, truth_known: bool = True) -> Any:
    return SimpleNamespace(patients=SimpleNamespace(truth_known=truth_known), case=DR_SCREENING)


def edited(full: object, strength: float) -> Any:
    return SimpleNamespace(method="ablate", strength=strength, full=full)


def test_at_one_hospital_the_mark_goes_with_the_label_and_at_the_other_with_nothing() -> None:
    made = pairs(200)
    shown, hospital = made.dealt(seed=0)
    marks = shown.flatten().numpy() % 10
    phi = {name: np.corrcoef(marks[hospital == name], made.positive[hospital == name])[0, 1] for name in ENVIRONMENTS}
    assert phi[ENVIRONMENTS[0]] == pytest.approx(0.9, abs=0.03)
    assert phi[ENVIRONMENTS[1]] == pytest.approx(0.0, abs=0.03)


def test_every_patient_is_at_one_hospital_with_as_many_ill_ones_at_either() -> None:
    made = pairs(200)
    shown, hospital = made.dealt(seed=3)
    assert (shown.flatten().numpy() // 10).tolist() == list(range(200))
    assert [int(made.positive[hospital == name].sum()) for name in ENVIRONMENTS] == [50, 50]


def test_pairs_are_the_images_of_the_set_and_their_counterfactuals() -> None:
    config = PhantomStudyConfig(patients=20, condition="shortcut")
    side = study_patients(DR_SCREENING, config, SILENT).discovery

    def prepare(shown):
        return torch.from_numpy(np.stack([image.pixels for image in shown]))

    made = MarkedPairs.of(
        SimpleNamespace(case=DR_SCREENING, config=SimpleNamespace(sizes=SimpleNamespace(paired=6)),
                        model=SimpleNamespace(prepare=prepare)),
        side,
    )  # fmt: skip
    rendered = side.rendered(6)
    assert len({p.parameters.camera_tag for p in rendered}) == 2
    for there in (0, 1):
        expected = prepare([p.counterfactual(camera_tag=there) for p in rendered])
        assert torch.equal(made.inputs[there], expected)
    assert made.patients.tolist() == list(side.patients[:6])


def test_photographs_cannot_be_paired() -> None:
    with pytest.raises(ConfigError, match="take phantoms"):
        MarkedPairs.of(bench(truth_known=False), SimpleNamespace(phantoms=None))


def test_another_seed_deals_otherwise() -> None:
    made = pairs(100)
    assert (made.dealt(0)[1] != made.dealt(1)[1]).any()


def test_a_difference_that_is_beyond_chance_and_too_small_to_matter_does_not_count() -> None:
    search: Any = SimpleNamespace(found=[SimpleNamespace(difference=d) for d in (-0.2, 0.06, 0.004)])
    assert [f.difference for f in counted(search, distance=5.0)] == [-0.2, 0.06]
    assert len(counted(search, distance=0.3)) == 3


def test_an_edit_is_planned_only_where_the_discovery_patients_raised_an_alarm() -> None:
    quiet = Suspected(SimpleNamespace(), 5.0, None)
    loud = Suspected(SimpleNamespace(), 5.0, edited(object(), 1.0))
    assert [test.name for test in planned(bench())] == [ALIKE]
    assert planned(bench(), quiet) == planned(bench())
    search, edit = planned(bench(), loud)
    assert search == planned(bench())[0]
    assert edit.name == EDITED
    assert len(edit.controls) == 3


def test_an_edit_that_changes_nothing_has_no_random_edits_of_its_size_beside_it() -> None:
    still = Suspected(SimpleNamespace(), 5.0, edited(object(), 0.0))
    assert planned(bench(), still)[1].controls == (OTHERS,)


def test_on_photographs_nothing_is_planned_and_the_report_says_what_to_use_instead() -> None:
    assert planned(bench(truth_known=False)) == ()
    found = confirm(bench(truth_known=False), None)
    assert found.claims == ()
    assert "mechinterp shortcuts" in found.limits[0]


def test_features_that_see_nothing_cannot_say_that_nothing_serves_the_mark() -> None:
    assert SEEN in planned(bench())[0].controls
    assert _seen_control(0.8, 0.7).passed is True
    blind = _seen_control(0.1, 0.7)
    assert blind.passed is False
    assert "10% goes through the features" in blind.detail
    assert _seen_control(float("nan"), 0.7).passed is None
