"""Scores of encoding models: correlations by hand, and a null that keeps its level over all voxels."""

import numpy as np
import pytest

from mechinterp.errors import ShapeError
from probes.encoding_scores import correlations, permuted_stimuli, voxel_test


def test_correlations_are_numpys():
    random = np.random.default_rng(0)
    predicted, measured = random.standard_normal((2, 50, 3))
    theirs = [np.corrcoef(predicted[:, v], measured[:, v])[0, 1] for v in range(3)]
    assert correlations(predicted, measured) == pytest.approx(theirs)


def test_what_does_not_vary_correlates_with_nothing():
    assert correlations(np.ones((10, 1)), np.random.default_rng(0).standard_normal((10, 1)))[0] == 0


def test_other_shapes_are_refused():
    with pytest.raises(ShapeError, match="image × voxel"):
        correlations(np.zeros((4, 2)), np.zeros((4, 3)))


def test_whole_groups_change_places():
    groups = ["a", "a", "b", "c", "c", "c"]
    taken = permuted_stimuli(groups, 20, seed=0)
    assert taken[0].tolist() == [0, 1, 2, 3, 4, 5]
    for row in taken:
        for members in ([0, 1], [2], [3, 4, 5]):
            assert len({groups[i] for i in row[members]}) == 1


def test_a_predicted_voxel_is_found_among_many_of_noise():
    random = np.random.default_rng(1)
    measured = random.standard_normal((80, 100))
    predicted = random.standard_normal((80, 100))
    predicted[:, 7] = measured[:, 7] + random.standard_normal(80)
    test = voxel_test(predicted, measured, np.arange(80) // 2, n_permutations=200)
    assert np.flatnonzero(test.predicted).tolist() == [7]
    assert test.predicted.tolist() == (test.correlation > test.threshold).tolist()
    assert test.p_corrected.min() == pytest.approx(1 / 201)
    assert "40 groups" in test.scheme


def test_noise_is_called_in_one_study_of_twenty_whatever_the_voxels_share():
    false = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        shared = random.standard_normal((40, 1))
        measured = shared + random.standard_normal((40, 15))
        predicted = random.standard_normal((40, 1)) + random.standard_normal((40, 15))
        false += voxel_test(predicted, measured, np.arange(40), n_permutations=99, seed=seed).predicted.any()
    # 10 expected; 2 to 20 hold all but one in 500 such tests
    assert 2 <= false <= 20


def test_too_few_permutations_call_nothing():
    random = np.random.default_rng(0)
    measured = random.standard_normal((30, 2))
    test = voxel_test(measured, measured, np.arange(30), n_permutations=10)
    assert not test.predicted.any()
    assert test.threshold == np.inf
