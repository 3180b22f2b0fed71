"""Lesion, background and prefix tokens, where the grid and the mask are known by hand."""

import numpy as np
import pytest
import torch
from memory_store import MemoryStore

from mechinterp.errors import ImagesError, ShapeError, SiteError
from mechinterp.feature_encoder import Directions, Neurons
from mechinterp.images.image_set import ImageSet
from mechinterp.models.vision_model import InputContract
from mechinterp.sites import Site
from mechinterp.token_grid import TokenGrid
from sparse_autoencoders.metrics import evaluate_by_token_type, evaluate_sae
from sparse_autoencoders.token_types import token_types

GRID = TokenGrid(2, 2, (4.0, 4.0), (2.0, 2.0), (4.0, 4.0))
SITE = Site("site", "site", "output", "tokens", 3, 6, prefix_tokens=2, grid=GRID)
CONTRACT = InputContract(8, 8, 1, mean=(0.0,), std=(1.0,))


def images_of(*masks):
    pixels = np.zeros((len(masks), *masks[0].shape), dtype=np.float32)
    plain = ImageSet.from_arrays(pixels, intensity_range=(0.0, 1.0))
    from dataclasses import replace

    return replace(plain, read_masks=lambda i: {"haemorrhages": masks[i], "vessels": np.ones_like(masks[i])})


def test_each_token_is_what_its_tile_shows():
    lesion = np.zeros((8, 8), dtype=bool)
    lesion[:4, :4] = True  # all of the first tile
    lesion[0, 4] = True  # one in sixteen of the second: some, but too little
    found = token_types(SITE, images_of(lesion, np.zeros_like(lesion)), [0, 1], CONTRACT, ["haemorrhages"])
    assert found["lesion"].tolist() == [[False, False, True, False, False, False], [False] * 6]
    assert found["background"].tolist() == [[False, False, False, False, True, True], [False, False] + [True] * 4]
    assert found["CLS"][:, 0].all()
    assert found["CLS"].sum() == 2
    assert found["registers"].sum() == 2


def test_types_that_no_token_is_of_are_left_out_and_padding_is_of_none():
    narrow = np.zeros((8, 4), dtype=bool)  # shown in the middle: a quarter of the input is padding on either side
    grid = Site("site", "site", "output", "map", 3, 4, grid=TokenGrid(1, 4, (8.0, 2.0), (4.0, 1.0), (8.0, 2.0)))
    found = token_types(grid, images_of(narrow), [0], CONTRACT, ["haemorrhages"])
    assert set(found) == {"background"}
    assert found["background"].tolist() == [[False, True, True, False]]


def test_metrics_of_a_type_are_those_of_its_tokens_alone():
    acts = torch.randn(7, 6, 3, generator=torch.Generator().manual_seed(0))
    marks = np.random.default_rng(0).random((7, 6)) > 0.5
    encoder = Directions("site", torch.eye(3)[:2], torch.zeros(3))
    found = evaluate_by_token_type(encoder, MemoryStore(acts), {"lesion": marks, "none": marks & False}, np.arange(7))
    alone = evaluate_sae(encoder, MemoryStore(acts[torch.from_numpy(marks)][:, None]))
    assert set(found) == {"lesion"}
    assert found["lesion"].explained_variance == pytest.approx(alone.explained_variance)
    assert found["lesion"].rows == marks.sum()
    assert found["lesion"].images == marks.any(1).sum()


def test_mistakes_are_named():
    lesion = np.zeros((8, 8), dtype=bool)
    nowhere = Site("pool", "pool", "output", "vector", 3, 1)
    with pytest.raises(SiteError, match="site 'pool' have no place"):
        token_types(nowhere, images_of(lesion), [0], CONTRACT, ["haemorrhages"])
    with pytest.raises(ImagesError, match="has no mask of drusen: it has haemorrhages, vessels"):
        token_types(SITE, images_of(lesion), [0], CONTRACT, ["drusen"])
    with pytest.raises(ShapeError, match="type 'lesion' are marked for 2 × 2"):
        evaluate_by_token_type(
            Neurons("site", 3), MemoryStore(torch.zeros(2, 6, 3)), {"lesion": np.ones((2, 2), bool)}, [0, 1]
        )
