"""What fitting does to images is said in one sentence, with the right shares."""

import numpy as np
import pytest

from mechinterp.images import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.images.proportions import note_of_proportions
from mechinterp.models.vision_model import InputContract

SQUARE = InputContract(64, 64)


def images(*shapes, spacing_mm=None):
    return ImageSet.from_arrays([np.zeros(s, np.float32) for s in shapes], spacing_mm=spacing_mm)


@pytest.mark.parametrize(
    ("fit", "shape", "spacing", "said"),
    [
        ("pad", (64, 32), None, "up to 50% of the input stay black;"),
        ("crop", (64, 32), None, "up to 50% of an image are cut off;"),
        ("stretch", (64, 32), None, "proportions change by a factor of up to 2;"),
        ("model", (64, 32), None, "'model': proportions change by a factor of up to 2;"),
        ("pad", (32, 32), (2.0, 1.0), "up to 50% of the input stay black;"),
        ("stretch", (32, 32), (2.0, 1.0), "proportions change by a factor of up to 2;"),
    ],
)
def test_what_is_lost_or_added_is_said(fit, shape, spacing, said):
    given = images(shape, (64, 64), spacing_mm=spacing)
    assert said in note_of_proportions(given, SQUARE, Preparation(fit))


def test_nothing_is_said_where_nothing_changes():
    for fit in ("pad", "crop", "stretch"):
        assert note_of_proportions(images((32, 32), (100, 101)), SQUARE, Preparation(fit)) is None
    assert note_of_proportions(images((64, 32), spacing_mm=(1.0, 2.0)), SQUARE, Preparation("pad")) is None


def test_colour_is_no_axis():
    assert "input of 64 × 64" in note_of_proportions(images((64, 32, 3)), SQUARE, Preparation())
