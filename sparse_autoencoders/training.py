"""Train sparse autoencoders on a store's activations, through SAELens' trainer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ConfigError, ImagesError, nearest
from mechinterp.progress import SILENT, Progress
from sparse_autoencoders.autoencoder import SparseAutoencoder, only_site
from sparse_autoencoders.calibration import threshold_for_l0
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.initialisation import start, suited
from sparse_autoencoders.metrics import evaluate_sae, training_images

if TYPE_CHECKING:
    from mechinterp.store import ActivationStore

_CURVE_POINTS = 200
_SAMPLE_ROWS = 1 << 15
_RESTART_ROWS = 1 << 12


def train_saes(
    store: ActivationStore,
    *,
    site: str | None = None,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    out: str | Path | None = None,
    config: TrainSAEConfig | None = None,
    progress: Progress = SILENT,
    **settings: Any,
) -> list[SparseAutoencoder]:
    """Train one sparse autoencoder for each seed.

    Activations are centred and scaled by the statistics of the training images, and that is folded into the weights: what is
    returned and saved reads raw activations.

    Parameters
    ----------
    store
        Activations.
    site
        Which site's; may be left out where the store has one.
    images
        Positions of the training images; by default those of split ``train``, all where there are no splits.
    out
        Folder to save in, one SAE under ``seed-0``, ``seed-1``, …; nothing is saved by default.
    config
        How to train.
    progress
        Sees one step per optimiser step.
    **settings
        Fields of :class:`TrainSAEConfig`, over those of `config`: ``arch="batchtopk", k=16, seeds=(0, 1)``.

    Returns
    -------
    list of SparseAutoencoder
        In the order of the seeds; `provenance` holds the training curve and the metrics on the training images.

    Raises
    ------
    ConfigError, SiteError, ImagesError, DiskError
        If a setting cannot be meant, the site is unknown, activations are not finite, the disk is full.

    Examples
    --------
    >>> sae = train_saes(store, k=32, expansion=4, seeds=(0, 1, 2), out="runs/a/saes")[0]  # doctest: +SKIP

    """
    chosen_config = configured(config, settings)
    _check_device(chosen_config.device)
    data = _TrainingData.of(store, only_site(store, site), images, chosen_config)
    trained = []
    for seed in chosen_config.seeds:
        sae = _train_one(data, chosen_config, seed, progress)
        metrics = evaluate_sae(sae, store, data.images)
        sae = replace(sae, provenance={**sae.provenance, "metrics": {"train": metrics.to_json()}})
        if out is not None:
            sae.save(Path(out) / f"seed-{seed}")
        trained.append(sae)
    return trained


def configured(config: TrainSAEConfig | None, settings: dict[str, Any]) -> TrainSAEConfig:
    """Return `config` with some fields replaced.

    Raises
    ------
    ConfigError
        If there is no field of a name.

    """
    names = [f.name for f in fields(TrainSAEConfig)]
    for name in settings:
        if name not in names:
            raise ConfigError(f"training has no setting '{name}': {nearest(name, names)}")
    if "seeds" in settings:
        settings = {**settings, "seeds": tuple(int(s) for s in settings["seeds"])}
    return replace(config or TrainSAEConfig(), **settings)


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"no device '{name}': take cpu, cuda or cuda:0") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"no device '{name}': torch sees {torch.cuda.device_count()} CUDA devices")


@dataclass(frozen=True)
class _TrainingData:
    """The training images' activations, and what they are centred and scaled by."""

    store: ActivationStore
    site: str
    images: NDArray[np.int64]
    mean: Float[Tensor, " width"]
    scale: float
    batch_size: int
    steps: int

    @classmethod
    def of(
        cls,
        store: ActivationStore,
        site: str,
        images: Sequence[int] | NDArray[np.int64] | None,
        config: TrainSAEConfig,
    ) -> _TrainingData:
        chosen = training_images(store) if images is None else np.asarray(images, dtype=np.int64)
        rows = len(chosen) * store.tokens(site)
        if rows < 2:
            raise ImagesError(f"{len(chosen)} training images with {rows} tokens at site '{site}': capture more images")
        config.width(store.width(site))
        moments = store.statistics(site, chosen)
        variance = float(moments.variance.mean())
        if not np.isfinite(variance):
            raise ImagesError(
                f"activations of site '{site}' are NaN or infinite for {_not_finite(store, site, chosen)}: "
                "capture again, or leave it out"
            )
        if variance == 0:
            raise ImagesError(f"activations of site '{site}' are the same for all {rows} tokens: choose another site")
        batch_size = min(config.batch_size, rows)
        per_epoch = rows // batch_size
        steps = config.steps or config.epochs * per_epoch
        return cls(store, site, chosen, moments.mean.float(), variance**0.5, batch_size, steps)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass."""
        return len(self.images) * self.store.tokens(self.site) // self.batch_size

    def stream(self, seed: int) -> Iterator[Float[Tensor, "row width"]]:
        """Yield normalised batches without end; the order depends on the seed alone."""
        epoch = 0
        while True:
            for x in self.store.batches(self.site, self.batch_size, seed=seed, epoch=epoch, images=self.images):
                yield self.normalised(x)
            epoch += 1

    def sample(self, generator: torch.Generator) -> Float[Tensor, "row width"]:
        """Return tokens of randomly drawn training images, in random order, as they are."""
        tokens = self.store.tokens(self.site)
        order = torch.randperm(len(self.images), generator=generator)[: -(-_SAMPLE_ROWS // tokens)]
        rows = self.store.read(self.site, self.images[np.sort(order.numpy())]).flatten(0, 1)
        return rows[torch.randperm(len(rows), generator=generator)]

    def normalised(self, x: Float[Tensor, "row width"]) -> Float[Tensor, "row width"]:
        return (x - self.mean) / self.scale


def _not_finite(store: ActivationStore, site: str, images: NDArray[np.int64]) -> str:
    """Name the first image with a value that is not finite."""
    for position in images:
        if not bool(store.read(site, [int(position)]).isfinite().all()):
            return f"image '{store.images['id'].iloc[int(position)]}'"
    return "their sum (values too large)"


def _train_one(data: _TrainingData, config: TrainSAEConfig, seed: int, progress: Progress) -> SparseAutoencoder:
    from mechinterp.provenance import versions
    from sparse_autoencoders.resampling import restart_silent
    from sparse_autoencoders.saelens import inference_weights, make_trainer

    d_in = data.store.width(data.site)
    generator = torch.Generator().manual_seed(seed)
    sample = data.sample(generator)
    chosen = suited(sample) if config.init == "auto" else config.init
    sample = data.normalised(sample)
    begin = start(chosen, sample, config.width(d_in), config.k, generator)
    dead_window = max(1, round(config.dead_after * data.steps_per_epoch))
    trainer = make_trainer(begin, config, data.stream(seed), data.batch_size, data.steps, dead_window, seed)
    every = max(1, data.steps // _CURVE_POINTS)
    curve: dict[str, list[float]] = {name: [] for name in ("step", "loss", "explained_variance", "l0", "dead")}
    # none in the second half: a restarted feature needs time to learn
    restarts = {
        e * data.steps_per_epoch for e in range(1, config.restarts + 1) if 2 * e * data.steps_per_epoch <= data.steps
    }
    restarted = 0
    started = time.perf_counter()
    for step in progress.track(range(data.steps), f"training {config.arch}, seed {seed}", total=data.steps):
        output = trainer.step(next(trainer.data_provider))
        trainer.n_training_steps += 1
        if step + 1 in restarts:
            silent = trainer.n_forward_passes_since_fired >= data.steps_per_epoch
            restarted += restart_silent(trainer, silent, sample[:_RESTART_ROWS], generator)
        if step % every == 0 or step == data.steps - 1:
            loss = float(output.loss.detach())
            if not np.isfinite(loss):
                raise ConfigError(f"the loss is {loss} at step {step + 1}: take a smaller lr than {config.lr:g}")
            curve["step"].append(step + 1)
            curve["loss"].append(loss)
            # the scaled activations have a mean squared norm of d_in about their mean
            curve["explained_variance"].append(1 - float(output.losses["mse_loss"].detach()) / d_in)
            curve["l0"].append(float((output.feature_acts != 0).sum(-1).float().mean()))
            curve["dead"].append(float(trainer.dead_neurons.float().mean()))
    seconds = time.perf_counter() - started
    manifest = data.store.manifest
    sae = SparseAutoencoder(
        site=data.site,
        **inference_weights(trainer.sae, config, data.mean, data.scale),
        provenance={
            "model": {
                "spec": manifest.model_spec,
                "weights_hash": manifest.weights_hash,
                "trained": manifest.trained,
            },
            "preparation_hash": manifest.preparation_hash,
            "store_hash": data.store.hash,
            "training_images": [str(data.store.images["id"].iloc[i]) for i in data.images],
            "seed": seed,
            "config": {**asdict(config), "seeds": [seed]},
            "start": {"name": begin.name, "explained_variance": begin.explained_variance},
            "steps": data.steps,
            "restarted": restarted,
            "curve": curve,
            "versions": versions(),
        },
    )
    progress.note(f"{config.arch}, seed {seed}: {data.steps} steps in {seconds:.0f} s")
    return _calibrated(sae, data, config) if config.arch == "batchtopk" else sae


def _calibrated(sae: SparseAutoencoder, data: _TrainingData, config: TrainSAEConfig) -> SparseAutoencoder:
    """Set a BatchTopK's threshold so that its L0 on the training tokens is k."""
    hidden = (sae.preactivations(data.store.read(data.site, [int(i)])[0]) for i in data.images)
    threshold = threshold_for_l0(hidden, config.k)
    return replace(sae, threshold=torch.full((sae.width,), threshold))
