"""Train transcoders and crosscoders: the same stream, steps, checkpoints and bits as autoencoders, on several sites of one store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, SiteError
from mechinterp.progress import SILENT, Progress
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.crosscoder import Crosscoder
from sparse_autoencoders.joint_metrics import evaluate_crosscoder, evaluate_transcoder
from sparse_autoencoders.single_training import SingleTraining
from sparse_autoencoders.stream import TrainingStream
from sparse_autoencoders.training import Watch, configured, shared_by, train_on
from sparse_autoencoders.transcoder import Transcoder
from sparse_autoencoders.transcoder_learner import LearntTranscoder

if TYPE_CHECKING:
    from mechinterp.store import ActivationStore


def train_transcoders(
    store: ActivationStore,
    *,
    site: str,
    to_site: str,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    out: str | Path | None = None,
    config: TrainSAEConfig | None = None,
    progress: Progress = SILENT,
    watch: Watch | None = None,
    **settings: Any,
) -> list[Transcoder]:
    """Train one transcoder for each seed, from what one site holds to what another holds.

    Both sites are centred and scaled by the statistics of the training images, and that is folded into the weights.

    Parameters
    ----------
    store
        Activations of both sites, with the same tokens.
    site, to_site
        What is read and what is written: the MLP's input and its output, say ``blocks.3.norm2`` and ``blocks.3.hook_mlp_out``.
    images, out, config, progress, watch
        As for :func:`~sparse_autoencoders.training.train_saes`.
    **settings
        Fields of :class:`TrainSAEConfig`; ``arch`` one of the TopK family, ``skip=True`` for a linear path beside the features.

    Returns
    -------
    list of Transcoder
        In the order of the seeds; explained variance in `provenance` is that of the site that is written.

    Raises
    ------
    ConfigError, SiteError, ImagesError, DiskError
        If a setting cannot be meant, a site is unknown or holds other tokens, activations are not finite, the disk is full.

    Examples
    --------
    >>> train_transcoders(store, site="blocks.3.norm2", to_site="blocks.3.hook_mlp_out", arch="batchtopk")  # doctest: +SKIP

    """
    chosen = {"": configured(config, settings)}
    return transcoder_sweep(
        store, chosen, site=site, to_site=to_site, images=images, out=out, progress=progress, watch=watch
    )


def transcoder_sweep(
    store: ActivationStore,
    configs: dict[str, TrainSAEConfig],
    *,
    site: str,
    to_site: str,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    out: str | Path | None = None,
    progress: Progress = SILENT,
    watch: Watch | None = None,
) -> list[Transcoder]:
    """Train transcoders of several settings on one stream; see :func:`train_transcoders` and ``train_sweep``."""
    stream = TrainingStream.of(store, (site, to_site), images, shared_by(configs), transcode=True)
    return train_on(stream, configs, _transcoder, out=out, progress=progress, watch=watch)


def train_crosscoders(
    store: ActivationStore,
    *,
    sites: Sequence[str],
    images: Sequence[int] | NDArray[np.int64] | None = None,
    out: str | Path | None = None,
    config: TrainSAEConfig | None = None,
    progress: Progress = SILENT,
    watch: Watch | None = None,
    **settings: Any,
) -> list[Crosscoder]:
    """Train one crosscoder for each seed: one dictionary whose codes reconstruct every site.

    Each site is centred and scaled for itself, so that none counts more for being larger; that is folded into the weights.

    Parameters
    ----------
    store
        Activations of all sites, with the same tokens.
    sites
        Two or more. The number of features is `expansion` times the first one's width.
    images, out, config, progress, watch, **settings
        As for :func:`~sparse_autoencoders.training.train_saes`.

    Returns
    -------
    list of Crosscoder
        In the order of the seeds.

    Raises
    ------
    ConfigError, SiteError, ImagesError, DiskError
        If a setting cannot be meant, a site is unknown or holds other tokens, activations are not finite, the disk is full.

    """
    chosen = {"": configured(config, settings)}
    return crosscoder_sweep(store, chosen, sites=sites, images=images, out=out, progress=progress, watch=watch)


def crosscoder_sweep(
    store: ActivationStore,
    configs: dict[str, TrainSAEConfig],
    *,
    sites: Sequence[str],
    images: Sequence[int] | NDArray[np.int64] | None = None,
    out: str | Path | None = None,
    progress: Progress = SILENT,
    watch: Watch | None = None,
) -> list[Crosscoder]:
    """Train crosscoders of several settings on one stream; see :func:`train_crosscoders` and ``train_sweep``."""
    if len(sites) < 2:
        raise SiteError(
            f"a crosscoder wants two sites or more, and {len(sites)} was named: train an autoencoder instead"
        )
    if any(config.arch == "matching-pursuit" for config in configs.values()):
        raise ConfigError(
            "matching-pursuit codes one site, round by round, and a crosscoder reads several at once: take topk or batchtopk"
        )
    stream = TrainingStream.of(store, tuple(sites), images, shared_by(configs))
    return train_on(stream, configs, _crosscoder, out=out, progress=progress, watch=watch)


def _transcoder(training: SingleTraining, stream: TrainingStream) -> Transcoder:
    r"""Return the transcoder that reads and writes raw activations.

    With :math:`\tilde x = (x - \mu_x) / \sigma_x` and :math:`\tilde y` alike, codes of :math:`y` are :math:`\sigma_y` times those of
    :math:`\tilde y`, so that decoder rows keep their unit norm.
    """
    learnt = training.learnt()
    if not isinstance(learnt, LearntTranscoder):
        raise TypeError("a stream of two sites was given to something that is no transcoder")
    split = stream.widths[0]
    mean_x, mean_y = stream.mean[:split].double(), stream.mean[split:].double()
    scale_x, scale_y = _scales(stream)
    ratio = scale_y / scale_x
    W_enc = learnt.W_enc.double()
    b_dec = scale_y * learnt.b_dec.double() + mean_y
    skip = None if learnt.W_skip is None else ratio * learnt.W_skip.double()
    if skip is not None:
        b_dec = b_dec - skip @ mean_x
    made = Transcoder(
        stream.sites[0],
        stream.sites[1],
        learnt.architecture,
        (ratio * W_enc).float(),
        (scale_y * (learnt.b_enc.double() - mean_x @ W_enc / scale_x)).float(),
        learnt.W_dec,
        b_dec.float(),
        None if skip is None else skip.float(),
        learnt.k,
        learnt.threshold,
        training.provenance(stream),
    )
    made = training.calibrated(made, stream)
    metrics = evaluate_transcoder(made, stream.store, stream.images)
    return replace(made, provenance={**made.provenance, "metrics": {"train": metrics.to_json()}})


def _crosscoder(training: SingleTraining, stream: TrainingStream) -> Crosscoder:
    """Return the crosscoder that reads raw activations; its codes stay those of the scaled ones."""
    learnt = training.learnt()
    mean, scale = stream.mean.double(), torch.as_tensor(stream.scale).double()
    made = Crosscoder(
        stream.sites,
        stream.widths,
        learnt.architecture,
        (learnt.W_enc.double() / scale[:, None]).float(),
        learnt.b_enc,
        (learnt.W_dec.double() * scale).float(),
        (scale * learnt.b_dec.double() + mean).float(),
        torch.tensor(_scales(stream)),
        learnt.k,
        learnt.threshold,
        training.provenance(stream),
    )
    made = training.calibrated(made, stream)
    metrics = evaluate_crosscoder(made, stream.store, stream.images)
    at_sites = {site: found.to_json() for site, found in metrics.items()}
    return replace(made, provenance={**made.provenance, "metrics": {"train": at_sites}})


def _scales(stream: TrainingStream) -> list[float]:
    """Return what each site's activations were divided by."""
    scale = torch.as_tensor(stream.scale)
    begins = np.cumsum([0, *stream.widths[:-1]])
    return [float(scale[int(begin)]) for begin in begins]
