"""What a study may change in an image, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.studies.breast_cancer import BREAST_CANCER
from experiments.studies.dr_screening import DR_SCREENING
from experiments.studies.phantom.case import ChangedQuantity, StudyCase
from mechinterp.phantoms.datasets import phantom_kind
from mechinterp.phantoms.mammogram.parameters import MammogramParameters
from mechinterp.phantoms.quantities import quantities

MARGIN = ChangedQuantity(
    parameter="mass_spiculation", label="margin", steps=(0.2, 0.4), unit="", where="mass_diameter_mm"
)


@pytest.mark.parametrize(
    ("changes", "possible"),
    [
        ({"mass_diameter_mm": 20.0, "mass_spiculation": 0.5}, True),
        ({"mass_diameter_mm": 20.0, "mass_spiculation": 0.7}, False),  # 1.1 cannot be rendered
        ({"mass_diameter_mm": 0.0, "mass_spiculation": 0.5}, False),  # no mass has no margin
    ],
)
def test_a_change_is_possible_where_the_finding_is_there_and_every_step_can_be_rendered(
    changes: dict[str, Any], possible: bool
) -> None:
    assert MARGIN.possible(MammogramParameters(**changes)) is possible


def test_a_change_is_possible_only_where_the_label_depends_on_it() -> None:
    count = ChangedQuantity(
        parameter="calcification_count", label="count", steps=(5,), unit="", within=("calcification_extent_mm", 0, 20)
    )
    assert count.possible(MammogramParameters(calcification_count=3, calcification_extent_mm=20.0))
    assert not count.possible(MammogramParameters(calcification_count=3, calcification_extent_mm=21.0))


def test_amounts_carry_their_unit_and_plain_numbers_none() -> None:
    area = ChangedQuantity(parameter="exudate_area_mm2", label="exudate area", steps=(0.3,))
    assert (area.amount(0.3), area.per) == ("0.3 mm²", "per mm²")
    assert (MARGIN.amount(0.2), MARGIN.per) == ("0.2", "per unit")


@pytest.mark.parametrize("case", [DR_SCREENING, BREAST_CANCER], ids=lambda case: case.name)
def test_a_case_names_what_its_phantom_has(case: StudyCase) -> None:
    kind = phantom_kind(case.phantom)
    known = quantities(kind.parameters())
    changed = [*case.quantities, *([] if case.bystander is None else [case.bystander])]
    for quantity in changed:
        declared = known[quantity.parameter]
        assert declared.unit == (quantity.unit or "1")
        assert not quantity.where or quantity.where in known
    assert set(case.structures) <= set(kind.structures)
    assert set(case.marks) <= set(kind.marks)
    assert {case.target, case.reference} == set(kind.class_names)
    assert case.primary in kind.attributes([kind.parameters()]).names
