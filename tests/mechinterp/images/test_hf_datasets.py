"""A data set saved by Hugging Face's library opens with its splits, labels and 16 bits."""

import sys

import numpy as np
import pytest
from PIL import Image

from mechinterp.errors import ImagesError, MissingDependencyError
from mechinterp.images import open_images
from mechinterp.images.hf_datasets import from_hf_dataset

datasets = pytest.importorskip("datasets")


def pictures(n, deep=False):
    values = np.arange(n * 12).reshape(n, 3, 4) * (300 if deep else 1)
    return [Image.fromarray(v.astype(np.uint16 if deep else np.uint8)) for v in values]


def made(n, deep=False, **columns):
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["none", "tumour"]),
        "patient_id": datasets.Value("string"),
        "age": datasets.Value("float32"),
        "smoker": datasets.Value("bool"),
        "stage": datasets.ClassLabel(names=["I", "II"]),
        "report": datasets.Value("string"),
        "lesion_mask": datasets.Image(),
        **{c: f for c, (f, _) in columns.items()},
    }
    rows = {
        "image": pictures(n, deep),
        "label": [i % 2 for i in range(n)],
        "patient_id": [f"p{i // 2}" for i in range(n)],
        "age": [float(40 + i) for i in range(n)],
        "smoker": [i % 2 == 0 for i in range(n)],
        "stage": [0] * n,
        "report": ["Erika Mustermann is well"] * n,
        "lesion_mask": [Image.fromarray(np.full((3, 4), 255 * (i % 2), np.uint8)) for i in range(n)],
        **{c: v for c, (_, v) in columns.items()},
    }
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def test_a_saved_dictionary_keeps_splits_labels_patients_and_numbers(tmp_path):
    datasets.DatasetDict(
        {"train": made(4), "test": made(2).map(lambda r: {"patient_id": "q" + r["patient_id"]})}
    ).save_to_disk(tmp_path / "hf")
    images = open_images(tmp_path / "hf")
    assert images.notes[0] == "recognised as a Hugging Face data set"
    assert images.ids[3:5] == ("train/000003", "test/000000")
    assert images.splits == ("train",) * 4 + ("test",) * 2
    assert images.labels[:2] == ("none", "tumour")
    assert images.groups == ("p0", "p0", "p1", "p1", "qp0", "qp0")
    np.testing.assert_array_equal(images[1].pixels, np.arange(12, 24).reshape(3, 4))
    assert [(a.name, a.kind) for a in images.attributes] == [
        ("age", "continuous"),
        ("smoker", "binary"),
        ("stage", "categorical"),
    ]
    assert "Mustermann" not in repr(images.attributes)
    assert images.masks(1)["lesion_mask"].all()
    assert not images.masks(4)["lesion_mask"].any()
    again = open_images(images.source)
    assert (again.ids, again.labels, again.hash) == (images.ids, images.labels, images.hash)


def test_a_class_that_is_kept_back_is_no_class(tmp_path):
    stage = (datasets.ClassLabel(names=["I", "II"]), [1, -1, 0])
    label = (datasets.ClassLabel(names=["none", "tumour"]), [-1, 1, 0])
    made(3, stage=stage, label=label).save_to_disk(tmp_path / "hf")
    images = from_hf_dataset(tmp_path / "hf")
    assert images.labels == (None, "tumour", "none")
    np.testing.assert_array_equal(images.attributes.column("stage"), [1, np.nan, 0])


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path):
    small = [Image.fromarray(np.zeros((6, 8), np.uint8))] * 2
    made(2, lesion_mask=(datasets.Image(), small)).save_to_disk(tmp_path / "hf")
    with pytest.raises(ImagesError, match="mask 'lesion_mask' of image '/000001' is 6 × 8 pixels, the image 3 × 4"):
        from_hf_dataset(tmp_path / "hf").masks(1)


def test_sixteen_bits_stay_and_patients_are_hashed_on_request(tmp_path):
    spacing = (datasets.Sequence(datasets.Value("float32")), [[0.5, 0.25]] * 3)
    made(3, deep=True, spacing_mm=spacing).save_to_disk(tmp_path / "hf")
    images = from_hf_dataset(tmp_path / "hf", key=tmp_path / "key", label="stage", name="ours", licence="CC0")
    assert images[2].pixels.max() == 35 * 300
    assert images.intensity_range == (0, 35 * 300)
    assert images.spacing_mm == ((0.5, 0.25),) * 3
    assert images.labels == ("I",) * 3
    assert images.splits is None
    assert len(set(images.groups)) == 2
    assert "p0" not in images.groups
    assert open_images(images.source).groups == images.groups


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    datasets.Dataset.from_dict({"pixels": [1, 2]}).save_to_disk(tmp_path / "none")
    with pytest.raises(ImagesError, match="has no column of images: "):
        open_images(tmp_path / "none")
    made(2).save_to_disk(tmp_path / "hf")
    with pytest.raises(ImagesError, match="has no column 'lable' for the label: did you mean 'label'"):
        from_hf_dataset(tmp_path / "hf", label="lable")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_text("{}")
    with pytest.raises(ImagesError, match="is no data set saved by save_to_disk"):
        open_images(tmp_path / "broken")
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "broken" / "more").mkdir()
    (tmp_path / "broken" / "more" / "state.json").write_text("{}")
    with pytest.raises(MissingDependencyError, match="datasets is not installed"):
        open_images(tmp_path / "broken" / "more")
