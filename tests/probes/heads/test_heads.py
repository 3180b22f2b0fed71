"""Interpretable heads: terms that add up, what they find where the rule is known, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mechinterp.errors import AttributeTableError, ConfigError, LeakageError, ShapeError
from mechinterp.statistics.bootstrap import Interval
from probes.heads import (
    HeadData,
    Leakage,
    compare_heads,
    comparison_figure,
    concept_leakage,
    explanation_figure,
    fit_bottleneck,
    fit_nadaraya_watson,
    fit_prototypes,
    intervention_curve,
    intervention_figure,
    shapes_figure,
)
from probes.heads.nadaraya_watson import PRIOR
from probes.heads.prototypes import likeness
from probes.heads.terms import Explanation, Term

NAMES, UNITS = ("area", "bend", "idle"), ("mm²", "mm", "")


def made(rule, patients=120, noise=0.3, seed=0):
    """Return images, two a patient, whose features are a rotation of three concepts and noise."""
    rng = np.random.default_rng(seed)
    n = 2 * patients
    z = rng.normal(size=(n, 3))
    # the rotation is the same for every seed: other patients of the same world
    x = z @ np.random.default_rng(99).normal(size=(3, 12)) + noise * rng.normal(size=(n, 12))
    groups = np.repeat([f"{seed}-{i}" for i in range(patients)], 2).astype(object)
    return HeadData(x, z * 4 + 10, NAMES, UNITS, rule(z, rng).astype(int), groups, tuple(f"i{i}" for i in range(n)))


def straight(z, rng):
    return 1.5 * z[:, 0] + 0.3 * rng.normal(size=len(z)) > 0.2


def bent(z, rng):
    return z[:, 1] ** 2 + 0.2 * rng.normal(size=len(z)) > 0.8


@pytest.fixture(scope="module")
def world():
    return made(straight), made(straight, seed=1)


@pytest.fixture(scope="module")
def compared(world):
    return compare_heads(*world, per_class=3)


def test_terms_of_every_head_add_up_to_its_answer(compared, world):
    for x in world[1].x[:10]:
        for kind, explained in compared.explain(x).items():
            assert explained.total == pytest.approx(explained.output, abs=1e-9), kind
    assert max(s.rounding for s in compared.scores) < 1e-9


def test_a_bottleneck_gives_weight_to_the_concept_that_decides(compared, world):
    head = compared.heads["bottleneck"]
    weights = np.array([w[0] for w in head.weights])
    assert abs(weights[0]) > 10 * np.abs(weights[1:]).max()
    term = head.explain(world[1].x[0]).terms[0]
    assert (term.name, term.unit) == ("area", "mm²")
    assert term.value == pytest.approx(world[1].concepts[0, 0], abs=2)
    assert min(compared.concept_r2.values()) > 0.9


def test_what_a_term_adds_is_weight_times_value_beyond_the_usual_one(world):
    train, held_out = world
    head = fit_bottleneck(train)
    seen = head.concepts(held_out.x[:1])[0]
    by_hand = (
        head.base
        + sum(
            float(head.weights[j][0]) * ((seen[j] - train.concepts[:, j].mean()) / train.concepts[:, j].std() - float(head.centre[j][0]))
            for j in range(3)
        )
    )  # fmt: skip
    assert float(head.outputs(held_out.x[:1])[0]) == pytest.approx(by_hand)


def test_a_bent_rule_is_found_by_the_additive_head_only():
    found = compare_heads(made(bent), made(bent, seed=1), kinds=("bottleneck", "additive"))
    _, linear, additive = found.scores
    assert additive.auroc > 0.95 > 0.7 > linear.auroc
    head = found.heads["additive"]
    values = np.tile(made(bent).concepts.mean(0), (3, 1))
    values[:, 1] = (10 - 8, 10, 10 + 8)
    low, middle, high = head.parts(values)[:, 1]
    assert min(low, high) > middle + 2, "a valley"


def test_a_concept_of_few_values_is_taken_as_it_is():
    data = made(straight)
    few = replace(data, concepts=np.column_stack([data.concepts[:, 0] > 10, data.concepts[:, 1:]]).astype(float))
    assert fit_bottleneck(few, shape="spline", learns_from="true").shapes[0] is None


def test_prototypes_are_training_images_of_both_classes_and_of_different_patients(world):
    train, _ = world
    head = fit_prototypes(train, per_class=4)
    assert [train.y[i] for i in head.images] == list(head.classes) == [0] * 4 + [1] * 4
    for label in (0, 1):
        of_class = [train.groups[i] for i, c in zip(head.images, head.classes, strict=True) if c == label]
        assert len(set(of_class)) == 4
    # an image is most like itself: log((0 + 1) / (0 + 1e-4))
    assert head.likeness(train.x[list(head.images)]).diagonal() == pytest.approx(np.log(1e4), abs=1e-6)


def test_likeness_is_chens_score_by_hand():
    assert likeness(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]]))[0, 0] == pytest.approx(np.log(26 / 25.0001))


def test_a_kernel_head_is_the_weighted_share_by_hand(world):
    train, held_out = world
    head = fit_nadaraya_watson(train)
    at = head.space.transform(held_out.x[:1]) / head.bandwidth
    weights = np.exp(-0.5 * ((at - head.points) ** 2).sum(1))
    by_hand = (weights @ train.y + PRIOR * train.y.mean()) / (weights.sum() + PRIOR)
    assert head.outputs(held_out.x[:1])[0] == pytest.approx(by_hand)
    assert head.shares(held_out.x[:1]).sum() <= 1


def test_far_from_all_patients_a_kernel_head_falls_back_to_their_rate(world):
    head = fit_nadaraya_watson(world[0])
    far = world[0].x[0] + 1e6
    assert head.outputs(far[None])[0] == pytest.approx(head.rate)
    assert head.explain(far).total == pytest.approx(head.rate)


def test_correcting_concepts_helps_where_they_are_read_badly():
    train, held_out = made(straight, noise=3.0), made(straight, noise=3.0, seed=1)
    head = fit_bottleneck(train, learns_from="true")
    curve = intervention_curve(head, train, held_out)
    assert curve.order[0] == "area"
    assert curve.auroc[1] > curve.auroc[0] + 0.05
    assert curve.auroc[-1] == pytest.approx(curve.auroc_random[-1])
    assert curve.auroc[1] > curve.auroc_random[1]


def test_a_concept_read_off_the_label_leaks_and_one_read_off_itself_does_not(world):
    def read_off_the_label(seed):
        rng = np.random.default_rng(seed)
        cause = rng.normal(size=240)
        concept = cause + 2 * rng.normal(size=240)  # all that the features show of it is its cause
        x = cause[:, None] + 0.1 * rng.normal(size=(240, 5))
        groups = np.repeat([f"{seed}-{i}" for i in range(120)], 2).astype(object)
        return HeadData(x, concept[:, None], ("a",), ("",), (cause > 0).astype(int), groups, ("",) * 240)

    leaking = concept_leakage(read_off_the_label(0), read_off_the_label(1))
    assert leaking.interval.ends[0] > 0.1
    assert leaking.auroc_predicted > 0.95
    assert ": leak;" in leaking.text
    honest = concept_leakage(*world)
    assert honest.interval.ends[0] <= 0
    assert honest.auroc_shuffled < honest.auroc_predicted


def test_leakage_says_what_its_interval_shows():
    def said(interval):
        return Leakage(0.1, interval, 0.9, 0.9, 0.5).text

    assert said(Interval(0.05, 0.2, n=30)).count("leak;") == 1
    assert "no leak seen" in said(Interval(-0.05, 0.2, n=30))
    assert "not estimable" in said(Interval.not_estimable(3))
    assert "no sign" in Leakage(0.1, Interval(0.05, 0.2, n=30), 0.9, 0.9, 0.9).text


def test_parts_of_one_subject_give_no_interval_anywhere(world):
    found = compare_heads(*world, kinds=("bottleneck",), units_are_patients=False)
    intervals = [i for s in found.scores for i in (s.interval, s.price_interval)]
    assert not any(i.ends for i in [*intervals, found.leakage.interval])
    assert "not estimable" in found.leakage.text


def test_shuffled_concepts_are_rows_of_other_patients():
    data = made(straight)
    moved = data.with_shuffled_concepts(0)
    rows = {tuple(r) for r in data.concepts}
    assert all(tuple(r) in rows for r in moved.concepts)
    assert (moved.concepts != data.concepts).any(1).all()


def test_the_comparison_is_told_in_words_numbers_and_figures(compared, world):
    text = " ".join(compared.sentences())
    assert "opaque classifier" in text
    assert "Concept bottleneck: AUROC" in text
    raw = compared.to_json()
    assert raw["heads"][0]["name"] == "logistic regression on all features"
    assert raw["patients"] == {"training": 120, "held_out": 120}
    head = compared.heads["additive"]
    explained = compared.explain(world[1].x[0])["kernel"]
    for figure in (
        comparison_figure(compared), shapes_figure(head, world[0]), intervention_figure(compared.curve),
        explanation_figure(explained, "one <b>image</b>"),
    ):  # fmt: skip
        assert "<b>image" not in figure.to_json()
    drawn = explanation_figure(explained).data[0]
    assert drawn.x[0] + sum(drawn.x[1:-1]) == pytest.approx(explained.output)


def test_terms_too_many_to_draw_are_summed():
    explained = Explanation(tuple(Term(f"t{i}", 0.0, "", float(i)) for i in range(6)), 0.0, 15.0, "log-odds")
    shown = explained.strongest(2)
    assert [t.name for t in shown] == ["t5", "t4", "4 others"]
    assert sum(t.contribution for t in shown) == 15
    assert len(explained.strongest(5)) == 6


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"y": np.zeros(240, int)}, ConfigError, "two classes, 0 and 1"),
        ({"groups": np.zeros(3)}, ShapeError, "groups has 3 values for 240 images"),
        ({"names": ("a",)}, ShapeError, "3 concepts have 1 names"),
        ({"concepts": np.full((240, 3), np.nan)}, AttributeTableError, "concept 'area' has missing values"),
    ],
)
def test_data_that_cannot_be_meant_are_refused(change, error, words):
    with pytest.raises(error, match=words):
        replace(made(straight), **change)


def test_a_patient_on_both_sides_is_refused():
    data = made(straight)
    with pytest.raises(LeakageError, match="split whole patients"):
        compare_heads(data, data)


def test_too_few_patients_and_unknown_heads_are_refused(world):
    train, held_out = world
    with pytest.raises(ConfigError, match="only 3 patients train"):
        fit_bottleneck(train.take(np.arange(6)))
    with pytest.raises(ConfigError, match="ask for at most"):
        fit_prototypes(train, per_class=500)
    with pytest.raises(ConfigError, match="0 prototypes of a class stand for nothing: ask for at least 1"):
        fit_prototypes(train, per_class=0)
    with pytest.raises(ConfigError, match="'trees' is no head"):
        compare_heads(train, held_out, kinds=("trees",))
    rare = replace(train, y=(np.arange(240) < 2).astype(int))
    with pytest.raises(ConfigError, match="patients in one fold only"):
        fit_bottleneck(rare)


@pytest.mark.filterwarnings("error")
def test_leakage_is_finite_where_the_label_is_told_for_certain():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 60)
    x = label[:, None] * 1e4 + rng.normal(size=(120, 3))
    groups = np.arange(120).astype(str).astype(object)
    data = HeadData(x, x[:, :1], ("a",), ("",), label, groups, ("",) * 120)
    half = np.arange(120) % 2 == 0
    assert np.isfinite(concept_leakage(data.take(np.flatnonzero(half)), data.take(np.flatnonzero(~half))).bits)
