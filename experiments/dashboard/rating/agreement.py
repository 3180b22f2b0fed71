"""Whether raters agree beyond chance, from answers of which some may be missing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import combinations

import numpy as np

Answers = Mapping[str, Mapping[str, Hashable]]
"""Rater to item to answer."""


def krippendorff_alpha(answers: Answers) -> float | None:
    r"""Return Krippendorff's alpha of nominal answers.

    Parameters
    ----------
    answers
        Per rater, the answer to each item that was answered; items may be missing.

    Returns
    -------
    float or None
        1 is perfect agreement, 0 what chance gives; ``None`` where no item has two answers, or all answers are the same, so
        that nothing could be told apart.

    Notes
    -----
    :math:`\alpha = 1 - D_o / D_e`, with the observed disagreement :math:`D_o` over all pairs of answers to the same item, each
    item's pairs weighted by one over its number of answers less one, and :math:`D_e` over all pairs of answers there are [1]_.

    References
    ----------
    .. [1] Krippendorff. Content Analysis, 2nd ed., 2004, chapter 11. A usual reading: above 0.8 reliable, above 0.667 for
       tentative conclusions.

    Examples
    --------
    >>> krippendorff_alpha({"a": {"1": "x", "2": "y"}, "b": {"1": "x", "2": "y"}})
    1.0

    """
    items = sorted({item for rater in answers.values() for item in rater})
    values = sorted({value for rater in answers.values() for value in rater.values()}, key=repr)
    place = {value: i for i, value in enumerate(values)}
    counts = np.zeros((len(items), len(values)))
    for rater in answers.values():
        for item, value in rater.items():
            counts[items.index(item), place[value]] += 1
    counts = counts[counts.sum(1) > 1]
    if not len(counts) or (counts.sum(0) > 0).sum() < 2:
        return None
    each = counts.sum(1)
    observed = ((each**2 - (counts**2).sum(1)) / (each - 1)).sum()
    total = counts.sum()
    expected = (total**2 - (counts.sum(0) ** 2).sum()) / (total - 1)
    return float(1 - observed / expected)


def pairwise_kappa(answers: Answers) -> dict[tuple[str, str], float | None]:
    """Return Cohen's kappa of every pair of raters, over the items that both answered.

    Parameters
    ----------
    answers
        As of :func:`krippendorff_alpha`.

    Returns
    -------
    dict
        ``None`` for a pair without a common item, or with one answer throughout.

    """
    from sklearn.metrics import cohen_kappa_score

    found: dict[tuple[str, str], float | None] = {}
    for first, second in combinations(sorted(answers), 2):
        common = sorted(set(answers[first]) & set(answers[second]))
        a, b = ([str(answers[rater][item]) for item in common] for rater in (first, second))
        told = len(set(a) | set(b)) > 1
        found[first, second] = float(cohen_kappa_score(a, b)) if told else None
    return found
