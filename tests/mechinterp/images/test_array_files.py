"""Arrays in files: mapped, not read; MedMNIST with its splits."""

import numpy as np
import pytest

from mechinterp.errors import ImagesError
from mechinterp.images import open_images
from mechinterp.images.array_files import array_in, from_array_file

rng = np.random.default_rng(0)


def medmnist(path, shape=(28, 28), labels=1, save=np.savez_compressed):
    counts = {"train": 5, "val": 2, "test": 3}
    arrays = {}
    for part, n in counts.items():
        arrays[f"{part}_images"] = rng.integers(0, 255, (n, *shape)).astype(np.uint8)
        arrays[f"{part}_labels"] = rng.integers(0, 2, (n, labels)).astype(np.uint8)
    save(path, **arrays)
    return arrays


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(("shape", "axes"), [((28, 28), 2), ((28, 28, 3), 2), ((28, 28, 28), 3)])
def test_medmnist_keeps_splits_labels_and_pixels(tmp_path, save, shape, axes):
    arrays = medmnist(tmp_path / "breastmnist.npz", shape, save=save)
    images = open_images(tmp_path / "breastmnist.npz")
    assert images.axes == axes
    assert images.splits == ("train",) * 5 + ("validation",) * 2 + ("test",) * 3
    assert images.ids[5:7] == ("val/000000", "val/000001")
    every = np.concatenate([arrays[f"{p}_images"] for p in ("train", "val", "test")])
    for i in range(10):
        np.testing.assert_array_equal(images[i].pixels, every[i])
    names = ("malignant", "normal, benign")
    assert images.labels == tuple(names[v] for p in ("train", "val", "test") for v in arrays[f"{p}_labels"][:, 0])
    assert open_images(images.source).labels == images.labels


def test_several_labels_are_attributes(tmp_path):
    arrays = medmnist(tmp_path / "mine.npz", labels=3)
    images = from_array_file(tmp_path / "mine.npz", class_names=["a", "b", "c"])
    assert images.labels is None
    assert [(a.name, a.kind) for a in images.attributes] == [(n, "binary") for n in "abc"]
    np.testing.assert_array_equal(images.attributes.column("b")[:5], arrays["train_labels"][:, 1])
    assert from_array_file(tmp_path / "mine.npz").attributes.names == ("label_0", "label_1", "label_2")


def test_ones_own_arrays_say_what_they_know(tmp_path):
    pixels, masks = rng.normal(size=(2, 3, 4, 5)), rng.random((2, 3, 4, 5)) > 0.5
    said = {
        "labels": ["x", ""],
        "groups": [1, 2],
        "cases": ["e", "f"],
        "splits": ["train", "test"],
        "ids": ["one", "two"],
    }
    np.savez(tmp_path / "a.npz", images=pixels, masks=masks, spacing_mm=[2.0, 0.5, 0.25], **said)
    images = open_images(tmp_path / "a.npz")
    assert (images.axes, images.ids, images.labels, images.groups) == (3, ("one", "two"), ("x", None), ("1", "2"))
    assert (images.cases, images.splits) == (("e", "f"), ("train", "test"))
    assert images.spacing_mm == ((2, 0.5, 0.25),) * 2
    np.testing.assert_array_equal(images.masks(1)["mask"], masks[1])
    np.testing.assert_allclose(images[1].pixels, pixels[1], rtol=1e-6)


def test_a_plainly_stored_array_is_mapped_and_a_compressed_one_read(tmp_path):
    pixels = rng.integers(0, 4000, (6, 8, 9)).astype(">u2")
    np.save(tmp_path / "a.npy", pixels)
    np.savez(tmp_path / "b.npz", images=np.asfortranarray(pixels))
    np.savez_compressed(tmp_path / "c.npz", images=pixels)
    for name, mapped in (("a.npy", True), ("b.npz", True), ("c.npz", False)):
        assert isinstance(array_in(tmp_path / name, "images"), np.memmap) == mapped
        images = open_images(tmp_path / name)
        np.testing.assert_array_equal(images[4].pixels, pixels[4])
    np.save(tmp_path / "a.npy", pixels + 1)
    np.testing.assert_array_equal(open_images(tmp_path / "a.npy")[4].pixels, pixels[4] + 1)


def test_settings_reach_the_set_and_its_source(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4)))
    images = from_array_file(
        tmp_path / "a.npy", intensity_range=(0, 9), spacing_mm=(0.5, 0.25), name="mine", licence="ours"
    )
    again = open_images(images.source)
    assert again.spacing_mm == images.spacing_mm == ((0.5, 0.25),) * 2
    assert (again.intensity_range, again.name, again.licence) == ((0, 9), "mine", "ours")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((1, 2, 2))}, "holds x but neither 'images' nor MedMNIST's 'train_images'"),
        ({"images": np.zeros((2, 2))}, r"'images' of .* is float64 of shape \(2, 2\): numbers, image × height"),
        ({"images": np.array([["a"]])}, "is <U1 of shape"),
        (
            {"images": np.zeros((2, 4, 4)), "labels": ["a"]},
            r"'labels' of .* has shape \(1,\): it needs one value for each of 2",
        ),
        (
            {"images": np.zeros((2, 4, 4)), "spacing_mm": [1, 2, 3]},
            r"spacing_mm of .* has shape \(3,\): give 2 numbers",
        ),
        ({"images": np.zeros((2, 4, 4)), "spacing_mm": [1, 0]}, "is not positive throughout"),
        ({"images": np.zeros((2, 4, 4)), "splits": ["a", "b"]}, "split 'a' is none"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ImagesError, match=message):
        open_images(tmp_path / "a.npz")


def test_damage_and_objects_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK no zip")
    with pytest.raises(ImagesError, match=r"a\.npz cannot be read as NumPy's \.npz"):
        open_images(tmp_path / "a.npz")
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ImagesError, match=r"a\.npy cannot be read as NumPy's \.npy"):
        open_images(tmp_path / "a.npy")
    np.savez(tmp_path / "b.npz", images=np.array([{"evil": 1}]))
    with pytest.raises(ImagesError, match="Python objects are never loaded"):
        open_images(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", images=np.zeros((2, 4, 4)), masks=np.zeros((2, 4, 5)))
    with pytest.raises(ImagesError, match=r"'masks' of .* have shape \(2, 4, 5\): they must be \(2, 4, 4\)"):
        open_images(tmp_path / "c.npz").masks(0)
