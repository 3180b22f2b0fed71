"""Many NIfTI volumes: whole or sliced, with patients, masks and spacings."""

import nibabel
import numpy as np
import pytest

from mechinterp.attributes.from_masks import attributes_from_masks
from mechinterp.errors import ImagesError
from mechinterp.images import ImageSet, open_images
from mechinterp.images.nifti_files import from_nifti_files

rng = np.random.default_rng(0)
AFFINE = np.diag([-0.5, 0.75, 3.0, 1])  # towards the patient's left: has to be turned


def write(path, values, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return values


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "heads"
    for subject in ("01", "02"):
        for scan in ("T1w", "T2w"):
            write(
                root / f"sub-{subject}/anat/sub-{subject}_{scan}.nii.gz",
                rng.integers(0, 900, (4, 5, 6)).astype(np.int16),
            )
        labels = np.zeros((4, 5, 6), np.uint8)
        labels[0, 0, 0], labels[3, 4, 5] = 1, 2
        write(root / f"sub-{subject}/anat/sub-{subject}_T1w_dseg.nii.gz", labels)
    return root


def test_a_folder_of_volumes_has_bids_subjects_and_masks(folder):
    images = from_nifti_files(folder, volumes=True)
    assert images.ids == tuple(f"sub-{s}/anat/sub-{s}_{t}" for s in ("01", "02") for t in ("T1w", "T2w"))
    assert images.groups == ("sub-01", "sub-01", "sub-02", "sub-02")
    assert images.spacing_mm == ((3, 0.75, 0.5),) * 4
    assert images.axes == images[0].axes == 3
    stored = np.asanyarray(nibabel.load(folder / "sub-01/anat/sub-01_T1w.nii.gz").dataobj)
    # stored x runs to the left: the first is the patient's right, the last column of the picture
    by_hand = stored[::-1].transpose(2, 1, 0)[:, ::-1]
    np.testing.assert_array_equal(images[0].pixels, by_hand)
    assert images[0].intensity_range == (0, stored.max())
    masks = images.masks(0)
    assert set(masks) == {"1", "2"}
    assert np.argwhere(masks["1"]).tolist() == [[0, 4, 3]]
    assert images.masks(1) == {}


def test_slices_of_all_volumes_carry_their_patient_and_position(folder):
    images = open_images(folder)
    assert len(images) == 4 * 6
    assert images.spacing_mm[0] == (0.75, 0.5)
    assert images.groups.count("sub-02") == 12
    np.testing.assert_array_equal(images.attributes.column("slice_position")[:6], np.arange(6) * 3.0)
    whole = from_nifti_files(folder, volumes=True)
    np.testing.assert_array_equal(images[8].pixels, whole[1].pixels[2])
    np.testing.assert_array_equal(images.masks(5)["2"], whole.masks(0)["2"][5])
    again = open_images(images.source)
    assert (again.ids, again.groups, again.intensity_ranges) == (images.ids, images.groups, images.intensity_ranges)
    coronal = from_nifti_files(folder, axis="coronal", step_mm=1.5)
    assert coronal.spacing_mm[0] == (3.0, 0.5)


def test_a_table_a_window_and_a_key(folder, tmp_path):
    (folder / "metadata.csv").write_text(
        "file_name,label,group,split,age,tumour_mask_file_name\n"
        "sub-01/anat/sub-01_T1w.nii.gz,ill,Erika,train,63,sub-01/anat/sub-01_T1w_dseg.nii.gz\n"
        "sub-02/anat/sub-02_T1w.nii.gz,well,Max,test,36,\n"
    )
    (folder / "dataset.yaml").write_text("name: heads\nunits: {age: a}\n")
    images = from_nifti_files(folder, volumes=True, window="brain", key=tmp_path / "key", licence="CC0")
    assert (images.labels, images.splits, images.name) == (("ill", "well"), ("train", "test"), "heads")
    assert images[0].intensity_range == (0, 80)
    assert images.attributes["age"].unit == "a"
    assert set(images.masks(0)) == {"tumour 1", "tumour 2"}
    assert "Erika" not in repr((images.ids, images.groups))
    assert "sub-01" not in repr((images.ids, images.groups))
    assert from_nifti_files(folder, intensity_range=(0, 5))[0].intensity_range == (0, 5)


def test_damaged_files_are_set_aside(folder, tmp_path):
    bad = folder / "sub-01/anat/sub-01_T1w.nii.gz"
    bad.write_bytes(bad.read_bytes()[:60])
    images = from_nifti_files(folder, volumes=True)
    assert len(images) == 3
    assert images.set_aside[0].name == "sub-01/anat/sub-01_T1w.nii.gz"
    assert str(folder) not in images.set_aside[0].reason
    hidden = from_nifti_files(folder, volumes=True, key=tmp_path / "key").set_aside[0]
    assert (len(hidden.name), hidden.reason) == (16, "it cannot be read as NIfTI")
    with pytest.raises(ImagesError, match=r"none of the 1 NIfTI files of .* can be read"):
        from_nifti_files(bad, volumes=True)


def test_one_file_is_a_volume_and_a_missing_one_is_named(folder):
    path = folder / "sub-01/anat/sub-01_T1w.nii.gz"
    images = open_images(f"volumes:{path}")
    assert (len(images), images.axes, images.units_are_patients) == (1, 3, False)
    with pytest.raises(ImagesError, match=r"NIfTI folder .*heds is not there: did you mean 'heads'"):
        from_nifti_files(folder.with_name("heds"))
    empty = folder / "none"
    empty.mkdir()
    with pytest.raises(ImagesError, match=r"holds no NIfTI volume: put \.nii or \.nii\.gz files"):
        from_nifti_files(empty)


def test_slices_of_one_volume_take_a_mask(folder):
    path, mask = (folder / f"sub-01/anat/sub-01_{t}.nii.gz" for t in ("T1w", "T1w_dseg"))
    images = ImageSet.from_nifti(path, step_mm=3, mask=mask)
    assert images.masks(0)["1"].sum() == 1
    assert not images.masks(0)["2"].any()
    np.testing.assert_array_equal(open_images(images.source).masks(5)["2"], images.masks(5)["2"])
    write(folder / "other.nii", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(ImagesError, match="does not lie on the grid"):
        ImageSet.from_nifti(path, mask=folder / "other.nii")


def test_areas_are_the_same_in_whatever_unit_the_files_state_lengths(tmp_path):
    """A lesion of 6 voxels of 0.5 × 0.75 mm, said in millimetres, metres and micrometres."""
    lesion = np.zeros((4, 5, 6), dtype=np.uint8)
    lesion[1:3, 1:4, 2] = 1
    for unit, per_mm in (("mm", 1.0), ("meter", 1e-3), ("micron", 1e3)):
        for name, values in ((unit, rng.integers(1, 900, lesion.shape).astype(np.int16)), (f"{unit}_mask", lesion)):
            image = nibabel.Nifti1Image(values, np.diag([per_mm, per_mm, per_mm, 1]) @ AFFINE)
            image.header.set_xyzt_units(unit)
            nibabel.save(image, tmp_path / f"{name}.nii")
    images = from_nifti_files(tmp_path, step_mm=3)
    assert len(images) == 18
    np.testing.assert_allclose(images.spacing_mm, [(0.75, 0.5)] * 18, rtol=1e-5)
    np.testing.assert_allclose(
        images.attributes.column("slice_position").reshape(3, 6), [[0, 3, 6, 9, 12, 15]] * 3, rtol=1e-5
    )
    areas = attributes_from_masks(images).column("mask_area").reshape(3, 6)
    np.testing.assert_allclose(areas, [[0, 0, 6 * 0.375, 0, 0, 0]] * 3, rtol=1e-5)
    assert "1 of the files state lengths in metres, turned into mm" in images.notes
    whole = from_nifti_files(tmp_path, volumes=True)
    np.testing.assert_allclose(whole.spacing_mm, [(3, 0.75, 0.5)] * 3, rtol=1e-5)
    single = ImageSet.from_nifti(tmp_path / "micron.nii", step_mm=3)
    assert single.spacing_mm[0] == pytest.approx((0.75, 0.5))
    assert single.attributes.column("slice_position")[-1] == pytest.approx(15)
    assert single.attributes.column("foreground_area")[0] == pytest.approx(20 * 0.375)
    assert single.notes == ("lengths stated in micrometres, turned into mm",)


def test_a_volume_that_holds_the_first_label_alone_names_it_as_the_others_do(tmp_path):
    def labelled(name, *there):
        values = np.zeros((4, 5, 6), dtype=np.uint8)
        for k, label in enumerate(there):
            values[k] = label
        nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 1.0, 1.0, 1.0])), tmp_path / f"{name}_seg.nii.gz")
        scan = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(scan, np.diag([2.0, 1.0, 1.0, 1.0])), tmp_path / f"{name}.nii.gz")

    labelled("a", 1, 2)
    labelled("b", 1)
    labelled("c")
    images = from_nifti_files(tmp_path, axis="axial", step_mm=1.0)
    by_file = {name: set(images.masks(i)) for i, name in enumerate(n.split("/")[0] for n in images.ids)}
    assert by_file["a"] == {"1", "2"}
    assert by_file["b"] == {"1"}
    assert by_file["c"] == set()
    table = attributes_from_masks(images, texture=False)
    areas = {file: [] for file in "abc"}
    for name, area in zip(images.ids, table.column("1_area"), strict=True):
        areas[name.split("/")[0]].append(area)
    # one plane of x is five pixels high, each 2 mm wide and 1 mm high
    assert areas == {"a": [10.0] * 6, "b": [10.0] * 6, "c": [0.0] * 6}
    assert not any(name.startswith("mask") for name in table.names)
