"""One autoencoder on its way: its learner, its curve, its averages, and what becomes of them in the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ConfigError
from sparse_autoencoders.architectures.matching_pursuit import pursuit_codes
from sparse_autoencoders.autoencoder import SparseAutoencoder, activated
from sparse_autoencoders.calibration import threshold_for_l0
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.explained_variance import ExplainedVariance
from sparse_autoencoders.initialisation import Start, paired_start, start, suited
from sparse_autoencoders.learner import Learner, LearntWeights, copy_into
from sparse_autoencoders.metrics import evaluate_sae
from sparse_autoencoders.processes import ALONE, Processes
from sparse_autoencoders.resampling import restart_silent
from sparse_autoencoders.schedules import active_features, learning_rate
from sparse_autoencoders.stream import TrainingStream
from sparse_autoencoders.waking import ROWS, Waking, due, rows_for

_CURVE_POINTS = 200
_RESTART_ROWS = 1 << 12
_CALIBRATION_VALUES = 1 << 22
_DENSITY_ROWS = 1 << 11


class Thresholded(Protocol):
    """What has a threshold for each feature and says what the features see before it."""

    @property
    def width(self) -> int:
        """Number of features."""
        ...

    def preactivations(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows feature"]:
        """Return what the latents see before any is set to zero."""
        ...


_T = TypeVar("_T", bound=Thresholded)


def make_learner(
    begin: Start,
    config: TrainSAEConfig,
    dead_after: int,
    seed: int,
    *,
    sample: Float[Tensor, "row width"] | None = None,
    read_width: int | None = None,
    processes: Processes = ALONE,
) -> Learner:
    """Return what takes the steps: sparse kernels on the CPU for the TopK family, SAELens' classes for what we have no own of.

    The sparse kernels use a gradient as soon as it is summed, so that there is none to send: several processes take the TopK
    family's steps by autograd.

    Parameters
    ----------
    begin, config, dead_after, seed
        As the learners have them.
    sample
        Normalised training tokens, which an archetypal autoencoder is made of.
    read_width
        Of a transcoder: how wide what it reads is.
    processes
        That take the steps together.

    Raises
    ------
    ConfigError
        If an archetypal autoencoder is given no tokens, a transcoder's settings cannot be meant, or several processes shall take
        steps that only one can take.

    """
    from sparse_autoencoders.sparse_learner import ARCHITECTURES, SparseLearner

    if not processes.alone and (read_width is not None or config.arch in {"matching-pursuit", "archetypal"}):
        what = "a transcoder" if read_width is not None else config.arch
        raise ConfigError(
            f"{what} is trained by one process, and {processes.count} were started: leave `accelerate launch` out"
        )
    if read_width is not None:
        from sparse_autoencoders.transcoder_learner import TranscoderLearner

        return TranscoderLearner(begin, config, dead_after)
    if config.arch == "matching-pursuit":
        from sparse_autoencoders.architectures.matching_pursuit import MatchingPursuitLearner

        return MatchingPursuitLearner(begin, config, dead_after)
    if config.arch == "archetypal":
        from sparse_autoencoders.architectures.archetypal import ArchetypalLearner

        if sample is None:
            raise ConfigError("an archetypal autoencoder is made of training tokens: give a sample of them")
        return ArchetypalLearner(begin, config, dead_after, sample, seed)
    if config.arch in ARCHITECTURES and config.device == "cpu" and processes.alone:
        return SparseLearner(begin, config, dead_after)
    from sparse_autoencoders.saelens import SAELensLearner

    return SAELensLearner(begin, config, dead_after, seed, processes)


@dataclass
class Standing:
    """How far one autoencoder has come, beside its curve.

    Parameters
    ----------
    restarted
        Features that were started anew so far.
    woken
        Features that were woken so far, each as often as it was.
    best_variance, best_step
        Best explained variance of held-out tokens, and the step it was seen at; none before the first look.
    stopped
        Whether it trains no more.

    """

    restarted: int = 0
    woken: int = 0
    best_variance: float | None = None
    best_step: int = 0
    stopped: bool = False


@dataclass
class SingleTraining:
    """One autoencoder on its way.

    Parameters
    ----------
    name
        Of the folder it is saved in.
    config, seed
        How it is trained.
    learner
        Takes its steps.
    begin
        Name of the start, and what that explained.
    generator
        Draws where features start anew.
    sample
        Normalised training tokens that they start at.
    curve
        ``step``, ``loss``, ``explained_variance``, ``l0`` and ``dead`` at some steps.
    average
        The trained tensors' average over the steps; empty where none is wanted.
    best
        The trained tensors at the best look at held-out tokens; empty before.
    standing
        How far it has come.

    """

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
    standing: Standing = field(default_factory=Standing)

    @classmethod
    def begun(
        cls, name: str, stream: TrainingStream, config: TrainSAEConfig, seed: int, processes: Processes = ALONE
    ) -> SingleTraining:
        """Return one before its first step."""
        config = _settled(config)
        generator = torch.Generator().manual_seed(seed)
        raw = stream.sample(generator)
        sample = stream.normalised(raw)
        begin = _begun(raw, sample, stream, config, generator)
        dead_after = max(1, round(config.dead_after * stream.steps_per_epoch))
        learner = make_learner(
            begin, config, dead_after, seed, sample=sample, read_width=stream.read_width, processes=processes
        )
        average = {n: t.clone() for n, t in learner.trained().items()} if config.ema else {}
        curve: dict[str, list[float]] = {n: [] for n in ("step", "loss", "explained_variance", "l0", "dead")}
        kept = sample[: ROWS if config.wake else _RESTART_ROWS]
        return cls(name, config, seed, learner, (begin.name, begin.explained_variance), generator, kept, curve, average)

    def step(self, x: Float[Tensor, "row width"], step: int, stream: TrainingStream) -> None:
        """Take one step on normalised rows; `step` counts from 0.

        Raises
        ------
        ConfigError
            If the loss is no number any more.

        """
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
        # at first the average forgets sooner: it begins at weights that have learnt nothing
        past = min(config.ema, (1 + step) / (10 + step))
        for name, average in self.average.items():
            average.lerp_(self.learner.trained()[name], 1 - past)
        epoch, within = divmod(step + 1, stream.steps_per_epoch)
        # none in the second half: a restarted feature needs time to learn
        if within == 0 and epoch <= config.restarts and 2 * (step + 1) <= steps:
            silent = self.learner.silent_for >= stream.steps_per_epoch
            self.standing.restarted += restart_silent(
                self.learner, silent, self.sample[:_RESTART_ROWS], self.generator, read_width=stream.read_width
            )
        look = due(step, steps, stream.steps_per_epoch, stream.batch_size, config.wake)
        if look is not None and isinstance(self.learner, Waking):
            silent = self.learner.silent_for >= look.silent_for
            if bool(silent.any()) and not bool(silent.all()):
                rows = self.sample[: rows_for(width)]
                self.standing.woken += self.learner.wake(silent, rows, self.generator, apart=look.apart)
        if step % max(1, steps // _CURVE_POINTS) == 0 or step == steps - 1:
            # the scaled activations have a mean squared norm of their width about their mean
            dead = float((self.learner.silent_for >= self.learner.dead_after).float().mean())
            explained = 1 - result.squared_error / (x.shape[1] - (stream.read_width or 0))
            seen = {
                "step": step + 1, "loss": result.loss, "explained_variance": explained, "l0": result.l0, "dead": dead,
            }  # fmt: skip
            for name, value in seen.items():
                self.curve[name].append(value)

    def look_at_held_out(
        self,
        rows: Float[Tensor, "row width"],
        wanted: Float[Tensor, "row wanted"],
        step: int,
        steps: int,
        patience: int,
    ) -> None:
        """Keep the best weights so far, after `step` of all steps; stop where none came for `patience` steps.

        Where k still falls nothing is looked at: more features explain more, and the best weights would be some that never learnt to
        explain with k. What is looked at is what would be saved: the average, where there is one.
        """
        width = len(self.learner.silent_for)
        if active_features(step - 1, steps, self.config, width) > min(self.config.k, width):
            return
        variance = ExplainedVariance()
        with self._averaged():
            variance.update(wanted, self.learner.reconstruct(rows))
        explained, standing = variance.compute(), self.standing
        if standing.best_variance is None or explained > standing.best_variance:
            standing.best_variance, standing.best_step = explained, step
            self.best = {name: tensor.clone() for name, tensor in (self.average or self.learner.trained()).items()}
        elif step - standing.best_step >= patience:
            standing.stopped = True

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Let the learner have the averaged weights for a while, where there are some."""
        if not self.average:
            yield
            return
        own = {name: tensor.clone() for name, tensor in self.learner.trained().items()}
        copy_into(self.learner.trained(), self.average)
        self.learner.refresh()
        yield
        copy_into(self.learner.trained(), own)
        self.learner.refresh()

    @torch.no_grad()
    def density(self) -> NDArray[np.float64]:
        """Return the share of some training tokens on which each feature is active by the weights as they are."""
        learnt = self.learner.learnt()
        rows = self.sample[:_DENSITY_ROWS, : len(learnt.W_enc)]
        if learnt.architecture == "matching_pursuit":
            codes = pursuit_codes(rows - learnt.b_dec, learnt.W_dec, self.config.k)
        else:
            # an autoencoder takes its bias off what it reads, a transcoder does not
            read = rows - learnt.b_dec if self.sample.shape[1] == len(learnt.W_enc) else rows
            hidden = read @ learnt.W_enc + learnt.b_enc
            threshold = learnt.threshold
            if self.config.arch in {"batchtopk", "matryoshka"}:
                threshold = torch.full_like(learnt.b_enc, threshold_for_l0([hidden], self.config.k))
            codes = activated(hidden, learnt.k, threshold)
        share: NDArray[np.float64] = (codes > 0).double().mean(0).numpy()
        return share

    def finished(self, stream: TrainingStream) -> SparseAutoencoder:
        """Return the autoencoder, its threshold calibrated where it needs one, measured on the training images."""
        learnt = self.learnt().unfolded(stream.mean, float(stream.scale))
        sae = self.calibrated(
            SparseAutoencoder(stream.site, provenance=self.provenance(stream), **vars(learnt)), stream
        )
        metrics = evaluate_sae(sae, stream.store, stream.images)
        return replace(sae, provenance={**sae.provenance, "metrics": {"train": metrics.to_json()}})

    def learnt(self) -> LearntWeights:
        """Return the weights that are saved, in the scale of training: the best seen, the average, or the last."""
        chosen = self.best or self.average
        if chosen:
            copy_into(self.learner.trained(), chosen)
            self.learner.refresh()
        return self.learner.learnt()

    def calibrated(self, made: _T, stream: TrainingStream) -> _T:
        """Set the threshold of what was chosen over a batch so that its L0 on the training tokens is k."""
        if self.config.arch not in {"batchtopk", "matryoshka"}:
            return made
        threshold = threshold_for_l0(_preactivations(made, stream), self.config.k)
        return replace(made, threshold=torch.full((made.width,), threshold))  # type: ignore[type-var]

    def provenance(self, stream: TrainingStream) -> dict[str, Any]:
        """Return where the autoencoder comes from, all but its metrics."""
        from mechinterp.provenance import versions

        manifest = stream.store.manifest
        return {
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
            "steps": self.standing.best_step if self.best else stream.steps,
            "restarted": self.standing.restarted,
            "woken": self.standing.woken,
            "curve": self.curve,
            "versions": versions(),
        }

    def record(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it beside tensors."""
        return {"curve": self.curve, "standing": asdict(self.standing)}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint holds of it."""
        parts = {"learner": self.learner.state(), "average": self.average, "best": self.best}
        flat = {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
        return {**flat, "generator": self.generator.get_state()}

    def go_on_from(self, record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Go back to where a checkpoint was made."""

        def part(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(f"{name}.")}

        self.learner.load_state(part("learner"))
        self.average, self.best = part("average"), part("best")
        self.curve, self.standing = record["curve"], Standing(**record["standing"])
        self.generator.set_state(tensors["generator"])


def _settled(config: TrainSAEConfig) -> TrainSAEConfig:
    """Return settings of which only those are set that act: features that can be woken are not revived in another way too."""
    from sparse_autoencoders.sparse_learner import ARCHITECTURES

    if config.arch not in ARCHITECTURES:
        return replace(config, wake=0.0)
    return replace(config, aux=0.0, restarts=0) if config.wake else config


def _begun(
    raw: Tensor, sample: Tensor, stream: TrainingStream, config: TrainSAEConfig, generator: torch.Generator
) -> Start:
    """Return the start that the settings ask for, from tokens as they are and as training sees them."""
    width = config.width(stream.widths[0])
    whole_batch = config.arch in {"batchtopk", "matryoshka"}
    if stream.read_width is not None:
        read = sample[:, : stream.read_width]
        return paired_start(read, stream.wanted(sample), width, config.k, generator, whole_batch=whole_batch)
    init = suited(raw) if config.init == "auto" else config.init
    begin = start(init, sample, width, config.k, generator, whole_batch=whole_batch)
    if config.init == "auto" and begin.explained_variance < 0:
        # what the units leave over lies along one direction here, and the latents that start there overshoot together
        begin = start("data", sample, width, config.k, generator, whole_batch=whole_batch)
    return begin


def _preactivations(made: Thresholded, stream: TrainingStream) -> Iterable[Float[Tensor, "row feature"]]:
    """Yield what the features see of the training images, some images at a time."""
    size = max(1, _CALIBRATION_VALUES // (made.width * max(1, stream.store.tokens(stream.site))))
    for first in range(0, len(stream.images), size):
        rows = stream.raw(stream.images[first : first + size])
        yield made.preactivations(rows if stream.read_width is None else rows[:, : stream.read_width])
