"""Images as a method is shown them know their patients, and only those that somebody named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from localization_models import spot_images, spot_model

from circuits.localization import show_images
from circuits.localization.estimates import estimate


def test_images_without_a_patient_are_not_one_patient():
    images = replace(spot_images(4), groups=("a", None, None, "a"))
    shown = show_images(spot_model(), images)
    assert shown.groups == ("a", f"image {images.ids[1]}", f"image {images.ids[2]}", "a")
    # the mean over three patients: of a's images, and of each other one
    assert estimate(np.array([1.0, 4.0, 4.0, 3.0]), shown).value == pytest.approx((2 + 4 + 4) / 3)


@pytest.mark.parametrize("groups", [None, (None,) * 4])
def test_where_nobody_is_named_there_is_no_patient_and_no_interval(groups):
    shown = show_images(spot_model(), replace(spot_images(4), groups=groups))
    assert shown.groups is None
    assert estimate(np.arange(4.0), shown).interval.ends is None
