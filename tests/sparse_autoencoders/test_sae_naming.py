"""Names where the truth is planted, none where there is none, and a precision that other patients decide."""

import json

import numpy as np
import pytest

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import AttributeTableError, ConfigError, LeakageError, ShapeError
from sparse_autoencoders.concepts import concepts_of
from sparse_autoencoders.naming import FeatureName, _going_along, _intervals, name_features

PATIENTS, EACH = 60, 2


@pytest.fixture(scope="module")
def planted():
    """Feature 0 follows the area, 1 the label, 2 falls with the area, 3 two things alike, 4 nothing, 5 is silent."""
    rng = np.random.default_rng(0)
    n = PATIENTS * EACH
    groups = np.repeat([f"p{i}" for i in range(PATIENTS)], EACH)
    area, tag, side = rng.gamma(2, 1, n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    labels = [("left", "right")[s] for s in side]
    table = AttributeTable.from_columns(
        [(Attribute("lesion_area", "mm²"), area), (Attribute("tag", "1", kind="binary"), tag)]
    )
    noise = rng.random((n, 6)) * 0.3
    values = np.stack(
        [area + noise[:, 0], side + noise[:, 1], np.maximum(4 - area, 0) + noise[:, 2], side + tag + noise[:, 3],
         noise[:, 4], np.zeros(n)], axis=1,
    )  # fmt: skip
    first = np.arange(n // 2)
    return {"values": values, "attributes": table, "groups": groups, "labels": labels,
            "discovery": first, "confirmation": first + n // 2}  # fmt: skip


def test_planted_features_get_their_names_and_the_others_none(planted):
    found = name_features(**planted)
    area, side, small, both, nothing, silent = found.names
    assert area.name.startswith("lesion area above")
    assert area.name.endswith("mm²")
    assert side.name == "label right"
    assert small.name.startswith("lesion area at most")
    assert both.name is None
    assert "not selective" in both.reason
    assert "alike" in both.reason or "AUROC" in both.reason
    assert nothing.name is None
    assert "beyond chance" in nothing.reason
    assert silent.reason == "active in 0 images only"
    assert [n.feature for n in found.holding] == [0, 1, 2]
    assert found.precision == 1
    assert side.precision == side.recall == 1
    assert side.interval.ends == (1, 1)
    assert side.base_rate == pytest.approx(0.5, abs=0.15)
    assert "3 of 6 features have a name, 3 names hold on 30 other patients" in found.text
    assert "no name" in nothing.text
    assert "held-out images have it" in side.text


def test_json_holds_names_intervals_and_reasons(planted):
    raw = json.loads(json.dumps(name_features(**planted).to_json()))
    assert raw["names"][1]["name"] == "label right"
    assert raw["names"][1]["interval"]["n"] == 30
    assert raw["names"][4] == {"feature": 4, "name": None, "reason": raw["names"][4]["reason"]}
    assert raw["concepts"][:2] == ["label left", "label right"]


def test_precision_by_hand():
    """Four discovery images say the threshold; of five confirmation images above it three have the concept."""
    rng = np.random.default_rng(1)
    n = 40
    present = np.tile([1.0, 0.0], n // 2)
    values = present + 0.1 * rng.random(n)
    later_values = np.array([2, 2, 2, 2, 2, 0, 0, 0, 0, 0.0])
    later_present = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0.0])
    table = AttributeTable.from_columns([(Attribute("tag", "1", kind="binary"), np.r_[present, later_present])])
    found = name_features(
        np.r_[values, later_values][:, None],
        table,
        np.arange(n + 10),
        discovery=np.arange(n),
        confirmation=n + np.arange(10),
    ).names[0]
    assert found.name == "tag"
    assert (found.precision, found.recall, found.base_rate, found.images) == (0.6, 0.75, 0.4, 5)
    # hypergeometric: P(at least 3 of 5 drawn from 10 with 4 marked) = (C(4,3) C(6,2) + C(4,4) C(6,1)) / C(10,5)
    assert found.p_confirmation == pytest.approx((4 * 15 + 6) / 252, abs=0.03)
    assert not found.holds
    assert "not confirmed" in found.text


def test_under_the_null_hardly_ever_is_a_feature_named():
    rng = np.random.default_rng(0)
    named = 0
    for seed in range(40):
        table = AttributeTable.from_columns([(Attribute(f"a{i}", "mm"), rng.random(80)) for i in range(4)])
        found = name_features(
            rng.random((80, 20)), table, np.repeat(np.arange(40), 2), discovery=np.arange(40), confirmation=np.arange(40, 80),
            least_auroc=0.5, n_permutations=200, seed=seed,
        )  # fmt: skip
        named += bool(found.named)
    assert named <= 6  # 5 % of 40 expected; P(more than 6) = 0.3 %


def test_a_name_that_other_patients_do_not_bear_out_does_not_hold(planted):
    shuffled = dict(planted)
    values = planted["values"].copy()
    second = planted["confirmation"]
    values[second] = values[np.random.default_rng(0).permutation(second)]
    found = name_features(**{**shuffled, "values": values})
    assert len(found.named) == 3
    assert found.holding == ()
    assert found.precision == 0


def test_intervals_equal_the_bootstrap_over_patients():
    from mechinterp.statistics import bootstrap_groups

    rng = np.random.default_rng(0)
    says = rng.integers(0, 2, (90, 1)).astype(float)
    hits = says * rng.integers(0, 2, (90, 1))
    units = np.repeat(np.arange(30), 3)
    sums = [np.stack([x[units == u].sum(0) for u in range(30)]) for x in (hits, says)]
    ours = _intervals(sums[0], sums[1], 0, True)[0].ends
    theirs = bootstrap_groups(lambda i: hits[i].sum() / says[i].sum(), units, n_boot=2000).ends
    assert np.allclose(ours, theirs, atol=0.02)
    assert _intervals(sums[0], sums[1], 0, False)[0].reason == "not estimable (n = 1)"
    assert _intervals(sums[0][:5], sums[1][:5], 0, True)[0].reason == "not estimable (n = 5)"
    rare = np.zeros((30, 1))
    rare[0] = 1
    assert "too few patients" in _intervals(rare, rare, 0, True)[0].reason


def test_concepts_are_cut_on_discovery_images_alone():
    values = np.r_[np.arange(9.0), np.full(9, 1000.0)]
    table = AttributeTable(
        (Attribute("area", "mm²"), Attribute("kind", "1", kind="categorical"), Attribute("gone", "mm")),
        np.stack([values, np.tile([0.0, 1.0, np.nan], 6), np.full(18, np.nan)], axis=1),
        {"kind": ("round", "long")},
    )
    found = concepts_of(table, discovery=np.arange(9))
    assert [c.name for c in found] == ["area above 5.33 mm²", "area at most 2.67 mm²", "kind round", "kind long"]
    assert found[0].present[:9].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1]
    assert found[0].present[9:].all()
    assert np.isnan(found[2].present[2])
    assert {c.source for c in found} == {"area", "kind"}


def test_concepts_that_go_along_are_told_by_their_correlation():
    rng = np.random.default_rng(0)
    present = rng.integers(0, 2, (200, 3)).astype(float)
    present[:, 2] = present[:, 0]
    assert np.allclose(_going_along(present), np.corrcoef(present.T))


def test_mistakes_are_named(planted):
    with pytest.raises(LeakageError, match="group 'p0' is in discovery and confirmation"):
        name_features(**{**planted, "confirmation": np.arange(4)})
    with pytest.raises(ShapeError, match="values of 3 images"):
        name_features(**{**planted, "values": planted["values"][:3]})
    with pytest.raises(ConfigError, match=r"least_auroc is 0\.2"):
        name_features(**planted, least_auroc=0.2)
    with pytest.raises(ConfigError, match="no concept to name features by"):
        name_features(**{**planted, "attributes": AttributeTable.empty(120), "labels": None})
    with pytest.raises(ShapeError, match="2 labels for 120 images"):
        name_features(**{**planted, "labels": ["a", "b"]})
    with pytest.raises(AttributeTableError, match=r"share is 0\.9"):
        concepts_of(planted["attributes"], discovery=np.arange(3), share=0.9)


def test_with_few_patients_nothing_is_named_and_the_reason_says_so(planted):
    some = name_features(**{**planted, "discovery": np.arange(6)})
    assert some.named == ()
    assert any("cannot be significant with 3 units" in n.reason for n in some.names)
    assert "no feature is named" in some.text
    assert np.isnan(some.precision)
    assert FeatureName(0, None, "quiet").text == "no name: quiet"
