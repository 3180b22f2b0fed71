"""Where cells lie on an image, and how large it is, in one unit for all images of a run."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.analysis.pictures import image_facts, registration
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import InputContract
from mechinterp.sites import Site
from mechinterp.token_grid import TokenGrid

SITE = Site("s", "s", "output", "map", 4, 6, 0, TokenGrid(2, 3, (4.0, 4.0), (2.0, 2.0), (4.0, 4.0)))
CONTRACT = InputContract(8, 12, 1, mean=(0.0,), std=(1.0,))


def images(*spacing):
    """Return images of 16 × 24 pixels, twice the model's input."""
    return ImageSet.from_arrays([np.zeros((16, 24), np.uint8)] * len(spacing), spacing_mm=list(spacing))


def test_lengths_are_millimetres_where_all_spacings_are_known():
    found = images((0.5, 0.5), (0.25, 0.25))
    facts = image_facts(found, [], None, None)
    assert (facts["length_unit"], facts["size_mm"]) == ("mm", [[8.0, 12.0], [4.0, 6.0]])
    cells = registration(found, SITE, CONTRACT, Preparation())["per_image"]
    assert [list(c["step_mm"]) for c in cells] == [[4.0, 4.0], [2.0, 2.0]]


@pytest.mark.parametrize("spacing", [((0.5, 0.5), None), (None, None)])
def test_where_one_spacing_is_unknown_all_lengths_are_pixels(spacing):
    found = images(*spacing)
    facts = image_facts(found, [], None, None)
    assert (facts["length_unit"], facts["size_mm"]) == ("px", [[16, 24], [16, 24]])
    shared = registration(found, SITE, CONTRACT, Preparation())["shared"]
    assert list(shared["step_mm"]) == [8.0, 8.0]
    assert list(shared["centre_mm_first"]) == [4.0, 4.0]
