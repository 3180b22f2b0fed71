"""Localization: where in the visual field each voxel looks, in degrees, and whether its prediction rests on that place."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from experiments.report import ElementEvidence, PlannedTest, ReportFigure
from experiments.studies.brain_encoding.bench import EncodingBench
from experiments.studies.brain_encoding.experiment import NOISE_REGION, KnownVoxels
from experiments.studies.brain_encoding.fits import Explored, called_in
from mechinterp.claims import Bound, Claim, Control
from mechinterp.statistics.bootstrap import bootstrap_groups
from probes.encoding_figures import field_figure
from probes.receptive_fields import ReceptiveFields

ELEMENT = "localization"
FIELDS = "receptive fields lie where they are"
BLANK = "a voxel's prediction rests on its receptive field"
FARTHEST_DEG = 1.0
MISPLACED, FIXATION, NOISE = "responses to other stimuli", "always fixation", "voxels of noise alone"
OTHERS, MIDDLE = "receptive fields of other voxels", "blanking fixation"
DISC_DEG = 1.5
"""Radius of what is blanked and distance of neighbouring discs, for images of 17 degrees; in proportion for others."""
_FIELDS_BOUND, _BLANK_BOUND = Bound("at most", FARTHEST_DEG), Bound("at least", 0.0)
_FALSE_CALLS = Bound("at most", 0.05)
FEWEST_VOXELS = 5
"""With fewer voxels whose fields leave fixation free, blanking fixation is no control."""


def planned(*, truth_known: bool) -> tuple[PlannedTest, ...]:
    """Return the tests of this element."""
    blank = PlannedTest(
        ELEMENT, BLANK,
        "on confirmation stimuli, the disc nearest to the middle of a voxel's receptive field is set to the stimulus' median "
        "grey, and, for comparison, the disc on the other side of fixation; the network runs anew. Blanking fixation is a control for "
        "voxels whose receptive field, one standard deviation around its middle, leaves the disc at fixation free",
        "mean change of a voxel's prediction, beyond that on the other side [standard deviations]",
        "above 0 over its whole interval", (OTHERS, MIDDLE), _BLANK_BOUND,
    )  # fmt: skip
    if not truth_known:
        return (blank,)
    fields = PlannedTest(
        ELEMENT, FIELDS,
        "the mean of the receptive fields that account for the responses to stimuli explored, each as probable as they say, for voxels "
        "that held-back stimuli vouch for, beside the field that the simulated voxel has",
        "median distance of the two middles [°]", f"at most {FARTHEST_DEG:g}° over its whole interval",
        (MISPLACED, FIXATION, NOISE), _FIELDS_BOUND,
    )  # fmt: skip
    return (fields, blank)


def confirm(bench: EncodingBench, explored: Explored) -> ElementEvidence:
    """Hold the fields against the truth, and blank them."""
    voxels = called_in(bench, explored)
    if len(voxels) < 10:
        why = f"{len(voxels)} voxels are predicted at all: nothing was localised."
        return ElementEvidence(ELEMENT, (), (why,))
    truth = bench.experiment.truth
    claims = [] if truth is None else [_fields(bench, explored, truth, voxels)]
    claims.append(_blanking(bench, explored, voxels))
    limits = (
        "A receptive field is the window on the network's maps through which a voxel is predicted: where no stimulus fell, nothing is known.",
        *(
            ()
            if truth is None
            else ("The interval of the distance is over voxels; those of all other numbers are over exemplars.",)
        ),
    )
    figure = field_figure(
        explored.encoding.fields[voxels],
        bench.experiment.region[voxels].tolist(),
        None if truth is None else truth.fields[voxels],
    )
    text = (
        "Each line leads from a voxel's true middle (ring) to where it was found (dot)."
        if truth
        else "Where each voxel looks."
    )
    return ElementEvidence(
        ELEMENT, tuple(claims), limits, (ReportFigure.of("Receptive fields in the visual field", text, figure),)
    )


def _fields(bench: EncodingBench, explored: Explored, truth: KnownVoxels, voxels: NDArray[np.int64]) -> Claim:
    true = truth.fields[voxels]
    apart = explored.encoding.fields[voxels].distance_deg(true)
    value = float(np.median(apart))
    interval = bootstrap_groups(lambda v: float(np.median(apart[v])), np.arange(len(apart)), seed=bench.config.seed)
    misplaced = float(np.median(explored.misplaced.fields[voxels].distance_deg(true)))
    fixation = float(np.median(true.eccentricity_deg))
    noise = explored.called[bench.experiment.of(NOISE_REGION)]
    high = None if interval.high is None else Bound("at least", interval.high)
    return Claim.measured(
        f"The receptive fields of {len(voxels)} voxels lie {value:.2f}° (median) from where they truly are.",
        "ground-truth-verified", value, "°", _FIELDS_BOUND,
        f"at most {FARTHEST_DEG:g}° over its whole interval, which is over voxels here",
        controls=(
            Control(MISPLACED, misplaced, None, f"fitted to responses to other stimuli: {misplaced:.2f}°", high),
            Control(FIXATION, fixation, None, f"answering fixation for every voxel: {fixation:.2f}°", high),
            Control(NOISE, float(noise.mean()), None,
                    f"{int(noise.sum())} of {len(noise)} voxels that see nothing were given a field", _FALSE_CALLS,
                    measure="share of voxels of noise alone that were called"),
        ),
        test=FIELDS, interval=interval.ends, interval_note=interval.reason or interval.warning, trained=bench.model.trained,
        numbers={"voxels": len(voxels), "voxels of noise called": int(noise.sum()), "voxels of noise": len(noise)},
    )  # fmt: skip


def _blanking(bench: EncodingBench, explored: Explored, voxels: NDArray[np.int64]) -> Claim:
    chosen = _first_of_groups(bench, bench.config.sizes.blanked)
    fields = explored.encoding.fields[voxels]
    reach = DISC_DEG * bench.experiment.extent_deg / 17.0
    # opposite discs must not overlap
    apart = np.flatnonzero(fields.eccentricity_deg >= reach)
    voxels, fields = voxels[apart], fields[apart]
    discs, moved = blanked_changes(bench, explored, chosen, voxels)
    own, opposite = nearest_disc(discs, fields, 1.0), nearest_disc(discs, fields, -1.0)
    column = np.arange(len(voxels))
    beyond = (moved[own, :, column] - moved[opposite, :, column]).mean(0)
    value = float(beyond.mean()) if len(voxels) else float("nan")
    groups = bench.experiment.groups[chosen]
    interval = bootstrap_groups(lambda i: float(beyond[i].mean()), groups, seed=bench.config.seed)
    random = np.random.default_rng(bench.config.seed)
    others = []
    for _ in range(bench.config.sizes.n_random):
        strange = random.permutation(len(voxels))
        others.append(float((moved[own[strange], :, column] - moved[opposite[strange], :, column]).mean()))
    highest = float(np.quantile(others, 0.95))
    below = None if interval.low is None else Bound("at most", interval.low)
    at_fixation, there = _at_fixation(bench, moved, discs, fields, groups, reach)
    return Claim.measured(
        f"Blanking the disc in a voxel's receptive field moves its prediction by {value:.2f} standard deviations more than "
        f"blanking the disc opposite ({len(voxels)} voxels).",
        "interventional", value if np.isfinite(value) else None, "standard deviations", _BLANK_BOUND,
        "above 0 over its whole interval",
        controls=(
            Control(OTHERS, highest, None, f"discs of other voxels: 95 % stay below {highest:.2f}", below),
            at_fixation,
        ),
        test=BLANK, interval=interval.ends, interval_note=interval.reason or interval.warning, trained=bench.model.trained,
        numbers={"voxels": len(voxels), "stimuli": len(chosen), "discs": len(discs), "radius [°]": reach, **there},
    )  # fmt: skip


def _at_fixation(
    bench: EncodingBench, moved: Float[NDArray[np.float64], "disc image voxel"], discs: ReceptiveFields,
    fields: ReceptiveFields, groups: NDArray[np.object_], reach: float,
) -> tuple[Control, dict[str, float]]:  # fmt: skip
    """Return whether a voxel's own disc moves it more than that at fixation, where its field does not reach there; and numbers.

    Where it does, blanking fixation blanks the field: a voxel that truly answers so moves as much.
    """
    free = np.flatnonzero(fields.eccentricity_deg >= reach + fields.size_deg)
    if len(free) < FEWEST_VOXELS:
        few = f"the fields of only {len(free)} voxels leave the disc at fixation free"
        return Control(MIDDLE, None, None, few), {"fields that leave fixation free": len(free)}
    own, middle, opposite = (nearest_disc(discs, fields[free], side) for side in (1.0, 0.0, -1.0))
    theirs, at = (moved[disc, :, free].T - moved[opposite, :, free].T for disc in (own, middle))
    interval = bootstrap_groups(lambda i: float(theirs[i].mean()), groups, seed=bench.config.seed)
    below = None if interval.low is None else Bound("at most", interval.low)
    control = Control(
        MIDDLE, float(at.mean()), None,
        f"of {len(free)} voxels whose fields leave it free, fixation moves the prediction by {at.mean():.2f}, the own disc by "
        f"{theirs.mean():.2f}", below,
    )  # fmt: skip
    return control, {"fields that leave fixation free": len(free), "own disc, of those": float(theirs.mean())}


def blanked_changes(
    bench: EncodingBench, explored: Explored, images: NDArray[np.int64], voxels: NDArray[np.int64]
) -> tuple[ReceptiveFields, Float[NDArray[np.float64], "disc image voxel"]]:
    """Return by how much predictions change, in their standard deviations, when each disc of a lattice is blanked."""
    reach = DISC_DEG * bench.experiment.extent_deg / 17.0
    discs = ReceptiveFields.candidates(bench.experiment.extent_deg / 3, reach, (reach,))
    x = bench.inputs(images)
    grey = x.flatten(2).median(2).values[:, :, None, None]
    encoding = explored.encoding.of(voxels)
    before = encoding.predict(bench.maps(x))
    spread = encoding.predict(explored.maps).std(0)
    scale = np.where(spread > 1e-9, spread, np.inf)
    inside = _inside(bench, x, discs)
    changes = [
        np.abs(encoding.predict(bench.maps(torch.where(inside[d], grey, x))) - before) / scale
        for d in bench.progress.track(range(len(discs)), "blanking", total=len(discs))
    ]
    return discs, np.stack(changes)


def nearest_disc(discs: ReceptiveFields, fields: ReceptiveFields, side: float) -> NDArray[np.int64]:
    """Return the disc nearest to each field's middle (side 1), to its mirror image (-1), or to fixation (0)."""
    up = np.square(discs.up_deg[:, None] - side * fields.up_deg)
    nearest: NDArray[np.int64] = (up + np.square(discs.right_deg[:, None] - side * fields.right_deg)).argmin(0)
    return nearest


def _inside(bench: EncodingBench, x: Tensor, discs: ReceptiveFields) -> Tensor:
    """Return which pixels of the input lie in each disc: disc × row × column."""
    rows, columns = (np.arange(n) + 0.5 for n in x.shape[2:])
    at = bench.in_degrees(np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1))
    apart = np.hypot(at[..., 0] - discs.up_deg[:, None, None], at[..., 1] - discs.right_deg[:, None, None])
    return torch.from_numpy(apart <= discs.size_deg[:, None, None])


def _first_of_groups(bench: EncodingBench, most: int) -> NDArray[np.int64]:
    """Return one confirmation stimulus of each group, so many at most."""
    confirm = bench.experiment.confirm
    first = np.sort(np.unique(bench.experiment.groups[confirm].astype(str), return_index=True)[1])[:most]
    return confirm[first]
