"""How much of a case's answer rests on features that nobody has explained: a score of doubt that a report gives.

Every feature's part in a case's log-odds is what would go if it took its mean over the reference images. Features whose meaning
was confirmed on held-out patients are explained; all others, and what the encoder leaves out, are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from circuits.ablations import mean
from circuits.acting.bench import Pictures
from circuits.acting.decision import Decision
from circuits.measuring import Method, effects
from circuits.nodes import NodeSet
from mechinterp.errors import ConfigError
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from mechinterp.models.vision_model import VisionModel

UNEXPLAINED_SHARE = "answer rests on what is not explained"


def unexplained_share(
    model: VisionModel,
    nodes: NodeSet,
    cases: Pictures,
    reference: Pictures,
    *,
    target: str | int,
    explained: Sequence[int],
    method: Method = "attribution",
    batch: int = 32,
    progress: Progress = SILENT,
) -> Float[NDArray[np.float64], " case"]:
    """Return, for every case, the share of its answer that rests on unexplained nodes.

    Parameters
    ----------
    model, nodes
        Features (with their error) or neurons of one site.
    cases
        To be scored.
    reference
        Images of other patients, whose mean is put in place.
    target
        The class whose log-odds are read.
    explained
        Features that held-out patients have confirmed to follow something known.
    method
        How effects are computed; see :func:`circuits.effects`.
    batch
        Images at once.
    progress
        Told of every batch, for exact effects.

    Returns
    -------
    array
        From 0 (explained features alone move the answer away from the usual one) to 1 (they have no part in it, or nothing
        has): the sum of the sizes of unexplained nodes' effects, as a share of all nodes'.

    Raises
    ------
    ConfigError
        If no feature is explained, or one does not exist: every case would score alike.

    """
    wrong = [f for f in explained if not 0 <= f < nodes.n_features]
    if wrong:
        raise ConfigError(f"there is no feature {wrong[0]}: site '{nodes.site}' has 0 to {nodes.n_features - 1}")
    if not len(explained):
        raise ConfigError("no feature is explained: every case's answer rests on what is not, so there is no score")
    found = effects(
        Decision.of(model, target).log_odds, nodes, model=model, images=cases, reference=reference, method=method,
        ablation=mean(), batch=batch, progress=progress,
    )  # fmt: skip
    sizes = np.abs(found.per_image.astype(np.float64))
    total = sizes.sum(1)
    known = sizes[:, sorted(set(explained))].sum(1)
    share: NDArray[np.float64] = 1 - np.divide(known, total, out=np.zeros_like(total), where=total > 0)
    return share
