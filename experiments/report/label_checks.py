"""Measures whether a model does its task where its outputs are findings of their own, several of which one image may show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from experiments.report.model_check import ModelCheck
from experiments.report.task_checks import expected_calibration_error, mean_auroc, separation
from mechinterp.errors import ShapeError


def check_labels(
    probabilities: Float[NDArray[Any], "image label"],
    present: Bool[NDArray[Any], "image label"],
    groups: Sequence[Any],
    *,
    task: str,
    units_are_patients: bool = True,
    trained: bool = True,
    n_boot: int = 1000,
    seed: int = 0,
) -> ModelCheck:
    """Return how well the probabilities of labels that do not exclude one another fit the truth.

    Every label is a question of its own, present or absent; what is reported is the mean over labels. Rows of probabilities
    do not sum to one, so that calibration and Brier score of :func:`experiments.report.task_checks.check_classifier`, which
    ask for *the* class of an image, would mean nothing here.

    Parameters
    ----------
    probabilities
        Image × label, of each label alone.
    present
        Image × label, true where an image shows what the label says.
    groups
        Patient of each image.
    task
        In words, for the report.
    units_are_patients, trained, n_boot, seed
        As for one class per image.

    Returns
    -------
    ModelCheck
        AUROC, its interval over patients, calibration error, and Brier score (0 to 1), each a mean over labels; of the AUROC
        over those that are both present and absent. Without a value where there are none.

    Raises
    ------
    ShapeError
        If the three do not belong together.

    """
    p, there = np.asarray(probabilities, dtype=np.float64), np.asarray(present, dtype=bool)
    if p.ndim != 2 or p.shape != there.shape or len(p) != len(groups):
        raise ShapeError(
            f"probabilities of shape {p.shape}, truths of {there.shape} and {len(groups)} groups: give image × label twice, "
            "and one group for each image"
        )
    labels = range(p.shape[1])
    two = np.stack([1 - p, p], axis=-1)  # image × label × absent or present

    def area(chosen: NDArray[np.int64]) -> float:
        areas = [mean_auroc(two[chosen, c], there[chosen, c].astype(np.int64)) for c in labels]
        known = [a for a in areas if np.isfinite(a)]
        return float(np.mean(known)) if known else float("nan")

    return replace(
        separation(
            area, groups, task=task, units_are_patients=units_are_patients, trained=trained, n_boot=n_boot, seed=seed,
            nothing="every label is on all images or on none, so nothing can be told apart",
        ),
        calibration_error=float(
            np.mean([expected_calibration_error(two[:, c], there[:, c].astype(np.int64)) for c in labels])
        ),
        brier=float(np.square(p - there).mean()),
        brier_reference=float(np.square(there.mean(0) - there).mean()),
    )  # fmt: skip
