"""The decisive experiment: choose features on one band of images, test them on the other, beside matched random sets.

Two bands of images share a puzzling answer (the target class). Features are ranked by what they do alone in one band, and the
strongest are changed together in the other, under every ablation. A set *drives* the answer only if that turns it, more than
random sets that remove the same norm, and leaves reference images alone; see
:func:`circuits.set_verdict.verdict`.

What is kept apart: the ranking sees one band and one half of the reference images; values put in place on the test band come
from the other half. Side effects are measured on the reference images of the ranking half, with values of the testing half, so
that no image is ever replaced by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from circuits.ablations import Ablation, Source, draw, mean, resample, towards, zero
from circuits.matched_sets import matched_controls, norm_gram, set_norm
from circuits.node_effects import feature_effects
from circuits.off_data import DataSpread
from circuits.running import RunsFromSite, logits_in_batches, slices
from circuits.set_results import DECIDING, BeforeAfter, Controls, Curve, DirectionResult, SetExperiment, SetResult
from mechinterp.errors import ConfigError, ImagesError, LeakageError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.objectives import Objective
from mechinterp.progress import SILENT, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class SetExperimentConfig:
    """Sizes and thresholds of the set experiment, set before any result is seen."""

    sizes: Annotated[tuple[int, ...], "numbers of features changed together, nested"] = (1, 2, 5, 10, 20, 40, 80)
    n_controls: Annotated[int, "random sets of the same norm beside every set"] = 200
    tolerance: Annotated[float, "relative deviation of a control's norm that counts as matched"] = 0.05
    draws: Annotated[int, "images drawn to take values from, for every changed image"] = 2
    max_images: Annotated[int, "images of a band, and of a half of the reference, that are used, evenly spread"] = 12
    share: Annotated[float, "largest share of the alive features that still counts as a small set"] = 0.05
    flip: Annotated[float, "share of the tested images whose answer has to turn"] = 0.5
    alpha: Annotated[float, "level of the test against random sets, after Holm's correction over sizes"] = 0.05
    side_share: Annotated[float, "how far reference images may move, as a share of the tested images' change"] = 0.5
    kept: Annotated[float, "share of reference images whose answer has to stay"] = 0.9
    contrast: Annotated[bool, "also rank by zeroing, without controls, to show what that would have claimed"] = True
    batch: Annotated[int, "activations run at once"] = 32
    seed: Annotated[int, "of draws and random sets"] = 0

    def __post_init__(self) -> None:
        if not self.sizes or list(self.sizes) != sorted(set(self.sizes)) or self.sizes[0] < 1:
            raise ConfigError(f"sizes are {self.sizes}: give ascending numbers of at least 1")
        for name in ("n_controls", "draws", "max_images", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("tolerance", "share", "flip", "alpha", "kept"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must lie in (0, 1]")
        if len(self.sizes) / (1 + self.n_controls) > self.alpha:
            raise ConfigError(
                f"{self.n_controls} random sets cannot reach p ≤ {self.alpha:g} for {len(self.sizes)} sizes: "
                f"give at least {int(np.ceil(len(self.sizes) / self.alpha)) - 1}, or fewer sizes"
            )

    def ablations(self) -> tuple[Ablation, ...]:
        """Return what is put in place, in the order of the pages."""
        return zero(), mean(), resample(self.draws), towards(self.draws)


@dataclass(frozen=True)
class Band:
    """Images that share a puzzling answer, and the reference images that go with them.

    Parameters
    ----------
    name
        How pages call it.
    target
        Positions of images that the model gives the target class.
    reference
        Positions of images that the model gives the reference class.

    """

    name: str
    target: tuple[int, ...]
    reference: tuple[int, ...]


def two_bands(
    first: Sequence[int],
    second: Sequence[int],
    reference: Sequence[int],
    *,
    names: tuple[str, str] = ("first", "second"),
    groups: Sequence[str | None] | None = None,
) -> tuple[Band, Band]:
    """Pair two bands of target images with the two halves of the reference images.

    Parameters
    ----------
    first, second
        Positions of target images.
    reference
        Positions of reference images. In their order the first half goes with the first band, so that for the slices of a
        volume each band gets the reference slices of its own side, and neighbouring slices stay together.
    names
        Of the bands.
    groups
        Group (patient, block) of every image of the set; none is split between the halves.

    Raises
    ------
    ImagesError
        If a band is empty, or there are too few reference images (or groups of them) for two halves.

    """
    blocks: dict[object, list[int]] = {}
    for i in sorted(int(i) for i in reference):
        blocks.setdefault(i if groups is None else groups[i], []).append(i)
    halves: tuple[list[int], list[int]] = ([], [])
    for block in blocks.values():
        halves[0 if 2 * len(halves[0]) < len(reference) and not halves[1] else 1].extend(block)
    named = {
        names[0]: first,
        names[1]: second,
        f"reference of {names[0]}": halves[0],
        f"reference of {names[1]}": halves[1],
    }
    for what, images in named.items():
        if len(images) == 0:
            raise ImagesError(
                f"'{what}' holds no image: the experiment needs two bands and two halves of reference images"
            )
    return (
        Band(names[0], tuple(int(i) for i in first), tuple(halves[0])),
        Band(names[1], tuple(int(i) for i in second), tuple(halves[1])),
    )


def run_set_experiment(
    run: RunsFromSite,
    encoders: Sequence[FeatureEncoder],
    acts_bnd: Float[Tensor, "image token width"],
    bands: tuple[Band, Band],
    objective: Objective,
    config: SetExperimentConfig | None = None,
    *,
    x: Float[Tensor, "image channel height width"] | None = None,
    progress: Progress = SILENT,
) -> SetExperiment:
    """Rank features on one band, test nested sets of them on the other, both ways.

    Parameters
    ----------
    run
        The model after the site, for example :class:`mechinterp.tails.Tail`.
    encoders
        Kinds of features of the same site. The first is the primary one and decides the verdict; others, such as raw
        channels or random directions, stand beside it, with random sets under the deciding ablations only.
    acts_bnd
        Activations of all images.
    bands
        Positions of the images, see :func:`two_bands`.
    objective
        A resolved logit difference, target − reference.
    config
        Sizes and thresholds.
    x
        The prepared images, needed only where something bypasses the site.
    progress
        Told about every curve.

    Raises
    ------
    ConfigError
        If the objective is no logit difference of outputs, or two encoders are of the same kind.
    ImagesError
        If an image of a band is not answered as the band says.
    LeakageError
        If the bands share an image.

    """
    config = config or SetExperimentConfig()
    if objective.kind != "logit difference" or any(isinstance(c, str) for c in objective.classes):
        raise ConfigError(f"the set experiment measures a resolved logit difference, not '{objective.name}'")
    kinds = tuple(e.kind for e in encoders)
    if not kinds or len(set(kinds)) != len(kinds):
        raise ConfigError(f"encoders are of kinds {kinds}: give at least one, and one of each kind")
    _check_disjoint(bands)
    used = tuple(Band(b.name, _spread_out(b.target, config), _spread_out(b.reference, config)) for b in bands)
    with torch.inference_mode():
        lab = _Laboratory(run, acts_bnd, x, objective, config)
        for band in used:
            lab.check_answers(band)
        ways = ((used[0], used[1]), (used[1], used[0]))
        directions = [
            result
            for encoder in encoders
            for chosen_on, tested_on in ways
            for result in _Way(lab, encoder, chosen_on, tested_on, primary=encoder is encoders[0]).results(progress)
        ]
    names = objective.class_names or tuple(str(c) for c in objective.classes)
    return SetExperiment(names[0], names[1], kinds, tuple(directions), config)


@dataclass(eq=False)
class _Laboratory:
    """What all directions share: model, activations, unchanged logits."""

    run: RunsFromSite
    acts_bnd: Tensor
    x: Tensor | None
    objective: Objective
    config: SetExperimentConfig

    def __post_init__(self) -> None:
        self.target, self.reference = (int(c) for c in self.objective.classes)
        self.logits = logits_in_batches(self.run, self.acts_bnd, self.config.batch, self.x)

    def check_answers(self, band: Band) -> None:
        answers = self.logits.argmax(1)
        names = self.objective.class_names or tuple(str(c) for c in self.objective.classes)
        for images, wanted, name in ((band.target, self.target, names[0]), (band.reference, self.reference, names[1])):
            for i in images:
                if int(answers[i]) != wanted:
                    raise ImagesError(
                        f"image {i} of band '{band.name}' is not answered '{name}' by the model: "
                        "choose the bands by the model's own answers"
                    )


@dataclass(eq=False)
class _Bench:
    """Images changed under one ablation, all their draws beside each other, ready for any set of features."""

    lab: _Laboratory
    encoder: FeatureEncoder
    alive: NDArray[np.int64]
    ablation: Ablation
    images: tuple[int, ...]
    source: tuple[int, ...]

    def __post_init__(self) -> None:
        acts, config = self.lab.acts_bnd, self.lab.config
        self.directions = self.encoder.directions.detach().to(acts)[torch.from_numpy(self.alive).to(acts.device)]
        self.units = _single_units(self.directions)
        source = Source(self.encoder, acts[list(self.source)])
        picks = draw(self.ablation, len(self.images), len(self.source), config.seed)
        self.draws = picks.shape[1] if self.ablation.puts == "image" else 1
        rows = np.repeat(np.asarray(self.images), self.draws)
        self.base_bnd, self.before = acts[rows], self.lab.logits[rows]
        self.x = None if self.lab.x is None else self.lab.x[rows]
        tokens = acts.shape[1]
        # one row per feature, so that the rows of a set are gathered in one go
        self.change_fr = acts.new_empty(len(self.alive), len(rows) * tokens)
        at = 0
        for i, drawn in zip(self.images, picks, strict=True):
            codes = self.encoder.encode(acts[i])
            for replaced in source.replacements(self.ablation, drawn, codes):
                self.change_fr[:, at : at + tokens] = (replaced - codes)[:, self.alive].T
                at += tokens
        # small benches hold several sets at once, so that a call's fixed cost is shared
        self.at_once = max(1, config.batch // len(rows))
        self.buffer = acts.new_empty(self.at_once, len(rows) * tokens, acts.shape[2])

    def changed(
        self, sets: Int[NDArray[np.int64], "set member"], scales: Float[NDArray[np.float64], " set"] | None = None
    ) -> Float[Tensor, "set row token width"]:
        """Return the activations with the codes of each set replaced, or changed that way by a multiple.

        The tensor is reused by the next call.
        """
        index = torch.from_numpy(np.ascontiguousarray(sets)).to(self.change_fr.device)
        factors = None if scales is None else torch.from_numpy(scales).to(self.change_fr)
        out = self.buffer[: len(sets)]
        flat = self.base_bnd.flatten(0, 1).expand(len(sets), -1, -1)
        if self.units is not None:
            # features that are single units need no product with their directions
            out.copy_(flat)
            for k, members in enumerate(index):
                change = self.change_fr[members] if factors is None else self.change_fr[members] * factors[k]
                out[k].index_add_(1, self.units[members], change.T)
        else:
            added = self.directions[index]
            added = added if factors is None else added * factors[:, None, None]
            torch.baddbmm(flat, self.change_fr[index].transpose(1, 2), added, out=out)
        return out.reshape(len(sets), *self.base_bnd.shape)

    def logits(
        self, sets: Int[NDArray[np.int64], "set member"], scales: Float[NDArray[np.float64], " set"] | None = None
    ) -> Float[Tensor, "set row class"]:
        """Return the logits with the codes of each set replaced; see :meth:`changed`."""
        found = []
        for part in slices(len(sets), self.at_once):
            acts = self.changed(sets[part], None if scales is None else scales[part])
            x = None if self.x is None else self.x.repeat(len(acts), *[1] * (self.x.dim() - 1))
            after = logits_in_batches(self.lab.run, acts.flatten(0, 1), self.lab.config.batch, x)
            found.append(after.reshape(*acts.shape[:2], -1))
        return torch.cat(found)

    def flipped(self, after: Float[Tensor, "set row class"]) -> Float[NDArray[np.float64], " set"]:
        """Return the fraction of turned answers per set."""
        is_target = after.argmax(-1) == self.lab.target
        turned = is_target if self.ablation.opposite else ~is_target
        result: NDArray[np.float64] = turned.double().mean(1).cpu().numpy()
        return result

    def delta(self, after: Float[Tensor, "set row class"]) -> Float[NDArray[np.float64], " set"]:
        """Return the mean change of the logit difference per set."""
        change = self.lab.objective(after) - self.lab.objective(self.before)
        result: NDArray[np.float64] = change.double().mean(1).cpu().numpy()
        return result

    def probabilities(self, after: Float[Tensor, "row class"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the target's probability per image before and after, averaged over draws."""
        softmax = self.lab.objective.activation == "softmax"
        both = [(t.softmax(1) if softmax else t.sigmoid())[:, self.lab.target] for t in (self.before, after)]
        before, after_ = (tuple(p.reshape(-1, self.draws).mean(1).tolist()) for p in both)
        return before, after_


