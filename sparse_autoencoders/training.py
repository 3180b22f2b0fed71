"""Train sparse autoencoders on a store's activations: many on one stream, in checkpoints, the same bits every time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ConfigError, nearest
from mechinterp.files import sha256_json
from mechinterp.progress import SILENT, Progress
from sparse_autoencoders.autoencoder import SparseAutoencoder, only_site
from sparse_autoencoders.calibration import threshold_for_l0
from sparse_autoencoders.checkpoint import FOLDER, load_checkpoint, remove_checkpoint, save_checkpoint
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.explained_variance import ExplainedVariance
from sparse_autoencoders.initialisation import Start, start, suited
from sparse_autoencoders.learner import Learner, copy_into
from sparse_autoencoders.metrics import evaluate_sae
from sparse_autoencoders.resampling import restart_silent
from sparse_autoencoders.schedules import active_features, learning_rate
from sparse_autoencoders.stream import TrainingStream

if TYPE_CHECKING:
    from mechinterp.store import ActivationStore

_CURVE_POINTS = 200
_RESTART_ROWS = 1 << 12
# what all trainings of one stream must share
_SHARED = ("batch_size", "epochs", "steps", "patience", "checkpoint_minutes")


@dataclass(frozen=True)
class TrainingStatus:
    """Where a training stands, for whoever watches it.

    Parameters
    ----------
    step, steps
        Steps taken, and all.
    rows_per_second
        Tokens that all autoencoders together learnt from, since this process began.
    curves
        Of each autoencoder by its name: ``step``, ``loss``, ``explained_variance``, ``l0``, ``dead``.
    silent_epochs
        Of each autoencoder: for how many epochs each feature has been silent.

    """

    step: int
    steps: int
    rows_per_second: float
    curves: dict[str, dict[str, list[float]]]
    silent_epochs: dict[str, NDArray[np.float64]]


Watch = Callable[[TrainingStatus], None]


def train_saes(
    store: ActivationStore,
    *,
    site: str | None = None,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    out: str | Path | None = None,
    config: TrainSAEConfig | None = None,
    progress: Progress = SILENT,
    watch: Watch | None = None,
    **settings: Any,
) -> list[SparseAutoencoder]:
    """Train one sparse autoencoder for each seed.

    Activations are centred and scaled by the statistics of the training images, and that is folded into the weights: what is
    returned and saved reads raw activations. A training that was interrupted goes on from its last checkpoint, to the same bits.

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
    watch
        Called at every checkpoint and at the end.
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
    chosen = {"": configured(config, settings)}
    return train_sweep(store, chosen, site=site, images=images, out=out, progress=progress, watch=watch)


def train_sweep(
    store: ActivationStore,
    configs: dict[str, TrainSAEConfig],
    *,
    site: str | None = None,
    images: Sequence[int] | NDArray[np.int64] | None = None,
    out: str | Path | None = None,
    progress: Progress = SILENT,
    watch: Watch | None = None,
) -> list[SparseAutoencoder]:
    """Train autoencoders of several settings on one stream of activations, which is read and normalised once.

    Parameters
    ----------
    configs
        By the name of the folder that each one's seeds are saved in. They may differ in all but batch size, length and patience.
    store, site, images, out, progress, watch
        As for :func:`train_saes`.

    Returns
    -------
    list of SparseAutoencoder
        Config after config, seed after seed.

    Raises
    ------
    ConfigError, SiteError, ImagesError, DiskError
        As :func:`train_saes` does, and if two configs cannot share a stream.

    """
    first, *others = configs.values()
    for other in others:
        for name in _SHARED:
            if getattr(other, name) != getattr(first, name):
                raise ConfigError(
                    f"{name} is {getattr(first, name)} and {getattr(other, name)}: autoencoders on one stream share it; "
                    "train them one after the other"
                )
    for config in configs.values():
        _check_device(config.device)
    stream = TrainingStream.of(store, only_site(store, site), images, first)
    for config in others:
        config.width(store.width(stream.site))
    trainings = [
        _Training.begun(f"{name}/seed-{seed}".lstrip("/"), stream, config, seed)
        for name, config in configs.items()
        for seed in config.seeds
    ]
    folder = None if out is None else Path(out)
    _Loop(stream, trainings, folder, progress, watch).run()
    finished = []
    for training in trainings:
        sae = training.finished(stream)
        if folder is not None:
            sae.save(folder / training.name)
        finished.append(sae)
    if folder is not None:
        remove_checkpoint(folder / FOLDER)
    return finished


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


def make_learner(begin: Start, config: TrainSAEConfig, dead_after: int, seed: int) -> Learner:
    """Return what takes the steps: sparse kernels on the CPU for the TopK family, SAELens' classes for all else."""
    from sparse_autoencoders.sparse_learner import ARCHITECTURES, SparseLearner

    if config.arch in ARCHITECTURES and config.device == "cpu":
        return SparseLearner(begin, config, dead_after)
    from sparse_autoencoders.saelens import SAELensLearner

    return SAELensLearner(begin, config, dead_after, seed)


