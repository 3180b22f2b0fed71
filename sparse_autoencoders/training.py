"""Train sparse autoencoders on a store's activations: many on one stream, in checkpoints, the same bits every time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, nearest
from mechinterp.files import sha256_json
from mechinterp.progress import SILENT, Progress
from sparse_autoencoders.autoencoder import SparseAutoencoder, only_site
from sparse_autoencoders.checkpoint import FOLDER, load_checkpoint, remove_checkpoint, save_checkpoint
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.interruption import Held
from sparse_autoencoders.processes import Processes
from sparse_autoencoders.single_training import SingleTraining
from sparse_autoencoders.stream import TrainingStream

if TYPE_CHECKING:
    from mechinterp.store import ActivationStore

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
    densities
        Of each autoencoder: on which share of some training tokens each feature is active.
    finished
        Whether no step will follow, be it that all were taken or that held-out tokens gained no more.

    """

    step: int
    steps: int
    rows_per_second: float
    curves: dict[str, dict[str, list[float]]]
    silent_epochs: dict[str, NDArray[np.float64]]
    densities: dict[str, NDArray[np.float64]]
    finished: bool = False


Watch = Callable[[TrainingStatus], None]


class Saved(Protocol):
    """What a training ends with."""

    def save(self, folder: str | Path) -> Path:
        """Save into a folder."""
        ...


_S = TypeVar("_S", bound=Saved)


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
    returned and saved reads raw activations. A training that was interrupted goes on from its last checkpoint, to the same bits;
    with a folder to save in, Ctrl-C and SIGTERM wait for the step that is being taken and write a checkpoint.

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
    first = shared_by(configs)
    stream = TrainingStream.of(store, only_site(store, site), images, first)
    return train_on(stream, configs, SingleTraining.finished, out=out, progress=progress, watch=watch)


def shared_by(configs: dict[str, TrainSAEConfig]) -> TrainSAEConfig:
    """Return one of several settings that can share a stream.

    Raises
    ------
    ConfigError
        If they cannot, or a device is not there.

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
    return first


def train_on(
    stream: TrainingStream,
    configs: dict[str, TrainSAEConfig],
    finish: Callable[[SingleTraining, TrainingStream], _S],
    *,
    out: str | Path | None,
    progress: Progress,
    watch: Watch | None,
) -> list[_S]:
    """Train one for each setting and seed on a stream, and return and save what `finish` makes of each training.

    Where ``accelerate launch`` started several processes, they share the rows of each step, all return what was made, and the first
    of them saves it.

    Raises
    ------
    ConfigError, DiskError
        If k does not fit the site, a checkpoint is of another training, the disk is full.

    """
    for config in configs.values():
        config.width(stream.widths[0])
    processes = Processes.joined(next(iter(configs.values())).device)
    processes.require_even(stream.batch_size)
    trainings = [
        SingleTraining.begun(f"{name}/seed-{seed}".lstrip("/"), stream, config, seed, processes)
        for name, config in configs.items()
        for seed in config.seeds
    ]
    folder = None if out is None else Path(out)
    _Loop(stream, trainings, folder, progress, watch, processes).run()
    finished = []
    for training in trainings:
        made = finish(training, stream)
        if folder is not None and processes.first:
            made.save(folder / training.name)
        finished.append(made)
    if folder is not None and processes.first:
        remove_checkpoint(folder / FOLDER)
    processes.wait()
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


@dataclass
class _Loop:
    """All trainings' steps on one stream, with checkpoints."""

    stream: TrainingStream
    trainings: list[SingleTraining]
    out: Path | None
    progress: Progress
    watch: Watch | None
    processes: Processes
    _began: float = field(default_factory=time.perf_counter, init=False)
    _first: int = field(default=0, init=False)
    _rows: int = field(default=0, init=False)

    def run(self) -> None:
        # of several processes that share a step, one that stops by itself would leave the others waiting for it
        with Held(active=self.out is not None and self.processes.alone) as held:
            self._run(held)

    def _run(self, held: Held) -> None:
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
                    if not training.standing.stopped:
                        training.look_at_held_out(held_out, stream.wanted(held_out), step, stream.steps, patience)
                if all(training.standing.stopped for training in trainings):
                    self.progress.note(f"stopped after {step} of {stream.steps} steps: held-out tokens gain no more")
                    break
            # only the first process saves, so that its clock is the only one that is asked
            if time.perf_counter() - last_saved > 60 * trainings[0].config.checkpoint_minutes:
                self._save(step)
                last_saved = time.perf_counter()
            if held.came:
                break
        self._save(step, finished=True)
        if held.came and self.out is not None:
            self.progress.note(
                f"stopped after step {step} of {stream.steps}: {self.out / FOLDER} holds where it was, and the same training goes on "
                "from there; remove it to begin another"
            )

    def _steps(self) -> Iterator[int]:
        """Take every step that is left, and yield how many there have been."""
        from sparse_autoencoders.fused.rows import rows_at

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
                    if not training.standing.stopped:
                        training.step(rows_at(rows, order[offset * size : (offset + 1) * size]), step, stream)
                        self._rows += size
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
            {
                "trainings": settings,
                "store": self.stream.store.hash,
                "sites": self.stream.sites,
                "images": images,
                "read_width": self.stream.read_width,
                # other learners take the steps of several processes
                **({} if self.processes.alone else {"processes": self.processes.count}),
            }
        )

    def _go_on(self) -> int:
        found = None if self.out is None else load_checkpoint(self.out / FOLDER, self._made_from)
        self.processes.wait()  # until all have read it: the first may write the next one
        if found is None:
            return 0
        record, tensors = found
        for at, training in enumerate(self.trainings):
            prefix = f"{at}."
            own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            training.go_on_from(record["trainings"][at], own)
        self.progress.note(f"going on from step {record['step']} of {self.stream.steps}")
        return int(record["step"])

    def _save(self, step: int, *, finished: bool = False) -> None:
        if not self.processes.first:
            return
        if self.out is not None:
            tensors = {f"{at}.{name}": t for at, tr in enumerate(self.trainings) for name, t in tr.tensors().items()}
            record = {"step": step, "trainings": [training.record() for training in self.trainings]}
            save_checkpoint(self.out / FOLDER, self._made_from, record, tensors)
        if self.watch is not None:
            seconds = time.perf_counter() - self._began
            self.watch(
                TrainingStatus(
                    step,
                    self.stream.steps,
                    self._rows / max(seconds, 1e-9),
                    {t.name: t.curve for t in self.trainings},
                    {t.name: t.learner.silent_for.numpy() / self.stream.steps_per_epoch for t in self.trainings},
                    {t.name: t.density() for t in self.trainings},
                    finished,
                )
            )