@dataclass(eq=False)
class _Way:
    """One encoder, one direction: features chosen on one band, tested on the other."""

    lab: _Laboratory
    encoder: FeatureEncoder
    chosen_on: Band
    tested_on: Band
    primary: bool

    def results(self, progress: Progress) -> list[DirectionResult]:
        config = self.lab.config
        self.alive = self._alive()
        if len(self.alive) < config.sizes[0]:
            raise ConfigError(
                f"only {len(self.alive)} features of kind '{self.encoder.kind}' are ever active: use another site"
            )
        scores = self._scores(progress)
        agreement = _spearman(scores["reference"], scores["zero"])
        if not config.contrast:
            del scores["zero"]
        seen = chain(self.chosen_on.target, self.chosen_on.reference)
        self.spread = DataSpread.fit(self.lab.acts_bnd[list(seen)])
        tested: dict[str, list[Curve]] = {name: [] for name in scores}
        shown: dict[str, list[BeforeAfter]] = {name: [] for name in scores}
        ablations = config.ablations()
        label = f"sets of {self.encoder.kind}, {self.chosen_on.name} → {self.tested_on.name}"
        for ablation in progress.track(ablations, label, len(ablations)):
            # one ablation at a time: its changes are what takes the memory
            bench, side = self._benches(ablation)
            gram = norm_gram(bench.change_fr, bench.directions, len(bench.base_bnd))
            for name, score in scores.items():
                order = np.argsort(score, kind="stable")
                controlled = name == "reference" and (self.primary or ablation.name in DECIDING)
                tested[name].append(self._curve(bench, side, gram, order, with_controls=controlled))
                before, after = bench.probabilities(bench.logits(order[None, : self.shown_size])[0])
                shown[name].append(BeforeAfter(ablation.name, bench.images, before, after))
        return [
            DirectionResult(
                chosen_on=self.chosen_on.name,
                tested_on=self.tested_on.name,
                kind=self.encoder.kind,
                ranked_by=name,
                order=tuple(int(f) for f in self.alive[np.argsort(score, kind="stable")[: self.sizes[-1]]]),
                alive=len(self.alive),
                size=self.shown_size,
                curves=tuple(tested[name]),
                before_after=tuple(shown[name]),
                rank_agreement=agreement,
            )
            for name, score in scores.items()
        ]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes that there are features for."""
        return tuple(s for s in self.lab.config.sizes if s <= len(self.alive))

    @property
    def shown_size(self) -> int:
        """The largest small set."""
        small = [s for s in self.sizes if s <= self.lab.config.share * len(self.alive)]
        return small[-1] if small else self.sizes[0]

    def _alive(self) -> NDArray[np.int64]:
        """Features that are active anywhere in the images of the experiment."""
        bands = (self.chosen_on, self.tested_on)
        active = torch.zeros(self.encoder.width, dtype=torch.bool, device=self.lab.acts_bnd.device)
        for i in chain(*(b.target + b.reference for b in bands)):
            active |= (self.encoder.encode(self.lab.acts_bnd[i]) != 0).any(0)
        result: NDArray[np.int64] = active.nonzero()[:, 0].cpu().numpy()
        return result

    def _scores(self, progress: Progress) -> dict[str, Float[NDArray[np.float64], " alive"]]:
        """Mean effect of every alive feature alone on the ranking band; the most negative speaks most for the target."""
        lab, config = self.lab, self.lab.config
        target, reference = list(self.chosen_on.target), list(self.chosen_on.reference)
        effects = feature_effects(
            lab.run,
            self.encoder,
            lab.acts_bnd[target],
            lab.acts_bnd[reference],
            (zero(), mean(), resample(config.draws)),
            features=self.alive,
            batch=config.batch,
            seed=config.seed,
            x=None if lab.x is None else lab.x[target],
            progress=progress,
        )
        by = {name: effects.on(lab.objective, name).mean(0, dtype=np.float64) for name in ("zero", "mean", "resample")}
        return {"reference": (by["mean"] + by["resample"]) / 2, "zero": by["zero"]}

    def _benches(self, ablation: Ablation) -> tuple[_Bench, _Bench | None]:
        """Images to test on, and reference images for side effects."""
        target, reference = self.tested_on.target, self.tested_on.reference
        if ablation.opposite:
            return _Bench(self.lab, self.encoder, self.alive, ablation, reference, target), None
        return (
            _Bench(self.lab, self.encoder, self.alive, ablation, target, reference),
            _Bench(self.lab, self.encoder, self.alive, ablation, self.chosen_on.reference, reference),
        )

    def _curve(
        self,
        bench: _Bench,
        side: _Bench | None,
        gram: NDArray[np.float64],
        order: NDArray[np.int64],
        *,
        with_controls: bool,
    ) -> Curve:
        results = []
        for size in self.sizes:
            chosen = order[None, :size]
            norm = set_norm(gram, chosen[0])
            after = bench.logits(chosen)
            moved = kept = None
            if side is not None:
                beside = side.logits(chosen)
                moved = float(side.delta(beside)[0])
                kept = float((beside[0].argmax(1) == side.before.argmax(1)).double().mean())
            results.append(
                SetResult(
                    size=size,
                    flipped=float(bench.flipped(after)[0]),
                    delta=float(bench.delta(after)[0]),
                    reference_delta=moved,
                    reference_kept=kept,
                    norm=norm,
                    off_data=self.spread.ratio(bench.changed(chosen)[0], bench.base_bnd),
                    controls=self._controls(bench, gram, chosen[0]) if with_controls else None,
                )
            )
        return Curve(bench.ablation, tuple(results))

    def _controls(self, bench: _Bench, gram: NDArray[np.float64], members: NDArray[np.int64]) -> Controls:
        config = self.lab.config
        matched = matched_controls(
            gram, members, n_sets=config.n_controls, seed=config.seed, tolerance=config.tolerance
        )
        after = bench.logits(matched.sets, matched.scales)
        return Controls(
            flipped=bench.flipped(after),
            delta=bench.delta(after),
            norm=float(np.median(matched.norms)),
            scale=float(np.median(matched.scales)),
            distinct=matched.distinct,
        )


def _single_units(directions: Float[Tensor, "feature width"]) -> Int[Tensor, " feature"] | None:
    """Return the unit that each feature is, where every direction is one unit's own; ``None`` otherwise."""
    units = directions.abs().argmax(1)
    alone = (directions != 0).sum(1) == 1
    one = directions.gather(1, units[:, None])[:, 0] == 1
    return units if bool((alone & one).all()) else None


def _check_disjoint(bands: tuple[Band, Band]) -> None:
    seen: dict[int, str] = {}
    for band in bands:
        for i in chain(band.target, band.reference):
            if i in seen:
                raise LeakageError(
                    f"image {i} stands in '{seen[i]}' and again in '{band.name}': "
                    "features must be tested on images they were not chosen on"
                )
            seen[i] = band.name


def _spread_out(images: tuple[int, ...], config: SetExperimentConfig) -> tuple[int, ...]:
    """Pick at most `max_images`, evenly: neighbours of a volume say almost the same."""
    n = min(len(images), config.max_images)
    return tuple(images[i] for i in np.round(np.linspace(0, len(images) - 1, n)).astype(int))


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    from scipy.stats import spearmanr

    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)
