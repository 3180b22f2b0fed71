"""The table on a model whose answer is known: what finds spots is met, what knows nothing of them is flagged."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from localization_models import one_thread, spot_images, spot_model

from circuits.localization import (
    LocalizationConfig,
    localization_table,
    localize,
    randomise,
    show_images,
    with_random_layers,
)
from circuits.localization.estimates import Estimate
from circuits.localization.randomisation import layers_of, maps_unchanged, rank_correlation
from circuits.localization.table import NOT_FAITHFUL, UNCHANGED, UNTRAINED
from circuits.localization.tabulating import by_turns
from mechinterp import logit
from mechinterp.errors import ConfigError, ImagesError, LeakageError
from mechinterp.statistics import Interval


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


QUICK = LocalizationConfig(most_images=24, faithful_images=24, random_images=24, boot=200, steps=8, stages=2)


def table_of(model, **settings):
    given = {"truth": ["spot"], "methods": ["integrated-gradients"], "ground_truth": True, "config": QUICK} | settings
    return localization_table(model, spot_images(12, 1, "d"), spot_images(24, 2, "c"), logit("spots"), **given)


@pytest.fixture(scope="module")
def good():
    return table_of(spot_model())


def test_a_model_of_spots_is_met_with_every_control(good):
    row = good.row("integrated-gradients")
    assert row.flags == ()
    assert row.score("auprc").value > 0.95
    assert row.score("pointing").value == 1
    assert row.score("distance").unit == "mm"
    claim = good.claims(test="spots are found")[0]
    assert claim.verdict == "met"
    assert claim.strength == "ground-truth-verified"
    assert claim.test == "spots are found"
    assert {c.name for c in claim.controls} == {
        "edge detector", "centre prior", "random map", "randomised weights", "random order of deletion"
    }  # fmt: skip
    assert good.best == "integrated-gradients"


def test_an_edge_detector_is_flagged_since_it_does_not_change(good):
    edges = good.row("edges")
    assert UNCHANGED in edges.flags
    assert edges.randomisation.cascade[-1].alike.value == pytest.approx(1)


def test_the_prevalence_is_what_noise_scores(good):
    assert good.prevalence == pytest.approx(16 / 24**2)
    assert good.row("random").score("auprc").value == pytest.approx(good.prevalence, abs=0.03)
    assert any("finds lesions no better" in f for f in good.row("random").flags)


def test_maps_of_a_randomised_model_are_flagged_and_not_met():
    model = spot_model()
    names = [n for group in layers_of(model, torch.zeros(1, 1, 24, 24)).values() for n in group]
    table = table_of(with_random_layers(model, names, seed=1))
    row = table.row("integrated-gradients")
    assert UNTRAINED in row.flags
    # what is seen in the numbers alone: it finds nothing
    assert any("finds lesions no better" in f for f in row.flags)
    assert table.claims()[0].verdict == "not met"


def test_a_map_that_knows_only_the_image_is_flagged():
    table = table_of(
        spot_model(),
        maps={"contrast": lambda m, shown: replace(localize(m, shown, logit(1), "edges"), method="contrast")},
    )
    assert UNCHANGED in table.row("contrast").flags
    assert table.claim("contrast").verdict == "not met"


def test_a_map_that_points_away_is_not_faithful():
    def reversed_map(m, shown):
        found = localize(m, shown, logit(1), "integrated-gradients")
        return replace(found, values=-found.values, method="reversed")

    table = table_of(spot_model(), maps={"reversed": reversed_map})
    assert NOT_FAITHFUL in table.row("reversed").flags


def test_a_model_that_learned_shuffled_labels_is_compared(good):
    same = table_of(spot_model(), label_randomised=spot_model())
    row = same.row("integrated-gradients")
    assert row.labels.alike.value == pytest.approx(1)
    assert "does not change when the labels it learned from are shuffled" in row.flags
    assert next(c for c in same.claims()[0].controls if c.name == "shuffled labels").passed is False


def test_the_table_is_plain_json_markdown_and_figures(good):
    import json

    from circuits.localization.figures import map_figure, maps_figure

    record = json.loads(json.dumps(good.to_json()))
    assert record["rows"][0]["scores"]["auprc"]["pixel"]["interval"]["n"] == 12
    assert good.markdown().count("\n") == 1 + len(good.rows)
    assert len(good.figure().data) >= 2
    maps = good.maps["integrated-gradients"]
    drawn = map_figure(maps, 0, truth=["spot"])
    assert {t.type for t in drawn.data} == {"heatmap", "scatter"}
    assert len(maps_figure([maps, good.maps["edges"]], 1, truth=["spot"]).layout.images) == 2
    maps.figure(0).to_plotly_json()
    with pytest.raises(ConfigError, match="there is no image 99"):
        map_figure(maps, 99)
    with pytest.raises(ImagesError, match="no picture of their own"):
        map_figure(localize(spot_model(), maps.shown.x, logit(1), "centre"), 0)
    with pytest.raises(ConfigError, match="no maps"):
        maps_figure([])


def test_few_patients_prove_nothing():
    table = localization_table(
        spot_model(), spot_images(4, 1, "d"), spot_images(4, 2, "c"), logit("spots"), truth=["spot"],
        methods=["integrated-gradients"], config=replace(QUICK, faithful_images=0, random_images=0),
    )  # fmt: skip
    row = table.row("integrated-gradients")
    assert any("too few patients" in f for f in row.flags)
    assert table.claims()[0].verdict == "inconclusive"
    assert table.claims()[0].strength == "correlational"
    assert (table.images, table.patients) == (4, 2)


def test_parts_of_one_subject_are_not_counted_as_patients():
    parts = replace(spot_images(4, 2, "c"), units_are_patients=False)
    table = localization_table(
        spot_model(), spot_images(4, 1, "d"), parts, logit("spots"), truth=["spot"], methods=["integrated-gradients"],
        config=replace(QUICK, faithful_images=0, random_images=0),
    )  # fmt: skip
    assert (table.images, table.patients) == (4, 0)
    assert table.row("integrated-gradients").score("auprc").interval.ends is None


def test_a_patient_in_both_sets_is_an_error():
    with pytest.raises(LeakageError, match="12 patients"):
        localization_table(spot_model(), spot_images(24), spot_images(24), logit(1), truth=["spot"])


def test_images_without_lesions_say_so():
    with pytest.raises(ImagesError, match="no image of 'spots' has a lesion among nothing"):
        table_of(spot_model(), truth=["nothing"])
    with pytest.raises(ConfigError, match="there is no method 'lpr'"):
        table_of(spot_model(), methods=["lpr"])
    with pytest.raises(ConfigError, match="no level 'voxel'"):
        table_of(spot_model(), levels=["voxel"])
    with pytest.raises(ConfigError, match="is a method already"):
        table_of(spot_model(), maps={"edges": lambda m, s: None})


def test_scores_that_are_not_there_are_named(good):
    with pytest.raises(ConfigError, match="no score 'auroc'"):
        good.rows[0].score("auroc")
    with pytest.raises(ConfigError, match="not scored at level 'token'"):
        good.rows[0].score("pointing", "token")
    with pytest.raises(ConfigError, match="no method 'lrp'"):
        good.row("lrp")


def test_randomising_leaves_the_model_alone_and_shuffles_what_is_named():
    model = spot_model()
    groups = layers_of(model, torch.zeros(1, 1, 24, 24))
    assert list(groups) == ["head", "stages.1", "stages.0"]
    before = {n: t.clone() for n, t in model.module.state_dict().items()}
    other = with_random_layers(model, groups["stages.1"], seed=0)
    assert all(torch.equal(before[n], t) for n, t in model.module.state_dict().items())
    changed = {n for n, t in other.module.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {"stages.1.0.weight"}
    assert torch.equal(
        other.module.stages[1][0].weight.flatten().sort()[0], model.module.stages[1][0].weight.flatten().sort()[0]
    )
    assert not other.trained


def test_independent_layers_are_made_random_one_by_one():
    model = spot_model()
    shown = show_images(model, spot_images(4))

    def make(m, s):
        return localize(m, s, logit(1), "gradient")

    found = randomise(model, make, shown, make(model, shown), boot=100)
    assert [s.layer for s in found.cascade] == [s.layer for s in found.independent] == ["head", "stages.1", "stages.0"]
    assert found.to_json()["limit"] == 0.5


def test_rank_correlation_by_scipy_and_of_constant_maps():
    from scipy.stats import spearmanr

    a, b = np.random.default_rng(0).normal(size=(2, 3, 5, 5))
    expected = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlation(a, b), expected)
    assert not rank_correlation(a, np.ones_like(a)).any()


def test_maps_count_as_unchanged_by_the_upper_end():
    def alike(low, high):
        return Estimate((low + high) / 2, Interval(low, high, n=12), 12)

    assert maps_unchanged(alike(0.3, 0.6), 0.5)
    assert not maps_unchanged(alike(0.1, 0.4), 0.5)
    assert not maps_unchanged(Estimate(None, Interval.not_estimable(0), 0), 0.5)


def test_every_patients_first_image_comes_first():
    assert by_turns(["a", "a", "b", "a", "b"]) == [0, 2, 1, 4, 3]


def test_settings_that_cannot_be_meant_are_refused():
    with pytest.raises(ConfigError, match="most_images is 0"):
        LocalizationConfig(most_images=0)
    with pytest.raises(ConfigError, match="alike is 2"):
        LocalizationConfig(alike=2)


def test_what_no_claim_rests_on_can_be_left_out_and_changes_no_claim(good):
    brief = table_of(spot_model(), thorough=False)
    whole, short = (t.claims(test="spots are found")[0] for t in (good, brief))
    assert short == whole
    row = brief.row("integrated-gradients")
    assert set(row.faithfulness) == {"deletion", "insertion", "comprehensiveness", "sufficiency"}
    assert row.deletion_gain == good.row("integrated-gradients").deletion_gain
    assert brief.row("random").faithfulness["deletion"] == good.row("random").faithfulness["deletion"]
    assert brief.row("edges").faithfulness == {}
    assert brief.row("edges").randomisation is None
    assert good.row("edges").randomisation is not None
