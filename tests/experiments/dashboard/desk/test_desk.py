"""The desk's answers against what a wired model must say, against whole forward passes, and what it refuses."""

import numpy as np
import pytest
import torch
from wired import CELLS, READ, desk, encoder

from experiments.dashboard.desk.desk import IMAGES_KEPT, Outcome, describe, outcome_json
from experiments.dashboard.desk.moves import Move, moved_activation
from mechinterp.capturing import run_with_cache
from mechinterp.errors import ConfigError
from mechinterp.interventions import intervene


def test_an_image_as_it_is_gets_the_models_own_answer():
    made = desk()
    for image in range(4):
        x = made.model.prepare([made.images[image]], made.preparation)
        with torch.no_grad():
            logits = made.model.logits(x)[0]
        before = made.before(image)
        np.testing.assert_allclose(before.logits, logits, rtol=1e-5)
        np.testing.assert_allclose(before.probabilities, logits.softmax(0), rtol=1e-4)
        assert before.objective == pytest.approx(float(logits[2] - logits[0]), rel=1e-5)
        assert before.random is None


def test_moving_a_feature_changes_the_logits_by_what_the_wiring_says():
    made = desk()
    before = made.before(1)
    x = made.model.prepare([made.images[1]], made.preparation)
    codes = encoder().encode(run_with_cache(made.model, x, ["act"])["act"].detach())
    after = made.after(1, [Move("feature", 1, "scale", 3.0)])
    expected = READ @ torch.tensor([0.0, 0.6, 0.8]) * 2 * codes[0, :, 1].mean()
    np.testing.assert_allclose(after.logits - before.logits, expected, rtol=1e-4)
    change = 2 * codes[0, :, 1].abs()
    np.testing.assert_allclose(after.moved, change.reshape(4, 4), rtol=1e-4)


@pytest.mark.parametrize("skip", [False, True])
def test_moves_equal_whole_forward_passes_with_the_same_edit(skip):
    made = desk(skip)
    assert made.tail.exact is not skip
    moves = [Move("feature", 0, "set", 0.7), Move("channel", 2, "scale", -1.0), Move("feature", 1, "set-active", 0.1)]
    x = made.model.prepare([made.images[2]], made.preparation)

    def edit(acts):
        return moved_activation(acts, encoder().encode(acts), encoder(), moves)

    with torch.no_grad(), intervene(made.model, {"act": edit}):
        expected = made.model.logits(x)[0]
    np.testing.assert_allclose(made.after(2, moves).logits, expected, rtol=1e-4, atol=1e-5)


def test_evidence_of_a_linear_readout_adds_up_to_the_objective():
    made = desk()
    before = made.before(0)
    assert before.evidence.shape == (4, 4)
    assert before.evidence.sum() == pytest.approx(before.objective, rel=1e-4)
    moved = made.after(0, [Move("channel", 2, "set", 0.0)])
    assert moved.evidence.sum() == pytest.approx(moved.objective, rel=1e-4, abs=1e-5)


def test_no_move_changes_nothing_and_wants_no_random_change():
    made = desk()
    after = made.after(0, [Move("feature", 0, "scale", 1.0)])
    np.testing.assert_array_equal(after.logits, made.before(0).logits)
    assert after.relative_change == 0
    assert after.random is None
    assert after.moved.max() == 0


def test_random_changes_are_as_large_as_the_move_and_the_same_every_time():
    made = desk()
    move = [Move("channel", 2, "scale", 0.0)]
    low, high = made.after(0, move).random
    assert (low, high) == made.after(0, move).random
    assert low < high
    # no change of this size in every cell can do more than one along the gradient in every cell
    x = made.model.prepare([made.images[0]], made.preparation)
    size = run_with_cache(made.model, x, ["act"])["act"].detach()[0, :, 2].abs().sum() / CELLS
    most = float((READ[2] - READ[0]).norm() * size)
    assert -most <= low
    assert high <= most


def test_random_changes_are_left_out_where_they_need_whole_passes():
    assert desk(skip=True).after(0, [Move("channel", 2, "scale", 0.0)]).random is None


def test_proposals_are_what_the_answer_leans_on():
    made = desk()
    units = made.proposals(0)
    assert [unit.kind for unit in units] == ["feature", "feature", "channel", "channel"]
    channels = units[2:]
    x = made.model.prepare([made.images[0]], made.preparation)
    acts = run_with_cache(made.model, x, ["act"])["act"].detach()[0]
    leaning = acts.mean(0) * (READ[2] - READ[0])
    assert channels[0].index == int(leaning.abs().argmax())
    assert channels[0].relevance == pytest.approx(float(leaning[channels[0].index]), rel=1e-4)
    assert made.unit(0, "channel", channels[0].index) == channels[0]
    assert made.unit(0, units[0].kind, units[0].index).relevance == pytest.approx(units[0].relevance, rel=1e-5)


def test_a_single_class_can_be_the_objective():
    made = desk(target="mid", reference=None)
    assert made.objective.name == "logit of mid"
    assert made.before(0).objective == pytest.approx(float(made.before(0).logits[1]))


def test_only_the_last_few_images_are_kept():
    made = desk()
    for image in (0, 1, 2, 3, 0):
        made.before(image)
    assert list(made._kept) == [1, 2, 3, 0]
    assert len(made._kept) <= IMAGES_KEPT


@pytest.mark.parametrize("image", [-1, 4])
def test_an_image_that_is_not_there_is_refused(image):
    with pytest.raises(ConfigError, match=f"there is no image {image}: the run has 4"):
        desk().before(image)


def test_a_move_is_told_in_words_with_its_control():
    made = desk()
    before = made.before(0)
    after = made.after(0, [Move("channel", 2, "scale", -3.0)])
    words = describe(after, before, made.class_names, made.objective.name)
    assert words.startswith("The answer changes from high to ")
    assert "logit high − logit low −" in words
    assert "random changes as large: " in words
    assert describe(before, before, made.class_names, "x").startswith("The answer stays high, probability")


def outcome(*logits):
    z = np.array(logits, dtype=np.float32)
    return Outcome(z, 1 / (1 + np.exp(-z)), float(z[0]), None, None)


@pytest.mark.parametrize(
    ("names", "before", "after", "words"),
    [
        (["mass"], [2.0], [-1.0], "The answer changes from mass to not mass, probability of mass 0.88 → 0.27; z −3."),
        (["mass"], [2.0], [1.0], "The answer stays mass, probability of mass 0.88 → 0.73; z −1."),
        (["mass", "edema"], [2.0, 1.0], [3.0, -2.0],
         "The answer changes from mass, edema to mass, probability of edema 0.73 → 0.12; z +1."),
        (["mass", "edema"], [-2.0, -1.0], [-2.0, -3.0],
         "The answer stays none of the findings, probability of edema 0.27 → 0.05; z 0."),
    ],
)  # fmt: skip
def test_findings_that_do_not_exclude_one_another_are_told_each_by_itself(names, before, after, words):
    assert describe(outcome(*after), outcome(*before), names, "z", "sigmoid") == words


def test_an_outcome_travels_as_short_numbers():
    made = desk()
    sent = outcome_json(made.after(0, [Move("feature", 0, "scale", 0.5)]))
    assert np.shape(sent["evidence"]) == np.shape(sent["moved"]) == (4, 4)
    assert all(len(f"{v}") < 12 for v in sent["logits"])
    assert outcome_json(made.before(0))["moved"] is None
