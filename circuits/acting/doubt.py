"""Scores that say when not to trust a case, from what the model's inside shows: see :func:`circuits.defer`.

Each is measured on the case alone; what it is compared with comes from reference images, which are other patients'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.acting.bench import Changing, EditBench, Pictures, Unchanged
from circuits.acting.decision import Decision
from circuits.off_data import DataSpread
from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.models.vision_model import VisionModel
from mechinterp.progress import SILENT, Progress

USE = "use of the features"
DISTANCE = "distance from the data"
UNEXPLAINED = "what the features leave out"

# so many tokens tell mean and covariance of a site well enough
_TOKENS = 20_000


@dataclass(frozen=True, eq=False)
class CaseDoubts:
    """Scores of doubt and the model's answer, case by case.

    Parameters
    ----------
    target
        Name of the class decided on.
    scores
        Name → one value per case, high where it should be handed over.
    log_odds
        What the model says.

    """

    target: str
    scores: dict[str, Float[NDArray[np.float64], " case"]]
    log_odds: Float[NDArray[np.float64], " case"]


def case_doubts(
    model: VisionModel,
    encoder: FeatureEncoder,
    cases: Pictures,
    reference: Pictures,
    *,
    target: str | int,
    features: Sequence[int] = (),
    batch: int = 64,
    progress: Progress = SILENT,
) -> CaseDoubts:
    """Score every case.

    Parameters
    ----------
    model, encoder
        Features of one site.
    cases
        To be scored.
    reference
        Images of other patients: what is usual at the site.
    target
        The class whose log-odds are read.
    features
        Features that a case should not depend on, a shortcut's say.
    batch
        Images at once.
    progress
        Told of every batch.

    Returns
    -------
    CaseDoubts
        With up to three scores: :data:`USE`, by how much the log-odds move when `features` take their mean over the reference
        (only if there are `features`); :data:`DISTANCE`, the tokens' mean Mahalanobis distance from the reference's; and
        :data:`UNEXPLAINED`, the share of the activation's squared deviation from the reference's mean that the encoder does not
        reconstruct (only if it loses anything).

    Raises
    ------
    ConfigError
        If a feature does not exist.

    """
    wrong = [f for f in features if not 0 <= f < encoder.width]
    if wrong:
        raise ConfigError(f"there is no feature {wrong[0]}: the encoder has 0 to {encoder.width - 1}")
    decision = Decision.of(model, target)
    bench = EditBench(model, encoder.site, batch)
    usual, codes = _reference(bench, encoder, reference, progress)
    distances, lost = [], []
    for _, _, acts in bench.batches(cases, progress, "doubts"):
        distances.append(usual.distances(acts).mean(1))
        residual = acts - encoder.decode(encoder.encode(acts))
        deviation = (acts - usual.mean).square().sum((1, 2)).clamp_min(torch.finfo(acts.dtype).tiny)
        lost.append(residual.square().sum((1, 2)) / deviation)
    changes: list[Changing] = [Unchanged()]
    if features:
        changes.append(_WithoutFeatures(encoder, codes, tuple(features)))
    answers = bench.run(cases, changes, progress, "log-odds")
    said = [decision.log_odds(a.logits).double().numpy() for a in answers]
    scores = {USE: np.abs(said[1] - said[0])} if features else {}
    scores[DISTANCE] = torch.cat(distances).double().cpu().numpy()
    unexplained = torch.cat(lost).double().cpu().numpy()
    # neurons reconstruct all but rounding
    if unexplained.max() > 1e-6:
        scores[UNEXPLAINED] = unexplained
    return CaseDoubts(decision.name, scores, said[0])


def _reference(
    bench: EditBench, encoder: FeatureEncoder, images: Pictures, progress: Progress
) -> tuple[DataSpread, Float[Tensor, "token feature"]]:
    """Return where the site's tokens usually lie, and its mean code map."""
    some, sums = [], []
    per_image = max(1, _TOKENS // max(1, len(images)))
    for _, _, acts in bench.batches(images, progress, "reference"):
        some.append(acts[:, :: max(1, acts.shape[1] // per_image)].flatten(0, 1))
        sums.append(encoder.encode(acts).double().sum(0))
    return DataSpread.fit(torch.cat(some)[:, None]), (torch.stack(sums).sum(0) / len(images)).to(some[0])


@dataclass(frozen=True, eq=False)
class _WithoutFeatures:
    """Some features at their mean over the reference; what the encoder leaves out stays."""

    encoder: FeatureEncoder
    mean: Float[Tensor, "token feature"]
    features: tuple[int, ...]

    def acts(self, acts_bnd: Tensor) -> Tensor:
        chosen = list(self.features)
        change = (self.mean - self.encoder.encode(acts_bnd))[..., chosen]
        return acts_bnd + change @ self.encoder.directions[chosen].to(acts_bnd)

    def logits(self, logits: Tensor, head: Tensor) -> Tensor:
        del head
        return logits
