"""What correcting concepts wins: a bottleneck's score when a reader tells it more and more true values.

Koh et al., *Concept Bottleneck Models*, ICML 2020, section 5 (test-time intervention).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from probes.heads.bottleneck import ConceptBottleneck
from probes.heads.data import HeadData
from probes.scores import auroc

Values = NDArray[np.float64]


@dataclass(frozen=True)
class InterventionCurve:
    """Scores over the number of concepts corrected, from none to all.

    Parameters
    ----------
    order
        In which the concepts are corrected: the one whose correction moved the answers of training patients most comes first.
    auroc, accuracy
        Of held-out patients, in that order.
    auroc_random, accuracy_random
        Mean over random orders.

    """

    order: tuple[str, ...]
    auroc: tuple[float, ...]
    accuracy: tuple[float, ...]
    auroc_random: tuple[float, ...]
    accuracy_random: tuple[float, ...]


def intervention_curve(
    head: ConceptBottleneck, train: HeadData, held_out: HeadData, *, orders: int = 20, seed: int = 0
) -> InterventionCurve:
    """Put true concepts in place of those read, one after another.

    Parameters
    ----------
    head
        The bottleneck.
    train
        Decides the order.
    held_out
        Is scored.
    orders, seed
        Random orders beside it.

    """
    moved = np.abs(head.parts(train.concepts) - head.parts(head.concepts(train.x))).mean(0)
    order = np.argsort(-moved, kind="stable")
    read = head.concepts(held_out.x)
    rng = np.random.default_rng(seed)
    by_effect = _walk(head, read, held_out, order)
    at_random = np.mean([_walk(head, read, held_out, rng.permutation(len(order))) for _ in range(orders)], axis=0)
    return InterventionCurve(
        tuple(head.names[j] for j in order),
        tuple(by_effect[0].tolist()), tuple(by_effect[1].tolist()),
        tuple(at_random[0].tolist()), tuple(at_random[1].tolist()),
    )  # fmt: skip


def _walk(
    head: ConceptBottleneck, read: Float[Values, "image concept"], held_out: HeadData, order: NDArray[np.int64]
) -> Float[Values, "score corrected"]:
    told = read.copy()
    scores = np.empty((2, len(order) + 1))
    for n in range(len(order) + 1):
        if n:
            told[:, order[n - 1]] = held_out.concepts[:, order[n - 1]]
        answers = head.decide(told)
        scores[0, n] = auroc(held_out.y[:, None].astype(np.float64), answers[:, None])[0]
        scores[1, n] = ((answers > 0) == (held_out.y == 1)).mean()
    return scores
