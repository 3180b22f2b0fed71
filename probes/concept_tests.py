"""TCAV: in which share of a class's images the output grows along a concept, tested against random sets of images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.claims import Claim, Control
from mechinterp.errors import ConfigError, ShapeError
from mechinterp.statistics.bootstrap import Interval, bootstrap_groups, groups_to_positions
from mechinterp.statistics.discovery_rate import benjamini_hochberg
from probes.concept_vectors import Estimator, fit_concept_vector
from probes.sensitivities import sensitivities

Rows = Float[NDArray[Any], "image width"]
FEWEST_SETS = 2


@dataclass(frozen=True)
class TcavResult:
    """One concept, for one class and site.

    Parameters
    ----------
    concept
        Its name.
    score
        Share of the class's images whose output grows along the concept, mean over random sets.
    magnitude
        Mean directional derivative along the unit vector, mean over random sets.
    scores
        With each random set as the concept's opposite.
    null_scores
        The statistic `score` of each random set, held against all other sets in the concept's place.
    interval
        Of the score, over the patients of the class's images; concept and random sets are held fixed.
    p_value
        Chance that a random set lies as far from one half, by rank among all sets: exact, since a concept that means
        nothing is one more random set.
    p_t_test
        Of Welch's t-test between the concept's scores and those of pairs of random sets, the usual one. The concept's
        scores share the concept's images and are not independent, so it rejects too often.
    p_corrected
        `p_value` after Benjamini and Hochberg over all concepts tested together.
    sensitivity_ratio
        Mean over standard deviation of the derivatives: Graziani's bidirectional relevance without its R².

    """

    concept: str
    score: float
    magnitude: float
    scores: tuple[float, ...]
    null_scores: tuple[float, ...]
    interval: Interval
    p_value: float
    p_t_test: float
    p_corrected: float
    sensitivity_ratio: float

    @property
    def smallest_p(self) -> float:
        """The smallest p-value that so many random sets allow."""
        return 1 / (len(self.null_scores) + 1)

    def claim(self, *, trained: bool = True, alpha: float = 0.05) -> Claim:
        """Return the claim that the output depends on the concept's direction, beside the random sets."""
        usual = float(np.quantile(np.abs(np.asarray(self.null_scores) - 0.5), 0.95))
        if self.smallest_p > alpha:
            detail = (
                f"cannot be significant with {len(self.null_scores)} random sets (smallest p {self.smallest_p:.2g})"
            )
        else:
            detail = f"95 % of {len(self.null_scores)} random sets lie within ±{usual:.2f} of one half"
        return Claim(
            statement=f"the output grows along '{self.concept}' in {self.score:.0%} of the class's images",
            strength="interventional",
            value=self.score,
            unit="1",
            holds=bool(self.p_corrected <= alpha),
            criterion=f"p at most {alpha:g} against random sets, corrected for all concepts",
            controls=(Control("random sets", 0.5 + usual, self.p_value <= alpha, detail),),
            interval=self.interval.ends,
            interval_note=self.interval.reason or self.interval.warning,
            p_value=self.p_corrected,
            trained=trained,
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {**vars(self), "interval": self.interval.to_json()}


def tcav(
    concepts: Mapping[str, Rows],
    random_sets: Sequence[Rows],
    gradients: Rows,
    *,
    estimator: Estimator = "svm",
    groups: Sequence[Any] | NDArray[Any] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> tuple[TcavResult, ...]:
    """Test whether a class's output depends on concepts [1]_.

    Parameters
    ----------
    concepts
        Name → activations of images that show it.
    random_sets
        Activations of images that show nothing in particular, each as many as the concepts' (see :func:`random_sets`);
        50 or more give room for a p-value after correction.
    gradients
        Of the class's images, in the form of the activations; see :func:`~probes.sensitivities.gradients_of_images`.
    estimator
        Of the concept vectors.
    groups
        Patient of each of the class's images, for the interval.
    n_boot, seed
        Of the interval.

    Raises
    ------
    ConfigError
        If no concept or fewer than two random sets are given.
    ShapeError
        If activations and gradients are of different widths.

    References
    ----------
    .. [1] Kim et al. Interpretability beyond feature attribution: quantitative testing with concept activation vectors
       (TCAV). ICML 2018, equation 3.

    """
    if not concepts or len(random_sets) < FEWEST_SETS:
        raise ConfigError(
            f"{len(concepts)} concepts and {len(random_sets)} random sets: give one concept and {FEWEST_SETS} sets at least"
        )
    g = np.asarray(gradients, dtype=np.float64)
    for what, rows in (*concepts.items(), *((f"random set {i}", s) for i, s in enumerate(random_sets))):
        if np.ndim(rows) != 2 or np.shape(rows)[1] != g.shape[1]:
            raise ShapeError(
                f"'{what}' has activations of shape {np.shape(rows)}, the gradients {g.shape}: take one form"
            )
    among_random = _pairwise(random_sets, g, estimator)
    units = np.arange(len(g)) if groups is None else np.asarray(groups, dtype=object)
    found = [
        _tested(name, rows, random_sets, among_random, g, estimator, units, n_boot, seed)
        for name, rows in concepts.items()
    ]
    corrected = benjamini_hochberg(np.array([r.p_value for r in found]))
    return tuple(replace(r, p_corrected=float(p)) for r, p in zip(found, corrected, strict=True))


def random_sets(
    groups: Sequence[Any] | NDArray[Any] | None, n_images: int, size: int, n_sets: int, *, seed: int = 0
) -> tuple[NDArray[np.int64], ...]:
    """Draw sets of images, made of whole patients, for :func:`tcav`.

    Parameters
    ----------
    groups
        Patient of each image; images of one patient stand in a set together, as in the concept's.
    n_images
        Number of images to draw from.
    size
        Images in a set, about: patients are added until it is reached.
    n_sets
        How many sets. Within one no patient stands twice.
    seed
        Of the draws.

    Raises
    ------
    ConfigError
        If there are fewer images than a set holds.

    """
    if not 0 < size <= n_images:
        raise ConfigError(f"sets of {size} images cannot be drawn from {n_images}: give a size from 1 to {n_images}")
    _, members = groups_to_positions(np.arange(n_images) if groups is None else groups)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n_sets):
        drawn: list[NDArray[np.int64]] = []
        for unit in rng.permutation(len(members)):
            drawn.append(members[unit])
            if sum(map(len, drawn)) >= size:
                break
        found.append(np.concatenate(drawn)[:size])
    return tuple(found)


def concept_derivatives(concept: Rows, opposite: Rows, gradients: Rows, estimator: Estimator) -> NDArray[np.float64]:
    """Return each image's derivative along the unit vector from `opposite` to `concept`."""
    x = np.concatenate([np.asarray(opposite, dtype=np.float64), np.asarray(concept, dtype=np.float64)])
    y = np.concatenate([np.zeros(len(opposite)), np.ones(len(concept))])
    return sensitivities(gradients, fit_concept_vector(x, y, estimator=estimator).direction)


def _tested(
    name: str,
    concept: Rows,
    sets: Sequence[Rows],
    among_random: NDArray[np.float64],
    gradients: NDArray[np.float64],
    estimator: Estimator,
    units: NDArray[Any],
    n_boot: int,
    seed: int,
) -> TcavResult:
    from scipy.stats import ttest_ind

    along = np.stack([concept_derivatives(concept, s, gradients, estimator) for s in sets])
    scores, reversed_scores = (along > 0).mean(1), (along < 0).mean(1)
    # the concept takes part in every random set's statistic as they do in its own: then all sets are exchangeable
    n = len(sets)
    off = ~np.eye(n, dtype=bool)
    null = (np.where(off, among_random, 0).sum(1) + reversed_scores) / n
    score = float(scores.mean())
    as_far = np.abs(null - 0.5) >= abs(score - 0.5) - 1e-12
    per_image = (along > 0).mean(0)
    spread = float(along.mean(0).std())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scores that are all alike have no t
        t_test = float(ttest_ind(scores, among_random[off], equal_var=False).pvalue)
    return TcavResult(
        name, score, float(along.mean()), tuple(float(s) for s in scores), tuple(float(s) for s in null),
        bootstrap_groups(lambda images: float(per_image[images].mean()), units, n_boot, seed),
        float((as_far.sum() + 1) / (n + 1)), t_test, float("nan"),
        float(along.mean() / spread) if spread > 0 else float("nan"),
    )  # fmt: skip


def _pairwise(sets: Sequence[Rows], gradients: NDArray[np.float64], estimator: Estimator) -> NDArray[np.float64]:
    """Return the score of every random set against every other; the reverse of a pair has the reversed vector."""
    found = np.full((len(sets), len(sets)), np.nan)
    for a in range(len(sets)):
        for b in range(a):
            along = concept_derivatives(sets[a], sets[b], gradients, estimator)
            found[a, b], found[b, a] = (along > 0).mean(), (along < 0).mean()
    return found
