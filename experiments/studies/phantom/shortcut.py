"""Actionability: is any feature used as a shortcut, and can a model that uses one be mended.

The same patients are rendered without and with a burnt-in mark, and dealt to two hospitals: at one the mark goes with the
label, at the other it does not. A model that never learnt the mark uses its features alike at both. Where a search on the
discovery patients raises an alarm, an edit is made there, joins the plan, and is billed on the confirmation patients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from experiments.report import ElementEvidence, PlannedTest, ReportFigure
from experiments.studies.phantom.bench import StudyBench
from experiments.studies.phantom.marks import RHO, MarkedPairs
from experiments.studies.phantom.site_answer import SiteAnswer, moved_by, share_through
from mechinterp.capturing import run_with_cache
from mechinterp.claims import Bound, Claim, Control
from mechinterp.feature_encoder import FeatureEncoder

if TYPE_CHECKING:
    from circuits.acting.edit_bill import EditBill
    from circuits.acting.editing import EditedModel, EditMethod
    from circuits.acting.shortcuts import FoundFeature, ShortcutSearch

ELEMENT = "actionability"
ALIKE = "no feature serves a burnt-in mark"
EDITED = "an edit takes the mark's weight away"
DEALT, COUNTERFACTUAL, SEEN, OTHERS = (
    "patients dealt to environments at random", "true counterfactual of the mark", "the features see what moves the answer",
    "other attributes",
)  # fmt: skip
ALPHA = 0.01
MOST_MOVED = 0.1
"""Share of the distance between the two classes' answers by which a mark that is not used may move an answer."""
LEAST_DIFFERENCE = 0.01
"""Share of that distance by which a feature's worth must differ to count: a mark that is seen and hardly used is no shortcut."""
LEAST_SEEN = Bound("at least", 0.5)
"""Share of a planted move of the answer that must go through the features: where none does, none can be found."""
WAYS: tuple[EditMethod, ...] = ("ablate", "leace", "retrain-head")
EDITED_FEATURES, N_RANDOM, N_BOOT = 24, 20, 200
_ALIKE_CRITERION = (
    f"no feature's worth differs at p ≤ {ALPHA:g}, corrected for all features, by {LEAST_DIFFERENCE:.0%} of the distance between "
    "the classes"
)
_EDIT_CRITERION = "at least 50% of the worst group's loss for at most 1% of the clean accuracy"


@dataclass(frozen=True, eq=False)
class Suspected:
    """What the discovery patients gave.

    Parameters
    ----------
    encoder
        Features that were searched.
    distance
        Between the two classes' mean answers [logits].
    edited
        The edit chosen there; ``None`` where nothing raised an alarm.

    """

    encoder: FeatureEncoder
    distance: float
    edited: EditedModel | None


def planned(bench: StudyBench, suspected: Suspected | None = None) -> tuple[PlannedTest, ...]:
    """Return the tests: the search, and the edit where the discovery patients gave reason for one."""
    if not bench.patients.truth_known:
        return ()
    mark = _plain(bench)
    search = PlannedTest(
        ELEMENT, ALIKE,
        f"confirmation patients are rendered with the {mark} as at a hospital where it goes with the label (phi {RHO:g}) and as at "
        "one where it does not; every feature of the last site is removed in turn",
        "largest difference between the hospitals of a feature's worth for the true answer",
        _ALIKE_CRITERION, (DEALT, COUNTERFACTUAL, SEEN),
    )  # fmt: skip
    if suspected is None or suspected.edited is None:
        return (search,)
    edit = PlannedTest(
        ELEMENT, EDITED,
        f"edit '{suspected.edited.method}' at strength {suspected.edited.strength:g}, made because the discovery patients raised an "
        f"alarm, on confirmation patients without and with the {mark}",
        "share of the worst group's loss that is won back", _EDIT_CRITERION, _edit_controls(suspected.edited),
    )  # fmt: skip
    return (search, edit)


def choose(bench: StudyBench, encoder: FeatureEncoder) -> Suspected | None:
    """Search the discovery patients; where a feature's use differs, make the edit that mends most of it there."""
    if not bench.patients.truth_known:
        return None
    pairs = MarkedPairs.of(bench, bench.patients.discovery)
    with torch.inference_mode():
        answers = bench.objective(bench.model.logits(pairs.inputs[0])).double().cpu().numpy()
    distance = float(answers[pairs.positive].mean() - answers[~pairs.positive].mean())
    search = searched(bench, pairs, encoder)
    edited = made_edit(bench, pairs, encoder, search) if counted(search, distance) else None
    return Suspected(encoder, distance, edited)


