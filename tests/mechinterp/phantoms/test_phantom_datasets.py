import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mechinterp.errors import ConfigError, ImagesError
from mechinterp.phantoms.contact_sheet import contact_sheet
from mechinterp.phantoms.datasets import CLASS_NAMES, FundusStudy, fundus_images, fundus_phantoms
from mechinterp.phantoms.fundus import STRUCTURES, FundusRenderer
from mechinterp.phantoms.planted_shortcut import PlantedShortcut, assign_mark


def small(**settings):
    return fundus_phantoms(FundusStudy(**{"patients": 8, "images_per_patient": 2, "size_px": 48} | settings))


def phi(a, b):
    return np.corrcoef(np.asarray(a, dtype=float), np.asarray(b, dtype=float))[0, 1]


def test_patients_stand_in_one_split_and_half_of_each_split_is_referable():
    eyes = small(patients=200, images_per_patient=3)
    split_of = {}
    for group, split in zip(eyes.groups, eyes.splits, strict=True):
        assert split_of.setdefault(group, split) == split
    assert {s: len(eyes.where(s)) // 3 for s in ("train", "validation", "test")} == {
        "train": 120, "validation": 30, "test": 50,
    }  # fmt: skip
    referable = np.array([p.referable for p in eyes.parameters])
    for split in ("train", "validation", "test"):
        assert referable[eyes.where(split)].mean() == 0.5


def test_the_image_set_holds_labels_groups_splits_spacing_and_units():
    eyes = small()
    images = eyes.images
    assert len(images) == 16
    assert set(images.labels) == set(CLASS_NAMES)
    assert images.groups == eyes.groups
    assert images[3].spacing_mm == (0.25, 0.25)
    assert images[3].pixels.shape == (48, 48, 3)
    assert images.attributes["lesion_area_mm2"].unit == "mm²"
    assert images.attributes["camera"].kind == "categorical"
    area, referable = (images.attributes.column(c) for c in ("lesion_area_mm2", "referable"))
    assert np.array_equal(area >= 0.3, referable == 1)


def test_what_is_not_there_has_no_contrast():
    table = small(patients=60).attributes()
    absent = table.column("exudate_area_mm2") == 0
    assert 0 < absent.sum() < len(absent)
    assert np.array_equal(np.isnan(table.column("exudate_contrast")), absent)
    assert np.array_equal(table.column("exudate_count") == 0, absent)
    assert not np.isnan(table.column("pigmentation")).any()


def test_an_image_set_opens_again_from_its_source():
    images = small(shortcut=PlantedShortcut(mark="ruler_mark", train=0.5)).images
    source = dict(images.source)
    assert source.pop("kind") == "fundus_phantom"
    again = fundus_images(**source)
    assert again.ids == images.ids
    assert np.array_equal(again[5].pixels, images[5].pixels)
    assert again.hash == images.hash


def test_another_seed_gives_other_patients_and_more_patients_keep_their_anatomy():
    assert not np.array_equal(small().phantom(0).pixels, small(seed=1).phantom(0).pixels)
    few, many = small(), small(patients=12)
    for name in ("disc_area_mm2", "pigmentation", "blur_mm"):
        assert np.array_equal(few.attributes().column(name), many.attributes().column(name)[:16])


