"""Which images a metric is measured on, and what is said where an autoencoder has seen them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from experiments.analysis.measurements import held_out, said_of_images, said_of_training_images


def store(splits, groups=None):
    n = len(splits)
    listed = {"id": [f"i{at}" for at in range(n)], "group": groups or [None] * n, "split": splits}
    images = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in listed.items()})
    return SimpleNamespace(images=images, __len__=lambda: n)


def trained_on(*ids):
    return SimpleNamespace(provenance={"training_images": list(ids)})


@pytest.mark.parametrize(
    ("splits", "train", "test"),
    [
        (["train", "val", "test"], [0], [2]),
        (["train", "val", "train"], [0, 2], [1]),
        (["val", "test", "val"], [0, 2], [1]),
        (["train", None, "test"], [0], [2]),
        ([None, None, None], [0, 1, 2], [0, 1, 2]),
    ],
)
def test_no_image_trains_and_tests_where_there_are_splits(splits, train, test):
    found = held_out(store(splits))
    assert [positions.tolist() for positions in found] == [train, test]


def test_images_that_it_was_trained_on_are_said_and_others_are_not():
    activations = store(["train", "train", "test", "test"])
    chosen = np.array([1, 2, 3])
    encoders = {"a": trained_on("i0"), "b": trained_on("i0", "i1"), "PCA": SimpleNamespace()}
    said = said_of_training_images(encoders, activations, chosen)
    assert said == "b was trained on 1 of these 3 images: they are not held out"
    assert said_of_training_images({"a": encoders["a"]}, activations, chosen) is None


def test_other_images_of_the_same_patients_are_no_held_out_ones():
    activations = store(["train", "test", "test"], ["p", "p", "q"])
    said = said_of_training_images({"a": trained_on("i0")}, activations, np.array([1, 2]))
    assert said == "a was trained on other images of the patients of 1 of these 2: they are not held out"


def test_the_title_says_what_is_to_be_held_against_the_numbers():
    class Store(list):
        pass

    assert said_of_images("s", np.arange(2), Store([0, 1, 2]), None) == "s, 2 images"
    assert said_of_images("s", np.arange(2), Store([0, 1]), None) == "s, 2 images (all: no split is held out)"
    assert said_of_images("s", np.arange(2), Store([0, 1, 2]), "seen") == "s, 2 images. CAUTION: seen"
