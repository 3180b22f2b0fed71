"""breast-cancer: which mammograms are studied, and which of them can be rendered with more of a finding."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.studies.breast_cancer import BREAST_CANCER, QUICK_IMAGES
from experiments.studies.phantom.config import PhantomStudyConfig
from experiments.studies.phantom.patients import study_patients
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


def test_a_recipe_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="reference is 'fast'"):
        PhantomStudyConfig(reference="fast")  # type: ignore[arg-type]