def test_images_of_a_patient_share_the_eye():
    table = small().attributes()
    for name in ("disc_area_mm2", "pigmentation", "camera", "exudate_contrast"):
        pairs = table.column(name).reshape(-1, 2)
        assert np.array_equal(pairs[:, 0], pairs[:, 1], equal_nan=True)
    pairs = table.column("noise").reshape(-1, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()


@settings(deadline=None, max_examples=60)
@given(st.floats(-1, 1), st.integers(20, 400), st.floats(0.1, 0.9), st.integers(0, 1000))
def test_the_mark_correlates_with_the_label_as_asked(correlation, n, share, seed):
    labels = np.arange(n) < max(2, min(n - 2, round(share * n)))
    mark = assign_mark(labels, correlation, np.random.default_rng(seed))
    rounding = 1 / (n * labels.mean() * (1 - labels.mean()))
    assert phi(mark, labels) == pytest.approx(correlation, abs=1.5 * rounding + 0.02)


def test_the_shortcut_is_set_apart_for_train_and_test():
    eyes = small(patients=400, images_per_patient=1, shortcut=PlantedShortcut(mark="camera_tag", train=0.9, test=-0.3))
    referable = np.array([p.referable for p in eyes.parameters])
    tag = np.array([p.camera_tag for p in eyes.parameters])
    for split, correlation in (("train", 0.9), ("validation", 0.9), ("test", -0.3)):
        chosen = eyes.where(split)
        assert phi(tag[chosen], referable[chosen]) == pytest.approx(correlation, abs=0.03)
    assert not any(p.ruler_mark for p in eyes.parameters)
    without = small(patients=400, images_per_patient=1)
    plain = [dataclasses.replace(p, camera_tag=0) for p in eyes.parameters]
    assert plain == list(without.parameters)


def test_contrast_can_be_confounded_with_area():
    for rho in (0.0, 0.8):
        eyes = small(patients=600, images_per_patient=1, contrast_correlation=rho)
        table = eyes.attributes()
        area, contrast = table.column("lesion_area_mm2"), table.column("haemorrhage_contrast")
        there = ~np.isnan(contrast)
        assert spearmanr(area[there], contrast[there])[0] == pytest.approx(rho, abs=0.12)


def test_rendering_all_equals_rendering_each():
    eyes = small(patients=4, images_per_patient=1)
    pixels, coverage = eyes.rendered(["exudates", "disc"])
    assert pixels.shape == (4, 48, 48, 3)
    assert coverage.shape == (4, 2, 48, 48)
    assert np.array_equal(pixels[2], eyes.phantom(2).pixels)
    assert np.array_equal(coverage[2, 1] >= 0.5, eyes.masks(2)["disc"])
    assert set(eyes.masks(0)) == set(STRUCTURES)


def test_users_mistakes_are_named():
    with pytest.raises(ConfigError, match="patients is 1: give at least 4"):
        FundusStudy(patients=1)
    with pytest.raises(ConfigError, match="images_per_patient is 0"):
        FundusStudy(images_per_patient=0)
    with pytest.raises(ConfigError, match="leave nothing to train on"):
        FundusStudy(validation_share=0.5, test_share=0.5)
    with pytest.raises(ConfigError, match="contrast_correlation is 2"):
        FundusStudy(contrast_correlation=2.0)
    with pytest.raises(ConfigError, match="correlation in test is -3: it lies within -1 and 1"):
        PlantedShortcut(test=-3)
    with pytest.raises(ImagesError, match="no structure 'lesions'"):
        small(patients=4).rendered(["lesions"])


def test_a_folder_of_files_is_read_back_with_all_it_held(tmp_path):
    from mechinterp.images.image_folder import from_folder

    eyes = small(patients=6, images_per_patient=1, shortcut=PlantedShortcut())
    out = eyes.write_image_folder(tmp_path / "eyes")
    read, images = from_folder(out), eyes.images
    assert read.labels == images.labels
    assert read.groups == images.groups
    assert read.splits == images.splits
    assert read.spacing_mm == images.spacing_mm
    for name in images.attributes.names:
        np.testing.assert_allclose(read.attributes.column(name), images.attributes.column(name), rtol=1e-6)
        assert read.attributes[name].unit == images.attributes[name].unit
        assert read.attributes[name].kind == images.attributes[name].kind
    assert read.attributes.categories["camera"] == images.attributes.categories["camera"]
    assert np.abs(read[2].scaled() - images[2].pixels).max() <= 0.5 / 255 + 1e-6
    from PIL import Image

    mask = np.asarray(Image.open(out / "masks" / "disc" / f"{eyes.ids[2]}.png")) >= 128
    assert (mask != eyes.masks(2)["disc"]).mean() < 0.001


def test_masks_are_left_out_when_not_wanted(tmp_path):
    out = small(patients=4, images_per_patient=1).write_image_folder(tmp_path / "eyes", masks=False)
    assert not (out / "masks").exists()
    assert len(list((out / "images").iterdir())) == 4


def test_a_contact_sheet_lays_images_side_by_side():
    eyes = small(patients=6, images_per_patient=1)
    phantoms = [eyes.phantom(i) for i in range(5)]
    sheet = contact_sheet(phantoms, columns=3, gap_px=2)
    assert sheet.shape == (98, 148, 3)
    assert np.array_equal(sheet[50:, 50:98], phantoms[4].pixels)
    assert (sheet[50:, 100:] == 1).all()
    outlined = contact_sheet(phantoms, columns=3, gap_px=2, outlined=["disc"])
    assert not np.array_equal(outlined, sheet)
    with pytest.raises(ImagesError, match="at least one image"):
        contact_sheet([])
    with pytest.raises(ImagesError, match="images of one size"):
        contact_sheet([phantoms[0], FundusRenderer(64)()])
