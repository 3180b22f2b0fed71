"""Areas summed over tokens: planted coverage comes back in mm², for patients never seen, and noise does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit
from torch import nn

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.capturing import capture
from mechinterp.errors import AttributeTableError, ConfigError, HashMismatchError, LeakageError, ShapeError
from mechinterp.images.image_set import ImageSet
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.sites import Site
from mechinterp.token_grid import Placement, TokenGrid
from probes import TokenSum, fit_probe, fit_token_sum, learn_token_sum, probe_token_sums, tile_pixels
from probes.share_regression import share_path

GRID = TokenGrid(4, 4, (4, 4), (2.0, 2.0), (4, 4))
CELLS, WIDTH = 36, 8


def planted(seed, patients=40, signal=1.0):
    """Tokens whose log-odds along one direction are those of their tile's share, up to noise; two images a patient."""
    rng = np.random.default_rng(seed)
    n = 2 * patients
    shares = np.zeros((n, CELLS, 1))
    for i in range(n):
        lesions = rng.integers(0, 10)
        shares[i, rng.choice(CELLS, lesions, replace=False), 0] = rng.uniform(0.05, 0.95, lesions)
    acts = rng.normal(size=(n, CELLS, WIDTH))
    acts[..., 0] = signal * (logit(np.clip(shares[..., 0], 0.002, 0.998)) + 0.4 * acts[..., 0])
    return acts.astype(np.float32), shares, np.repeat(np.arange(patients), 2)


def of(array):
    return lambda images: array[images]


@pytest.fixture(scope="module")
def sums():
    acts, shares, groups = planted(0)
    tile = np.full(len(acts), 0.5)
    area = shares.sum((1, 2)) * tile
    noise = np.random.default_rng(1).normal(size=acts.shape).astype(np.float32)
    read = fit_token_sum(
        of(acts), shares, area, tile, groups=groups, name="lesion area", site="blocks.1", untrained=of(noise),
        baseline=of(acts[..., :1] + 8 * noise[..., :1]), n_shuffles=39, n_boot=100,
    )  # fmt: skip
    return acts, shares, area, tile, groups, read


def test_planted_coverage_is_read_in_its_unit_better_than_from_the_mean_token(sums):
    acts, _, area, _, groups, read = sums
    assert read.score > 0.95
    assert read.mae < 0.15 * read.mae_of_mean
    assert read.calibration.slope == pytest.approx(1, abs=0.05)
    assert "mm²" in read.text
    pooled = fit_probe(acts.mean(1), area, groups=groups, n_shuffles=0, n_control_tasks=0, code_length=False)
    assert read.score > pooled.score + 0.03
    low, high = read.interval.ends
    assert pooled.score < low < read.score < high


def test_patients_stay_together_and_every_control_is_beside(sums):
    *_, groups, read = sums
    assert all(len(set(read.fold[groups == g])) == 1 for g in set(groups))
    assert read.n_units == 40
    assert {c.name: c.passed for c in read.controls} == {
        "shuffled attribute": True, "pixel baseline": True, "untrained network": True,
    }  # fmt: skip
    assert read.claim(0.8).verdict == "met"
    assert read.claim(0.999).verdict == "not met"
    assert read.to_json()["attribute"] == "lesion area"


def test_nothing_is_read_off_noise():
    acts, shares, groups = planted(3, signal=0.0)
    area = shares.sum((1, 2))
    read = fit_token_sum(of(acts), shares, area, np.ones(len(acts)), groups=groups, n_shuffles=39, n_boot=100)
    assert read.score < 0.1
    assert read.p_value > 0.05
    assert read.claim().verdict == "not met"


def test_every_image_counts_in_its_own_tiles_area(sums):
    acts, shares, _, _, groups, _ = sums
    tile = np.where(np.arange(len(acts)) % 4 < 2, 0.25, 1.0)
    area = shares.sum((1, 2)) * tile
    read = fit_token_sum(of(acts), shares, area, tile, groups=groups, n_shuffles=0, n_boot=100)
    assert read.score > 0.95
    blind = fit_token_sum(of(acts), shares, area, np.ones(len(acts)), groups=groups, n_shuffles=0, n_boot=100)
    assert blind.score < 0.7


def test_structures_add_up():
    acts, one, groups = planted(4)
    other_acts, other, _ = planted(5)
    shares = np.concatenate([one, other], -1)
    area = shares.sum((1, 2))
    read = fit_token_sum(
        of(np.concatenate([acts, other_acts], -1)),
        shares,
        area,
        np.ones(len(acts)),
        groups=groups,
        n_shuffles=0,
        n_boot=100,
    )
    assert read.score > 0.93


def test_images_without_a_value_are_left_out(sums):
    acts, shares, area, tile, groups, _ = sums
    missing = area.copy()
    missing[[3, 10]] = np.nan
    read = fit_token_sum(of(acts), shares, missing, tile, groups=groups, n_shuffles=0, n_boot=100)
    assert len(read.truth) == len(area) - 2
    assert not {3, 10} & set(read.images.tolist())


