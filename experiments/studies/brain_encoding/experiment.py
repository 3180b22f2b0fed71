"""Stimuli and the responses to them: rendered with known voxels, or a user's own folder; three parts of the stimuli."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from experiments.studies.brain_encoding.config import BrainEncodingConfig
from mechinterp.errors import ShapeError
from mechinterp.images.image_set import ImageSet
from mechinterp.phantoms.datasets import stimulus_phantoms
from mechinterp.phantoms.phantom_set import PhantomSet
from mechinterp.phantoms.stimuli.population import StimulusStudy
from mechinterp.phantoms.stimuli.voxels import AREAS, Recording, VoxelStudy, record
from mechinterp.progress import Progress
from mechinterp.reference.stimulus_networks import SIZE_PX
from probes.receptive_fields import ReceptiveFields

NOISE_REGION = "noise"
"""Voxels that were planted to see nothing."""
VALIDATION_SHARE, TEST_SHARE, SCRAMBLED_SHARE = 0.15, 0.25, 0.4
_FRESH = 1000
"""Added to the seed: the reference model was trained on stimuli of small seeds."""


@dataclass(frozen=True)
class KnownVoxels:
    """What is true of simulated voxels.

    Parameters
    ----------
    phantoms
        The stimuli, which can be rendered again with one thing changed.
    study
        Whose voxels were recorded, and how well.
    fields
        Each voxel's receptive field; NaN for voxels of noise alone.
    ceiling
        Share of a single trial's variance that the stimulus explains.
    signals
        Responses without noise of the voxels that see, in their standard deviations over all stimuli.

    """

    phantoms: PhantomSet
    study: VoxelStudy
    fields: ReceptiveFields
    ceiling: Float[NDArray[np.float64], " voxel"]
    signals: Float[NDArray[np.float64], "image seeing"]

    def changes(
        self, asked: Sequence[tuple[Int[NDArray[np.int64], " chosen"], Mapping[str, float | str]]]
    ) -> list[tuple[PhantomSet, Float[NDArray[np.float64], "chosen voxel"]]]:
        """Render some stimuli again, each time with something added to their parameters, or another word in place of one.

        Parameters
        ----------
        asked
            Positions of stimuli, and what is added to which of their parameters; words take the place of words.

        Returns
        -------
        list
            For each: the changed stimuli, and by how much every voxel's response, without noise, changes, in its standard
            deviations over all the stimuli; 0 for voxels of noise alone.

        """
        if not asked:
            return []
        # as they were, each once, and as they become, in one recording: it counts in deviations of its own
        shown = np.unique(np.concatenate([images for images, _ in asked]))
        sets = [_changed(self.phantoms, images, added) for images, added in ((shown, {}), *asked)]
        recorded = np.concatenate(record(_joined(sets), replace(self.study, repeats=1)).signals, axis=1)
        before, *after = np.split(recorded, np.cumsum([len(each) for each in sets])[:-1])
        unit = _ratio(self.signals[shown].std(0), before.std(0))
        nothing = ((0, 0), (0, len(self.ceiling) - recorded.shape[1]))
        return [
            (changed, np.pad((become - before[np.searchsorted(shown, images)]) * unit, nothing))
            for changed, become, (images, _) in zip(sets[1:], after, asked, strict=True)
        ]


@dataclass(frozen=True)
class Experiment:
    """Stimuli with responses, in three parts that share no group.

    Parameters
    ----------
    images
        The stimuli, in order.
    responses
        Stimulus × repeat × voxel.
    region, subject
        Of each voxel.
    groups
        Of each stimulus: what must not stand in two parts.
    fit, check, confirm
        Positions of the stimuli that encoding models are fitted to; of those that say which voxels they predict; and of
        those that are opened once. The first two are explored on.
    extent_deg
        Side of an image.
    truth
        What is known of the voxels, or ``None``.
    notes
        What a reader should know.

    """

    images: ImageSet
    responses: Float[NDArray[np.float64], "image repeat voxel"]
    region: NDArray[np.str_]
    subject: NDArray[np.str_]
    groups: NDArray[np.object_]
    fit: Int[NDArray[np.int64], " fitted"]
    check: Int[NDArray[np.int64], " checked"]
    confirm: Int[NDArray[np.int64], " confirmed"]
    extent_deg: float
    truth: KnownVoxels | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.responses.ndim != 3 or len(self.responses) != len(self.images):
            raise ShapeError(
                f"{len(self.images)} stimuli and responses of shape {self.responses.shape}: give stimulus × repeat × voxel"
            )
        if not len(self.region) == len(self.subject) == self.responses.shape[2]:
            raise ShapeError(
                f"responses of {self.responses.shape[2]} voxels, {len(self.region)} regions and {len(self.subject)} subjects: give "
                "one each"
            )

    @property
    def explored(self) -> Int[NDArray[np.int64], " explored"]:
        """Positions of all stimuli that may be looked at freely."""
        return np.concatenate([self.fit, self.check])

    @property
    def divided(self) -> ImageSet:
        """The stimuli, those confirmed on as the split ``test`` and all others as ``train``; they can be opened again so."""
        return self.images.tested_on(self.groups[self.confirm].tolist())

    @property
    def measured(self) -> Float[NDArray[np.float64], "image voxel"]:
        """Mean responses over repeats, in standard deviations over the stimuli explored."""
        mean: NDArray[np.float64] = self.responses.mean(1)
        among = mean[self.explored]
        spread = among.std(0)
        scaled: NDArray[np.float64] = (mean - among.mean(0)) / np.where(spread > 0, spread, 1.0)
        return scaled

    @property
    def regions(self) -> tuple[str, ...]:
        """Each once, in order, without that of noise."""
        return tuple(r for r in dict.fromkeys(self.region.tolist()) if r != NOISE_REGION)

    def of(self, region: str) -> Bool[NDArray[np.bool_], " voxel"]:
        """Return which voxels are of a region."""
        found: NDArray[np.bool_] = self.region == region
        return found


def simulated_experiment(config: BrainEncodingConfig, progress: Progress) -> Experiment:
    """Render stimuli and record simulated voxels; beside them voxels of noise alone, which nothing predicts."""
    sizes = config.sizes
    phantoms = stimulus_phantoms(
        StimulusStudy(
            patients=sizes.exemplars, images_per_patient=2, size_px=SIZE_PX, seed=_FRESH + config.seed,
            validation_share=VALIDATION_SHARE, test_share=TEST_SHARE, scrambled_share=SCRAMBLED_SHARE,
        )
    )  # fmt: skip
    study = VoxelStudy(subjects=sizes.subjects, voxels=sizes.voxels, seed=config.seed)
    recording = record(phantoms, study, progress=progress)
    random = np.random.default_rng(config.seed)
    n_noise = max(10, sizes.voxels // 3) * sizes.subjects
    noise = random.standard_normal((len(phantoms), study.repeats, n_noise))
    responses = np.concatenate([*recording.responses, noise], axis=2)
    region = np.array([AREAS[a] for v in recording.voxels for a in v.area] + [NOISE_REGION] * n_noise)
    subject = np.array(
        [s for s, v in zip(recording.subjects, recording.voxels, strict=True) for _ in range(len(v))]
        + [s for s in recording.subjects for _ in range(n_noise // sizes.subjects)]
    )
    known = _known(phantoms, study, recording, n_noise)
    return Experiment(
        replace(phantoms.images, splits=None), planted_responses(responses, config), region, subject,
        np.asarray(phantoms.groups, dtype=object), phantoms.where("train"), phantoms.where("validation"),
        phantoms.where("test"), phantoms.study.extent_deg, known,
    )  # fmt: skip


def planted_responses(
    responses: Float[NDArray[np.float64], "image repeat voxel"], config: BrainEncodingConfig
) -> Float[NDArray[np.float64], "image repeat voxel"]:
    """Return the responses, or those to other stimuli, or noise alone, where that is planted."""
    random = np.random.default_rng(_FRESH + config.seed)
    if config.condition == "noise-only":
        return random.standard_normal(responses.shape)
    return responses[random.permutation(len(responses))] if config.condition == "shuffled-responses" else responses


def _changed(phantoms: PhantomSet, images: NDArray[np.int64], added: Mapping[str, float | str]) -> PhantomSet:
    return replace(
        phantoms,
        parameters=tuple(
            replace(
                p, **{name: step if isinstance(step, str) else getattr(p, name) + step for name, step in added.items()}
            )
            for p in (phantoms.parameters[i] for i in images)
        ),
        identities=tuple(phantoms.identities[i] for i in images),
        splits=tuple(phantoms.splits[i] for i in images),
    )


def _joined(sets: Sequence[PhantomSet]) -> PhantomSet:
    return replace(
        sets[0],
        parameters=tuple(p for each in sets for p in each.parameters),
        identities=tuple(w for each in sets for w in each.identities),
        splits=tuple(s for each in sets for s in each.splits),
    )


def _known(phantoms: PhantomSet, study: VoxelStudy, recording: Recording, n_noise: int) -> KnownVoxels:
    def joined(name: str, filler: float) -> NDArray[np.float64]:
        return np.concatenate([*(getattr(v, name) for v in recording.voxels), np.full(n_noise, filler)])

    fields = ReceptiveFields(*(joined(name, np.nan) for name in ("up_deg", "right_deg", "size_deg")))
    signals = np.concatenate(recording.signals, axis=1)
    return KnownVoxels(phantoms, study, fields, joined("noise_ceiling", 0.0), signals)


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one over the other, 0 where a voxel does not vary."""
    found: NDArray[np.float64] = np.divide(above, below, out=np.zeros_like(above), where=below > 1e-9)
    return found
