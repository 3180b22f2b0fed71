"""Scores of matrices whose answer is known, and matchings that the discovery images decide."""

import numpy as np
import pytest

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import ConfigError
from probes import dci, disentanglement, match_attributes
from probes.disentangling import information_gaps


def test_one_feature_an_attribute_is_perfect_and_all_for_all_is_nothing():
    perfect = dci(np.eye(4))
    assert (perfect.disentanglement, perfect.completeness) == pytest.approx((1, 1))
    nothing = dci(np.ones((3, 4)))
    assert (nothing.disentanglement, nothing.completeness) == pytest.approx((0, 0))


def test_copies_cost_completeness_and_mixtures_cost_disentanglement():
    copies = dci(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    assert copies.disentanglement == pytest.approx(1)
    assert copies.completeness == pytest.approx(0.5)
    mixture = dci(np.array([[1.0, 1.0], [0.0, 0.0]]))
    assert mixture.disentanglement == pytest.approx(0)
    assert mixture.completeness == pytest.approx(1)
    assert np.isnan(mixture.by_feature[1])


def test_no_importance_at_all_has_no_score_and_a_negative_one_no_meaning():
    assert np.isnan(dci(np.zeros((2, 2))).disentanglement)
    with pytest.raises(ConfigError, match="from 0 up"):
        dci(np.array([[-1.0]]))


def test_the_gap_is_between_the_best_and_the_second():
    gaps = information_gaps(np.array([[1.0, 0.5], [0.25, 0.5], [-0.1, np.nan]]), np.array([2.0, 1.0]))
    np.testing.assert_allclose(gaps, [0.375, 0.0])
    assert np.isnan(information_gaps(np.ones((1, 2)), np.ones(2))).all()


def matrix(**settings):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(200, 3))
    x = rng.normal(size=(200, 6))
    x[:, 0] += 3 * y[:, 0]
    x[:, 1] += 2 * y[:, 0]
    x[:, 2] -= 3 * y[:, 1]
    table = AttributeTable(tuple(Attribute(n, "mm") for n in ("length", "width", "depth")), y)
    held_out = np.arange(100, 200)
    return match_attributes(x, table, np.arange(100), held_out, n_permutations=99, **settings), table.select(held_out)


def test_the_matching_gives_each_attribute_one_feature_and_redundancy_counts_the_rest():
    found = disentanglement(*matrix())
    assert [(m.feature, m.attribute) for m in found.matching[:2]] == [(0, "length"), (2, "width")]
    assert found.matching[1].rho_confirmation < -0.8
    assert found.redundancy == {"length": 2, "width": 1, "depth": 0}
    assert found.gaps["width"] > found.gaps["length"] > found.gaps["depth"]
    assert 0 < found.mig < 1
    assert found.dci.disentanglement > 0.5


def test_a_matrix_without_measures_is_sent_back():
    with pytest.raises(ConfigError, match="measures=True"):
        disentanglement(*matrix(measures=False))
