"""Used, not only decodable: move along a direction and compare with what the phantom's true counterfactual does.

A probe that reads an attribute says nothing of its use. Here the activation is moved along the direction by as much as a
known change of the attribute moves it, and the model's answer is compared with its answer to the re-rendered image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.capturing import run_with_cache
from mechinterp.errors import ConfigError, LeakageError, ShapeError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.images.image_set import MedicalImage
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import VisionModel
from mechinterp.objectives import Objective
from mechinterp.phantoms.phantom import PhantomImage
from mechinterp.phantoms.quantities import check_name, quantities
from mechinterp.progress import SILENT, Progress
from mechinterp.statistics.equivalence import mean_interval, patient_means
from mechinterp.tails import Tail
from probes.footprints import Footprint, StructureTiles, fit_footprint
from probes.random_directions import random_directions
from probes.usage_result import Calibration, OffTarget, UsageResult, slopes

Phantoms = Sequence[PhantomImage[Any]]
_BATCH = 16


def validate_used(
    model: VisionModel,
    encoder: FeatureEncoder,
    feature: int,
    phantoms: Phantoms,
    calibration: Phantoms,
    *,
    parameter: str,
    steps: Sequence[float],
    objective: Objective,
    margin: float,
    structure: str | None = None,
    off_target: Mapping[str, Objective] | None = None,
    n_random: int = 100,
    alpha: float = 0.05,
    preparation: Preparation | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> UsageResult:
    """Test whether a model uses a physical quantity through one direction, against the phantoms' true counterfactuals.

    Parameters
    ----------
    model
        The model.
    encoder, feature
        The direction: a feature of an SAE, a neuron, or one of :class:`~mechinterp.feature_encoder.Directions` (a probe's
        weights, a concept vector).
    phantoms
        Images of the patients to test on.
    calibration
        Images of other patients: how far a unit of the attribute moves the feature is measured on them alone.
    parameter
        The phantom's parameter that is changed, for example ``exudate_area_mm2``.
    steps
        Changes of it in its unit, each possible for every image; the unchanged image is added.
    objective
        What the model's answer is measured by, on logits.
    margin
        Slope of the objective per unit that still counts as nothing. Set it before looking.
    structure
        A structure of the phantom that the parameter lets grow, such as ``haemorrhages``. The activation then moves by the
        structure's :class:`~probes.footprints.Footprint`, fitted to single tokens of the calibration patients: by so much
        on the tiles that it gains, so much on those around them, and so much everywhere. By default every token moves by
        the same amount. The mean over the tokens moves equally far either way. A quantity that sits in a few tokens, and
        is not simply averaged later, cannot be moved by a little of it everywhere.
    off_target
        Other objectives that should move as they do under the true counterfactual.
    n_random
        Random directions of the same norm.
    alpha
        Level of all tests.
    preparation
        How images become the model's input.
    seed
        Of the random directions.
    progress
        Sees the rendering and the directions.

    Returns
    -------
    UsageResult
        With the verdict ``used``, ``unused`` or ``undecided``, and both claims.

    Raises
    ------
    ConfigError
        If there is no such parameter, feature or structure, no step, a step that cannot be rendered, or no margin.
    SiteError
        If a structure is given and the site's tokens have no place in the image.
    LeakageError
        If a patient stands on both sides.

    """
    chosen = tuple(float(s) for s in steps)
    _check(phantoms, calibration, parameter, chosen, encoder, feature, margin, n_random)
    tiles = None if structure is None else StructureTiles.of(model, encoder.site, phantoms[0], structure)
    resolved = objective.resolve(model)
    others = {name: o.resolve(model) for name, o in (off_target or {}).items()}
    direction = encoder.directions[feature].detach().float().to(model.device)
    ready = preparation or Preparation()
    with torch.no_grad():
        fixed = _run(model, encoder, feature, calibration, parameter, chosen, ready, tiles, progress, "calibrating")
        test = _run(
            model, encoder, feature, phantoms, parameter, chosen, ready, tiles, progress, "true counterfactuals"
        )
        footprint = _footprint(fixed, chosen, _patients(calibration), tiles)
        curve = _calibrate(fixed, calibration, parameter, chosen, footprint)
        tail = Tail(model, encoder.site, test.inputs[: min(2, len(test.inputs))])
        others_too = {"": resolved, **others}
        # image (or one for all) × step × token × 1: how far the feature moves there
        shifts = (
            curve.per_unit * torch.tensor(chosen).view(1, -1, 1)
            if tiles is None or footprint is None
            else torch.from_numpy(footprint.predicted(tiles.bases(test.gained, chosen)))
        ).to(test.acts)[..., None]
        steered = _moved(tail, test, shifts * direction, others_too)
        swaps = (test.codes[:, 1:] - test.codes[:, :1])[..., None] * direction  # image, step, token, width
        swapped = _effects(tail, test, [test.acts + swaps[:, k] for k in range(len(chosen))], {"": resolved})[""]
        rivals = random_directions(
            torch.cat([fixed.acts, test.acts]).flatten(0, 1), direction, n_random, seed=seed
        ) * float(direction.norm())  # fmt: skip
        wandered = [
            _moved(tail, test, shifts * rival, others_too)
            for rival in progress.track(rivals, "random directions", total=n_random)
        ]
    true = {name: _of(test, o, np.arange(1, len(chosen) + 1)) for name, o in others_too.items()}
    patients = _patients(phantoms)
    off = {
        name: OffTarget(
            _mean_slope(steered[name], chosen, patients), _mean_slope(true[name], chosen, patients),
            float(np.quantile([abs(_mean_slope(w[name], chosen, patients)) for w in wandered], 0.95)),
        )
        for name in others
    }  # fmt: skip
    unit = quantities(phantoms[0].parameters)[parameter].unit
    name = f"{encoder.kind} {feature}" + ("" if structure is None else f" where {structure} grow")
    return UsageResult(
        parameter, unit, encoder.site, name, resolved.name, chosen, patients,
        true[""], steered[""], swapped, np.stack([w[""] for w in wandered]), curve, margin, off, alpha, model.trained,
    )  # fmt: skip


@dataclass(frozen=True)
class _Rendered:
    """Images and their counterfactuals after one pass: the unchanged image is step 0, which gains nothing."""

    inputs: Float[Tensor, "image channel height width"]
    acts: Float[Tensor, "image token width"]
    codes: Float[Tensor, "image step token"]
    logits: Float[Tensor, "image step class"]
    gained: Float[NDArray[np.float64], "image step cell"]


def _footprint(
    run: _Rendered, steps: tuple[float, ...], patients: tuple[str, ...], tiles: StructureTiles | None
) -> Footprint | None:
    if tiles is None:
        return None
    changes = (run.codes[:, 1:] - run.codes[:, :1]).double().cpu().numpy()
    return fit_footprint(tiles.bases(run.gained, steps), changes, patients)


def _run(
    model: VisionModel, encoder: FeatureEncoder, feature: int, phantoms: Phantoms, parameter: str,
    steps: tuple[float, ...], preparation: Preparation, tiles: StructureTiles | None, progress: Progress, what: str,
) -> _Rendered:  # fmt: skip
    inputs, acts, codes, logits = [], [], [], []
    gained: list[Any] = []
    for phantom in progress.track(phantoms, what, total=len(phantoms)):
        value = getattr(phantom.parameters, parameter)
        rendered = [phantom, *(phantom.counterfactual(**{parameter: _raised(value, s)}) for s in steps)]
        x = model.prepare([MedicalImage("phantom", p.pixels, spacing_mm=p.spacing_mm) for p in rendered], preparation)
        found = run_with_cache(model, x, [encoder.site], logits=True)
        inputs.append(x[0])
        acts.append(found[encoder.site][0])
        codes.append(encoder.encode(found[encoder.site])[..., feature])
        logits.append(found["logits"][:, 0])
        gained.append([] if tiles is None else tiles.gained(rendered, preparation, parameter))
    return _Rendered(
        torch.stack(inputs).float(), torch.stack(acts).float(), torch.stack(codes).float(), torch.stack(logits).float(),
        np.array(gained),
    )  # fmt: skip


def _raised(value: Any, step: float) -> Any:
    """Return the parameter after a step; a count stays a whole number, which is what a renderer takes."""
    return int(value + step) if isinstance(value, int) else value + step


def _calibrate(
    run: _Rendered, phantoms: Phantoms, parameter: str, steps: tuple[float, ...], footprint: Footprint | None
) -> Calibration:
    reading = run.codes.mean(2).double().cpu().numpy()
    start = np.array([float(getattr(p.parameters, parameter)) for p in phantoms])
    patients = _patients(phantoms)
    per_image = slopes(reading[:, 1:] - reading[:, :1], steps)
    per_unit = float(patient_means(per_image, patients).mean())
    value = start[:, None] + np.array([0.0, *steps])
    return Calibration(value, reading, patients, per_unit, mean_interval(per_image, patients), footprint)


def _moved(
    tail: Tail, run: _Rendered, shifts: Float[Tensor, "image step token width"], objectives: Mapping[str, Objective]
) -> dict[str, NDArray[np.float64]]:
    return _effects(tail, run, [run.acts + shifts[:, k] for k in range(shifts.shape[1])], objectives)


def _effects(
    tail: Tail, run: _Rendered, changed: Sequence[Tensor], objectives: Mapping[str, Objective]
) -> dict[str, NDArray[np.float64]]:
    """Return image × step: how every objective changes when the site holds each of the changed activations."""
    n, found = len(run.acts), []
    for acts in changed:
        parts = [
            tail.logits(acts[i : i + _BATCH], None if tail.exact else run.inputs[i : i + _BATCH])
            for i in range(0, n, _BATCH)
        ]
        found.append(torch.cat(parts))
    logits = torch.stack(found, 1)
    return {
        name: (o(logits) - o(run.logits[:, :1])).double().cpu().numpy() for name, o in objectives.items()
    }  # fmt: skip


def _of(run: _Rendered, objective: Objective, steps: NDArray[np.int64]) -> NDArray[np.float64]:
    values = objective(run.logits).double().cpu().numpy()
    found: NDArray[np.float64] = values[:, steps] - values[:, :1]
    return found


def _mean_slope(effects: NDArray[np.float64], steps: tuple[float, ...], patients: tuple[Any, ...]) -> float:
    return float(patient_means(slopes(effects, steps), patients).mean())


def _patients(phantoms: Phantoms) -> tuple[str, ...]:
    return tuple(f"{p.identity.seed}-{p.identity.patient}" for p in phantoms)


def _check(
    phantoms: Phantoms, calibration: Phantoms, parameter: str, steps: tuple[float, ...], encoder: FeatureEncoder,
    feature: int, margin: float, n_random: int,
) -> None:  # fmt: skip
    if not len(phantoms) or not len(calibration):
        raise ConfigError("phantoms and calibration must each hold an image: give those of different patients")
    check_name(phantoms[0].parameters, parameter)
    if not steps or 0.0 in steps or len(set(steps)) < len(steps):
        raise ConfigError(f"steps are {steps}: give changes of '{parameter}' that are not 0, each once")
    if isinstance(getattr(phantoms[0].parameters, parameter), int) and any(s != int(s) for s in steps):
        raise ConfigError(f"steps are {steps}: '{parameter}' is a count, give whole numbers")
    if not 0 <= feature < encoder.width:
        raise ConfigError(f"there is no feature {feature}: the encoder has 0 to {encoder.width - 1}")
    if not margin > 0:
        raise ConfigError(f"margin is {margin:g}: say above 0 which change per unit still counts as nothing")
    if n_random < 20:
        raise ConfigError(f"n_random is {n_random}: fewer than 20 random directions cannot show anything at 0.05")
    if set(_patients(phantoms)) & set(_patients(calibration)):
        raise LeakageError("a patient is both in phantoms and in calibration: take different patients")
    if encoder.directions.shape[1] != encoder.d_in:
        raise ShapeError(f"directions are {encoder.directions.shape[1]} wide, the site {encoder.d_in}")
