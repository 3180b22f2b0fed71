"""Simulated voxels that see stimuli: receptive fields in degrees, tuning, and noise of a known ceiling.

A voxel of the visual cortex pools contrast energy [1]_ under its receptive field, tuned to orientation and spatial
frequency; a voxel of the face or the scene area pools how much of its receptive field a face or a scene covers. All that an
encoding model can hope to find is therefore known: which voxel sees what, where, and how well it can be predicted.

References
----------
.. [1] Adelson, Bergen. Spatiotemporal energy models for the perception of motion. JOSA A 1985.
.. [2] Dumoulin, Wandell. Population receptive field estimates in human visual cortex. NeuroImage 2008.

"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError
from mechinterp.phantoms.phantom_set import PhantomSet
from mechinterp.phantoms.random_streams import stream
from mechinterp.phantoms.stimuli.energy import ORIENTATIONS_DEG, EnergyFilters
from mechinterp.phantoms.stimuli.renderer import StimulusRenderer
from mechinterp.progress import SILENT, Progress

AREAS = ("V1", "face", "scene")
# receptive fields grow with eccentricity, and from area to area
SIZE_AT_FIXATION_DEG, SIZE_PER_DEGREE = (0.5, 1.6, 1.8), (0.16, 0.3, 0.35)
COARSE = 4


@dataclass(frozen=True, kw_only=True)
class VoxelStudy:
    """Whose voxels are recorded, and how well.

    Raises
    ------
    ConfigError
        If a number cannot be meant.

    """

    subjects: Annotated[int, "number of subjects, each with voxels of their own"] = 4
    voxels: Annotated[int, "voxels per subject and area: early visual cortex, face area, scene area"] = 60
    repeats: Annotated[int, "how often each stimulus is shown"] = 3
    noise_ceiling: Annotated[float, "mean share of a single trial's variance that the stimulus explains"] = 0.4
    seed: Annotated[int, "all randomness follows from it"] = 0

    def __post_init__(self) -> None:
        for name in ("subjects", "voxels", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not 0 < self.noise_ceiling < 1:
            raise ConfigError(f"noise_ceiling is {self.noise_ceiling:g}: it lies between 0 and 1")


@dataclass(frozen=True)
class Voxels:
    """What is true of one subject's voxels.

    Parameters
    ----------
    area
        Position in :data:`AREAS`.
    up_deg, right_deg, size_deg
        Middle and standard deviation of the receptive field, a Gaussian [2]_.
    orientation_deg, frequency_cpd
        What early voxels prefer; NaN elsewhere.
    noise_ceiling
        Share of a single trial's variance that the stimulus explains.

    """

    area: Int[NDArray[np.int64], " voxel"]
    up_deg: Float[NDArray[np.float64], " voxel"]
    right_deg: Float[NDArray[np.float64], " voxel"]
    size_deg: Float[NDArray[np.float64], " voxel"]
    orientation_deg: Float[NDArray[np.float64], " voxel"]
    frequency_cpd: Float[NDArray[np.float64], " voxel"]
    noise_ceiling: Float[NDArray[np.float64], " voxel"]

    def __len__(self) -> int:
        return len(self.area)

    def ceiling_of_mean(self, repeats: int) -> Float[NDArray[np.float64], " voxel"]:
        """Return the noise ceiling of the mean over some repeats (Spearman, Brown)."""
        c = self.noise_ceiling
        mean: NDArray[np.float64] = repeats * c / (1 + (repeats - 1) * c)
        return mean


@dataclass(frozen=True)
class Recording:
    """Responses of all subjects to the same stimuli.

    Parameters
    ----------
    subjects
        Name of each subject: the group that must not straddle a split over subjects.
    voxels
        The truth, one a subject.
    signals
        Per subject, image × voxel: what the stimulus causes, with mean 0 and standard deviation 1 over the images.
    responses
        Per subject, image × repeat × voxel: signal and noise.

    """

    subjects: tuple[str, ...]
    voxels: tuple[Voxels, ...]
    signals: tuple[Float[NDArray[np.float64], "image voxel"], ...]
    responses: tuple[Float[NDArray[np.float64], "image repeat voxel"], ...]


def record(
    phantoms: PhantomSet,
    study: VoxelStudy | None = None,
    *,
    images: Sequence[int] | None = None,
    progress: Progress = SILENT,
) -> Recording:
    """Show stimuli to simulated subjects.

    Parameters
    ----------
    phantoms
        Stimuli, as :func:`mechinterp.phantoms.datasets.stimulus_phantoms` draws them.
    study
        Whose voxels are recorded, and how well.
    images
        Positions of the stimuli that are shown; all by default.
    progress
        Told of every stimulus.

    Returns
    -------
    Recording
        A voxel's noise is drawn by subject and voxel, in the order of the images, and is scaled so that over these images
        its noise ceiling is what is declared.

    Raises
    ------
    ConfigError
        If the phantoms are no stimuli, or fewer than two are shown.

    """
    chosen, shown = study or VoxelStudy(), range(len(phantoms)) if images is None else images
    if not isinstance(phantoms.renderer, StimulusRenderer):
        raise ConfigError(f"voxels see stimuli, not a {phantoms.kind.title}: draw them with stimulus_phantoms")
    if len(shown) < 2:
        raise ConfigError(f"{len(shown)} stimuli are shown: a response's variance needs at least 2")
    energy, content = _seen(phantoms, phantoms.renderer, shown, progress)
    voxels = tuple(draw_voxels(chosen, subject) for subject in range(chosen.subjects))
    signals, responses = [], []
    for subject, v in enumerate(voxels):
        signal = _signals(v, energy, content, phantoms.renderer)
        spread = signal.std(0)
        # a voxel that none of the stimuli reaches has no signal
        scaled = (signal - signal.mean(0)) / np.where(spread > 1e-12, spread, 1.0)
        sigma = np.sqrt(1 / v.noise_ceiling - 1)
        noise = np.stack(
            [
                stream(chosen.seed, "noise", subject, k).standard_normal((len(shown), chosen.repeats))
                for k in range(len(v))
            ],
            -1,
        )
        signals.append(scaled)
        responses.append(scaled[:, None] + sigma * noise)
    return Recording(tuple(f"s{k:03d}" for k in range(chosen.subjects)), voxels, tuple(signals), tuple(responses))


def draw_voxels(study: VoxelStudy, subject: int) -> Voxels:
    """Draw one subject's voxels: receptive fields, tuning and noise ceilings."""
    n = study.voxels
    area = np.repeat(np.arange(len(AREAS)), n)
    random = stream(study.seed, "receptive fields", subject)
    angle, eccentricity = random.uniform(0, 2 * np.pi, 3 * n), 5.0 * np.sqrt(random.uniform(0, 1, 3 * n))
    # the middles of higher areas crowd around fixation
    eccentricity = eccentricity * np.array([1.0, 0.6, 0.8])[area]
    size = np.array(SIZE_AT_FIXATION_DEG)[area] + np.array(SIZE_PER_DEGREE)[area] * eccentricity
    tuned = stream(study.seed, "tuning", subject)
    orientation, frequency = tuned.uniform(0, 180, 3 * n), np.exp(tuned.uniform(np.log(0.4), np.log(2.5), 3 * n))
    early = area == 0
    spread = 8.0
    ceiling = stream(study.seed, "noise ceiling", subject).beta(
        spread * study.noise_ceiling, spread * (1 - study.noise_ceiling), 3 * n
    )
    return Voxels(
        area=area,
        up_deg=eccentricity * np.sin(angle),
        right_deg=eccentricity * np.cos(angle),
        size_deg=size * random.uniform(0.8, 1.25, 3 * n),
        orientation_deg=np.where(early, orientation, np.nan),
        frequency_cpd=np.where(early, frequency, np.nan),
        noise_ceiling=np.clip(ceiling, 0.02, 0.95),
    )


