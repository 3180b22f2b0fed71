"""Patients are divided before anything is opened; labels shuffled where that is planted; folders refused in one line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.studies.dr_screening import DR_SCREENING
from experiments.studies.phantom.config import PhantomStudyConfig
from experiments.studies.phantom.patients import study_patients
from mechinterp.errors import ConfigError, ImagesError
from mechinterp.progress import SILENT


def folder(path: Path, patients: int, *, label: str = "referable", other: str = "not referable") -> Path:
    (path / "images").mkdir(parents=True)
    with (path / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "label", "group", "lesion_area_mm2"])
        for i in range(patients):
            Image.fromarray(np.full((8, 8, 3), i, dtype=np.uint8)).save(path / "images" / f"{i}.png")
            rows.writerow([f"images/{i}.png", label if i % 2 else other, f"eye{i // 2}", i / 10])
    return path


def test_no_patient_is_on_both_sides_and_half_of_each_is_ill() -> None:
    found = study_patients(DR_SCREENING, PhantomStudyConfig(patients=30), SILENT)
    assert not set(found.discovery.patients) & set(found.confirmation.patients)
    assert len(found.discovery.patients) == len(found.confirmation.patients) == 30
    assert found.discovery.positive.mean() == found.confirmation.positive.mean() == 0.5
    assert found.truth_known


def test_shuffled_labels_go_with_their_attributes_and_not_with_the_images() -> None:
    plain = study_patients(DR_SCREENING, PhantomStudyConfig(patients=60), SILENT).discovery
    mixed = study_patients(DR_SCREENING, PhantomStudyConfig(patients=60, condition="shuffled-labels"), SILENT).discovery
    before, after = (s.images.attributes.column("lesion_area_mm2") for s in (plain, mixed))
    assert abs(np.corrcoef(before, after)[0, 1]) < 0.4
    assert np.array_equal(mixed.positive, after >= 0.3)


def test_with_the_shortcut_the_mark_goes_with_the_label_at_the_explored_hospital_alone() -> None:
    found = study_patients(DR_SCREENING, PhantomStudyConfig(patients=100, condition="shortcut"), SILENT)
    phi = [
        np.corrcoef(side.positive, side.images.attributes.column("camera_tag"))[0, 1]
        for side in (found.discovery, found.confirmation)
    ]
    assert phi[0] == pytest.approx(0.9, abs=0.03)
    assert phi[1] == pytest.approx(0.0, abs=0.03)


def test_a_folder_is_divided_by_its_patients(tmp_path: Path) -> None:
    config = PhantomStudyConfig(data=str(folder(tmp_path / "eyes", 100)))
    found = study_patients(DR_SCREENING, config, SILENT)
    assert len(found.discovery.patients) == len(found.confirmation.patients) == 25
    assert not set(found.discovery.patients) & set(found.confirmation.patients)
    assert not found.truth_known


def test_one_image_without_a_patient_does_not_put_the_others_patients_on_both_sides(tmp_path: Path) -> None:
    path = folder(tmp_path / "eyes", 100)
    table = path / "metadata.csv"
    table.write_text(table.read_text().replace("eye3,", ",", 1))
    found = study_patients(DR_SCREENING, PhantomStudyConfig(data=str(path)), SILENT)
    sides = set(found.discovery.patients), set(found.confirmation.patients)
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 51
    assert "1 of 100 images name no patient: each was counted as one of its own." in found.notes


def test_a_folder_with_too_few_patients_is_refused(tmp_path: Path) -> None:
    config = PhantomStudyConfig(data=str(folder(tmp_path / "eyes", 10)))
    with pytest.raises(ImagesError, match="5 patients: a study needs 40"):
        study_patients(DR_SCREENING, config, SILENT)


def test_a_folder_whose_labels_are_grades_is_told_to_say_which_count(tmp_path: Path) -> None:
    path = folder(tmp_path / "eyes", 100, label="3", other="0")
    with pytest.raises(ImagesError, match="--positive says which"):
        study_patients(DR_SCREENING, PhantomStudyConfig(data=str(path)), SILENT)
    found = study_patients(DR_SCREENING, PhantomStudyConfig(data=str(path), positive="3"), SILENT)
    assert found.discovery.positive.mean() == 0.5


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"condition": "broken"}, "condition is 'broken'"),
        ({"architecture": "mlp"}, "architecture is 'mlp'"),
        ({"patients": 5}, "no interval can be given under 20"),
        ({"n_random": 5}, "fewer than 20 cannot show"),
        ({"epochs": 0}, "epochs is 0"),
        ({"condition": "shortcut", "data": "eyes"}, "leave out --data and --model"),
        ({"weights": "w.safetensors"}, "--weights without --model"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PhantomStudyConfig(**settings)


def test_further_patients_are_others_three_for_each_one_to_confirm_on_and_half_of_them_ill() -> None:
    found = study_patients(DR_SCREENING, PhantomStudyConfig(patients=30), SILENT)
    assert found.further is not None
    assert len(found.further.patients) == 90
    assert found.further.positive.mean() == 0.5
    assert not set(found.further.patients) & {*found.discovery.patients, *found.confirmation.patients}
    assert found.opened_once == found.confirmation.patients + found.further.patients
    # not by name alone: none of their images is one of the others'
    shown = {side.images.read(i).tobytes() for side in (found.discovery, found.confirmation) for i in range(3)}
    assert not shown & {found.further.images.read(i).tobytes() for i in range(3)}
    keyed = {(found.further.phantoms.identities[i].seed) for i in found.further.positions.tolist()}
    assert keyed.isdisjoint(w.seed for w in found.discovery.phantoms.identities)


def test_a_folder_has_no_further_patients(tmp_path: Path) -> None:
    found = study_patients(DR_SCREENING, PhantomStudyConfig(data=str(folder(tmp_path / "eyes", 100))), SILENT)
    assert found.further is None
    assert found.opened_once == found.confirmation.patients


def test_further_patients_are_shown_as_at_the_hospital_where_the_mark_goes_with_nothing() -> None:
    found = study_patients(DR_SCREENING, PhantomStudyConfig(patients=60, condition="shortcut"), SILENT).further
    assert found is not None
    tag = found.images.attributes.column("camera_tag")
    assert np.corrcoef(found.positive, tag)[0, 1] == pytest.approx(0.0, abs=0.03)
