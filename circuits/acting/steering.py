"""``steer``: add more and more of a feature, and draw what that does to the decision, beside random directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.acting.bench import EditBench, Pictures, Unchanged
from circuits.acting.decision import Decision, patients_of
from circuits.off_data import DataSpread
from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.images.image_set import ImageSet
from mechinterp.progress import SILENT, Progress
from mechinterp.statistics.bootstrap import Interval, bootstrap_groups

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from mechinterp.models.vision_model import VisionModel

SAMPLE_EVERY = 8
"""Of so many images one tells where activations usually lie."""
DOSES = (-4.0, -2.0, -1.0, 1.0, 2.0, 4.0)


@dataclass(frozen=True, eq=False)
class Steered:
    """What doses of one feature do.

    Parameters
    ----------
    feature
        Its number.
    target
        Whose log-odds change.
    doses
        In standard deviations of the feature's code over all tokens.
    change
        Mean change of the log-odds.
    intervals
        Of that mean, over patients.
    random
        The same for random directions of the same norm.
    off_data
        Mean Mahalanobis distance of the steered tokens as a multiple of the unchanged ones': far above 1, the dose shows
        the model what it has never seen.

    """

    feature: int
    target: str
    doses: tuple[float, ...]
    change: Float[NDArray[np.float64], " dose"]
    intervals: tuple[Interval, ...]
    random: Float[NDArray[np.float64], "direction dose"]
    off_data: Float[NDArray[np.float64], " dose"]

    @property
    def beyond_random(self) -> bool:
        """Whether the largest dose, either way, moves the decision further than every random direction does.

        Never without random directions beside it.
        """
        size = np.abs(self.doses)
        largest = np.flatnonzero(size == size.max())
        random = np.abs(self.random[:, largest]).max(axis=0, initial=0.0)
        return len(self.random) > 0 and bool((np.abs(self.change[largest]) > random).any())

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "feature": self.feature, "target": self.target, "doses": list(self.doses), "change": self.change.tolist(),
            "intervals": [i.to_json() for i in self.intervals], "random": self.random.tolist(),
            "off_data": self.off_data.tolist(), "beyond_random": self.beyond_random,
        }  # fmt: skip

    def figure(self) -> go.Figure:
        """Draw the dose curve; see :func:`circuits.acting.figures.dose_figure`."""
        from circuits.acting.figures import dose_figure

        return dose_figure(self)


@dataclass(frozen=True, eq=False)
class _Push:
    step: Float[Tensor, " width"]

    def acts(self, acts_bnd: Tensor) -> Tensor:
        return acts_bnd + self.step.to(acts_bnd)

    def logits(self, logits: Tensor, head: Tensor) -> Tensor:
        del head
        return logits


def steer(
    model: VisionModel,
    encoder: FeatureEncoder,
    feature: int,
    images: Pictures,
    *,
    target: str | int,
    doses: Sequence[float] = DOSES,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    units_are_patients: bool | None = None,
    n_random: int = 20,
    n_boot: int = 1000,
    batch: int = 64,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Steered:
    """Add doses of a feature to every token and measure the decision.

    Parameters
    ----------
    model, encoder, feature
        What is steered.
    images
        On which.
    target
        The class whose log-odds are measured.
    doses
        In standard deviations of the feature's code; negative ones take it away.
    groups
        Patient of each image; an ``ImageSet`` has its own.
    units_are_patients
        Whether those groups are patients; an ``ImageSet`` knows it, and of prepared images it is believed.
    n_random
        Random directions of the same norm.
    n_boot, seed
        Of intervals and directions.
    batch
        Images at once.
    progress
        Told of every batch.

    Raises
    ------
    ConfigError
        If there is no such feature, no dose, or the feature does not vary.

    """
    if not 0 <= feature < encoder.width:
        raise ConfigError(f"there is no feature {feature}: the encoder has 0 to {encoder.width - 1}")
    if not len(doses):
        raise ConfigError("there is no dose: give at least one")
    decision = Decision.of(model, target)
    bench = EditBench(model, encoder.site, batch)
    some, codes = [], []
    for _, _, acts in bench.batches(images, progress, "activations"):
        some.append(acts[::SAMPLE_EVERY])
        codes.append(encoder.encode(acts)[..., feature].flatten())
    sample, spread = torch.cat(some), float(torch.cat(codes).std())
    if spread <= 0:
        raise ConfigError(f"feature {feature} does not vary over the images: a dose has no size")
    own = spread * encoder.directions[feature].to(sample)
    random = np.random.default_rng([seed, 21])
    drawn = torch.from_numpy(random.standard_normal((n_random, encoder.d_in))).to(sample)
    steps = torch.cat([own[None], drawn / drawn.norm(dim=1, keepdim=True) * own.norm()])
    pushes = [_Push(dose * step) for step in steps for dose in doses]
    answers = bench.run(images, [Unchanged(), *pushes], progress, "doses")
    said = np.stack([decision.log_odds(a.logits).double().numpy() for a in answers])
    change = (said[1:] - said[0]).reshape(len(steps), len(doses), -1)
    patients = patients_of(images, groups)
    known = units_are_patients
    if known is None:
        known = not isinstance(images, ImageSet) or images.units_are_patients

    def interval(values: NDArray[np.float64]) -> Interval:
        return bootstrap_groups(
            lambda rows: float(values[rows].mean()),
            patients,
            n_boot,
            seed,
            method="percentile",
            units_are_patients=known,
        )

    usual = DataSpread.fit(sample)
    return Steered(
        feature, decision.name, tuple(float(d) for d in doses), change[0].mean(1), tuple(interval(v) for v in change[0]),
        change[1:].mean(2), np.array([usual.ratio(sample + dose * own, sample) for dose in doses]),
    )  # fmt: skip