@dataclass
class _Training:
    """One autoencoder on its way."""

    name: str
    config: TrainSAEConfig
    seed: int
    learner: Learner
    begin: tuple[str, float]
    generator: torch.Generator
    sample: Float[Tensor, "row width"]
    curve: dict[str, list[float]]
    average: dict[str, Tensor]
    best: dict[str, Tensor] = field(default_factory=dict)
    progress: dict[str, float] = field(
        default_factory=lambda: {"restarted": 0, "best_variance": -np.inf, "best_step": 0, "stopped": 0}
    )

    @classmethod
    def begun(cls, name: str, stream: TrainingStream, config: TrainSAEConfig, seed: int) -> _Training:
        generator = torch.Generator().manual_seed(seed)
        raw = stream.sample(generator)
        init = suited(raw) if config.init == "auto" else config.init
        sample = stream.normalised(raw)
        begin = start(init, sample, config.width(sample.shape[1]), config.k, generator)
        dead_after = max(1, round(config.dead_after * stream.steps_per_epoch))
        learner = make_learner(begin, config, dead_after, seed)
        average = {n: t.clone() for n, t in learner.trained().items()} if config.ema else {}
        curve: dict[str, list[float]] = {n: [] for n in ("step", "loss", "explained_variance", "l0", "dead")}
        kept = sample[:_RESTART_ROWS]
        return cls(name, config, seed, learner, (begin.name, begin.explained_variance), generator, kept, curve, average)

    def step(self, x: Float[Tensor, "row width"], step: int, stream: TrainingStream) -> None:
        config, steps = self.config, stream.steps
        width = len(self.learner.silent_for)
        result = self.learner.step(
            x, lr=learning_rate(step, steps, config), k=active_features(step, steps, config, width)
        )
        if not np.isfinite(result.loss):
            raise ConfigError(
                f"the loss of {config.arch}, seed {self.seed}, is {result.loss} at step {step + 1}: take a smaller lr than "
                f"{config.lr:g}"
            )
        for name, average in self.average.items():
            average.lerp_(self.learner.trained()[name], 1 - config.ema)
        epoch, within = divmod(step + 1, stream.steps_per_epoch)
        # none in the second half: a restarted feature needs time to learn
        if within == 0 and epoch <= config.restarts and 2 * (step + 1) <= steps:
            silent = self.learner.silent_for >= stream.steps_per_epoch
            self.progress["restarted"] += restart_silent(self.learner, silent, self.sample, self.generator)
        if step % max(1, steps // _CURVE_POINTS) == 0 or step == steps - 1:
            # the scaled activations have a mean squared norm of d_in about their mean
            dead = float((self.learner.silent_for >= self.learner.dead_after).float().mean())
            explained = 1 - result.squared_error / x.shape[1]
            seen = {
                "step": step + 1, "loss": result.loss, "explained_variance": explained, "l0": result.l0, "dead": dead,
            }  # fmt: skip
            for name, value in seen.items():
                self.curve[name].append(value)

    def look_at_held_out(self, rows: Float[Tensor, "row width"], step: int, patience_steps: int) -> None:
        """Keep the best weights so far; stop where none came for too long."""
        variance = ExplainedVariance()
        variance.update(rows, self.learner.reconstruct(rows))
        if variance.compute() > self.progress["best_variance"]:
            self.progress |= {"best_variance": variance.compute(), "best_step": step}
            self.best = {name: tensor.clone() for name, tensor in (self.average or self.learner.trained()).items()}
        elif step - self.progress["best_step"] >= patience_steps:
            self.progress["stopped"] = 1

    def finished(self, stream: TrainingStream) -> SparseAutoencoder:
        from mechinterp.provenance import versions

        chosen = self.best or self.average
        if chosen:
            copy_into(self.learner.trained(), chosen)
            self.learner.refresh()
        learnt = self.learner.learnt().unfolded(stream.mean, stream.scale)
        manifest = stream.store.manifest
        provenance = {
            "model": {
                "spec": manifest.model_spec,
                "weights_hash": manifest.weights_hash,
                "trained": manifest.trained,
            },
            "preparation_hash": manifest.preparation_hash,
            "store_hash": stream.store.hash,
            "training_images": [str(stream.store.images["id"].iloc[i]) for i in stream.images],
            "seed": self.seed,
            "config": {**asdict(self.config), "seeds": [self.seed]},
            "start": {"name": self.begin[0], "explained_variance": self.begin[1]},
            "steps": int(self.progress["best_step"]) if self.best else stream.steps,
            "restarted": int(self.progress["restarted"]),
            "curve": self.curve,
            "versions": versions(),
        }
        sae = SparseAutoencoder(stream.site, provenance=provenance, **vars(learnt))
        if self.config.arch in {"batchtopk", "matryoshka"}:
            sae = _calibrated(sae, stream, self.config.k)
        metrics = evaluate_sae(sae, stream.store, stream.images)
        return replace(sae, provenance={**sae.provenance, "metrics": {"train": metrics.to_json()}})

    def record(self) -> dict[str, Any]:
        return {"curve": self.curve, "progress": self.progress}

    def tensors(self) -> dict[str, Tensor]:
        parts = {"learner": self.learner.state(), "average": self.average, "best": self.best}
        flat = {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
        return {**flat, "generator": self.generator.get_state()}

    def go_on_from(self, record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        def part(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(f"{name}.")}

        self.learner.load_state(part("learner"))
        self.average, self.best = part("average"), part("best")
        self.curve, self.progress = record["curve"], record["progress"]
        # JSON has no infinity
        self.progress["best_variance"] = -np.inf if (v := self.progress["best_variance"]) is None else v
        self.generator.set_state(tensors["generator"])


@dataclass
class _Loop:
    """All trainings' steps on one stream, with checkpoints."""

    stream: TrainingStream
    trainings: list[_Training]
    out: Path | None
    progress: Progress
    watch: Watch | None
    _began: float = field(default_factory=time.perf_counter, init=False)
    _first: int = field(default=0, init=False)

    def run(self) -> None:
        stream, trainings = self.stream, self.trainings
        self._first = self._go_on()
        held_out = stream.held_out_sample()
        patience = trainings[0].config.patience * stream.steps_per_epoch
        last_saved = time.perf_counter()
        names = ", ".join(dict.fromkeys(t.config.arch for t in trainings))
        what = f"training {names}" + (
            f", {len(trainings)} at once" if len(trainings) > 1 else f", seed {trainings[0].seed}"
        )
        step = self._first
        for step in self.progress.track(self._steps(), what, total=stream.steps - self._first):
            if patience and step % stream.steps_per_epoch == 0:
                for training in trainings:
                    if not training.progress["stopped"]:
                        training.look_at_held_out(held_out, step, patience)
                if all(training.progress["stopped"] for training in trainings):
                    self.progress.note(f"stopped after {step} of {stream.steps} steps: held-out tokens gain no more")
                    break
            if time.perf_counter() - last_saved > 60 * trainings[0].config.checkpoint_minutes:
                self._save(step)
                last_saved = time.perf_counter()
        self._save(step, only_watch=self.out is None)

    def _steps(self) -> Iterator[int]:
        """Take every step that is left, and yield how many there have been."""
        stream, size = self.stream, self.stream.batch_size
        if self._first >= stream.steps:
            return
        for begin, rows in stream.blocks(self._first):
            orders = [torch.from_numpy(stream.order(t.seed, begin, len(rows))) for t in self.trainings]
            for offset in range(len(rows) // size):
                step = begin + offset
                if step < self._first:
                    continue
                for training, order in zip(self.trainings, orders, strict=True):
                    if not training.progress["stopped"]:
                        training.step(rows[order[offset * size : (offset + 1) * size]], step, stream)
                yield step + 1
                if step + 1 == stream.steps:
                    return

    @property
    def _made_from(self) -> str:
        settings = [{"name": t.name, "seed": t.seed, "config": asdict(t.config)} for t in self.trainings]
        for training in settings:
            # how often it is saved decides nothing
            training["config"].pop("checkpoint_minutes")  # type: ignore[attr-defined]
            training["config"].pop("seeds")  # type: ignore[attr-defined]
        images = [self.stream.images.tolist(), self.stream.held_out.tolist()]
        return sha256_json(
            {"trainings": settings, "store": self.stream.store.hash, "site": self.stream.site, "images": images}
        )

    def _go_on(self) -> int:
        found = None if self.out is None else load_checkpoint(self.out / FOLDER, self._made_from)
        if found is None:
            return 0
        record, tensors = found
        for at, training in enumerate(self.trainings):
            prefix = f"{at}."
            own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            training.go_on_from(record["trainings"][at], own)
        self.progress.note(f"going on from step {record['step']} of {self.stream.steps}")
        return int(record["step"])

    def _save(self, step: int, *, only_watch: bool = False) -> None:
        if self.out is not None and not only_watch:
            tensors = {f"{at}.{name}": t for at, tr in enumerate(self.trainings) for name, t in tr.tensors().items()}
            record = {"step": step, "trainings": [training.record() for training in self.trainings]}
            save_checkpoint(self.out / FOLDER, self._made_from, record, tensors)
        if self.watch is not None:
            seconds = time.perf_counter() - self._began
            rows = (step - self._first) * self.stream.batch_size * len(self.trainings)
            self.watch(
                TrainingStatus(
                    step,
                    self.stream.steps,
                    rows / max(seconds, 1e-9),
                    {t.name: t.curve for t in self.trainings},
                    {t.name: t.learner.silent_for.numpy() / self.stream.steps_per_epoch for t in self.trainings},
                )
            )


def _calibrated(sae: SparseAutoencoder, stream: TrainingStream, k: int) -> SparseAutoencoder:
    """Set the threshold of what was chosen over a batch so that its L0 on the training tokens is k."""
    hidden = (sae.preactivations(stream.store.rows(stream.site, [int(i)])) for i in stream.images)
    threshold = threshold_for_l0(hidden, k)
    return replace(sae, threshold=torch.full((sae.width,), threshold))
