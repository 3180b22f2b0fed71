"""Every feature against every attribute: one call against the loop of scipy's, per pair."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks import memory


def measure(quick: bool) -> dict[str, Any]:
    """Time 10,000 features × 50 attributes × 10,000 images (a hundredth of it when quick), with 1,000 permutations.

    A fifth of the attributes are binary and some features follow an attribute, so that AUROC and the survivors' intervals
    are part of what is timed.
    """
    from scipy.stats import spearmanr

    from mechinterp import Attribute, AttributeTable
    from probes import match_attributes

    features, attributes, images = (1000, 5, 1000) if quick else (10_000, 50, 10_000)
    random = np.random.default_rng(0)
    x = random.random((images, features), dtype=np.float32)
    values = random.random((images, attributes))
    values[:, attributes * 4 // 5 :] = values[:, attributes * 4 // 5 :] > 0.5
    for i in range(features // 50):
        x[:, i] += 0.3 * values[:, i % attributes].astype(np.float32)
    table = AttributeTable(tuple(Attribute(f"a{i}", "mm") for i in range(attributes)), values)
    half = np.arange(images) < images // 2
    before = time.perf_counter()
    matrix = match_attributes(x, table, np.flatnonzero(half), np.flatnonzero(~half))
    ours = time.perf_counter() - before
    gib = memory.peak() / 1024
    before = time.perf_counter()
    for i in range(100):
        spearmanr(x[half, i], table.values[half, 0])
    loop = (time.perf_counter() - before) / 100 * features * attributes
    return {
        "seconds": {
            "ours, with information, AUROC, R², 1,000 permutations and intervals": ours,
            "scipy's loop, rank correlation alone": loop,
        },
        "survivors": len(matrix.survivors),
        "ratios": {"attribute-matrix/ours_vs_scipy_loop": ours / loop, "attribute-matrix/peak_memory_gib": gib},
    }
