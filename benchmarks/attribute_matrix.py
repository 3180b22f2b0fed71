"""Every feature against every attribute: one call against the loop of scipy's, per pair."""

from __future__ import annotations

import time
from typing import Any

import numpy as np


def measure(quick: bool) -> dict[str, Any]:
    """Time 10,000 features × 50 attributes × 10,000 images (a hundredth of it when quick), with 1,000 permutations."""
    from scipy.stats import spearmanr

    from mechinterp import Attribute, AttributeTable
    from probes import match_attributes

    features, attributes, images = (1000, 5, 1000) if quick else (10_000, 50, 10_000)
    random = np.random.default_rng(0)
    x = random.random((images, features), dtype=np.float32)
    table = AttributeTable(
        tuple(Attribute(f"a{i}", "mm") for i in range(attributes)), random.random((images, attributes))
    )
    half = np.arange(images) < images // 2
    before = time.perf_counter()
    match_attributes(x, table, np.flatnonzero(half), np.flatnonzero(~half))
    ours = time.perf_counter() - before
    before = time.perf_counter()
    for i in range(100):
        spearmanr(x[half, i], table.values[half, 0])
    loop = (time.perf_counter() - before) / 100 * features * attributes
    return {
        "seconds": {"ours, with 1,000 permutations": ours, "scipy's loop, without": loop},
        "ratios": {"attribute-matrix/ours_vs_scipy_loop": ours / loop},
    }
