"""Regions and tokens lie where the grid says, every site is read once, and levels agree with the obvious loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.capturing import capture
from mechinterp.errors import ConfigError, HashMismatchError, ShapeError, SiteError
from mechinterp.images.image_set import ImageSet
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.sites import Site
from mechinterp.store.reader import ActivationStore
from mechinterp.token_grid import Placement, TokenGrid
from probes import (
    layer_profile_figure,
    pixel_baseline,
    probe_sites,
    probe_tokens,
    region_activations,
    token_areas,
    token_rows,
)
from probes.regions import cell_coverage

GRID = TokenGrid(4, 4, (4, 4), (2.0, 2.0), (4, 4))


class Net(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.patches = nn.Conv2d(1, 6, 4, 4)
        self.cells, self.head = nn.Identity(), nn.Linear(6, 2)

    def forward(self, x):
        cells = self.patches(x).relu().flatten(2).mT
        return self.head(self.cells(torch.cat([cells.mean(1, keepdim=True), cells], 1)).mean(1))


def network(seed=0):
    sites = {
        "patches": Site("patches", "patches", "output", "map", 6, 16, 0, GRID),
        "cells": Site("cells", "cells", "output", "tokens", 6, 17, 1, GRID),
        "head": Site("head", "head", "output", "vector", 2, 1),
    }
    contract = InputContract(16, 16, 1, mean=(0.0,), std=(1.0,))
    return VisionModel(Net(seed).eval(), f"py:net{seed}", contract, ("a", "b"), "logits", sites, trained=seed == 0)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Return images with a bright square each, its masks, and stores of a network and of another one."""
    rng = np.random.default_rng(0)
    n = 48
    pixels, masks = 0.2 + 0.05 * rng.random((n, 16, 16)), np.zeros((n, 16, 16), dtype=bool)
    side = rng.integers(2, 9, n)
    for i in range(n):
        row, column = rng.integers(0, 16 - side[i], 2)
        masks[i, row : row + side[i], column : column + side[i]] = True
    contrast = rng.uniform(0.2, 0.6, n)
    pixels[masks] += np.repeat(contrast, masks.sum((1, 2)))
    table = AttributeTable.from_columns(
        [(Attribute("area", "mm²"), masks.sum((1, 2)) * 0.25), (Attribute("contrast", "1"), contrast)]
    )
    images = ImageSet.from_arrays(
        pixels.astype(np.float32),
        groups=[f"p{i // 2}" for i in range(n)],
        spacing_mm=0.5,
        intensity_range=(0, 1),
        attributes=table,
    )
    folder = tmp_path_factory.mktemp("stores")
    stores = [capture(network(s), images, ["patches", "cells", "head"], out=folder / str(s)) for s in (0, 1)]
    return images, masks, table, *stores


@given(
    seed=st.integers(0, 99),
    scale=st.tuples(st.floats(0.5, 3), st.floats(0.5, 3)),
    offset=st.tuples(st.floats(-4, 4), st.floats(-4, 4)),
)
def test_coverage_is_the_mean_of_the_mask_over_the_tile(seed, scale, offset):
    mask = np.random.default_rng(seed).random((14, 11)) < 0.4
    found = cell_coverage(mask, GRID, Placement(scale, offset))
    samples = (np.arange(40) + 0.5) / 40
    for cell, (top, left, bottom, right) in enumerate(GRID.tiles()):
        r = (top + (bottom - top) * samples) * scale[0] + offset[0]
        c = (left + (right - left) * samples) * scale[1] + offset[1]
        rows, columns = np.floor(r).astype(int), np.floor(c).astype(int)
        inside = ((rows >= 0) & (rows < 14))[:, None] & ((columns >= 0) & (columns < 11))
        slow = (mask[np.clip(rows, 0, 13)[:, None], np.clip(columns, 0, 10)] & inside).mean()
        assert found[cell] == pytest.approx(slow, abs=0.08)


def test_a_whole_mask_covers_every_tile_and_areas_add_up_to_the_masks(squares):
    images, masks, _, store, _ = squares
    np.testing.assert_allclose(cell_coverage(np.ones((16, 16)), GRID, Placement()), 1)
    areas, unit = token_areas(store, "cells", lambda i: masks[i], spacing_mm=images.spacing_mm)
    assert unit == "mm²"
    np.testing.assert_allclose(areas.sum(1), masks.sum((1, 2)) * 0.25)
    assert token_areas(store, "cells", lambda i: masks[i])[1] == "1"


def test_a_regions_activation_is_the_weighted_mean_of_its_tokens(squares):
    _, masks, _, store, _ = squares
    chosen = [5, 2]
    found = region_activations(store, "cells", lambda i: masks[i], images=chosen)
    acts = store.read("cells", chosen).numpy()[:, 1:]
    for k, image in enumerate(chosen):
        weights = masks[image].reshape(4, 4, 4, 4).mean((1, 3)).ravel()
        np.testing.assert_allclose(found[k], (weights[:, None] * acts[k]).sum(0) / weights.sum(), atol=1e-6)
    assert np.isnan(region_activations(store, "cells", lambda i: 0 * masks[i], images=[0])).all()
    with pytest.raises(SiteError, match="tokens of site 'head' have no place"):
        region_activations(store, "head", lambda i: masks[i])


