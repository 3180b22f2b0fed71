"""How an output depends on a continuous attribute: its derivative along the attribute's concept vector, in units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.statistics.bootstrap import Interval, bootstrap_groups
from probes.concept_vectors import Estimator, concept_quality, fit_concept_vector
from probes.sensitivities import sensitivities

Rows = Float[NDArray[Any], "image width"]


@dataclass(frozen=True)
class RegressionConcept:
    """How an output depends on a continuous attribute, by its regression concept vector.

    Parameters
    ----------
    attribute, unit
        What it is.
    per_unit
        Mean change of the output when the activations move as they do for one unit more of the attribute: predicted by
        the gradient, not yet by an intervention.
    interval
        Of it, over the patients of the images.
    share
        Share of the images whose output grows along the vector.
    r_squared
        Held-out squared correlation of the vector's projection with the attribute.
    relevance
        Bidirectional relevance: `r_squared` times mean over standard deviation of the derivatives [1]_.

    References
    ----------
    .. [1] Graziani, Andrearczyk, Müller. Regression concept vectors for bidirectional explanations in histopathology.
       iMIMIC 2018, equation 3.

    """

    attribute: str
    unit: str
    per_unit: float
    interval: Interval
    share: float
    r_squared: float
    relevance: float


def regression_concept(
    x: Rows,
    attribute: Float[NDArray[Any], " image"],
    gradients: Rows,
    *,
    estimator: Estimator = "ridge",
    groups: Sequence[Any] | NDArray[Any] | None = None,
    gradient_groups: Sequence[Any] | NDArray[Any] | None = None,
    name: str = "attribute",
    unit: str = "1",
    n_boot: int = 1000,
    seed: int = 0,
) -> RegressionConcept:
    """Fit a continuous attribute's vector on some images, and take the output's derivative along it on others.

    Parameters
    ----------
    x, attribute, groups
        Activations, values and patients of the images the vector is fitted on.
    gradients, gradient_groups
        Gradients and patients of the images whose output is asked about, in the form of the activations.
    estimator
        Of the vector; ``ridge`` is Graziani's, ``pattern`` moves as the images do.
    name, unit, n_boot, seed
        For texts; of the interval.

    """
    vector = fit_concept_vector(x, attribute, estimator=estimator, name=name, unit=unit)
    along = sensitivities(gradients, vector.direction)
    units = np.arange(len(along)) if gradient_groups is None else np.asarray(gradient_groups, dtype=object)
    moved = along * vector.step
    quality = concept_quality(x, attribute, estimator=estimator, groups=groups, n_resamples=2, seed=seed)
    spread = float(along.std())
    return RegressionConcept(
        name, unit, float(moved.mean()),
        bootstrap_groups(lambda images: float(moved[images].mean()), units, n_boot, seed),
        float((along > 0).mean()), quality.score, quality.score * float(along.mean()) / spread if spread > 0 else float("nan"),
    )  # fmt: skip
