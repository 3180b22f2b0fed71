"""Edits of a model whose shortcut is known: what they win, that they undo, and the bill's controls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from shortcut_model import LESION, MARK, NOTHING, paired, shortcut_model

from circuits import edit
from circuits.acting.bench import EditBench, Unchanged, linear_head
from circuits.acting.collateral import measure_collateral
from circuits.acting.editing import EDIT_METHODS
from circuits.acting.site_edits import at_strength, norm_of
from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import ConfigError, ImagesError, ShapeError
from mechinterp.feature_encoder import Directions, Neurons
from mechinterp.images.image_set import ImageSet

ENCODER = Neurons("stage", 3)


def edited(method="ablate", features=(MARK,), **settings):
    x, labels, marks, patients = paired(60)
    model = settings.pop("model", None) or shortcut_model()
    return edit(
        model, settings.pop("encoder", ENCODER), x, target="ill", shortcut=marks, method=method, features=features,
        labels=labels, groups=patients, **settings,
    )  # fmt: skip


def billed(made, **settings):
    x, labels, marks, patients = paired(80, seed=7)
    lesion = x[:, LESION].mean((1, 2)).double().numpy()
    table = AttributeTable.from_columns([
        (Attribute("lesion", "mm"), lesion),
        (Attribute("referable", "1", kind="binary"), labels.astype(float)),
        (Attribute("camera", "1", kind="categorical"), np.arange(len(labels)) % 3.0),
        (Attribute("constant", "1"), np.ones(len(labels))),
    ])  # fmt: skip
    settings = {"n_random": 20, "n_boot": 100, "attributes": table, **settings}
    return made.bill(x, shortcut=marks, labels=labels, groups=patients, **settings)


@pytest.mark.parametrize("method", ["ablate", "project", "leace", "retrain-head"])
def test_an_edit_wins_back_the_worst_groups_loss(method):
    made = edited(method)
    assert made.strength == 1.0
    bill = billed(made, n_random=3)
    assert bill.won_back > 0.5
    assert bill.clean_lost <= 0.01
    assert (
        bill.before.worst.name == "not ill, with the shortcut" or bill.before.worst.name == "ill, without the shortcut"
    )
    assert bill.intervals["worst_loss"].high < 0
    assert not bill.lost


def test_ablating_the_mark_makes_marked_and_unmarked_images_alike():
    made, (x, *_rest) = edited(), paired(5, seed=3)
    z = made.logits(x)
    torch.testing.assert_close(z[:5], z[5:], atol=1e-4, rtol=0)


def test_the_claim_holds_beside_random_edits_of_the_same_norm():
    bill = billed(edited("leace"))
    assert bill.claim.verdict == "met", bill.claim.reasons
    assert len(bill.random_directions) == len(bill.random_features) == 20
    low, high = bill.claim.interval
    assert low < bill.won_back < high


@pytest.mark.parametrize("n_random", [0, 1, 19])
def test_too_few_random_edits_can_carry_no_claim(n_random):
    claim = billed(edited("leace"), n_random=n_random, n_boot=0).claim
    assert [c.passed for c in claim.controls] == [None, None, True]
    assert claim.verdict == "inconclusive"
    assert all("draw 20 or more" in reason for reason in claim.reasons)


def test_a_retrained_head_needs_no_random_edits():
    claim = billed(edited("retrain-head"), n_random=0, n_boot=0).claim
    assert [c.name for c in claim.controls] == ["other attributes"]


def test_one_random_edit_that_does_as_well_speaks_against_the_claim():
    bill = billed(edited("leace"), n_random=2, n_boot=0)
    claim = replace(bill, random_directions=(bill.after, bill.before)).claim
    assert claim.controls[1].passed is False
    assert claim.verdict == "not met"


def test_patients_are_counted_where_somebody_named_them():
    made, (x, labels, marks, patients) = edited(), paired(20, seed=7)
    known = {"shortcut": marks, "labels": labels, "n_random": 0, "n_boot": 0}
    assert made.bill(x, groups=patients, **known).patients == 20
    assert made.bill(x, **known).patients is None
    assert made.bill(x, groups=patients, units_are_patients=False, **known).to_json()["patients"] is None
    ids = tuple(f"{i}" for i in range(len(x)))
    own = ImageSet(ids, lambda i: x[i].movedim(0, -1).numpy())
    assert made.bill(own, **known).patients is None
    named = replace(own, groups=tuple(str(p) for p in patients))
    assert made.bill(named, **known).patients == 20


def test_random_edits_change_the_norm_that_the_edit_changes():
    from circuits.acting.site_edits import random_direction_edits, random_feature_edits

    made = edited()
    norm = norm_of(made.change, made.sample.acts)
    for random in (
        *random_feature_edits(ENCODER, made.sample, 1, norm, n=3),
        *random_direction_edits(made.sample, 1, norm, n=3),
    ):
        assert norm_of(random, made.sample.acts) == pytest.approx(norm, rel=1e-4)


def test_removing_the_lesion_instead_is_not_chosen():
    made = edited(features=(LESION,))
    assert made.strength == 0.0
    bill = billed(made, n_boot=0)
    assert bill.won_back == 0.0
    assert bill.claim.verdict == "not met"


def test_the_bill_names_what_was_taken_with_it():
    made = edited("project", features=(LESION, MARK))
    forced = type(made)(**{**vars(made), "strength": 1.0})
    bill = billed(forced, n_random=2, n_boot=0)
    assert {c.attribute for c in bill.collateral} == {"lesion", "referable", "camera"}
    assert {c.attribute for c in bill.lost} == {"lesion", "referable"}
    assert "lesion" in next(c.detail for c in bill.claim.controls if c.name == "other attributes")
    assert bill.to_json()["collateral"][0]["lost"]


def test_leaving_the_context_leaves_the_model_as_it_was():
    x = paired(4)[0]
    for method in EDIT_METHODS:
        model = shortcut_model()
        before = model.logits(x)
        made = edited(method, model=model)
        with pytest.raises(RuntimeError, match="inside"), made.applied():
            raise RuntimeError("inside")
        assert torch.equal(model.logits(x), before)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())


@pytest.mark.parametrize("method", EDIT_METHODS)
def test_the_applied_edit_says_what_the_bill_was_measured_on(method):
    made, (x, *_rest) = edited(method), paired(6, seed=2)
    (answers,) = EditBench(made.model, "stage", batch=5).run(x, [made.change])
    torch.testing.assert_close(made.logits(x), answers.logits, atol=1e-5, rtol=1e-5)


def test_clamping_keeps_codes_within_what_was_seen():
    made = edited("clamp")
    acts = torch.full((1, 16, 3), 9.0)
    clamped = at_strength(made.full, 1.0).acts(acts)
    assert float(clamped[..., MARK].max()) <= float(made.sample.reference_acts[..., MARK].max()) + 1e-6
    assert torch.equal(clamped[..., NOTHING], acts[..., NOTHING])


def test_directions_can_be_edited_too():
    along = torch.nn.functional.normalize(torch.tensor([[0.0, 1.0, 0.2]]))
    made = edited("project", (0,), encoder=Directions("stage", along, torch.zeros(3)))
    assert made.strength == 1.0


def test_the_head_is_found_by_what_it_puts_out_and_missed_where_there_is_none():
    model, x = shortcut_model(), paired(2)[0]
    assert linear_head(model, x) is model.module.head
    model.module.forward = lambda y: model.module.head(model.module.stage(y).relu().mean((2, 3))) * 2
    assert linear_head(model, x) is None
    (answers,) = EditBench(model, "stage").run(x, [Unchanged()])
    assert answers.head.shape == (4, 3)
    with pytest.raises(ConfigError, match="ends in no linear layer"):
        edited("retrain-head", model=model)


def test_what_cannot_be_edited_is_refused():
    with pytest.raises(ConfigError, match="no edit 'ablat'"):
        edited("ablat")
    with pytest.raises(ConfigError, match="give an encoder and which of its features"):
        edited(features=())
    with pytest.raises(ConfigError, match="there is no feature 9"):
        edited(features=(9,))
    with pytest.raises(ConfigError, match="strengths are"):
        edited(strengths=(0.0,))
    with pytest.raises(ConfigError, match="most_clean_lost is 2"):
        edited(most_clean_lost=2)
    x, labels, marks, _ = paired(10)
    with pytest.raises(ShapeError, match="shortcut has shape"):
        edit(shortcut_model(), ENCODER, x, target="ill", shortcut=marks[:-1], labels=labels, features=[1])
    with pytest.raises(ConfigError, match="other values than true and false"):
        edit(shortcut_model(), ENCODER, x, target="ill", shortcut=marks * 2, labels=labels, features=[1])
    with pytest.raises(ImagesError, match="an edit needs some of each"):
        edit(shortcut_model(), ENCODER, x, target="ill", shortcut=labels, labels=labels, features=[1])
    with pytest.raises(ImagesError, match=r"3 patient\(s\) to fit"):
        edit(
            shortcut_model(),
            ENCODER,
            x,
            target="ill",
            shortcut=marks,
            labels=labels,
            features=[1],
            groups=np.arange(20) % 3,
        )
    with pytest.raises(ImagesError, match="there is no image"):
        EditBench(shortcut_model(), "stage").run(x[:0], [Unchanged()])


def test_collateral_without_intervals_costs_no_draws():
    head = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    table = AttributeTable.from_columns([(Attribute("a", "mm"), head[:, 0].astype(float))])
    (one,) = measure_collateral([head, head * 0], table, np.arange(60), n_boot=0)
    assert one.interval is None
    assert one.before > 0.9
    assert one.lost
    assert measure_collateral([head, head], table, np.arange(60), leave_out=("a",), n_boot=0) == ()


def test_collateral_over_the_blocks_of_one_volume_has_no_interval():
    head = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    table = AttributeTable.from_columns([(Attribute("a", "mm"), head[:, 0].astype(float))])
    settings = {"n_boot": 100, "units_are_patients": False}
    (one,) = measure_collateral([head, head * 0], table, np.arange(60), **settings)
    (patients,) = measure_collateral([head, head * 0], table, np.arange(60), n_boot=100)
    assert not one.interval.estimable
    assert patients.interval.estimable
    assert one.after == patients.after


def test_the_figure_shows_every_group_before_and_after():
    figure = billed(edited(), n_random=3, n_boot=0).figure()
    assert [t.name for t in figure.data][:2] == ["as it is", "edited"]
    assert len(figure.data[0].x) == 4
