"""What a reconstruction is worth to the model: put it in place of the activation and see what the prediction does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.capturing import run_with_cache
from mechinterp.errors import ImagesError
from mechinterp.interventions import Edit, ablate, intervene, replace_by_features
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from mechinterp.feature_encoder import FeatureEncoder
    from mechinterp.models.vision_model import VisionModel
    from mechinterp.tails import Tail


@dataclass(frozen=True)
class Spliced:
    """The model's prediction with something else at the site, against its own prediction on the same images.

    Parameters
    ----------
    kl
        Divergence from the model's own class probabilities [nat], mean over images; for independent (sigmoid) outputs the
        sum over them.
    cross_entropy
        Of the class the model itself predicts [nat], mean over images.
    agreement
        Share of images whose prediction stays the same.

    """

    kl: float
    cross_entropy: float
    agreement: float


@dataclass(frozen=True)
class LossRecovered:
    """How much of the prediction survives an encoder's reconstruction.

    Parameters
    ----------
    reconstruction
        With the encoder's reconstruction at the site.
    zero, mean
        With zero, or the mean activation, at every token: what there is to lose.
    identity
        With the site's own activation put back: what the measurement itself costs; its KL is zero.
    images
        Number of images.

    """

    reconstruction: Spliced
    zero: Spliced
    mean: Spliced
    identity: Spliced
    images: int

    @property
    def cross_entropy_recovered(self) -> dict[str, float]:
        """Against each ablation: 1 as good as the site itself, 0 as bad as the ablation; ``nan`` if that costs nothing."""
        return {name: self._recovered("cross_entropy", name) for name in ("zero", "mean")}

    @property
    def kl_recovered(self) -> dict[str, float]:
        """As above, by KL divergence."""
        return {name: self._recovered("kl", name) for name in ("zero", "mean")}

    def to_json(self) -> dict[str, object]:
        """Return everything as plain JSON."""
        return {
            **asdict(self),
            "cross_entropy_recovered": self.cross_entropy_recovered,
            "kl_recovered": self.kl_recovered,
        }

    def _recovered(self, what: str, reference: str) -> float:
        ablated, own = getattr(getattr(self, reference), what), getattr(self.identity, what)
        lost = ablated - own
        return (ablated - getattr(self.reconstruction, what)) / lost if lost > 1e-9 else float("nan")


@torch.no_grad()
def loss_recovered(
    model: VisionModel,
    encoder: FeatureEncoder,
    batches: Iterable[Float[Tensor, "batch channel height width"]],
    mean: Float[Tensor, " width"],
    *,
    tail: Tail | None = None,
    progress: Progress = SILENT,
) -> LossRecovered:
    """Splice an encoder's reconstruction into the model, beside three references.

    Five forward passes for each batch, which start at the input, so that any model and site will do; or one, and four of
    what comes after the site, where a tail is given that was proved equal to the model.

    Parameters
    ----------
    model
        The model.
    encoder
        SAE or any other encoder of one of its sites.
    batches
        Prepared images, see :meth:`mechinterp.VisionModel.prepare`; held out from the SAE's training.
    mean
        Mean activation over the training tokens, ``store.statistics(site, training_images).mean``.
    tail
        Of the encoder's site.
    progress
        Sees one step per batch.

    Raises
    ------
    SiteError
        If the model has no such site.
    ImagesError
        If there is no batch.

    """
    edits: dict[str, Edit] = {
        "reconstruction": replace_by_features(encoder, keep_error=False),
        "zero": ablate(),
        "mean": ablate(mean=mean.unsqueeze(0)),
        "identity": lambda acts_bnd: acts_bnd.clone(),
    }
    totals = {name: torch.zeros(3, dtype=torch.float64) for name in edits}
    n = 0
    for x in progress.track(batches, f"splicing the {encoder.kind} into the model"):
        n += len(x)
        if tail is not None and tail.exact and tail.site.name == encoder.site:
            seen = run_with_cache(model, x, [encoder.site], logits=True)
            own = seen["logits"][:, 0]
            for name, edit in edits.items():
                totals[name] += _compared(own, tail.logits(edit(seen[encoder.site])), model.activation)
            continue
        own = model.logits(x)
        for name, edit in edits.items():
            with intervene(model, {encoder.site: edit}):
                totals[name] += _compared(own, model.logits(x), model.activation)
    if n == 0:
        raise ImagesError("no image to splice into: give at least one prepared batch")
    return LossRecovered(**{name: Spliced(*(t / n).tolist()) for name, t in totals.items()}, images=n)


def _compared(own: Tensor, spliced: Tensor, activation: str) -> Tensor:
    """Return the sums over a batch of KL, cross-entropy and agreement."""
    own, spliced = own.double().cpu(), spliced.double().cpu()
    if activation == "softmax":
        p, log_p, log_q = own.softmax(-1), own.log_softmax(-1), spliced.log_softmax(-1)
        predicted = own.argmax(-1)
        kl = (p * (log_p - log_q)).sum()
        cross_entropy = torch.nn.functional.nll_loss(log_q, predicted, reduction="sum")
        agreement = (spliced.argmax(-1) == predicted).sum()
        return torch.stack([kl, cross_entropy, agreement.double()])
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    p = own.sigmoid()
    kl = bce(spliced, p, reduction="sum") - bce(own, p, reduction="sum")
    cross_entropy = bce(spliced, (own > 0).double(), reduction="sum")
    agreement = ((spliced > 0) == (own > 0)).all(-1).sum()
    return torch.stack([kl, cross_entropy, agreement.double()])