def confirm(bench: StudyBench, suspected: Suspected | None) -> ElementEvidence:
    """Search the confirmation patients, and bill the edit that was made on the discovery patients."""
    if suspected is None:
        why = (
            "Shortcuts were not searched for: a photograph cannot be rendered without and with a mark. `mechinterp shortcuts` "
            "searches between two environments of your own."
        )
        return ElementEvidence(ELEMENT, (), (why,))
    pairs = MarkedPairs.of(bench, bench.patients.confirmation)
    search = searched(bench, pairs, suspected.encoder)
    claims = [_alike(bench, search, pairs, suspected)]
    figures = [
        ReportFigure.of(
            f"Features at two hospitals ({_plain(bench)})",
            "What a feature is worth for the true answer where the mark goes with the label, and where it does not; marks that lie "
            "apart show a shortcut.",
            search.figure(8),
        )
    ]  # fmt: skip
    limits = [f"One mark was searched for: the {_plain(bench)}."]
    if suspected.edited is None:
        limits.append("The discovery patients gave no reason for an edit: none was made.")
    else:
        bill = billed(bench, pairs, suspected.edited)
        claims.append(_edit_claim(bill))
        text = "Loss of each class without and with the mark, before and after the edit; lower is better."
        figures.append(ReportFigure.of(f"What the edit does ({bill.method})", text, bill.figure()))
        limits.append("The edit is put on while the model runs; its weights stay as they are.")
    return ElementEvidence(ELEMENT, tuple(claims), tuple(limits), tuple(figures))


def searched(bench: StudyBench, pairs: MarkedPairs, encoder: FeatureEncoder) -> ShortcutSearch:
    """Search patients at two hospitals for features whose use differs."""
    from circuits import find_shortcuts

    shown, environments = pairs.dealt(bench.config.seed)
    return find_shortcuts(
        bench.model, encoder, shown, environments=environments, target=_target(bench), labels=pairs.positive,
        groups=pairs.patients, alpha=ALPHA, seed=bench.config.seed, progress=bench.progress,
    )  # fmt: skip


def counted(search: ShortcutSearch, distance: float) -> list[FoundFeature]:
    """Return the features whose worth differs beyond chance, and by enough to matter."""
    return [f for f in search.found if abs(f.difference) >= LEAST_DIFFERENCE * abs(distance)]


def made_edit(bench: StudyBench, pairs: MarkedPairs, encoder: FeatureEncoder, search: ShortcutSearch) -> EditedModel:
    """Try every way of editing on patients without and with the mark, and keep the one with the least loss there."""
    from circuits import edit
    from circuits.acting.bench import linear_head

    ways = [way for way in WAYS if way != "retrain-head" or linear_head(bench.model, pairs.inputs[0, :1]) is not None]
    images, known = pairs.both()
    made = [
        edit(
            bench.model, encoder, images, target=_target(bench), method=way, seed=bench.config.seed,
            features=search.order[:EDITED_FEATURES].tolist(), progress=bench.progress, **known,
        )
        for way in ways
    ]  # fmt: skip
    return min(made, key=lambda e: next(t.scores.worst.loss for t in e.tried if t.strength == e.strength))


def billed(bench: StudyBench, pairs: MarkedPairs, edited: EditedModel) -> EditBill:
    """Measure an edit on patients without and with the mark."""
    images, known = pairs.both()
    every = np.tile(np.arange(len(pairs)), 2)
    return edited.bill(
        images, attributes=pairs.attributes.select(every), leave_out=(bench.case.marks[0],), n_random=N_RANDOM, n_boot=N_BOOT,
        seed=bench.config.seed, progress=bench.progress, **known,
    )  # fmt: skip


def carried(bench: StudyBench, pairs: MarkedPairs, encoder: FeatureEncoder, features: list[int]) -> float:
    """Return which share of the mark's effect on the answer goes through some features; NaN where it has none."""
    answer = SiteAnswer.of(bench, encoder.site, pairs.inputs[1])
    with torch.inference_mode():
        without, marked = (run_with_cache(bench.model, x, [encoder.site])[encoder.site] for x in pairs.inputs)
        return share_through(answer, encoder, without, marked, torch.tensor(features, dtype=torch.long))


