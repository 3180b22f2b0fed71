"""Physical attribution: can the quantity be read, and does the answer follow it, against the true counterfactual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from experiments.report import ElementEvidence, PlannedTest
from experiments.studies.phantom.bench import StudyBench
from experiments.studies.phantom.case import ChangedQuantity, StudyCase
from mechinterp.attributes.table import Attribute
from mechinterp.capturing import run_with_cache
from mechinterp.claims import Bound, Claim, Control
from mechinterp.feature_encoder import Directions
from mechinterp.phantoms.phantom import PhantomImage
from mechinterp.store.reader import ActivationStore
from probes import (
    Interchange,
    fit_concept_vector,
    fit_probe,
    pixel_baseline,
    pooled_activations,
    swap_along,
    validate_used,
)
from probes.usage_result import SIZE_RANGE

ELEMENT = "physical attribution"
LEAST_R2 = Bound("at least", 0.5)
LARGEST_P = 0.05
MARKS = "burnt-in marks"
FEWEST_RENDERED = 8
"""With fewer images that a change can be rendered in, whether the answer follows it is not tested."""
READ = "the quantity can be read"
SWAPPED = "random directions, taken over"


@dataclass(frozen=True)
class ChosenDirections:
    """What was chosen on the discovery patients.

    Parameters
    ----------
    probed_site
        Where the named attribute was read best; ``None`` where the images have no such attribute.
    vectors
        Direction of every quantity: what activations do when it grows, at the last site, or at the first where a structure grows
        with it. ``None`` where too few images hold it.
    calibration
        For every quantity, images that hold it: how far it moves activations is measured on them.

    """

    probed_site: str | None
    vectors: tuple[Directions | None, ...]
    calibration: tuple[Sequence[PhantomImage[Any]], ...]


def planned(case: StudyCase, n_random: int, primary: str | None, *, truth_known: bool) -> tuple[PlannedTest, ...]:
    """Return the tests of this element: none where the images have no measured quantity."""
    if primary is None:
        return ()
    read = PlannedTest(
        ELEMENT, READ,
        f"ridge regression of {primary} on activations, mean over cells; site chosen on discovery patients, scored out of "
        "fold on confirmation patients",
        "R²", "R² of at least 0.5 over its whole interval, and p ≤ 0.05",
        ("shuffled attribute", "pixel baseline", "untrained network", "control task"), LEAST_R2, LARGEST_P,
    )  # fmt: skip
    if not truth_known:
        return (read,)
    return (read, *(_planned_use(case, q, n_random) for q in case.quantities))


def _planned_use(case: StudyCase, q: ChangedQuantity, n_random: int) -> PlannedTest:
    controls = (
        "true counterfactual", f"{n_random} random directions of the same norm", "dose response",
        "the direction follows the attribute", *(() if q.structure is None else (SWAPPED,)), MARKS,
        *(() if case.bystander is None else (case.bystander.label,)),
    )  # fmt: skip
    if q.structure is None:
        return PlannedTest(
            ELEMENT, _used_name(q),
            f"activations of confirmation patients moved along the direction of {q.label} that discovery patients gave, beside the "
            "same images rendered with that much more of it",
            f"slope of the answer {q.per}, as a multiple of the true counterfactual's",
            _used_criterion(q), controls,
        )  # fmt: skip
    return PlannedTest(
        ELEMENT, _used_name(q),
        f"confirmation patients are rendered with more of it, and of what changes in their activations only the part along the direction "
        f"of {q.label} that discovery patients gave is taken over, cell by cell; also moved along it, where {q.structure} grow, by as much "
        "as discovery patients are",
        f"slope of the answer {q.per} through the direction, as a multiple of the true counterfactual's",
        _used_criterion(q), controls,
    )  # fmt: skip


def _used_criterion(q: ChangedQuantity) -> str:
    beyond = f"beyond ±{q.margin:g} logits {q.per}"
    if q.structure is None:
        return f"{beyond}, and 0.5 to 2 times the slope of the true counterfactual"
    return f"moved, {beyond}; taken over, 0.5 to 2 times the slope of the true counterfactual"


def choose(bench: StudyBench, store: ActivationStore) -> ChosenDirections:
    """Choose the probe's site and every quantity's direction on the discovery patients."""
    side, case, primary = bench.patients.discovery, bench.case, bench.primary
    if primary is None:
        return ChosenDirections(None, (), ())
    values = side.images.attributes.column(primary)
    scores = {}
    for site in dict.fromkeys(bench.sites):
        x = pooled_activations(store, site)
        quick: dict[str, Any] = {"n_shuffles": 0, "n_control_tasks": 0, "code_length": False, "n_boot": 100}
        scores[site] = fit_probe(
            x, values, groups=side.groups, kind="continuous", seed=bench.config.seed, **quick
        ).score
    last = pooled_activations(store, bench.sites[1])
    quantities = case.quantities if bench.patients.truth_known else ()
    calibration = tuple(_rendered_once(side.rendered(bench.config.sizes.calibrated, q.possible)) for q in quantities)
    vectors = tuple(
        _across_patients(bench, last, q) if q.structure is None else _within_patients(bench, q, rendered)
        for q, rendered in zip(quantities, calibration, strict=True)
    )
    return ChosenDirections(max(scores, key=lambda site: scores[site]), vectors, calibration)


def confirm(bench: StudyBench, store: ActivationStore, chosen: ChosenDirections) -> ElementEvidence:
    """Test what was chosen on the confirmation patients."""
    if chosen.probed_site is None or bench.primary is None:
        return ElementEvidence(
            ELEMENT, (), (f"The images have no column '{bench.case.primary}': nothing was measured.",)
        )
    claims = [_read(bench, store, chosen.probed_site, bench.primary)]
    limits = ["Reading a quantity off the activations does not say that the model uses it."]
    if bench.patients.truth_known:
        sizes, case = bench.config.sizes, bench.case
        marks = {m: _mark_effect(bench, bench.patients.confirmation.rendered(sizes.steered), m) for m in case.marks}
        for vector, q, calibration in zip(chosen.vectors, case.quantities, chosen.calibration, strict=True):
            rendered = _rendered_once(bench.patients.confirmation.rendered(sizes.steered, q.possible))
            if vector is None or min(len(rendered), len(calibration)) < FEWEST_RENDERED:
                limits.append(f"Too few images hold {q.label}: whether the answer follows it was not tested.")
                continue
            claims.append(_used(bench, vector, q, rendered, calibration, marks))
    else:
        limits.append("Whether the model uses the quantity was not tested: a photograph has no true counterfactual.")
    return ElementEvidence(ELEMENT, tuple(claims), tuple(limits))


def _across_patients(
    bench: StudyBench, pooled: Float[NDArray[Any], "image width"], quantity: ChangedQuantity
) -> Directions:
    """Return how the last site differs between patients with more and with less of a quantity."""
    values = bench.patients.discovery.images.attributes.column(quantity.parameter)
    site, unit = bench.sites[1], quantity.unit or "1"
    found = fit_concept_vector(pooled, values, estimator="pattern", name=quantity.parameter, unit=unit, site=site)
    return Directions(
        site, torch.tensor(found.direction, dtype=torch.float32)[None], torch.tensor(found.mean, dtype=torch.float32)
    )


def _rendered_once(images: Sequence[PhantomImage[Any]]) -> list[PhantomImage[Any]]:
    """Return images that keep their counterfactuals: several tests ask for the same."""
    return [replace(image, render=lru_cache(maxsize=None)(image.render)) for image in images]


def _within_patients(
    bench: StudyBench, quantity: ChangedQuantity, rendered: Sequence[PhantomImage[Any]]
) -> Directions | None:
    """Return how the first site changes, where it changes most, in discovery images that are rendered with more of a quantity.

    Its cells are as small as what grows. In the larger cells of the last site the same structure looks different wherever it lies
    in a cell, and no one direction holds what they all do.

    What lies in a few cells drowns in the mean over an image, and differs between patients by much else; the same image with and
    without it differs by nothing else. The cell that changes most is taken from each image: the mean over all cells is mostly
    how the surroundings change, of which a model that looks for the strongest place sees nothing.
    """
    if len(rendered) < FEWEST_RENDERED:
        return None
    site, step = bench.sites[0], quantity.steps[-1]
    more = [quantity.raised(p, step) for p in rendered]
    with torch.inference_mode():
        before, after = (run_with_cache(bench.model, bench.prepared(some), [site])[site] for some in (rendered, more))
    changes = (after - before).float()
    most = changes.norm(dim=-1).argmax(1)
    change = changes[torch.arange(len(changes)), most].mean(0)
    return Directions(site, (change / change.norm().clamp_min(1e-12))[None], before.mean((0, 1)).float())


def _used_name(quantity: ChangedQuantity) -> str:
    return f"the answer follows {quantity.label}"


def _read(bench: StudyBench, store: ActivationStore, site: str, name: str) -> Claim:
    side = bench.patients.confirmation
    about, values = side.images.attributes[name], side.images.attributes.column(name)
    untrained = bench.captured(side, "confirmation-untrained", bench.untrained)
    found = fit_probe(
        pooled_activations(store, site), values, groups=side.groups, kind="continuous", name=about.name, unit=about.unit,
        site=site, baseline=pixel_baseline(side.images), untrained=pooled_activations(untrained, site),
        n_shuffles=200, seed=bench.config.seed,
    )  # fmt: skip
    error = "" if found.mae is None else f", mean absolute error {found.mae:.3g} {about.unit}"
    return Claim.measured(
        f"{_plain(about)} can be read off {site} for patients never seen: R² {found.score:.2f}{error}.",
        "correlational", found.score, "R²", LEAST_R2, "R² of at least 0.5 over its whole interval, and p ≤ 0.05",
        controls=found.controls, test=READ, interval=found.interval.ends,
        interval_note=found.interval.reason or found.interval.warning, p_value=found.p_value, largest_p=LARGEST_P,
        trained=bench.model.trained, numbers={"mean absolute error": found.mae},
    )  # fmt: skip


def _used(
    bench: StudyBench, direction: Directions, quantity: ChangedQuantity, rendered: Sequence[PhantomImage[Any]],
    calibration: Sequence[PhantomImage[Any]], marks: dict[str, NDArray[np.float64]],
) -> Claim:  # fmt: skip
    tested: dict[str, Any] = {"parameter": quantity.parameter, "steps": quantity.steps, "objective": bench.objective}
    settings: dict[str, Any] = {
        "n_random": bench.config.sizes.n_random,
        "seed": bench.config.seed,
        "progress": bench.progress,
    }
    result = validate_used(
        bench.model, direction, 0, rendered, calibration, margin=quantity.margin, structure=quantity.structure,
        **tested, **settings,
    )  # fmt: skip
    claim, true, moved = result.claims[0], result.true_slope.mean, result.steered_slope.mean
    numbers: dict[str, float | None] = {
        "true slope": true, "steered slope": moved, "smallest step": quantity.steps[0],
    }  # fmt: skip
    controls = [_marks_control(quantity, marks, true)]
    if bench.case.bystander is not None:
        controls.append(_bystander_control(bench, rendered, bench.case.bystander, quantity, true))
    if quantity.structure is None:
        # after the last site the model may be linear: the steered slope is then the same for everybody, its ratio to the true is not
        ratio, interval, holds = result.ratio, result.ratio_interval, claim.holds
        statement = (
            f"The answer follows {quantity.label}: {moved:+.2g} logits {quantity.per} when activations are moved along its direction, "
            f"{true:+.2g} when the image itself is rendered with more of it."
        )
    else:
        through = swap_along(bench.model, direction, 0, rendered, **tested, **settings)
        ratio, interval = through.share, through.interval
        holds = result.steered_slope.beyond and SIZE_RANGE[0] <= ratio <= SIZE_RANGE[1]
        controls.insert(0, _swapped_control(through))
        numbers |= {"slope through the direction": ratio * true, "steered, times the true slope": result.ratio}
        statement = (
            f"The answer follows {quantity.label}: of {true:+.2g} logits {quantity.per} when the image itself is rendered with more of it, "
            f"{ratio * true:+.2g} come about through one direction; moved along it by as much as other patients are, {moved:+.2g}."
        )
    return replace(
        claim, test=_used_name(quantity), controls=(*claim.controls, *controls), statement=statement,
        criterion=_used_criterion(quantity), holds=holds, value=ratio if np.isfinite(ratio) else None,
        unit="times the true slope", interval=interval.ends, interval_note=interval.reason or interval.warning, numbers=numbers,
    )  # fmt: skip


def _swapped_control(through: Interchange) -> Control:
    """Return the control that random directions, their part taken over likewise, do not carry as much."""
    highest = float(np.quantile(np.abs(through.random_shares), 0.95))
    said = f"95 % of {len(through.random_shares)} carry less than {highest:.2f} of the true effect; p {through.p_random:.2g}"
    return Control(SWAPPED, highest, through.p_random <= LARGEST_P, said)


def _marks_control(quantity: ChangedQuantity, marks: dict[str, NDArray[np.float64]], true: float) -> Control:
    worst = max(marks, key=lambda m: _either_way(marks[m]))
    moved, least = _either_way(marks[worst]), abs(true) * quantity.steps[0]
    return Control(
        MARKS, moved, bound=Bound("at most", least), measure="logits",
        detail=f"{worst.replace('_', ' ')} moves the answer by {moved:.2f} on average, either way, {_smallest(quantity, least)}",
    )  # fmt: skip


def _bystander_control(
    bench: StudyBench, rendered: Sequence[PhantomImage[Any]], bystander: ChangedQuantity, quantity: ChangedQuantity, true: float
) -> Control:  # fmt: skip
    drifted, least = _either_way(_bystander_effect(bench, rendered, bystander)), abs(true) * quantity.steps[0]
    step = bystander.amount(bystander.steps[0])
    return Control(
        bystander.label, drifted, bound=Bound("at most", least), measure="logits",
        detail=f"{step} more of it moves the answer by {drifted:.2f} on average, either way, {_smallest(quantity, least)}",
    )  # fmt: skip


def _smallest(quantity: ChangedQuantity, moved: float) -> str:
    return f"{quantity.amount(quantity.steps[0])} more of {quantity.label} by {moved:.2f}"


def _plain(about: Attribute) -> str:
    """Return name and unit without saying the unit twice, as ``lesion_area_mm2`` does."""
    return replace(about, name=about.name.removesuffix("_mm2").removesuffix("_mm")).label.capitalize()


def _either_way(moved: NDArray[np.float64]) -> float:
    """Return how far answers move on average: what moves some up and others down must not cancel."""
    return float(np.abs(moved).mean())


def _mark_effect(bench: StudyBench, rendered: Sequence[PhantomImage[Any]], mark: str) -> NDArray[np.float64]:
    """Return what burning a mark in does to the answer of every image; images that bear it already lose it."""
    changed = [p.counterfactual(**{mark: 1 - getattr(p.parameters, mark)}) for p in rendered]
    sign = np.array([1 - 2 * getattr(p.parameters, mark) for p in rendered])
    moved: NDArray[np.float64] = sign * (bench.answers(changed) - bench.answers(rendered))
    return moved


def _bystander_effect(
    bench: StudyBench, rendered: Sequence[PhantomImage[Any]], quantity: ChangedQuantity
) -> NDArray[np.float64]:
    """Return what the smallest step of a quantity that should not matter does to the answer of every image."""
    some = [p for p in rendered if quantity.possible(p.parameters)]
    more = [quantity.raised(p, quantity.steps[0]) for p in some]
    moved: NDArray[np.float64] = bench.answers(more) - bench.answers(some)
    return moved
