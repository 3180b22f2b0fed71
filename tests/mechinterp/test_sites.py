import pytest
import torch

from mechinterp.errors import SiteError
from mechinterp.sites import Site

SITES = {
    "tokens": (Site("t", "m", "output", "tokens", width=5, tokens=7, prefix_tokens=1), (2, 7, 5)),
    "map": (Site("m", "m", "output", "map", width=5, tokens=12), (2, 5, 3, 4)),
    "channels_last": (Site("c", "m", "output", "channels_last", width=5, tokens=12), (2, 3, 4, 5)),
    "vector": (Site("v", "m", "output", "vector", width=5, tokens=1), (2, 5)),
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
