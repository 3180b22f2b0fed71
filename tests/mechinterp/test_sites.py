import pytest
import torch

from mechinterp.errors import SiteError
from mechinterp.sites import Site
from mechinterp.token_grid import TokenGrid

SITES = {
    "tokens": (Site("t", "m", "output", "tokens", width=5, tokens=7, prefix_tokens=1), (2, 7, 5)),
    "map": (Site("m", "m", "output", "map", width=5, tokens=12), (2, 5, 3, 4)),
    "channels_last": (Site("c", "m", "output", "channels_last", width=5, tokens=12), (2, 3, 4, 5)),
    "vector": (Site("v", "m", "output", "vector", width=5, tokens=1), (2, 5)),
    "volume map": (Site("m", "m", "output", "map", width=5, tokens=24), (2, 5, 2, 3, 4)),
    "volume channels_last": (Site("c", "m", "output", "channels_last", width=5, tokens=24), (2, 2, 3, 4, 5)),
    "pattern": (Site("p", "m", "pattern", "pattern", width=28, tokens=7, heads=4), (2, 4, 7, 7)),
}


@pytest.mark.parametrize("layout", SITES)
def test_tokens_there_and_back_are_the_same_tensor(layout):
    site, shape = SITES[layout]
    raw = torch.rand(shape)
    acts = site.to_tokens(raw)
    assert acts.shape == (2, site.tokens, site.width)
    back = site.from_tokens(acts, raw)
    assert back.equal(raw)
    assert back.is_contiguous()


def test_cells_of_a_map_are_read_row_by_row_in_either_layout():
    raw = torch.rand(2, 5, 3, 4)
    for site, tensor in ((SITES["map"][0], raw), (SITES["channels_last"][0], raw.permute(0, 2, 3, 1))):
        acts = site.to_tokens(tensor)
        assert acts[1, 2 * 4 + 3].equal(raw[1, :, 2, 3])


@pytest.mark.parametrize("layout", SITES)
def test_another_number_of_images_takes_the_shape_of_one(layout):
    site, shape = SITES[layout]
    acts = torch.rand(6, site.tokens, site.width)
    assert site.from_tokens(acts, torch.rand(shape)).shape == (6, *shape[1:])


def test_what_is_put_back_has_the_type_of_what_was_there():
    site, shape = SITES["map"]
    assert site.from_tokens(torch.rand(2, 12, 5, dtype=torch.float64), torch.rand(shape).half()).dtype == torch.float16


def test_a_tensor_of_another_layout_is_named():
    with pytest.raises(SiteError, match=r"site 'm' gave a tensor of shape \(2, 7, 5\), not a map"):
        SITES["map"][0].to_tokens(torch.rand(2, 7, 5))


def test_a_renamed_site_is_the_same_place():
    site = SITES["map"][0].renamed("stages.2")
    assert (site.name, site.module, site.width) == ("stages.2", "m", 5)


HEADS = Site("blocks.0.attn.hook_z", "m", "input", "tokens", width=6, tokens=4, heads=3)
PATTERN = Site("blocks.0.attn.hook_pattern", "m", "pattern", "pattern", width=12, tokens=4, heads=3)


def test_heads_are_split_as_transformerlens_has_them():
    z, pattern = torch.rand(2, 4, 6), torch.rand(2, 3, 4, 4)
    assert HEADS.split_heads(z)[1, 3, 2].equal(z[1, 3, 4:6])
    assert PATTERN.split_heads(PATTERN.to_tokens(pattern)).equal(pattern)
    for site, acts in ((HEADS, z), (PATTERN, PATTERN.to_tokens(pattern))):
        assert site.join_heads(site.split_heads(acts)).equal(acts)


def test_one_head_is_a_site_of_its_own():
    head = HEADS.head(2)
    assert (head.name, head.width, head.columns) == ("blocks.0.attn.hook_z[2]", 2, (4, 6))
    raw = torch.rand(2, 4, 6)
    assert head.to_tokens(raw).equal(raw[..., 4:])
    changed = head.from_tokens(torch.zeros(2, 4, 2), raw)
    assert changed[..., :4].equal(raw[..., :4])
    assert not changed[..., 4:].any()
    assert raw[..., 4:].all()
    pattern = torch.rand(2, 3, 4, 4)
    assert PATTERN.head(1).to_tokens(pattern).equal(pattern[:, 1])
    assert PATTERN.head(1).from_tokens(pattern[:, 0], pattern)[:, 1].equal(pattern[:, 0])
    assert HEADS.head_units([0, 2]) == [0, 1, 4, 5]


def test_a_head_of_a_part_of_a_packed_projection():
    keys = Site("blocks.0.attn.hook_k", "m", "output", "tokens", width=6, tokens=4, heads=3, columns=(6, 12))
    raw = torch.rand(2, 4, 18)
    assert keys.to_tokens(raw).equal(raw[..., 6:12])
    assert keys.head(1).to_tokens(raw).equal(raw[..., 8:10])
    assert keys.from_tokens(keys.to_tokens(raw), raw).equal(raw)


def test_heads_that_do_not_exist_are_named():
    with pytest.raises(SiteError, match=r"site 'blocks.0.attn.hook_z' has no head 3: it has 3, counted from 0"):
        HEADS.head(3)
    with pytest.raises(SiteError, match="site 'm' is not divided into heads: take hook_z, hook_pattern or hook_result"):
        SITES["map"][0].split_heads(torch.rand(2, 12, 5))


@pytest.mark.parametrize("layout", SITES)
def test_a_site_comes_back_from_json(layout):
    site = SITES[layout][0]
    assert Site.from_json(site.to_json()) == site
    assert ("heads" in site.to_json()) == bool(site.heads)


def test_what_is_special_about_a_site_comes_back_from_json():
    grid = TokenGrid(1, 2, (4, 4, 2), (2, 2, 1), (4, 4, 2), depth=2)
    site = Site(
        "r", "drop", "result", "tokens", 18, 4, 0, grid, heads=3, call=1, weight="proj.weight", scale="gamma", source=HEADS.head(1)
    )  # fmt: skip
    assert Site.from_json(site.to_json()) == site
