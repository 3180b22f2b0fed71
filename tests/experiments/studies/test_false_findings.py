"""On a smooth attribute that is unrelated to anything, the study's matching reports a finding in at most 5 % of runs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from scipy.stats import binom

from experiments.analysis.measurements import middle_of_volume
from mechinterp import Attribute, AttributeTable
from probes import match_attributes

SLICES, FEATURES, RUNS = 76, 300, 150


def smooth(rng, columns, sigma):
    noise = rng.standard_normal((SLICES + 10 * sigma, columns))
    return gaussian_filter1d(noise, sigma, axis=0)[5 * sigma : 5 * sigma + SLICES]


@pytest.mark.parametrize("sigma", [2, 8])
def test_a_smooth_attribute_that_means_nothing_is_found_in_at_most_one_run_of_twenty(sigma):
    rng = np.random.default_rng(sigma)
    features = np.concatenate([smooth(rng, FEATURES // 3, s) for s in (2, 4, 8)], axis=1)
    discovery, confirmation = middle_of_volume(SLICES)
    found = 0
    for _ in range(RUNS):
        table = AttributeTable((Attribute("nothing", "mm"),), smooth(rng, 1, sigma))
        matrix = match_attributes(features, table, discovery, confirmation, order=np.arange(SLICES))
        found += len(matrix.findings) > 0
    assert found <= binom.ppf(0.99, RUNS, 0.05)


def test_a_feature_that_is_the_attribute_is_found():
    rng = np.random.default_rng(0)
    features = smooth(rng, FEATURES, 2)
    discovery, confirmation = middle_of_volume(SLICES)
    table = AttributeTable((Attribute("itself", "mm"),), features[:, [7]] * 3 + 1)
    matrix = match_attributes(features, table, discovery, confirmation, order=np.arange(SLICES))
    assert [f.feature for f in matrix.findings] == [7]