def test_what_is_learned_is_a_map_that_adds_up(sums):
    acts, shares, area, tile, groups, _ = sums
    learned = learn_token_sum(of(acts), shares, area, tile, groups=groups)
    by_tile = learned.shares(acts[:5])
    slow = np.zeros((5, CELLS, 1))
    for i in range(5):
        for c in range(CELLS):
            slow[i, c, 0] = 1 / (1 + np.exp(-(learned.weights[0] @ acts[i, c].astype(float) + learned.bias[0])))
    np.testing.assert_allclose(by_tile, slow, atol=1e-6)
    assert np.corrcoef(learned.shares(acts).ravel(), shares.ravel())[0, 1] > 0.95
    answer = learned.predict(acts[:5], tile[:5])
    np.testing.assert_allclose(
        answer, np.maximum(learned.slope * slow.sum((1, 2)) * 0.5 + learned.intercept, 0), rtol=1e-6
    )
    np.testing.assert_allclose(learned.read(of(acts), np.arange(5), tile), answer, rtol=1e-9)
    empty = TokenSum(np.zeros((1, WIDTH)), np.array([-9.0]), 1.0, -1.0, 1.0)
    assert empty.predict(acts[:2], 1.0).tolist() == [0.0, 0.0]  # no area lies below 0


@given(seed=st.integers(0, 200))
@settings(max_examples=15)
def test_shares_are_the_minimum_of_the_penalised_quasi_likelihood(seed):
    rng = np.random.default_rng(seed)
    x, weights = rng.normal(size=(60, 3)) * [1, 5, 0.2] + 2, rng.uniform(0.5, 4, 60)
    shares = np.clip(expit(x @ [1, -0.2, 3] + rng.normal(size=60)) - 0.2, 0, 1)
    (found,) = share_path(x, shares, weights, (0.3,))
    mean = np.average(x, axis=0, weights=weights)
    scale = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))

    def loss(w):
        z = x @ (w[:3] / scale) + w[3] - mean @ (w[:3] / scale)
        return 0.5 * w[:3] @ w[:3] + 0.3 * (weights * (np.logaddexp(0, z) - shares * z)).sum()

    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-8}).x
    np.testing.assert_allclose(found[:3] * scale, best[:3], atol=2e-3)
    # on what trained it the shares add up to the true ones, whatever the penalty
    predicted = expit(x @ found[:3] + found[3])
    assert weights @ predicted == pytest.approx(weights @ shares, rel=1e-3)


def test_tiles_measure_what_numpy_says():
    pixels = np.random.default_rng(0).random((16, 16, 2)).astype(np.float32)
    found = tile_pixels(pixels, GRID, Placement())
    tiles = pixels.reshape(4, 4, 4, 4, 2).swapaxes(1, 2).reshape(16, 16, 2).astype(np.float64)
    np.testing.assert_allclose(found[:, [0, 3]], tiles.mean(1), atol=1e-6)
    np.testing.assert_allclose(found[:, [1, 4]], tiles.std(1), atol=1e-5)
    np.testing.assert_allclose(found[:, [2, 5]], tiles.mean(1) - pixels.mean((0, 1)), atol=1e-6)
    assert tile_pixels(pixels[..., 0], GRID, Placement()).shape == (16, 3)


def test_what_cannot_be_meant_is_refused(sums):
    acts, shares, area, tile, groups, _ = sums
    with pytest.raises(
        ShapeError, match=r"shares have shape \(80, 36\) for 80 values of 'area': image × cell × structure"
    ):
        fit_token_sum(of(acts), shares[..., 0], area, tile)
    with pytest.raises(ShapeError, match="tile_area has 3 values for 80 of 'area'"):
        fit_token_sum(of(acts), shares, area, tile[:3])
    with pytest.raises(ConfigError, match="give 0 to 1 of a tile"):
        fit_token_sum(of(acts), 40 * shares, area, tile)
    with pytest.raises(AttributeTableError, match="'area' has 0 values: a sum over tokens needs 20"):
        fit_token_sum(of(acts), shares, np.full(80, np.nan), tile)
    with pytest.raises(AttributeTableError, match="'area' is 1 on every image"):
        fit_token_sum(of(acts), shares, np.ones(80), tile)
    with pytest.raises(AttributeTableError, match="a structure covers no tile of"):
        fit_token_sum(of(acts), 0 * shares, area, tile, groups=groups)
    with pytest.raises(LeakageError, match="a group stands in both fold"):
        fit_token_sum(of(acts), shares, area, tile, groups=groups, folds=np.arange(80) % 2)


def test_folds_are_of_every_image_and_a_list_of_another_length_is_not_cut(sums):
    acts, shares, area, tile, groups, _ = sums
    missing = np.where(np.arange(80) < 6, np.nan, area)
    settings = {"groups": groups, "n_shuffles": 0, "n_boot": 100}
    given = [f"part {g % 4}" for g in groups]
    read = fit_token_sum(of(acts), shares, missing, tile, folds=given, **settings)
    assert len(set(zip(read.fold, np.array(given)[read.images], strict=True))) == 4
    for wrong in (given[:74], [*given, "part 0"]):
        with pytest.raises(ShapeError, match=rf"folds has {len(wrong)} values for 80 images"):
            fit_token_sum(of(acts), shares, missing, tile, folds=wrong, **settings)


