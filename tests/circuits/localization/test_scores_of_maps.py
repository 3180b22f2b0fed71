"""Scores known by hand, by scikit-learn, and by what must not matter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from localization_models import one_thread, spot_images, spot_model
from sklearn.metrics import average_precision_score

from circuits.localization.lesions import lesions_of
from circuits.localization.localizing import localize
from circuits.localization.scores import THRESHOLDS, average_precision, dice_curve, mass_inside, means_by_part
from circuits.localization.scoring import parts_of, score_maps
from circuits.localization.shown_images import show_images
from mechinterp import logit
from mechinterp.errors import ConfigError, ImagesError
from mechinterp.token_grid import TokenGrid


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


@given(st.integers(0, 10_000), st.integers(2, 60))
def test_average_precision_equals_scikit_learns_with_weights(seed, n):
    drawn = np.random.default_rng(seed)
    values, share = drawn.integers(0, 8, n).astype(float), drawn.random(n)
    expected = average_precision_score(
        np.r_[np.ones(n), np.zeros(n)], np.r_[values, values], sample_weight=np.r_[share, 1 - share]
    )
    assert average_precision(values, share) == pytest.approx(expected, abs=1e-9)


def test_a_perfect_map_scores_one_and_noise_the_prevalence():
    share = np.zeros(1000)
    share[:50] = 1
    assert average_precision(share, share) == 1
    assert average_precision(np.zeros(1000), share) == pytest.approx(0.05)
    assert np.isnan(average_precision(share, np.zeros(1000)))
    assert dice_curve(share, share).tolist() == [1.0] * len(THRESHOLDS)
    assert mass_inside(share, share) == 1
    assert mass_inside(-share, share) != mass_inside(-share, share)


def test_dice_by_hand():
    # above 0.5 of the largest: two parts, one of them lesion, of two lesion parts
    values, share = np.array([1.0, 0.8, 0.2, 0.1]), np.array([1.0, 0.0, 1.0, 0.0])
    assert dice_curve(values, share)[int(np.abs(THRESHOLDS - 0.5).argmin())] == pytest.approx(2 * 1 / (2 + 2))


def test_a_map_without_positive_values_calls_nothing():
    assert not dice_curve(-np.ones(4), np.ones(4)).any()


def test_means_by_part_leave_out_what_belongs_to_none():
    assert means_by_part(np.array([1.0, 3.0, 100.0]), np.array([0, 0, -1])).tolist() == [2.0]


@pytest.fixture(scope="module")
def spots():
    model, images = spot_model(), spot_images()
    shown = show_images(model, images)
    return model, images, shown, lesions_of(shown, ["spot"])


def test_a_model_of_spots_is_localized_perfectly_and_the_centre_is_not(spots):
    model, _, shown, lesions = spots
    grid = TokenGrid(6, 6, (4.0, 4.0), (2.0, 2.0), (4.0, 4.0))
    parts = parts_of(shown, lesions, grid, ("pixel", "token", "region"))
    found = score_maps(localize(model, shown, logit("spots"), "integrated-gradients"), lesions, parts)
    assert found.auprc["pixel"].min() > 0.95
    assert found.pointing.all()
    assert not found.distance.any()
    assert found.auprc["token"].mean() > 0.9
    assert found.auprc["region"].mean() > 0.9
    threshold = found.best_threshold("pixel")
    assert found.dice_at("pixel", threshold).mean() > 0.9
    assert found.mass.mean() > 0.9
    centre = score_maps(localize(model, shown, logit("spots"), "centre"), lesions, parts)
    assert centre.auprc["pixel"].mean() < 0.3
    assert not centre.pointing.any()


def test_distances_are_in_mm_from_the_peak_to_the_nearest_lesion_pixel(spots):
    model, images, shown, lesions = spots
    maps = localize(model, shown, logit("spots"), "centre")
    i = 0
    row, column = maps.peak_mm(i)
    at = np.argwhere(images.masks(i)["spot"])
    # the obvious loop over pixel boxes of half a millimetre
    slow = min(
        np.hypot(max(r * 0.5 - row, row - (r + 1) * 0.5, 0), max(c * 0.5 - column, column - (c + 1) * 0.5, 0))
        for r, c in at.tolist()
    )
    assert lesions.distances(maps)[i] == pytest.approx(slow)
    assert lesions.unit == "mm"


def test_without_spacing_lengths_are_in_pixels(spots):
    model, images, *_ = spots
    from dataclasses import replace

    shown = show_images(model, replace(images, spacing_mm=None))
    assert lesions_of(shown, ["spot"]).unit == "px"


def test_small_lesions_are_not_lost_when_the_input_is_coarser(spots):
    model, *_ = spots
    from dataclasses import replace

    masks = np.zeros((96, 96), dtype=bool)
    masks[10, 10] = True
    tiny = replace(
        spot_images(2), read=lambda _i: np.zeros((96, 96), np.float32), read_masks=lambda _i: {"spot": masks}
    )
    share = lesions_of(show_images(model, tiny), ["spot"]).share[0]
    assert share.sum() == pytest.approx(1 / 16)
    assert share[2, 2] == pytest.approx(1 / 16)


def test_masks_that_are_not_there_are_named(spots):
    _, _, shown, _ = spots
    with pytest.raises(ImagesError, match="no image has a mask 'spt': did you mean 'spot'"):
        lesions_of(shown, ["spt"])
    with pytest.raises(ConfigError, match="no mask is named"):
        lesions_of(shown, [])
    with pytest.raises(ImagesError, match="prepared images come without masks"):
        lesions_of(show_images(spot_model(), shown.x), ["spot"])