def seen(bench: StudyBench, pairs: MarkedPairs, encoder: FeatureEncoder, distance: float) -> float:
    """Return which share of a planted move of the answer goes through all features; NaN where the answer cannot be moved.

    Activations are moved from where those of one class are to where those of the other are, in every cell, until the answer
    moves by as much as a mark that is used does: the least that a shortcut which is there would do at this site.
    """
    answer = SiteAnswer.of(bench, encoder.site, pairs.inputs[0])
    with torch.inference_mode():
        acts = run_with_cache(bench.model, pairs.inputs[0], [encoder.site])[encoder.site]
        of_image, positive = acts.mean(1), torch.from_numpy(pairs.positive)
        towards = of_image[positive].mean(0) - of_image[~positive].mean(0)
        planted = moved_by(answer, acts, towards, MOST_MOVED * distance)
        if planted is None:
            return float("nan")
        return share_through(answer, encoder, acts, planted, torch.arange(len(encoder.directions)))


def _alike(bench: StudyBench, search: ShortcutSearch, pairs: MarkedPairs, suspected: Suspected) -> Claim:
    (top,) = search.ranked(1, intervals=1)
    interval = top.interval
    by_image = pairs.moved(bench)
    # what moves some up and others down is a use of the mark too
    moved, size = float(by_image.mean()), float(np.abs(by_image).mean())
    most = MOST_MOVED * abs(suspected.distance)
    share_seen = seen(bench, pairs, suspected.encoder, suspected.distance)
    found, mark = counted(search, suspected.distance), _plain(bench)
    numbers: dict[str, float | None] = {
        "features": len(search.order), "features whose use differs": len(found),
        "features that differ by any size": len(search.found), "mark moves the answer by": moved,
        "distance of the classes": suspected.distance, "alarms": search.placebo_alarms, "divisions": search.placebos,
        "alarms allowed": search.placebo_bound,
    }  # fmt: skip
    if found:
        numbers["share of the mark's effect"] = share = carried(
            bench, pairs, suspected.encoder, [f.node.index for f in found]
        )
        statement = (
            f"{len(found)} of {len(search.order)} features are used otherwise where the {mark} goes with the label, first of all "
            f"feature {top.node.index}; {share:.0%} of what the mark does to the answer goes through them."
        )
    else:
        statement = (
            f"None of {len(search.order)} features of {suspected.encoder.site} is used otherwise, by as much as counts, where the "
            f"{mark} goes with the label."
        )
    dealt = search.claim.controls[0]
    return Claim(
        statement, "interventional", top.difference, "log-odds of the truth", not found, _ALIKE_CRITERION,
        controls=(
            dealt,
            Control(
                COUNTERFACTUAL, size, bound=Bound("at most", most), measure="logits",
                detail=f"burning the {mark} in moves an answer by {size:.2f}, {moved:+.2f} with its sign; the classes lie {suspected.distance:.1f} apart",
            ),
            _seen_control(share_seen, most),
        ),
        interval=None if interval is None else interval.ends,
        interval_note="" if interval is None else interval.reason or interval.warning,
        p_value=top.p, trained=bench.model.trained, numbers={**numbers, "feature": top.node.index}, test=ALIKE,
    )  # fmt: skip


def _seen_control(share: float, planted: float) -> Control:
    """Return the control that features which see nothing cannot pass."""
    if not np.isfinite(share):
        return Control(SEEN, None, None, f"the answer could not be moved by {planted:.2f} at this site")
    said = f"of a move of the answer by {planted:.2f}, planted at their site, {share:.0%} goes through the features"
    return Control(SEEN, share, bound=LEAST_SEEN, measure="share", detail=said)


def _edit_claim(bill: EditBill) -> Claim:
    before, after = bill.before, bill.after
    return replace(
        bill.claim, test=EDITED, criterion=_EDIT_CRITERION,
        numbers={
            "worst loss before": before.worst.loss, "worst loss after": after.worst.loss,
            "clean accuracy before": before.clean_accuracy, "clean accuracy after": after.clean_accuracy,
            "attributes": len(bill.collateral), "read worse": len(bill.lost),
        },
    )  # fmt: skip


def _edit_controls(edited: EditedModel) -> tuple[str, ...]:
    """Return the names of the controls that an edit's bill will carry."""
    from circuits.acting.head import HeadEdit

    if isinstance(edited.full, HeadEdit) or edited.strength == 0:
        return (OTHERS,)
    kinds = ("random features' edits", "random directions")
    return (*(f"{N_RANDOM} {kind} of the same norm" for kind in kinds), OTHERS)


def _target(bench: StudyBench) -> str | int:
    return bench.case.target if bench.case.target in bench.model.class_names else 1


def _plain(bench: StudyBench) -> str:
    return bench.case.marks[0].replace("_", " ")
