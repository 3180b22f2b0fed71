"""Which tokens are stored follows from the image and its position, and every stored row says which token it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_capture import SITES, config, tiny_images, tiny_model, tree

from mechinterp.capturing import capture
from mechinterp.errors import ConfigError, SiteError
from mechinterp.images.image_set import ImageSet
from mechinterp.models.vision_model import InputContract
from mechinterp.sites import Site
from mechinterp.store.selection import TokenSelection, brightness, cell_means
from mechinterp.token_grid import TokenGrid

GRID = TokenGrid(2, 3, (4, 4), (2, 2), (4, 4))
SITE = Site("s", "s", "output", "tokens", 5, 8, 2, GRID)


def captured(folder, sites=("tokens",), images=None, **settings):
    return capture(
        tiny_model(), images or tiny_images(), out=folder, config=config(sites=sites, outputs=False, **settings)
    )


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    return captured(tmp_path_factory.mktemp("all") / "store").read("tokens")


def test_class_token_and_patches_are_read_as_any_other_store(tmp_path, everything):
    cls = captured(tmp_path / "cls", tokens="cls")
    assert torch.equal(cls.read("tokens"), everything[:, :1])
    assert cls.index("tokens")["cell"].isna().all()
    patches = captured(tmp_path / "patches", tokens="patches")
    assert torch.equal(patches.read("tokens", [3, 30]), everything[[3, 30], 1:])
    assert patches.tokens("tokens") == 256
    assert list(patches.index("tokens")["cell"][:256]) == list(range(256))
    assert patches.coverage("tokens") == "9,472 of 9,509 tokens (99.6%), of 37 of 37 images"
    assert patches.statistics("tokens").rows == 37 * 256


@pytest.mark.parametrize(
    "settings",
    [
        {"tokens": "foreground", "threshold": 0.7},
        {"tokens": "all", "per_image": 9},
        {"tokens": "foreground", "threshold": 0.9, "per_image": 20, "token_seed": 3},
    ],
)
def test_chosen_rows_are_those_that_the_index_names(tmp_path, everything, settings):
    store = captured(tmp_path / "store", **settings)
    index = store.index("tokens")
    rows = store.rows("tokens")
    assert torch.equal(rows, everything[index["image"].tolist(), index["token"].tolist()])
    assert np.array_equal(np.bincount(index["image"], minlength=37), store.rows_of("tokens"))
    if settings["tokens"] == "foreground":  # a cell of this grid is one pixel of the input
        grey = np.stack([tiny_images()[i].pixels for i in range(37)]).reshape(37, 256)
        bright = grey > settings["threshold"]
        chosen = np.zeros_like(bright)
        chosen[index["image"], index["cell"].astype(int)] = True
        assert not (chosen & ~bright).any()
        if "per_image" not in settings:
            assert np.array_equal(chosen, bright)
    if "per_image" in settings:
        assert store.rows_of("tokens").max() == settings["per_image"]
    some = [36, 4, 20]
    assert torch.equal(store.rows("tokens", some), torch.cat([rows[(index["image"] == i).to_numpy()] for i in some]))
    exact = rows.double()
    torch.testing.assert_close(store.statistics("tokens").mean, exact.mean(0))
    seen = torch.cat(list(store.batches("tokens", 8, seed=1)))
    whole = len(rows) // 8 * 8
    assert len(torch.unique(torch.cat([rows, seen]), dim=0)) == len(torch.unique(rows, dim=0))
    assert len(seen) == whole
    with pytest.raises(SiteError, match=r"other tokens of site 'tokens' for each image: read them with rows\(\)"):
        store.read("tokens")
    assert store.verify() == []


def test_a_mask_chooses_the_patches_it_covers(tmp_path, everything):
    images = tiny_images()
    mask = np.zeros((16, 16), dtype=bool)
    mask[3, 5] = mask[15, 0] = True
    with_masks = ImageSet(**{**vars(images), "read_masks": lambda i: {"lesion": mask} if i != 7 else {}})
    store = captured(tmp_path / "store", images=with_masks, tokens="mask")
    assert list(store.rows_of("tokens", [6, 7, 8])) == [2, 0, 2]
    assert torch.equal(store.rows("tokens", [7, 8]), everything[8, [1 + 3 * 16 + 5, 1 + 15 * 16]])
    assert store.coverage("tokens") == "72 of 9,509 tokens (0.8%), of 36 of 37 images"
    with pytest.raises(ConfigError, match="has no masks: store all tokens, or choose them by --tokens foreground"):
        captured(tmp_path / "b", tokens="mask")


def test_the_draw_depends_on_seed_and_position_alone(tmp_path):
    first = captured(tmp_path / "a", per_image=5, token_seed=1)
    assert tree(captured(tmp_path / "b", per_image=5, token_seed=1).folder) == tree(first.folder)
    other = captured(tmp_path / "c", per_image=5, token_seed=2)
    assert list(first.index("tokens")["token"]) != list(other.index("tokens")["token"])
    with pytest.raises(ConfigError, match="a capture with another selection seed"):
        captured(tmp_path / "a", per_image=5, token_seed=2)


@given(seed=st.integers(0, 99), per_image=st.integers(1, 12), first=st.integers(0, 1000))
def test_at_most_so_many_and_the_same_whoever_asks(seed, per_image, first):
    selection = TokenSelection("patches", per_image=per_image, seed=seed)
    together = selection.chosen(SITE, range(first, first + 4))
    alone = np.concatenate([selection.chosen(SITE, [i]) for i in range(first, first + 4)])
    assert np.array_equal(together, alone)
    assert (together.sum(1) == min(per_image, 6)).all()
    assert not together[:, :2].any()


def test_cell_means_are_those_of_a_loop():
    shown = np.random.default_rng(0).random((2, 8, 12))
    expected = [[s[4 * r : 4 * r + 4, 4 * c : 4 * c + 4].mean() for r in range(2) for c in range(3)] for s in shown]
    np.testing.assert_allclose(cell_means(GRID, shown), expected)
    volume = TokenGrid(2, 3, (2, 4, 4), (1, 2, 2), (2, 4, 4), depth=1)
    deep = np.stack([shown, shown * 3], axis=1)
    np.testing.assert_allclose(cell_means(volume, deep), np.array(expected) * 2)
    beyond = TokenGrid(1, 1, (4, 4), (0, 0), (4, 4))  # half of it lies outside
    np.testing.assert_allclose(cell_means(beyond, shown)[:, 0], shown[:, :2, :2].mean((1, 2)))


def test_brightness_undoes_the_normalisation():
    contract = InputContract(2, 2, 3, (0.0, 255.0), (100.0, 110.0, 120.0), (50.0, 60.0, 70.0))
    grey = torch.rand(4, 1, 2, 2, dtype=torch.float64)
    x = (grey * 255 - torch.tensor(contract.mean).reshape(3, 1, 1)) / torch.tensor(contract.std).reshape(3, 1, 1)
    np.testing.assert_allclose(brightness(x, contract), grey[:, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": "some"}, "tokens is 'some': it must be one of all, cls"),
        ({"threshold": 1.0}, "threshold is 1.0: it must be at least 0 and below 1"),
        ({"per_image": -1}, "per image is -1: it must be at least 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TokenSelection(**settings)


@pytest.mark.parametrize(
    ("site", "tokens", "message"),
    [
        ("head", "cls", "site 'head' has no class token: store all tokens, or patches"),
        ("head", "foreground", "the tokens of site 'head' have no place in the image"),
    ],
)
def test_tokens_that_a_site_does_not_have_are_named(tmp_path, site, tokens, message):
    with pytest.raises(SiteError, match=message):
        captured(tmp_path / "store", sites=(site,), tokens=tokens)
    with pytest.raises(SiteError, match="site 'p' has no patches"):
        TokenSelection("patches").stored(Site("p", "p", "output", "tokens", 3, 1, 1))
    assert TokenSelection().stored(SITES["tokens"]) == SITES["tokens"]
