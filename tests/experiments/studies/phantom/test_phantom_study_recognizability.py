"""A gallery's pictures painted where the feature is active and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.studies.phantom.gallery import TALLEST_PX, painted
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.models.loading import load_model
from mechinterp.models.vision_model import VisionModel
from mechinterp.reference import cnn
from mechinterp.token_grid import TokenGrid


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
