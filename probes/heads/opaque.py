"""The opaque classifier beside the heads: logistic regression on all columns, its penalty chosen over folds of patients."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from probes.classifiers import STRENGTHS
from probes.heads.data import HeadData, folds_of


def fitted_logistic(x: Float[NDArray[np.float64], "image column"], data: HeadData) -> Any:
    """Fit scikit-learn's logistic regression of the label on standardised columns.

    Parameters
    ----------
    x
        Columns of the images of `data`: their features, or their concepts.
    data
        Training patients, whose labels are learnt; the inverse penalty is that of least log-loss over folds of whole patients.

    Raises
    ------
    ConfigError
        If there are too few patients.

    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)), {"logisticregression__C": STRENGTHS},
        scoring="neg_log_loss", cv=folds_of(data.groups, data.y),
    )  # fmt: skip
    return search.fit(x, data.y).best_estimator_
