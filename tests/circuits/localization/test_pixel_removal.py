"""Taking pixels away by tiles of a physical size: against an obvious loop, and back to single pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from localization_models import SIZE, one_thread, spot_images, spot_model

from circuits.localization.config import MapConfig
from circuits.localization.explained import Explained
from circuits.localization.maps import RelevanceMaps
from circuits.localization.pixel_removal import FEW, SHARES, remove_pixels
from circuits.localization.shown_images import show_images
from circuits.metrics import as_metric
from mechinterp import logit
from mechinterp.errors import ConfigError, ImagesError


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


def explained_with(tile_mm):
    model = spot_model()
    return Explained(model, as_metric(logit("spots"), model), MapConfig(reference="black", tile_mm=tile_mm))


def shown_maps(explained, spacing=(0.5, 0.5), n=3):
    shown = show_images(explained.model, spot_images(n, 5, spacing=spacing))
    values = np.random.default_rng(1).random((n, SIZE, SIZE)).astype(np.float32)
    return RelevanceMaps(values, "drawn", "spots", shown)


def removed_by_a_loop(explained, maps, i, side_px):
    """The four scores with tiles of `side_px` (rows, columns) cut, ranked and blanked one by one."""
    x, number = maps.shown.x[i : i + 1], maps.shown.numbers[i : i + 1]
    tiles = [
        (slice(row, row + side_px[0]), slice(column, column + side_px[1]))
        for row in range(0, SIZE, side_px[0])
        for column in range(0, SIZE, side_px[1])
    ]
    tiles.sort(key=lambda t: -maps.values[i][t].mean())
    deleted, inserted = [], []
    for share in SHARES:
        gone, seen = x.clone(), 0
        for tile in tiles:
            held = maps.values[i][tile].size
            if seen + held / 2 < share * SIZE * SIZE:
                gone[0, :, tile[0], tile[1]] = 0.0
            seen += held
        deleted.append(float(explained.value(gone, number)))
        inserted.append(float(explained.value(x - gone, number)))
    deleted, inserted = np.array(deleted), np.array(inserted)
    few = [SHARES.index(s) for s in FEW]
    return (
        np.trapezoid(deleted[0] - deleted, SHARES), np.trapezoid(inserted - inserted[0], SHARES),
        (deleted[0] - deleted[few]).mean(), (deleted[0] - inserted[few]).mean(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tile_mm", "spacing", "side_px"),
    [(2.0, (0.5, 0.5), (4, 4)), (3.5, (0.5, 0.5), (7, 7)), (3.0, (1.0, 1.0), (3, 3)), (None, (0.5, 0.5), (1, 1))],
)
def test_tiles_go_in_the_order_of_their_mean_relevance(tile_mm, spacing, side_px):
    explained = explained_with(tile_mm)
    maps = shown_maps(explained, spacing)
    with torch.no_grad():
        expected = np.array([removed_by_a_loop(explained, maps, i, side_px) for i in range(len(maps))]).T
    found = remove_pixels(explained, maps)
    scores = np.stack([found.deletion, found.insertion, found.comprehensiveness, found.sufficiency])
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_tiles_smaller_than_a_pixel_are_single_pixels():
    one, small = explained_with(None), explained_with(0.01)
    np.testing.assert_array_equal(
        remove_pixels(one, shown_maps(one)).deletion, remove_pixels(small, shown_maps(small)).deletion
    )


def test_tiles_in_millimetres_ask_for_a_spacing():
    explained = explained_with(2.0)
    with pytest.raises(ImagesError, match=r"image 'p0' has no spacing: tiles of 2 mm cannot be cut"):
        remove_pixels(explained, shown_maps(explained, spacing=None))
    with pytest.raises(ConfigError, match="tile_mm is 0"):
        MapConfig(tile_mm=0.0)
