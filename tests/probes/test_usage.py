"""A model wired to use a quantity is told from one wired to ignore it, by what its answer does and not by a probe."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from wired_models import BRIGHT, SITE, TAG, WIDTH, eyes, pooled, wired

from mechinterp.errors import ConfigError, LeakageError, SiteError
from mechinterp.feature_encoder import Directions
from mechinterp.objectives import logit, logit_difference
from mechinterp.sites import Site
from mechinterp.token_grid import TokenGrid
from probes import (
    dose_figure,
    fit_probe,
    physical_calibration_figure,
    random_directions,
    validate_used,
    validate_used_by_ablation,
)

STEPS = (0.4, 0.8)
ILL = logit_difference("ill", "healthy")
MARGIN = 0.1  # logits per mm², set before any model was run


@pytest.fixture(scope="module")
def clinic():
    """Eyes to fit the probe on, to calibrate on, and to test on."""
    return eyes(30, 1), eyes(11, 2), eyes(12, 3)


@pytest.fixture(scope="module")
def probe(clinic):
    """Direction of a ridge probe for the area of exudates."""
    train = clinic[0]
    x = pooled(wired(BRIGHT, 3.0), train).double()
    y = torch.tensor([p.parameters.exudate_area_mm2 for p in train], dtype=torch.float64)
    x, y = x - x.mean(0), y - y.mean()
    weights = torch.linalg.solve(
        x.T @ x + 1e-2 * len(x) * x.var(0).mean() * torch.eye(WIDTH, dtype=torch.float64), x.T @ y
    )
    return Directions(SITE, (weights / weights.norm()).float()[None], torch.zeros(WIDTH))


def usage(model, probe, clinic, **settings):
    settings = {"objective": ILL, "margin": MARGIN, "steps": STEPS, **settings}
    return validate_used(model, probe, 0, clinic[2], clinic[1], parameter="exudate_area_mm2", **settings)


def test_the_probe_reads_the_area_whether_or_not_the_model_uses_it(clinic):
    areas = [p.parameters.exudate_area_mm2 for p in clinic[0]]
    for channel in (BRIGHT, TAG):
        read = fit_probe(pooled(wired(channel, 3.0), clinic[0]).double().numpy(), np.array(areas))
        assert read.score > 0.8


@pytest.mark.parametrize("bend", [0.0, 6.0])
def test_a_model_wired_to_use_the_area_uses_it_as_much_as_the_true_counterfactual_says(clinic, probe, bend):
    found = usage(wired(BRIGHT, 3.0, bend), probe, clinic, off_target={"ill": logit("ill")})
    assert found.verdict == "used"
    assert 0.5 <= found.ratio <= 2.0
    low, high = found.ratio_interval.ends
    assert 0.5 < low < found.ratio < high < 2.0
    assert found.true_slope.mean > MARGIN
    assert found.p_random <= 0.05
    assert found.dose_response == pytest.approx(1)
    used, unused = found.claims
    assert (used.verdict, unused.verdict) == ("met", "not met")
    assert used.strength == "ground-truth-verified"
    assert used.unit == "logit ill − logit healthy/mm²"
    half = found.off_target["ill"]
    assert half.true == pytest.approx(found.true_slope.mean / 2, rel=1e-4)
    assert half.steered == pytest.approx(found.steered_slope.mean / 2, rel=1e-4)
    assert half.random < half.steered


def test_a_model_wired_to_ignore_the_area_does_not_use_it_by_the_equivalence_test(clinic, probe):
    found = usage(wired(TAG, 3.0), probe, clinic)
    assert found.verdict == "unused"
    assert found.steered_slope.p_value < 0.05
    np.testing.assert_allclose(found.true, 0, atol=1e-4)
    assert np.isnan(found.ratio)
    used, unused = found.claims
    assert (used.verdict, unused.verdict) == ("not met", "met")
    assert any("random directions" in reason for reason in used.reasons)
    text = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert text["verdict"] == "unused"
    assert text["ratio"] is None
    assert "moves by" in found.text


def test_a_linear_head_moves_by_what_the_weights_say(clinic, probe):
    model = wired(BRIGHT, 3.0)
    found = usage(model, probe, clinic)
    along = 3.0 * float(model.module.evidence.rotation[:, BRIGHT] @ probe.directions[0])
    np.testing.assert_allclose(found.steered, along * found.calibration.per_unit * np.array([STEPS] * 12), rtol=1e-3)


def test_the_whole_channel_swapped_token_by_token_is_the_true_effect(clinic):
    model = wired(BRIGHT, 3.0, bend=6.0)
    whole = Directions(SITE, model.module.evidence.rotation[:, BRIGHT][None].clone(), torch.zeros(WIDTH))
    found = usage(model, whole, clinic)
    np.testing.assert_allclose(found.swapped, found.true, rtol=1e-3, atol=1e-4)
    assert found.ratio == pytest.approx(1, abs=0.1)


class Somewhere(nn.Module):
    """Counts the cells whose evidence passes a threshold: a little of it everywhere does nothing."""

    def __init__(self, threshold):
        super().__init__()
        self.evidence, self.threshold = wired(BRIGHT, 1.0).module.evidence, threshold

    def forward(self, x):
        cells = torch.einsum("bdhw,dc->bchw", self.evidence(x), self.evidence.rotation)[:, BRIGHT]
        z = (cells - self.threshold).relu().mean((1, 2))
        return torch.stack([-z / 2, z / 2], 1)


def tile_site():
    return Site(SITE, "evidence", "output", "map", WIDTH, 64, 0, TokenGrid(8, 8, (8, 8), (4.0, 4.0), (8, 8)))


def test_moved_where_the_structure_grows_a_linear_head_answers_as_if_moved_everywhere(clinic, probe):
    model = replace(wired(BRIGHT, 3.0), sites={SITE: tile_site()})
    found = usage(model, probe, clinic, structure="exudates")
    assert found.verdict == "used"
    assert found.feature == "directions 0 where exudates grow"
    np.testing.assert_allclose(found.steered, usage(model, probe, clinic).steered, rtol=1e-3)


def test_what_sits_in_a_few_tokens_moves_where_it_sits_and_not_by_a_little_everywhere(clinic):
    model = replace(wired(BRIGHT, 3.0), module=Somewhere(12.0).eval(), sites={SITE: tile_site()})
    bright = Directions(SITE, model.module.evidence.rotation[:, BRIGHT][None].clone(), torch.zeros(WIDTH))
    everywhere = usage(model, bright, clinic)
    there = usage(model, bright, clinic, structure="exudates")
    assert everywhere.true_slope.mean == there.true_slope.mean > MARGIN
    assert everywhere.ratio < 0.5 < there.ratio < 2
    assert there.verdict == "used"
    assert there.calibration.per_unit == everywhere.calibration.per_unit


def test_a_count_is_raised_by_whole_numbers(clinic, probe):
    found = validate_used(
        wired(BRIGHT, 3.0), probe, 0, clinic[2], clinic[1], parameter="exudate_count", steps=(2.0, 4.0), objective=ILL,
        margin=MARGIN, n_random=20,
    )  # fmt: skip
    assert found.calibration.value[0].tolist() == [12, 14, 16]
    with pytest.raises(ConfigError, match="'exudate_count' is a count, give whole numbers"):
        validate_used(
            wired(BRIGHT, 3.0), probe, 0, clinic[2], clinic[1], parameter="exudate_count", steps=(0.5,), objective=ILL,
            margin=MARGIN,
        )  # fmt: skip


def test_a_structure_that_is_not_there_or_does_not_grow_is_refused(clinic, probe):
    placed = replace(wired(BRIGHT, 3.0), sites={SITE: tile_site()})
    with pytest.raises(ConfigError, match="no structure 'exudate': did you mean 'exudates'"):
        usage(placed, probe, clinic, structure="exudate")
    with pytest.raises(ConfigError, match="'haemorrhages' do not grow with 'exudate_area_mm2'"):
        usage(placed, probe, clinic, structure="haemorrhages")
    with pytest.raises(SiteError, match="tokens of site 'evidence' have no place"):
        usage(wired(BRIGHT, 3.0), probe, clinic, structure="exudates")


def test_a_direction_that_the_area_does_not_move_is_neither_used_nor_unused(clinic):
    model = wired(BRIGHT, 3.0)
    tag = Directions(SITE, model.module.evidence.rotation[:, TAG][None].clone(), torch.zeros(WIDTH))
    found = usage(model, tag, clinic)
    assert found.verdict == "undecided"
    assert any("does not follow the attribute" in s for s in found.shortfalls)
    assert {c.verdict for c in found.claims} == {"not met"}


def test_an_untrained_model_meets_no_claim_and_few_patients_none_either(clinic, probe):
    assert {c.verdict for c in usage(wired(BRIGHT, 3.0, trained=False), probe, clinic).claims} == {"not met"}
    few = validate_used(
        wired(BRIGHT, 3.0), probe, 0, clinic[2][:9], clinic[1], parameter="exudate_area_mm2", steps=STEPS, objective=ILL,
        margin=MARGIN,
    )  # fmt: skip
    assert few.verdict == "undecided"
    assert few.claims[0].interval_note == "not estimable (n = 9)"


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"steps": ()}, ConfigError, "changes of 'exudate_area_mm2' that are not 0"),
        ({"steps": (0.5, 0.5)}, ConfigError, "each once"),
        ({"margin": 0.0}, ConfigError, "margin is 0: say above 0"),
        ({"n_random": 5}, ConfigError, "fewer than 20 random directions"),
        ({"steps": (-5.0,)}, ConfigError, "exudate_area_mm2 is"),
    ],
)
def test_what_cannot_be_meant_is_refused(clinic, probe, settings, error, said):
    with pytest.raises(error, match=said):
        usage(wired(BRIGHT, 3.0), probe, clinic, **settings)


def test_a_patient_calibrates_or_is_tested_and_parameters_and_features_exist(clinic, probe):
    model, rest = wired(BRIGHT, 3.0), {"steps": STEPS, "objective": ILL, "margin": MARGIN}
    with pytest.raises(LeakageError, match="take different patients"):
        validate_used(model, probe, 0, clinic[2], clinic[2][:1], parameter="exudate_area_mm2", **rest)
    with pytest.raises(ConfigError, match="has no parameter 'exudate_aria': did you mean"):
        validate_used(model, probe, 0, clinic[2], clinic[1], parameter="exudate_aria", **rest)
    with pytest.raises(ConfigError, match="there is no feature 1"):
        validate_used(model, probe, 1, clinic[2], clinic[1], parameter="exudate_area_mm2", **rest)
    with pytest.raises(ConfigError, match="must each hold an image"):
        validate_used(model, probe, 0, [], clinic[1], parameter="exudate_area_mm2", **rest)


def test_figures_show_dose_truth_and_calibration(clinic, probe):
    found = usage(wired(BRIGHT, 3.0), probe, clinic)
    dose = dose_figure(found)
    names = [t.name for t in dose.data if t.showlegend is not False]
    assert names == [
        "100 random directions, same norm", "true counterfactual", "steered along the direction",
        "feature swapped, token by token",
    ]  # fmt: skip
    assert "used" in dose.layout.title.text
    assert dose.layout.xaxis.title.text == "change of exudate area mm2 [mm²]"
    curve = physical_calibration_figure(found)
    assert len(curve.data) == 11
    np.testing.assert_allclose(np.diff(curve.data[0].x), 0.4)


def test_random_directions_point_where_the_data_vary_and_away_from_the_chosen_one():
    generator = torch.Generator().manual_seed(0)
    acts = torch.randn(2000, 5, generator=generator) * torch.tensor([10.0, 1.0, 1.0, 1.0, 0.0])
    chosen = torch.tensor([0.0, 2.0, 0.0, 0.0, 0.0])
    drawn = random_directions(acts, chosen, 300)
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(300))
    torch.testing.assert_close(drawn @ chosen, torch.zeros(300), atol=1e-5, rtol=0)
    assert drawn[:, 0].abs().mean() > 0.8
    assert drawn[:, 4].abs().max() < 1e-5
    alone = random_directions(acts * torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]), chosen, 20)
    torch.testing.assert_close(alone @ chosen, torch.zeros(20), atol=1e-5, rtol=0)


def inputs_of(model, phantoms):
    from mechinterp.images.image_set import MedicalImage

    return model.prepare([MedicalImage("eye", p.pixels, spacing_mm=p.spacing_mm) for p in phantoms])


def test_on_images_without_counterfactuals_the_direction_is_removed_beside_random_ones(clinic, probe):
    images = [*clinic[0], *clinic[1]]
    results = {}
    for channel in (BRIGHT, TAG):
        model = wired(channel, 3.0)
        results[channel] = validate_used_by_ablation(
            model, probe, 0, inputs_of(model, images), objective=ILL, margin=0.3, n_random=40
        )
    assert results[BRIGHT].verdict == "used"
    assert [c.verdict for c in results[BRIGHT].claims] == ["met", "not met"]
    assert {c.strength for r in results.values() for c in r.claims} == {"interventional"}
    assert results[TAG].verdict == "unused"
    assert [c.verdict for c in results[TAG].claims] == ["not met", "met"]
    assert "is used: without it logit ill − logit healthy changes by" in results[BRIGHT].text


def test_ablation_over_parts_of_one_subject_shows_nothing_of_patients(clinic, probe):
    model = wired(BRIGHT, 3.0)
    x = inputs_of(model, clinic[0][:12])
    found = validate_used_by_ablation(
        model, probe, 0, x, objective=ILL, margin=0.3, n_random=20, units_are_patients=False
    )
    assert found.verdict == "undecided"
    assert found.claims[0].interval_note == "not estimable (n = 1)"
    with pytest.raises(ConfigError, match="there is no feature 7"):
        validate_used_by_ablation(model, probe, 7, x, objective=ILL, margin=0.3)
    with pytest.raises(ConfigError, match="fewer than 20"):
        validate_used_by_ablation(model, probe, 0, x, objective=ILL, margin=0.3, n_random=3)
    with pytest.raises(Exception, match="3 patients for 12 images"):
        validate_used_by_ablation(model, probe, 0, x, objective=ILL, margin=0.3, patients=[1, 2, 3])