class Cells(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.patches = nn.Conv2d(1, 12, 4, 4)
        self.cells, self.head = nn.Identity(), nn.Linear(12, 2)

    def forward(self, x):
        tokens = self.patches(x).relu().flatten(2).mT
        return self.head(self.cells(torch.cat([tokens.mean(1, keepdim=True), tokens], 1)).mean(1))


def network(seed=0):
    sites = {
        "cells": Site("cells", "cells", "output", "tokens", 12, 17, 1, GRID),
        "head": Site("head", "head", "output", "vector", 2, 1),
    }
    contract = InputContract(16, 16, 1, mean=(0.0,), std=(1.0,))
    return VisionModel(Cells(seed).eval(), f"py:cells{seed}", contract, ("a", "b"), "logits", sites, trained=seed == 0)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Bright squares on a dim ground, their masks, and stores of a network and of another one."""
    rng = np.random.default_rng(0)
    n = 60
    pixels, masks = 0.2 + 0.02 * rng.random((n, 16, 16)), np.zeros((n, 16, 16), dtype=bool)
    for i, side in enumerate(rng.integers(2, 10, n)):
        row, column = rng.integers(0, 16 - side, 2)
        masks[i, row : row + side, column : column + side] = True
    pixels[masks] += 0.5
    table = AttributeTable.from_columns([
        (Attribute("area", "mm²"), masks.sum((1, 2)) * 0.25), (Attribute("large", "1", kind="binary"), masks.sum((1, 2)) > 20)
    ])  # fmt: skip
    images = ImageSet.from_arrays(
        pixels.astype(np.float32), groups=[f"p{i // 2}" for i in range(n)], spacing_mm=0.5, intensity_range=(0, 1),
        attributes=table,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("stores")
    return images, masks, table, *(capture(network(s), images, ["cells", "head"], out=folder / str(s)) for s in (0, 1))


def test_a_stores_sites_are_summed_where_tokens_have_a_place(squares):
    images, masks, table, store, untrained = squares
    sweep = probe_token_sums(
        store,
        table,
        "area",
        {"square": lambda i: masks[i]},
        images=images,
        untrained=untrained,
        n_shuffles=19,
        n_boot=100,
    )
    assert sweep.level == "image"
    assert sweep.sites == ("cells",)
    read = sweep.best("area")
    assert read.score > 0.9
    assert read.unit == "mm²"
    assert read.n_units == 30
    # in such pictures brightness is area: the pixels say as much as the network, and the claim is not met
    controls = {c.name: c for c in read.controls}
    assert controls["pixel baseline"].value > 0.9
    assert not controls["pixel baseline"].passed
    few = probe_token_sums(
        store,
        table,
        "area",
        {"square": lambda i: masks[i]},
        images=images,
        chosen=range(10, 50),
        pixel_baseline=False,
        n_shuffles=0,
        n_boot=100,
    ).best("area")
    assert set(few.images.tolist()) == set(range(10, 50))
    assert few.controls == ()
    by_split = probe_token_sums(
        store, table, "area", {"square": lambda i: masks[i]}, images=images, chosen=range(10, 50), pixel_baseline=False,
        n_shuffles=0, n_boot=100, folds=np.arange(60) // 2 % 3,
    ).best("area")  # fmt: skip
    np.testing.assert_array_equal(by_split.fold, (by_split.images // 2 % 3 + 1) % 3)


def test_without_spacing_tiles_count_as_they_are(squares):
    images, masks, table, store, _ = squares
    bare = replace(images, spacing_mm=None)
    read = probe_token_sums(
        store, table, "area", {"square": lambda i: masks[i]}, images=bare, n_shuffles=0, n_boot=100
    ).best("area")
    assert read.score > 0.9  # the line to the attribute brings the unit


def test_sweeps_that_cannot_be_meant_are_refused(squares, tmp_path):
    images, masks, table, store, _ = squares
    square = {"square": lambda i: masks[i]}
    with pytest.raises(AttributeTableError, match="'large' is binary: what tokens add up to is an area"):
        probe_token_sums(store, table, "large", square, images=images)
    with pytest.raises(ConfigError, match="no structure is given that 'area' is the area of"):
        probe_token_sums(store, table, "area", {}, images=images)
    with pytest.raises(ConfigError, match="no site asked for has tokens with a place"):
        probe_token_sums(store, table, "area", square, images=images, sites=["head"])
    with pytest.raises(ShapeError, match="the store has 60 images, the attributes 2"):
        probe_token_sums(store, table.select([0, 1]), "area", square, images=images)
    other = capture(network(1), images.subset(range(5)), ["cells"], out=tmp_path / "few")
    with pytest.raises(HashMismatchError, match="holds other images than"):
        probe_token_sums(store, table, "area", square, images=images, untrained=other)
    parts = capture(network(1), replace(images, units_are_patients=False), ["cells"], out=tmp_path / "parts")
    with pytest.raises(ConfigError, match="one subject's slices have none to hold out"):
        probe_token_sums(parts, table, "area", square, images=images)
