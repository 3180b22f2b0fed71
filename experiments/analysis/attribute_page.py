"""The page and the lines of one attribute matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.dashboard.single_page import Shown, write_single_page
from mechinterp.attributes.table import AttributeTable
from mechinterp.progress import SILENT, Progress
from mechinterp.statistics.bootstrap import FEWEST_GROUPS
from probes import (
    ActivationCurve,
    AttributeMatrix,
    FeatureAttribute,
    activation_curve,
    activation_curve_figure,
    attribute_matrix_figure,
    disentanglement,
    pooled_features,
    survivors_figure,
)
from probes.pooling import patients_of

if TYPE_CHECKING:
    from mechinterp.feature_encoder import FeatureEncoder
    from probes.pooling import Pooling, TokenStore

SHOWN, CURVES = 10, 4


def shown_features(matrix: AttributeMatrix) -> tuple[FeatureAttribute, ...]:
    """Return the survivors, or, where there are none, the features closest to an attribute on held-out images."""
    if matrix.survivors:
        return matrix.survivors
    known = [matrix[i] for i in range(len(matrix)) if matrix.best[i] >= 0]
    return tuple(sorted(known, key=lambda f: -abs(f.rho_confirmation))[:SHOWN])


def interval_text(found: FeatureAttribute) -> str:
    """Return a survivor's interval as it is printed, or why there is none."""
    if found.interval is None:
        return found.interval_note or "–"
    note = f" ({found.interval_note})" if found.interval_note else ""
    return f"{found.interval[0]:+.2f} to {found.interval[1]:+.2f}{note}"


def summary(matrix: AttributeMatrix, held_out: AttributeTable) -> dict[str, Any]:
    """Return what the matrix says as a whole, as plain JSON."""
    whole = disentanglement(matrix, held_out)
    return {
        "survivors": len(matrix.survivors),
        "disentanglement": whole.dci.disentanglement,
        "completeness": whole.dci.completeness,
        "information_gap": whole.mig,
        "redundancy": whole.redundancy,
        "matching": [vars(m) for m in whole.matching],
        "controls": [
            {"name": c.name, "value": c.value, "passed": c.passed, "detail": c.detail} for c in matrix.as_controls()
        ],
    }


def sentence_of(matrix: AttributeMatrix) -> str:
    """Return how many features were confirmed, of how many: what an autoencoder (`sae`) has is called features."""
    plural = matrix.kind if matrix.kind in ("neurons", "directions") else "features"
    return matrix.text.replace(f" {matrix.kind} follow", f" {plural} follow", 1)


def lines_of(matrix: AttributeMatrix, whole: dict[str, Any], trained: bool) -> list[str]:
    """Return the sentences that stand above the figures."""
    lines = [
        f"{whole['survivors']} of {len(matrix)} features keep their attribute on held-out images, at a false-discovery rate of "
        f"5 %; {len(matrix.findings)} after correction for the highest of all pairs tested ({matrix.test.scheme}).",
        f"Disentanglement {whole['disentanglement']:.2f}, completeness {whole['completeness']:.2f}, information gap "
        f"{whole['information_gap']:.2f}, of held-out mutual information.",
    ]
    if matrix.supervised is not None:
        lines.append(
            f"Directions taken from the attributes themselves: {len(matrix.supervised.survivors)} of "
            f"{len(matrix.supervised)} survive, highest held-out |ρ| {matrix.supervised.highest():.2f} against "
            f"{matrix.highest():.2f} of the features."
        )
    lines += [f"{c['name']}: {'passed' if c['passed'] else 'FAILED'} ({c['detail']})" for c in whole["controls"]]
    return lines if trained else ["UNTRAINED model: no claim about it is met.", *lines]


def known_well_enough(
    attributes: AttributeTable, groups: NDArray[Any] | None, sides: Sequence[NDArray[Any]]
) -> tuple[AttributeTable, tuple[str, ...]]:
    """Leave out attributes that fewer than 10 patients have a value of, on either side: two patients are always in order.

    Parameters
    ----------
    attributes
        Of all images.
    groups
        Patient of each image; every image is its own where there are none.
    sides
        Images to choose on, and to confirm on.

    Returns
    -------
    attributes
        The columns that are kept; all of them if none would be.
    left_out
        Names of the others.

    """
    patients = np.arange(len(attributes)) if groups is None else groups
    known = ~np.isnan(attributes.values)
    kept = [
        j for j in range(len(attributes.attributes))
        if min(len(set(patients[side][known[side, j]].tolist())) for side in sides) >= FEWEST_GROUPS
    ]  # fmt: skip
    if not kept or len(kept) == len(attributes.attributes):
        return attributes, ()
    some = AttributeTable(
        tuple(attributes.attributes[j] for j in kept), attributes.values[:, kept], attributes.categories
    )
    return some, tuple(name for name in attributes.names if name not in some.names)


def survivors_curves(
    matrix: AttributeMatrix,
    encoder: FeatureEncoder,
    store: TokenStore,
    attributes: AttributeTable,
    held_out: NDArray[Any],
    pooling: Pooling,
    *,
    seed: int = 0,
    progress: Progress = SILENT,
) -> tuple[ActivationCurve, ...]:
    """Return the physical calibration curves of the strongest survivors, each of another attribute, on held-out patients.

    There are none where the store's groups are parts of one subject.
    """
    groups, are_patients = patients_of(store)
    continuous = [f for f in matrix.survivors if attributes[f.attribute].kind == "continuous"]
    strongest: dict[str, FeatureAttribute] = {}
    for found in sorted(continuous, key=lambda f: -abs(f.rho_confirmation)):
        strongest.setdefault(found.attribute, found)
    if not are_patients or not strongest:
        return ()
    values = pooled_features(encoder, store, images=held_out, progress=progress).take(pooling)
    return tuple(
        activation_curve(
            values[:, found.feature], attributes.column(name)[held_out], attributes[name],
            groups=None if groups is None else groups[held_out], name=f"feature {found.feature}, {pooling}", seed=seed,
        )
        for name, found in list(strongest.items())[:CURVES]
    )  # fmt: skip


def write_attribute_page(
    path: Path, title: str, lines: list[str], matrix: AttributeMatrix, curves: Sequence[ActivationCurve] = ()
) -> Path:
    """Write the heat map, the survivors' intervals and their calibration curves as one file that opens from disk."""
    figures = [
        Shown(
            "Features and attributes", attribute_matrix_figure(matrix),
            "Held-out rank correlation; a dot marks a pair that is significant after correction for all of them.",
        )
    ]  # fmt: skip
    if matrix.survivors:
        survivors = Shown(
            "What survives", survivors_figure(matrix),
            "Rank correlation on the patients it was chosen on, and on others with its interval.",
        )  # fmt: skip
        figures.insert(0, survivors)
    figures += [
        Shown(
            f"Feature against {curve.attribute.label}", activation_curve_figure(curve),
            "Means of held-out patients who are alike in the attribute; other attributes are not held fixed.",
        )
        for curve in curves
    ]  # fmt: skip
    return write_single_page(path, title, lines, figures)