def test_token_rows_are_the_stores_and_prefer_what_holds_something(squares):
    _, masks, _, store, _ = squares
    areas, _ = token_areas(store, "cells", lambda i: masks[i], images=[3, 9])
    rows = token_rows(store, "cells", images=[3, 9], per_image=4, prefer=areas, seed=1)
    assert rows.image.tolist() == [3] * 4 + [9] * 4
    np.testing.assert_allclose(rows.x[5], store.read("cells", [9])[0, 1 + rows.cell[5]], atol=1e-6)
    for k in (0, 1):
        assert len(set(rows.cell[4 * k : 4 * k + 4])) == 4
        assert (areas[k, rows.cell[4 * k : 4 * k + 4]] > 0).sum() >= min(2, (areas[k] > 0).sum())
    with pytest.raises(ConfigError, match="per_image is 17"):
        token_rows(store, "cells", per_image=17)


class Counting(ActivationStore):
    """A store that counts how often each image of each site is read."""

    def __init__(self, store):
        self.__dict__.update(store.__dict__)
        self.reads = {}

    def read(self, site, images=None):
        for i in images:
            self.reads[site, int(i)] = self.reads.get((site, int(i)), 0) + 1
        return super().read(site, images)


def test_a_sweep_reads_every_site_once_and_stands_beside_all_controls(squares):
    images, _, table, store, untrained = squares
    counting = Counting(store)
    sweep = probe_sites(
        counting,
        table,
        ["area", "contrast"],
        sites=["patches", "head"],
        images=images,
        untrained=untrained,
        n_shuffles=19,
        n_boot=100,
    )
    assert set(counting.reads) == {(s, i) for s in ("patches", "head") for i in range(48)}
    assert max(counting.reads.values()) == 1
    assert sweep.attributes == ("area", "contrast")
    assert sweep.sites == ("patches", "head")
    first = sweep.of("area")[0]
    assert first.score > 0.6
    assert first.unit == "mm²"
    assert {c.name for c in first.controls} == {
        "shuffled attribute", "pixel baseline", "untrained network", "control task", "description length",
    }  # fmt: skip
    assert sweep.best("area").score == max(r.score for r in sweep.of("area"))
    figure = layer_profile_figure(sweep.of("area"))
    assert [t.name for t in figure.data][-1].startswith("probe")
    assert list(figure.data[-1].x) == ["patches", "head"]
    assert "area [mm²]" in figure.layout.title.text
    assert set(sweep.to_json()["attributes"]["contrast"]) == {"patches", "head"}
    with pytest.raises(ConfigError, match="'aera' was not probed: did you mean 'area'"):
        sweep.of("aera")
    with pytest.raises(ConfigError, match="results of one attribute"):
        layer_profile_figure(list(sweep.results.values()))


def test_in_the_region_its_contrast_is_read_better_than_from_the_whole_image(squares):
    images, masks, table, store, _ = squares
    settings = {"sites": ["patches"], "n_shuffles": 0, "n_boot": 100, "n_control_tasks": 0, "code_length": False}
    whole = probe_sites(store, table, "contrast", **settings).best("contrast")
    region = probe_sites(store, table, "contrast", mask_of=lambda i: masks[i], images=images, **settings)
    assert region.level == "region"
    assert region.best("contrast").score > whole.score + 0.1


def test_tokens_are_probed_with_patients_kept_together(squares):
    images, masks, _, store, untrained = squares
    sweep = probe_tokens(
        store, "square", lambda i: masks[i], images=images, untrained=untrained, per_image=6, n_shuffles=19, n_boot=100
    )
    assert sweep.level == "token"
    assert sweep.sites == ("cells", "patches")  # a vector's one token has no place
    result = sweep.of("square")[0]
    assert result.unit == "mm²"
    assert result.n_units == result.interval.n == 24
    assert len(result.truth) == 48 * 6
    groups = np.array(images.groups)[result.images]
    assert all(len(set(result.fold[groups == g])) == 1 for g in set(groups))
    assert result.score > 0.5
    with pytest.raises(ConfigError, match="no site asked for has tokens with a place"):
        probe_tokens(store, "square", lambda i: masks[i], sites=["head"])


def test_the_pixel_baseline_measures_size_intensity_and_contrast(squares):
    images, masks, table, store, _ = squares
    whole = pixel_baseline(images, chosen=[0, 1])
    assert whole.shape == (2, 6)
    assert whole[0, 1] == pytest.approx(images[0].pixels.mean(), abs=1e-6)
    region = pixel_baseline(images, mask_of=lambda i: masks[i])
    np.testing.assert_allclose(region[:, 0], masks.mean((1, 2)))
    np.testing.assert_allclose(region[:, 2], table.column("contrast"), atol=0.05)
    assert np.isnan(pixel_baseline(images, mask_of=lambda i: 0 * masks[i], chosen=[0])).all()
    with pytest.raises(ShapeError, match="the store has 48 images, the attributes 2"):
        probe_sites(store, table.select([0, 1]), "area")


def test_an_untrained_store_of_other_images_is_refused(squares, tmp_path):
    images, _, table, store, _ = squares
    other = capture(network(1), images.subset(range(5)), ["head"], out=tmp_path / "few")
    with pytest.raises(HashMismatchError, match="holds other images than"):
        probe_sites(store, table, "area", untrained=other)
