"""What names are worth, by hand; a gallery's pictures painted where the feature is active and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.studies.phantom.gallery import TALLEST_PX, painted
from experiments.studies.phantom.recognizability import NamedFeatures
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.models.loading import load_model
from mechinterp.models.vision_model import VisionModel
from mechinterp.reference import cnn
from mechinterp.token_grid import TokenGrid
from sparse_autoencoders import FeatureNames

NO_NAMES = FeatureNames((), (), 0.05, 0, 0)


def named(says: list[list[float]], there: list[list[float]]) -> NamedFeatures:
    return NamedFeatures(NO_NAMES, np.array(says).T, np.array(there).T)


def test_a_name_that_is_always_right_gains_what_the_base_rate_leaves() -> None:
    assert named([[1, 1, 0, 0]], [[1, 1, 0, 0]]).all_gain == pytest.approx(0.5)


def test_a_name_said_of_any_image_gains_nothing() -> None:
    assert named([[1, 1, 1, 1]], [[1, 0, 0, 0]]).all_gain == pytest.approx(0.0)


def test_the_gain_is_the_mean_over_names() -> None:
    # 1 - 1/2 and 1/2 - 1/4
    assert named([[1, 1, 0, 0], [1, 1, 0, 0]], [[1, 1, 0, 0], [1, 0, 0, 0]]).all_gain == pytest.approx(0.375)


def test_images_of_which_nobody_knows_do_not_count() -> None:
    # of the three known images one has it, and the name is said of that one
    assert named([[1, 1, 0, 0]], [[1, np.nan, 0, 0]]).all_gain == pytest.approx(1 - 1 / 3)


def test_a_name_that_says_nothing_of_some_images_is_left_out_and_none_at_all_has_no_gain() -> None:
    silent = named([[0, 0, 1, 1]], [[1, 0, 1, 0]])
    assert np.isnan(silent.gain(np.array([0, 1])))
    assert np.isnan(NamedFeatures(NO_NAMES, np.zeros((4, 0)), np.zeros((4, 0))).all_gain)


@pytest.fixture(scope="module")
def model() -> VisionModel:
    return load_model(f"py:{Path(cnn.__file__)}:architecture", "random", seed=0)


def grid_of(model: VisionModel) -> TokenGrid:
    grid = model.site("stages.2").grid
    assert grid is not None
    return grid


def grey(size: int) -> ImageSet:
    return ImageSet.from_arrays(np.full((1, size, size, 3), 0.5, dtype=np.float32))


def test_a_silent_feature_leaves_the_picture_as_it_is(model: VisionModel) -> None:
    shares = np.zeros(grid_of(model).cells)
    shown = painted(model, grey(96), 0, "stages.2", shares, Preparation())
    assert np.ptp(shown) == pytest.approx(0.0)


def test_only_the_cell_where_a_feature_is_active_is_painted(model: VisionModel) -> None:
    grid = grid_of(model)
    rows, columns = grid.shape
    shares = np.zeros(grid.cells)
    shares[1 * columns + 2] = 1.0
    shown = painted(model, grey(96), 0, "stages.2", shares, Preparation())
    changed = (np.abs(shown - np.median(shown)) > 1e-6).any(2)
    side = 96 // rows
    expected = np.zeros((96, 96), dtype=bool)
    expected[side : 2 * side, 2 * side : 3 * side] = True
    assert np.array_equal(changed, expected)


def test_large_pictures_are_made_small(model: VisionModel) -> None:
    shares = np.zeros(grid_of(model).cells)
    assert painted(model, grey(320), 0, "stages.2", shares, Preparation()).shape[0] == TALLEST_PX
