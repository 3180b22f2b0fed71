"""breast-cancer: which mammograms are studied, and which of them can be rendered with more of a finding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.cli import entry
from experiments.report import read_report
from experiments.studies.breast_cancer import BREAST_CANCER, QUICK_IMAGES
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


def test_its_circuit_is_planned_to_be_one_of_few_neurons_with_features_as_the_rival() -> None:
    tests = planned(BREAST_CANCER)
    assert [test.name for test in tests] == [
        f"a circuit of neurons carries the answer ({how} replacement)" for how in ("mean", "resample")
    ]
    assert "the 10 largest edges between neurons" in tests[0].method
    assert "circuit of as many edges between features" in tests[0].controls


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
