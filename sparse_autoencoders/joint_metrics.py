"""How well a transcoder or a crosscoder describes the sites it writes: the metrics of autoencoders, for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import HashMismatchError, ImagesError, ShapeError
from mechinterp.progress import SILENT, Progress
from sparse_autoencoders.crosscoder import Crosscoder
from sparse_autoencoders.effective_size import effective_size
from sparse_autoencoders.explained_variance import ExplainedVariance
from sparse_autoencoders.metrics import DENSE, RARE, SAEMetrics, held_out_images
from sparse_autoencoders.stream import require_same_tokens
from sparse_autoencoders.transcoder import Transcoder

if TYPE_CHECKING:
    from mechinterp.store import ActivationStore

_VALUES = 1 << 22
_LEAST_ROWS = 1 << 12


class _Meter:
    """Sums over rows at one site that is written."""

    def __init__(self, width: int) -> None:
        self.variance = ExplainedVariance()
        self.active = torch.zeros(width, dtype=torch.float64)
        self.squares = self.cosine = self.ratio = 0.0
        self.directed = 0

    def update(self, z: Tensor, y: Tensor, y_hat: Tensor) -> None:
        self.variance.update(y, y_hat)
        self.active += (z != 0).sum(0).double()
        norm = y.double().norm(dim=-1)
        some = norm > 0
        self.squares += float(norm.square().sum())
        self.cosine += float(torch.cosine_similarity(y, y_hat, dim=-1)[some].double().sum())
        self.ratio += float((y_hat.double().norm(dim=-1)[some] / norm[some]).sum())
        self.directed += int(some.sum())

    def compute(self, images: int) -> SAEMetrics:
        density = self.active / self.variance.rows
        directed = self.directed or float("nan")
        return SAEMetrics(
            explained_variance=self.variance.compute(),
            norm_explained=1 - self.variance.squared_error / (self.squares or float("nan")),
            norm_ratio=self.ratio / directed,
            l0=float(density.sum()),
            cosine=self.cosine / directed,
            dead=float((density == 0).double().mean()),
            dense=float((density > DENSE).double().mean()),
            rare=float(((density > 0) & (density < RARE)).double().mean()),
            effective_features=effective_size(density.numpy()).entropy,
            rows=self.variance.rows,
            images=images,
            density=density.numpy(),
        )


@torch.no_grad()
def evaluate_transcoder(
    transcoder: Transcoder,
    store: ActivationStore,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    allow_mismatch: bool = False,
    progress: Progress = SILENT,
) -> SAEMetrics:
    """Measure how well a transcoder writes what the second site holds.

    Parameters
    ----------
    transcoder
        Of two of the store's sites.
    store
        Activations of both.
    images
        Positions of the images; by default those that are held out, all where there is no split.
    allow_mismatch
        Measure on activations of another model or preparation too.
    progress
        Sees one step per block of images.

    Returns
    -------
    SAEMetrics
        Explained variance, norms and cosine are those of the site that is written.

    Raises
    ------
    HashMismatchError, ShapeError, SiteError, ImagesError
        If transcoder and activations do not belong together, or there is no image to measure on.

    """
    sites = (transcoder.site, transcoder.to_site)
    require_joint_source(transcoder, store, allow_mismatch=allow_mismatch)
    meter = _Meter(transcoder.width)
    chosen = _chosen(store, images)
    for read, wanted in _blocks(store, sites, transcoder.width, chosen, progress, "measuring the transcoder"):
        z = transcoder.encode(read)
        meter.update(z, wanted, transcoder.decode(z) + transcoder.skipped(read))
    return meter.compute(len(chosen))


@torch.no_grad()
def evaluate_crosscoder(
    crosscoder: Crosscoder,
    store: ActivationStore,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    allow_mismatch: bool = False,
    progress: Progress = SILENT,
) -> dict[str, SAEMetrics]:
    """Measure a crosscoder at each of its sites; parameters as for :func:`evaluate_transcoder`.

    Returns
    -------
    dict
        Site → metrics; sparsity and use of the dictionary are the same for all, there is one code.

    Raises
    ------
    HashMismatchError, ShapeError, SiteError, ImagesError
        As :func:`evaluate_transcoder` does.

    """
    require_joint_source(crosscoder, store, allow_mismatch=allow_mismatch)
    meters = {site: _Meter(crosscoder.width) for site in crosscoder.sites}
    chosen = _chosen(store, images)
    for parts in _blocks(store, crosscoder.sites, crosscoder.width, chosen, progress, "measuring the crosscoder"):
        z = crosscoder.encode_joined(torch.cat(parts, dim=1))
        decoded = crosscoder.decode(z)
        for part, (site, meter) in zip(parts, meters.items(), strict=True):
            meter.update(z, part, decoded[site])
    return {site: meter.compute(len(chosen)) for site, meter in meters.items()}


def require_joint_source(
    made: Transcoder | Crosscoder, store: ActivationStore, *, allow_mismatch: bool = False
) -> None:
    """Refuse a transcoder or crosscoder on activations of other sites, widths, tokens, model or preparation.

    Raises
    ------
    SiteError, ShapeError, HashMismatchError
        If they do not belong together.

    """
    if isinstance(made, Transcoder):
        widths = {made.site: made.d_in, made.to_site: made.d_out}
    else:
        widths = dict(zip(made.sites, made.widths, strict=True))
    for site, width in widths.items():
        if store.width(site) != width:
            raise ShapeError(f"site '{site}' is {store.width(site)} wide in this store, the {made.kind} has {width}")
    require_same_tokens(store, tuple(widths))
    if allow_mismatch or not made.provenance:
        return
    theirs = {
        "model weights": (made.provenance.get("model", {}).get("weights_hash"), store.manifest.weights_hash),
        "preparation": (made.provenance.get("preparation_hash"), store.manifest.preparation_hash),
    }
    for what, (expected, found) in theirs.items():
        if expected is not None and expected != found:
            raise HashMismatchError(
                f"the {made.kind} was trained on other {what} ({expected[:12]}) than these activations come from "
                f"({found[:12]}): train one on them, or allow the mismatch to measure the transfer"
            )


def linear_map(
    store: ActivationStore, site: str, to_site: str, images: Sequence[int] | NDArray[np.int64], *, ridge: float = 1e-6
) -> Transcoder:
    """Return the best linear map from one site to another as a transcoder that has a skip alone: what features have to beat.

    Solved exactly from the moments of the training tokens, with a little ridge (`ridge` times the mean variance).
    """
    widths = (store.width(site), store.width(to_site))
    means = [store.statistics(name, images).mean for name in (site, to_site)]
    gram = torch.zeros(widths[0], widths[0], dtype=torch.float64)
    cross = torch.zeros(widths[0], widths[1], dtype=torch.float64)
    for read, wanted in _blocks(store, (site, to_site), 1, np.asarray(images), SILENT, "reading"):
        x = read.double() - means[0]
        gram += x.T @ x
        cross += x.T @ (wanted.double() - means[1])
    gram.diagonal().add_(ridge * float(gram.diagonal().mean()) + torch.finfo(torch.float32).tiny)
    weights = torch.linalg.solve(gram, cross)
    one = torch.nn.functional.normalize(torch.ones(1, widths[1]), dim=1)
    return Transcoder(
        site, to_site, "standard", torch.zeros(widths[0], 1), torch.zeros(1), one,
        (means[1] - means[0] @ weights).float(), W_skip=weights.T.float().contiguous(),
    )  # fmt: skip


def _chosen(store: ActivationStore, images: Sequence[int] | NDArray[np.int64] | None) -> NDArray[np.int64]:
    chosen = held_out_images(store) if images is None else np.asarray(images, dtype=np.int64)
    if len(chosen) == 0:
        raise ImagesError("no image to measure on: give positions of held-out images")
    return chosen


def _blocks(
    store: ActivationStore,
    sites: tuple[str, ...],
    width: int,
    images: NDArray[np.int64],
    progress: Progress,
    description: str,
) -> Iterator[list[Float[Tensor, "row width"]]]:
    """Yield the same tokens at each site, some images at a time."""
    rows = max(_LEAST_ROWS, _VALUES // max(width, *(store.width(site) for site in sites)))
    size = max(1, rows // max(1, store.tokens(sites[0])))
    starts = range(0, len(images), size)
    for first in progress.track(starts, description, total=len(starts)):
        yield [store.rows(site, images[first : first + size]) for site in sites]
