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
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.ablations import Ablation, mean, resample, towards, zero
from circuits.bands import Band, require_disjoint, spread_out
from circuits.matched_sets import matched_controls, norm_gram, set_norm
from circuits.node_effects import feature_effects
from circuits.off_data import DataSpread
from circuits.running import RunsFromSite
from circuits.set_bench import Bench, Laboratory
from circuits.set_results import DECIDING, BeforeAfter, Controls, Curve, DirectionResult, SetExperiment, SetResult
from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.objectives import Objective
from mechinterp.progress import SILENT, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class SetExperimentConfig:
    """Sizes and thresholds of the set experiment, fixed before it runs."""

    sizes: Annotated[tuple[int, ...], "numbers of features changed together, nested"] = (1, 2, 5, 10, 20, 40, 80)
    n_controls: Annotated[int, "random sets of the same norm beside every set"] = 200
    tolerance: Annotated[float, "relative deviation of a control's norm that counts as matched"] = 0.05
    draws: Annotated[int, "images drawn to take values from, for every changed image"] = 2
    max_images: Annotated[int, "images of a band, and of a half of the reference, that are used, evenly spread"] = 10
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
        return zero(), mean(), resample(self.draws), towards(1)


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
        Positions of the images, see :func:`circuits.bands.two_bands`.
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
    require_disjoint(bands)
    used = tuple(
        Band(b.name, spread_out(b.target, config.max_images), spread_out(b.reference, config.max_images)) for b in bands
    )
    with torch.inference_mode():
        lab = Laboratory(run, acts_bnd, x, objective, config.batch, config.seed)
        for band in used:
            lab.require_answers(band)
        ways = ((used[0], used[1]), (used[1], used[0]))
        directions = [
            result
            for encoder in encoders
            for chosen_on, tested_on in ways
            for result in _Way(lab, config, encoder, chosen_on, tested_on, primary=encoder is encoders[0]).results(
                progress
            )
        ]
    names = objective.class_names or tuple(str(c) for c in objective.classes)
    return SetExperiment(names[0], names[1], kinds, tuple(directions), config)


@dataclass(eq=False)
class _Way:
    """One encoder, one direction: features chosen on one band, tested on the other."""

    lab: Laboratory
    config: SetExperimentConfig
    encoder: FeatureEncoder
    chosen_on: Band
    tested_on: Band
    primary: bool

    def results(self, progress: Progress) -> list[DirectionResult]:
        config = self.config
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
        return tuple(s for s in self.config.sizes if s <= len(self.alive))

    @property
    def shown_size(self) -> int:
        """The largest small set."""
        small = [s for s in self.sizes if s <= self.config.share * len(self.alive)]
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
        lab, config = self.lab, self.config
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

    def _benches(self, ablation: Ablation) -> tuple[Bench, Bench | None]:
        """Images to test on, and reference images for side effects."""
        target, reference = self.tested_on.target, self.tested_on.reference
        if ablation.opposite:
            return Bench(self.lab, self.encoder, self.alive, ablation, reference, target), None
        return (
            Bench(self.lab, self.encoder, self.alive, ablation, target, reference),
            Bench(self.lab, self.encoder, self.alive, ablation, self.chosen_on.reference, reference),
        )

    def _curve(
        self,
        bench: Bench,
        side: Bench | None,
        gram: NDArray[np.float64],
        order: NDArray[np.int64],
        *,
        with_controls: bool,
    ) -> Curve:
        def measured(size: int, *, controlled: bool) -> SetResult:
            chosen = order[None, :size]
            after = bench.logits(chosen)
            moved = kept = None
            if side is not None:
                beside = side.logits(chosen)
                moved = float(side.delta(beside)[0])
                kept = float((beside[0].argmax(1) == side.before.argmax(1)).double().mean())
            return SetResult(
                size=size,
                flipped=float(bench.flipped(after)[0]),
                delta=float(bench.delta(after)[0]),
                reference_delta=moved,
                reference_kept=kept,
                norm=set_norm(gram, chosen[0]),
                off_data=self.spread.ratio(bench.changed(chosen)[0], bench.base_bnd),
                controls=self._controls(bench, gram, chosen[0]) if controlled else None,
            )

        results = tuple(measured(size, controlled=with_controls) for size in self.sizes)
        return Curve(bench.ablation, results, measured(len(order), controlled=False))

    def _controls(self, bench: Bench, gram: NDArray[np.float64], members: NDArray[np.int64]) -> Controls:
        config = self.config
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


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    from scipy.stats import spearmanr

    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)
