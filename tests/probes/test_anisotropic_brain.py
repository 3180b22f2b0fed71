"""The brain study's attributes on pixels that are no squares: the same quantities, and the same pairs survive."""

from dataclasses import replace

import numpy as np
import pytest

from mechinterp.attributes.tissue import tissue_attributes
from mechinterp.images import brain_template
from mechinterp.statistics import spearman
from probes import match_attributes


@pytest.fixture(scope="module")
def tables():
    """Attributes of the template's slices at 1 × 1 mm, and with every other column left out, at 1 × 2 mm."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            brain_template,
            "tissue_attributes",
            lambda slices, how: seen.extend(slices) or tissue_attributes(slices, how),
        )
        images = brain_template.mni_template_slices(2.0)
    narrow = [
        replace(
            s, intensity=s.intensity[:, ::2], mask=s.mask[:, ::2], grey=s.grey[:, ::2], white=s.white[:, ::2],
            spacing_mm=(s.spacing_mm[0], 2 * s.spacing_mm[1]), midline_column=None,
        )
        for s in seen
    ]  # fmt: skip
    return images.attributes, tissue_attributes(narrow)


pytestmark = pytest.mark.slow  # reads the whole template

SHARED = ("brain_area", "grey_area", "white_area", "csf_area", "grey_fraction", "white_fraction", "eccentricity")


def test_areas_and_fractions_do_not_depend_on_the_pixels_proportions(tables):
    square, narrow = tables
    for name in SHARED:
        a, b = square.column(name), narrow.column(name)
        assert spearman(a[:, None], b[:, None])[0, 0] > 0.99, name
        if name.endswith("area"):
            whole = a > 0.1 * np.nanmax(a)
            np.testing.assert_allclose(b[whole], a[whole], rtol=0.04, err_msg=name)


def test_the_same_pairs_survive_and_none_is_called_sure_of_patients(tables):
    square, narrow = tables
    n = len(square)
    outer = np.r_[0:17, n - 17 : n]
    rng = np.random.default_rng(0)
    followers = np.stack(
        [square.column(name) + 0.02 * np.nanstd(square.column(name)) * rng.normal(size=n) for name in SHARED], 1
    )
    features = np.concatenate([followers, rng.normal(size=(n, 5))], 1)
    found = {}
    for said, table in (("square", square), ("narrow", narrow)):
        kept = [i for i, name in enumerate(table.names) if name in SHARED]
        chosen = replace(table, attributes=tuple(table.attributes[i] for i in kept), values=table.values[:, kept])
        matrix = match_attributes(features, chosen, outer, np.arange(19, n - 19), order=np.arange(n))
        found[said] = [(f.feature, f.attribute) for f in matrix.survivors]
        assert all(f.interval_note == "not estimable (n = 1)" for f in matrix.survivors)
        assert not any(f.feature >= len(SHARED) for f in matrix.survivors)
    assert set(found["narrow"]) == set(found["square"])
    assert len(found["square"]) == len(SHARED)