def _seen(
    phantoms: PhantomSet, renderer: StimulusRenderer, shown: Sequence[int], progress: Progress
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return contrast energy (image, filter, cell) and visible face and scene (image, 2, cell), on coarse cells."""
    filters = EnergyFilters.of(renderer.size_px, renderer.spacing_deg)
    energy, content = [], []
    for i in progress.track(shown, "showing stimuli", total=len(shown)):
        phantom = phantoms.phantom(int(i))
        energy.append(_coarse(np.sqrt(filters(phantom.pixels))))
        visible = np.stack([phantom.coverage[name] for name in ("face", "scene")]) * phantom.parameters.contrast
        content.append(_coarse(visible))
    return np.stack(energy), np.stack(content)


def _coarse(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the means of cells of 4 × 4 pixels; what is over at the edges is left out."""
    n, side = len(maps), maps.shape[-1] // COARSE
    cut = maps[:, : side * COARSE, : side * COARSE].astype(np.float64)
    means: NDArray[np.float64] = cut.reshape(n, side, COARSE, side, COARSE).mean((2, 4)).reshape(n, -1)
    return means


def _signals(
    v: Voxels, energy: NDArray[np.float64], content: NDArray[np.float64], renderer: StimulusRenderer
) -> NDArray[np.float64]:
    """Return every voxel's response without noise, image × voxel."""
    side = renderer.size_px // COARSE
    at = (np.arange(side) + 0.5) * COARSE * renderer.spacing_deg - renderer.extent_deg / 2
    down = np.exp(-np.square(at[None, :] + v.up_deg[:, None]) / (2 * v.size_deg[:, None] ** 2))
    across = np.exp(-np.square(at[None, :] - v.right_deg[:, None]) / (2 * v.size_deg[:, None] ** 2))
    field = (down[:, :, None] * across[:, None, :]).reshape(len(v), -1)
    field /= field.sum(1, keepdims=True)
    found = np.empty((len(energy), len(v)))
    early = v.area == 0
    pooled = energy @ field[early].T
    tuning = EnergyFilters.tuning(v.orientation_deg[early], v.frequency_cpd[early])
    found[:, early] = np.einsum("ifv,fv->iv", pooled, tuning)
    for k in (0, 1):
        mine = v.area == k + 1
        found[:, mine] = content[:, k] @ field[mine].T
    return found


__all__ = ["AREAS", "ORIENTATIONS_DEG", "Recording", "VoxelStudy", "Voxels", "draw_voxels", "record"]
