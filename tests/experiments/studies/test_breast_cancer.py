"""breast-cancer: which mammograms are studied, and which of them can be rendered with more of a finding."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from experiments.cli import entry
from experiments.report import read_report
from experiments.studies.breast_cancer import BREAST_CANCER, QUICK_IMAGES
from experiments.studies.dr_screening import DR_SCREENING
from experiments.studies.phantom import localization
from experiments.studies.phantom.bench import StudyBench
from experiments.studies.phantom.config import PhantomStudyConfig
from experiments.studies.phantom.patients import study_patients
from experiments.studies.phantom.study import UNEXPLORED
from experiments.studies.phantom.transparency import planned
from mechinterp.errors import ConfigError
from mechinterp.progress import SILENT


def test_the_quick_reference_is_studied_on_the_images_it_was_trained_on() -> None:
    quick = study_patients(BREAST_CANCER, PhantomStudyConfig(patients=20, quick=True), SILENT)
    full = study_patients(BREAST_CANCER, PhantomStudyConfig(patients=20, quick=True, reference="full"), SILENT)
    densest = [
        max(side.images.attributes.column("density_percent").max() for side in (found.discovery, found.confirmation))
        for found in (quick, full)
    ]
    assert densest[0] <= QUICK_IMAGES["densest_percent"] < densest[1]


def test_with_the_shortcut_the_marker_goes_with_the_label_at_the_explored_clinic_alone() -> None:
    found = study_patients(BREAST_CANCER, PhantomStudyConfig(patients=100, condition="shortcut"), SILENT)
    phi = [
        np.corrcoef(side.positive, side.images.attributes.column("view_marker"))[0, 1]
        for side in (found.discovery, found.confirmation)
    ]
    assert phi == pytest.approx([0.9, 0.0], abs=0.03)


def test_only_images_that_hold_a_finding_are_rendered_with_more_of_it() -> None:
    side = study_patients(BREAST_CANCER, PhantomStudyConfig(patients=40), SILENT).discovery
    margin = BREAST_CANCER.quantities[0]
    some = side.rendered(5, margin.possible)
    assert some
    assert all(p.parameters.mass_diameter_mm > 0 for p in some)
    assert len({p.identity.patient for p in some}) == len(some)


def test_its_circuit_is_planned_to_be_one_of_few_features_with_neurons_as_the_rival() -> None:
    tests = planned(BREAST_CANCER)
    assert [test.name for test in tests] == [
        f"a circuit of features carries the answer ({how} replacement)" for how in ("mean", "resample")
    ]
    assert "the 14 largest edges between features" in tests[0].method
    assert "circuit of as many edges between neurons" in tests[0].controls


def test_calcifications_are_counted_where_the_label_counts_them() -> None:
    side = study_patients(BREAST_CANCER, PhantomStudyConfig(patients=100, quick=True), SILENT).discovery
    some = side.rendered(10, BREAST_CANCER.quantities[1].possible)
    assert some
    for image in some:
        assert image.parameters.calcification_count > 0
        assert image.parameters.calcification_extent_mm <= 20


def test_marks_lie_on_its_images_whatever_they_show() -> None:
    found = study_patients(BREAST_CANCER, PhantomStudyConfig(patients=200), SILENT)
    for side in (found.discovery, found.confirmation):
        for mark in BREAST_CANCER.marks:
            there = side.images.attributes.column(mark)
            assert 0.35 < there.mean() < 0.65
            assert abs(np.corrcoef(side.positive, there)[0, 1]) < 0.25


def test_maps_are_tested_by_deleting_tiles_whose_size_the_plan_names() -> None:
    bench = SimpleNamespace(case=BREAST_CANCER, structures=BREAST_CANCER.structures)
    (test,) = localization.planned(cast(StudyBench, bench))
    assert "deleted are tiles of 8 mm" in test.method
    (other,) = localization.planned(cast(StudyBench, SimpleNamespace(case=DR_SCREENING, structures=("exudates",))))
    assert "tiles" not in other.method


@pytest.mark.slow
def test_a_network_of_random_weights_is_not_interpreted_and_nothing_is_trained_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECHINTERP_CACHE", str(tmp_path / "cache"))
    given = ["--quick", "--patients", "20", "--condition", "random-network", "--json"]
    assert entry.run(["study", "breast-cancer", "--out", str(tmp_path / "run"), *given]) == 0
    report = read_report(tmp_path / "run")
    assert {report.verdicts[name].word for name in report.use_case.needs} == {"not met"}
    assert report.strict() == 1
    assert UNEXPLORED in report.limits
    assert not (tmp_path / "cache").exists()


def test_a_recipe_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="reference is 'fast'"):
        PhantomStudyConfig(reference="fast")  # type: ignore[arg-type]
