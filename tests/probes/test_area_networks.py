"""Areas read by a few hidden units a token: what no direction holds comes back, and noise does not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.errors import AttributeTableError, ConfigError, ShapeError
from mechinterp.token_grid import TokenGrid
from probes import AreaNetwork, confirm_reading, learn_area_network, learn_token_sum, side_by_side
from probes.side_by_side import tile_overlaps

CELLS, WIDTH, TILE = 25, 6, 0.5


def bent(seed, images=300, noise=0.05):
    """Tokens whose share is how far one channel lies from 0, on either side: no direction reads it."""
    rng = np.random.default_rng(seed)
    shares = np.where(rng.random((images, CELLS)) < rng.uniform(0, 0.5, (images, 1)), rng.random((images, CELLS)), 0)
    acts = 0.3 * rng.normal(size=(images, CELLS, WIDTH))
    acts[..., 0] = shares * rng.choice([-2, 2], (images, CELLS)) + noise * rng.normal(size=(images, CELLS))
    return acts.astype(np.float32), shares[..., None]


def of(array):
    return lambda images: array[images]


@pytest.fixture(scope="module")
def learned():
    acts, shares = bent(0)
    tile = np.full(len(acts), TILE)
    area = shares.sum((1, 2)) * TILE
    train = np.arange(200)
    return acts, shares, area, tile, learn_area_network(of(acts), shares, area, tile, images=train, hidden=8)


def r2(truth, said):
    return 1 - ((truth - said) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()


def test_what_no_direction_holds_is_read_in_its_unit(learned):
    acts, shares, area, tile, network = learned
    test = np.arange(200, 300)
    assert r2(area[test], network.read(of(acts), test, tile)) > 0.9
    linear = learn_token_sum(
        of(acts), shares, area, tile, groups=np.arange(300), images=np.arange(200), strengths=(1.0,)
    )
    assert r2(area[test], linear.read(of(acts), test, tile)) < 0.6


def test_a_network_is_what_its_weights_say_and_reads_what_its_map_adds_up_to(learned):
    acts, _, _, _, network = learned
    by_hand = np.zeros((3, CELLS))
    for i in range(3):
        for cell in range(CELLS):
            units = [max(float(w @ acts[i, cell]) + b, 0) for w, b in zip(network.weights, network.bias, strict=True)]
            by_hand[i, cell] = 1 / (1 + np.exp(-(float(network.out[0] @ units) + network.out_bias[0])))
    np.testing.assert_allclose(network.shares(acts[:3])[..., 0], by_hand, atol=1e-6)
    tile = np.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(network.read(of(acts), np.array([2, 0]), tile), by_hand[[2, 0]].sum(1) * tile[[2, 0]])


def test_the_same_seed_gives_the_same_network_and_draws_elsewhere_are_left_alone(learned):
    import torch

    acts, shares, area, tile, network = learned
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    again = learn_area_network(of(acts), shares, area, tile, images=np.arange(200), hidden=8)
    np.testing.assert_array_equal(again.weights, network.weights)
    assert torch.equal(torch.random.get_rng_state(), before)
    other = learn_area_network(of(acts), shares, area, tile, images=np.arange(200), hidden=8, seed=1)
    assert not np.allclose(other.weights, network.weights)


def test_a_channel_that_does_not_vary_weighs_nothing():
    acts, shares = bent(1, images=64)
    acts[..., 3] = 7.0
    network = learn_area_network(of(acts), shares, shares.sum((1, 2)), np.ones(64), hidden=4)
    assert not network.weights[:, 3].any()


def test_what_cannot_be_learned_is_refused(learned):
    acts, shares, area, tile, _ = learned
    with pytest.raises(ConfigError, match="hidden is 0: it needs a unit at least"):
        learn_area_network(of(acts), shares, area, tile, hidden=0)
    with pytest.raises(AttributeTableError, match="a structure covers no tile of 300 images that train"):
        learn_area_network(of(acts), 0 * shares, area, tile)
    with pytest.raises(AttributeTableError, match="the area is 2 on every image that trains"):
        learn_area_network(of(acts), shares, 0 * area + 2, tile)
    with pytest.raises(ShapeError, match="shares of 300 images, 299 areas and 300 tile areas"):
        learn_area_network(of(acts), shares, area[1:], tile)


def test_a_reading_of_other_patients_is_scored_against_what_taught_it_and_beside_its_rivals():
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.uniform(0, 4, 40), 2)
    said, groups = truth + 0.3 * rng.normal(size=80), np.repeat(np.arange(40), 2)
    found = confirm_reading(
        said, truth, 1.0, groups=groups, rivals={"pixel baseline": np.full(80, 1.0), "untrained network": said + 1e-3},
        name="area", unit="mm²", site="s", n_shuffles=99,
    )  # fmt: skip
    assert found.score == pytest.approx(1 - ((truth - said) ** 2).sum() / ((truth - 1.0) ** 2).sum())
    low, high = found.interval.ends
    assert low < found.score < high
    assert (found.p_value, found.n_units) == (0.01, 40)
    controls = {c.name: c for c in found.controls}
    assert controls["pixel baseline"].passed
    assert controls["pixel baseline"].value == pytest.approx(0)
    assert not controls["untrained network"].passed
    assert found.claim(0.8).verdict == "not met"
    assert "99 permutations" in found.p_scheme or "100 permutations" in found.p_scheme
    with pytest.raises(ShapeError, match="predicted has 79 values for 80 of 'area'"):
        confirm_reading(said[1:], truth, 1.0, groups=groups, name="area", unit="mm²", site="s")


def test_a_reading_of_nothing_is_not_significant():
    rng = np.random.default_rng(1)
    truth, said = rng.uniform(0, 4, 60), rng.uniform(0, 4, 60)
    found = confirm_reading(said, truth, 2.0, groups=range(60), name="area", unit="mm²", site="s", n_shuffles=199)
    assert found.p_value > 0.05
    assert found.claim().verdict == "not met"


def test_finer_tiles_are_averaged_and_coarser_ones_repeated():
    fine, middle = TokenGrid(4, 4, (2, 2), (1.0, 1.0), (2, 2)), TokenGrid(2, 2, (4, 4), (2.0, 2.0), (4, 4))
    averaged = tile_overlaps(fine, middle)
    np.testing.assert_allclose(averaged[0], np.kron([1, 1, 0, 0], [1, 1, 0, 0]) / 4)
    repeated = tile_overlaps(middle, fine)
    np.testing.assert_allclose(repeated @ np.arange(4), np.kron(np.arange(4).reshape(2, 2), np.ones((2, 2))).ravel())
    np.testing.assert_allclose(tile_overlaps(middle, middle), np.eye(4))
    with pytest.raises(ShapeError, match="grids of 2 and 3 axes"):
        tile_overlaps(fine, TokenGrid(1, 1, (1, 1, 1), (0.5, 0.5, 0.5), (1, 1, 1), depth=1))


@given(
    rows=st.integers(1, 7), stride=st.floats(0.5, 5), shift=st.floats(-3, 3), onto=st.integers(1, 7),
    other=st.floats(0.5, 5),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_shares_of_a_tile_add_up_to_one_and_keep_what_is_everywhere_alike(rows, stride, shift, onto, other):
    a = TokenGrid(rows, 2, (stride, 1.0), (shift, 0.5), (stride, 1.0))
    b = TokenGrid(onto, 3, (other, 1.0), (0.0, 0.5), (other, 1.0))
    found = tile_overlaps(a, b)
    assert found.shape == (3 * onto, 2 * rows)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert (found >= 0).all()


def test_sites_of_a_store_lie_side_by_side_on_the_last_ones_tiles(tmp_path):
    import torch
    from torch import nn

    from mechinterp.capturing import capture
    from mechinterp.images.image_set import ImageSet
    from mechinterp.models.vision_model import InputContract, VisionModel
    from mechinterp.sites import Site

    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.fine, self.coarse, self.head = nn.AvgPool2d(2), nn.AvgPool2d(2), nn.Flatten()

        def forward(self, x):
            return self.head(self.coarse(self.fine(x)).mean((2, 3)))

    sites = {
        "fine": Site("fine", "fine", "output", "map", 3, 16, 0, TokenGrid(4, 4, (2, 2), (1.0, 1.0), (2, 2))),
        "coarse": Site("coarse", "coarse", "output", "map", 3, 4, 0, TokenGrid(2, 2, (4, 4), (2.0, 2.0), (4, 4))),
        "head": Site("head", "head", "output", "vector", 3, 1),
    }
    model = VisionModel(
        Pyramid().eval(), "py:pyramid", InputContract(8, 8, 3), ("a", "b", "c"), "logits", sites, trained=False
    )
    pixels = np.random.default_rng(0).random((5, 8, 8, 3)).astype(np.float32)
    images = ImageSet.from_arrays(pixels, intensity_range=(0, 1))
    store = capture(model, images, ["fine", "coarse", "head"], out=tmp_path / "store")
    both = side_by_side(store, ["fine", "coarse"], np.array([4, 1, 0]))(np.array([0, 2]))
    assert both.shape == (2, 4, 6)
    # a mean of means over equal parts is the mean: the finer site, averaged, is the coarser one
    np.testing.assert_allclose(both[..., :3], both[..., 3:], atol=1e-6)
    with torch.no_grad():
        coarse = store.read("coarse", np.array([4, 0])).numpy()
    np.testing.assert_allclose(both[..., 3:], coarse, atol=1e-6)
    with pytest.raises(ConfigError, match="tokens of site 'head' have no place"):
        side_by_side(store, ["fine", "head"], np.arange(5))
    with pytest.raises(ConfigError, match="no site is named"):
        side_by_side(store, [], np.arange(5))


def test_a_network_without_evidence_reads_next_to_nothing():
    empty = AreaNetwork(np.zeros((2, 3)), np.zeros(2), np.zeros((1, 2)), np.array([-20.0]))
    assert empty.read(of(np.ones((2, 4, 3))), np.arange(2), np.ones(2)) == pytest.approx(0, abs=1e-6)
