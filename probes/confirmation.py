"""A reader that was learned on some patients, scored once on others: its interval, its controls, its verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.claims import Control
from mechinterp.errors import ShapeError
from mechinterp.statistics.bootstrap import Interval, groups_to_positions
from mechinterp.statistics.permutation import unit_permutations
from probes.calibration import calibration_of
from probes.results import ProbeResult
from probes.rivals import against
from probes.score_intervals import score_interval
from probes.scores import METRICS, Reading, r_squared, rank_correlation
from probes.shuffles import ShuffleTest

Values = NDArray[np.float64]


def confirm_reading(
    predicted: Float[Values, " image"],
    attribute: Float[Values, " image"],
    usual: float,
    *,
    groups: Sequence[Any] | NDArray[Any],
    rivals: Mapping[str, Float[Values, " image"]] | None = None,
    name: str,
    unit: str,
    site: str,
    n_shuffles: int = 999,
    seed: int = 0,
) -> ProbeResult:
    """Score a continuous attribute as it was read off patients who took no part in learning the reader.

    Parameters
    ----------
    predicted
        What the reader says of each image, in the attribute's unit.
    attribute
        What is true.
    usual
        Mean of the attribute over the patients who taught the reader: what R² is measured against.
    groups
        Patient of each image.
    rivals
        Name → what a reader learned by the same procedure says that must do worse: off the pixels, off an untrained
        network.
    name, unit, site
        What is read, in which unit, where from: for texts.
    n_shuffles
        Permutations of whole patients. The reader is fixed, so only the truth is permuted and nothing is fitted again.
    seed
        Of the permutations.

    Raises
    ------
    ShapeError
        If lengths differ.

    """
    truth = np.asarray(attribute, dtype=np.float64)
    others = {what: np.asarray(values, dtype=np.float64) for what, values in (rivals or {}).items()}
    for what, values in (("predicted", predicted), ("groups", groups), *others.items()):
        if len(values) != len(truth):
            raise ShapeError(f"{what} has {len(values)} values for {len(truth)} of '{name}': one for each image")

    def reading_of(values: Values) -> Reading:
        return Reading("continuous", truth[:, None], np.asarray(values)[:, None], np.full((len(truth), 1), usual))

    def over_patients(statistic: Callable[[NDArray[np.int64]], float]) -> Interval:
        return score_interval(statistic, groups, "continuous")

    reading = reading_of(predicted)
    test = _permuted(reading, groups, n_shuffles, seed)
    controls: list[Control] = [test.control]
    controls += [against(what, reading, [reading_of(values)], over_patients) for what, values in others.items()]
    return ProbeResult(
        attribute=name,
        unit=unit,
        site=site,
        kind="continuous",
        metric=METRICS["continuous"],
        score=float(reading.scores()[0]),
        spearman=float(rank_correlation(reading.truth, reading.predicted)[0]),
        mae=float(np.abs(truth - predicted).mean()),
        mae_of_mean=float(np.abs(truth - usual).mean()),
        interval=over_patients(reading.score_of),
        p_value=test.p_value,
        smallest_p=test.smallest_p,
        p_scheme=test.scheme,
        truth=truth,
        predicted=np.asarray(predicted, dtype=np.float64),
        fold=np.zeros(len(truth), dtype=np.int64),
        images=np.arange(len(truth)),
        penalties=(),
        n_units=test.n_units,
        controls=tuple(controls),
        calibration=calibration_of(reading),
    )


def _permuted(reading: Reading, groups: Sequence[Any] | NDArray[Any], n_shuffles: int, seed: int) -> ShuffleTest:
    """Exchange the truth of whole patients; one with more images repeats the giver's."""
    labels, members = groups_to_positions(groups)
    truth = reading.truth[:, 0]
    orders = unit_permutations(len(labels), n_shuffles, seed)
    targets = np.empty((len(truth), len(orders)))
    for column, order in enumerate(orders):
        for unit, positions in enumerate(members):
            targets[positions, column] = np.resize(truth[members[order[unit]]], len(positions))
    scores = r_squared(targets, reading.predicted, reading.reference)
    p = float((scores >= scores[0] - 1e-12).mean())
    usual = float(np.quantile(scores[1:], 0.95)) if len(scores) > 1 else float("nan")
    return ShuffleTest(p, 1 / len(orders), f"{len(orders)} permutations of {len(labels)} patients", usual, len(labels))
