"""Measures whether a model does its task, from its answers: separation, calibration, and whether it knows such images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from circuits.off_data import DataSpread
from experiments.report.model_check import ModelCheck, OutOfDistribution
from mechinterp.errors import ShapeError
from mechinterp.statistics import bootstrap_groups
from mechinterp.statistics.bootstrap import groups_to_positions


def check_classifier(
    probabilities: Float[NDArray[Any], "image class"],
    truth: Int[NDArray[Any], " image"],
    groups: Sequence[Any],
    *,
    task: str,
    units_are_patients: bool = True,
    trained: bool = True,
    out_of_distribution: OutOfDistribution | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> ModelCheck:
    """Return how well stated probabilities fit the truth, on patients the model was not fitted to.

    Parameters
    ----------
    probabilities
        Image × class, each row summing to one.
    truth
        Position of the true class of each image.
    groups
        Patient of each image.
    task
        In words, for the report.
    units_are_patients
        False where the groups are parts of one subject: then there is no interval.
    trained
        False for random weights.
    out_of_distribution
        What :func:`distance_check` returned.
    n_boot, seed
        Draws of the bootstrap over patients.

    Returns
    -------
    ModelCheck
        AUROC (with more than two classes the mean over classes, each against the rest), its interval, expected calibration
        error and Brier score (of two classes the mean squared error of one probability, 0 to 1; of more the sum over classes, 0
        to 2). Without a value where the images are all of one class.

    Raises
    ------
    ShapeError
        If the three do not belong together.

    """
    p, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(truth, dtype=np.int64)
    if p.ndim != 2 or len(p) != len(truth) or len(truth) != len(groups):
        raise ShapeError(
            f"probabilities of shape {p.shape}, {len(truth)} truths and {len(groups)} groups: give image × class, and one "
            "truth and one group for each image"
        )

    def area(chosen: NDArray[np.int64]) -> float:
        return mean_auroc(p[chosen], truth[chosen])

    one_hot = np.eye(p.shape[1])[truth]
    return replace(
        separation(
            area, groups, task=task, units_are_patients=units_are_patients, trained=trained, n_boot=n_boot, seed=seed,
            nothing="all images are of one class, so nothing can be told apart",
        ),
        calibration_error=expected_calibration_error(p, truth),
        brier=_brier(p, one_hot),
        brier_reference=_brier(one_hot.mean(0), one_hot),
        out_of_distribution=out_of_distribution,
    )  # fmt: skip


def separation(
    area: Callable[[Int[NDArray[np.int64], " chosen"]], float],
    groups: Sequence[Any],
    *,
    task: str,
    units_are_patients: bool,
    trained: bool,
    n_boot: int,
    seed: int,
    nothing: str,
) -> ModelCheck:
    """Return how well a model tells images apart, with its interval over patients, and nothing else yet.

    Parameters
    ----------
    area
        AUROC of some images; NaN where there is none.
    groups
        Patient of each image.
    task, units_are_patients, trained, n_boot, seed
        As :func:`check_classifier` has them.
    nothing
        What is said where all images together have no AUROC.

    """
    value = area(np.arange(len(groups)))
    measurable = bool(np.isfinite(value))
    interval = (
        bootstrap_groups(area, groups, n_boot, seed, units_are_patients=units_are_patients) if measurable else None
    )
    return ModelCheck(
        task=task,
        metric="AUROC",
        value=value if measurable else None,
        interval=interval.ends if interval else None,
        interval_note=(interval.reason or interval.warning) if interval else "",
        chance=0.5,
        n_images=len(groups),
        n_groups=len(groups_to_positions(groups)[0]) if units_are_patients else 1,
        trained=trained,
        note="" if measurable else nothing,
    )


def mean_auroc(probabilities: Float[NDArray[Any], "image class"], truth: Int[NDArray[Any], " image"]) -> float:
    """Return the mean over classes of the AUROC of each class against the rest; NaN where only one class is there.

    Of two classes the second is taken, since the first says the same.
    """
    n_classes = probabilities.shape[1]
    asked = [1] if n_classes == 2 else range(n_classes)
    areas = [_area(probabilities[:, c], truth == c) for c in asked]
    known = [area for area in areas if np.isfinite(area)]
    return float(np.mean(known)) if known else float("nan")


def expected_calibration_error(
    probabilities: Float[NDArray[Any], "image class"], truth: Int[NDArray[Any], " image"], n_bins: int = 10
) -> float:
    """Return the mean distance of stated and observed frequency of the most likely class, over bins of equal width [1]_.

    References
    ----------
    .. [1] Naeini, Cooper, Hauskrecht. Obtaining well calibrated probabilities using Bayesian binning. AAAI 2015.

    """
    stated, right = probabilities.max(1), probabilities.argmax(1) == truth
    bins = np.minimum((stated * n_bins).astype(np.int64), n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    gap = np.abs(np.bincount(bins, stated, n_bins) - np.bincount(bins, right, n_bins))
    return float(gap.sum() / count.sum())


def distance_check(
    known: Float[NDArray[Any], "image width"],
    known_groups: Sequence[Any],
    judged: Float[NDArray[Any], "image width"],
    *,
    what: str,
    units: str = "patients",
    seed: int = 0,
) -> OutOfDistribution:
    """Return how many of the judged images lie farther out than 95 % of the known ones.

    Half of the known patients give mean and covariance, the other half the distance that 95 % of unseen images keep: so the
    expected share is a twentieth where nothing differs.

    Parameters
    ----------
    known
        One activation per image, of patients like those the model was fitted to or explored on.
    known_groups
        Their patients.
    judged
        The same of the patients that are judged.
    what
        Where the activations are from, in words.
    units
        What the groups are, in words.
    seed
        Which patients are in which half.

    Raises
    ------
    ShapeError
        If there are fewer than 20 known patients or the widths differ.

    """
    labels, members = groups_to_positions(known_groups)
    if len(labels) < 20 or known.shape[1:] != judged.shape[1:]:
        raise ShapeError(
            f"{len(labels)} known patients, activations of shape {known.shape} and {judged.shape}: give at least 20 patients, "
            "and activations of one site"
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    fitted, held = (np.concatenate([members[g] for g in half]) for half in np.array_split(order, 2))
    spread = DataSpread.fit(torch.as_tensor(known[fitted], dtype=torch.float64)[:, None])
    usual = float(np.quantile(spread.distances(torch.as_tensor(known[held], dtype=torch.float64)).numpy(), 0.95))
    share = float((spread.distances(torch.as_tensor(judged, dtype=torch.float64)).numpy() > usual).mean())
    return OutOfDistribution(
        f"Mahalanobis distance of {what}",
        share,
        detail=f"{share:.0%} of {len(judged)} images lie farther out than 95% of unseen images of {len(labels)} known {units}; "
        "5% is expected where nothing differs",
    )


def _brier(p: NDArray[np.float64], one_hot: Float[NDArray[np.float64], "image class"]) -> float:
    """Return the Brier score; both probabilities of two classes say the same, which counts once, as everywhere else here."""
    score = float(np.square(p - one_hot).sum(1).mean())
    return score / 2 if one_hot.shape[1] == 2 else score


def _area(scores: NDArray[np.float64], ones: NDArray[np.bool_]) -> float:
    """AUROC by counting: the chance that a one scores higher than a zero, ties counting half."""
    zeros, highs = np.sort(scores[~ones]), scores[ones]
    if not len(zeros) or not len(highs):
        return float("nan")
    below = np.searchsorted(zeros, highs, "left") + np.searchsorted(zeros, highs, "right")
    return float(below.mean() / (2 * len(zeros)))
