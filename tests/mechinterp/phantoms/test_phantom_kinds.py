"""What holds for every kind of phantom, over random parameters: areas, counterfactuals, streams, the same bits."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mechinterp.errors import ConfigError, ImagesError
from mechinterp.phantoms.datasets import KINDS, draw_phantoms, phantom_images, phantom_kind, study_of
from mechinterp.phantoms.quantities import EVERYWHERE, quantities
from mechinterp.phantoms.random_streams import Identity

SIZE_PX = 72
RENDERERS = {name: kind.renderer(study_of(name, {"size_px": SIZE_PX}, None)) for name, kind in KINDS.items()}
LOCAL = [
    (kind.name, name)
    for kind in KINDS.values()
    for name, what in quantities(kind.parameters).items()
    if EVERYWHERE not in what.structures
]
kinds = pytest.mark.parametrize("kind", list(KINDS))


def value_of(draw, kind, name):
    what, usual = quantities(KINDS[kind].parameters)[name], getattr(KINDS[kind].parameters(), name)
    if what.choices:
        return draw(st.sampled_from(what.choices))
    if isinstance(usual, int):
        return draw(st.integers(max(int(what.low), int(kind == "fundus" and name.endswith("count"))), int(what.high)))
    return draw(st.floats(what.low, what.high))


@st.composite
def images(draw, kind):
    values = {name: value_of(draw, kind, name) for name in quantities(KINDS[kind].parameters)}
    return values, Identity(draw(st.integers(0, 3)), draw(st.integers(0, 20)), draw(st.integers(0, 3)))


def rendered(kind, values, identity):
    try:
        return RENDERERS[kind](KINDS[kind].parameters(**values), identity)
    except ConfigError as error:  # what cannot be rendered is refused, and nothing else
        if "does not fit" not in str(error):
            raise
        assume(False)


def perimeter_mm(mask, spacing):
    """Length of the pixels' edges between inside and outside: never shorter than the true outline."""
    padded = np.pad(mask, 1).astype(int)
    return spacing * (np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum())


@kinds
@settings(deadline=None, max_examples=15)
@given(st.data())
def test_areas_of_masks_equal_the_parameters(kind, data):
    phantom = rendered(kind, *data.draw(images(kind)))
    spacing = phantom.spacing_mm[0]
    for structure, area_of in KINDS[kind].areas_mm2.items():
        area, mask = area_of(phantom.parameters), phantom.mask(structure)
        pieces = next(
            (getattr(phantom.parameters, n) for n in (f"{structure[:-1]}_count",) if hasattr(phantom.parameters, n)), 1
        )
        # a mask of spots smaller than a pixel may be empty: their outline is that of circles of their area
        outline = max(perimeter_mm(mask, spacing), 2 * np.sqrt(np.pi * area * pieces))
        assert abs(mask.sum() * spacing**2 - area) <= outline * spacing / 2 + 1e-9
        assert phantom.area_mm2(structure) == pytest.approx(area, rel=1e-4, abs=1e-5)


@kinds
@settings(deadline=None, max_examples=15)
@given(st.data())
def test_pixels_and_coverage_are_shares_and_the_same_bits_every_time(kind, data):
    values, identity = data.draw(images(kind))
    phantom, again = rendered(kind, values, identity), rendered(kind, values, identity)
    assert np.array_equal(phantom.pixels, again.pixels)
    assert phantom.pixels.dtype == np.float32
    assert tuple(phantom.coverage) == KINDS[kind].structures
    for image in (phantom.pixels, *phantom.coverage.values()):
        assert np.isfinite(image).all()
        assert image.min() >= 0
        assert image.max() <= 1


@pytest.mark.parametrize(("kind", "name"), LOCAL)
@settings(deadline=None, max_examples=4)
@given(data=st.data())
def test_a_counterfactual_changes_only_what_it_names(kind, name, data):
    """Pixels in the dilated union of both masks; no other structure is drawn anew."""
    phantom = rendered(kind, *data.draw(images(kind)))
    values = {n: getattr(phantom.parameters, n) for n in quantities(phantom.parameters)}
    changed = rendered(kind, values | {name: value_of(data.draw, kind, name)}, phantom.identity)
    differs = phantom.pixels != changed.pixels
    differs = differs.any(-1) if differs.ndim == 3 else differs
    assert not (differs & ~phantom.may_differ(changed, name)).any()
    touched = set(quantities(phantom.parameters)[name].structures)
    touched |= {"arteries", "veins"} if "vessels" in touched else set()
    for structure in phantom.coverage:
        if structure not in touched:
            assert np.array_equal(phantom.coverage[structure], changed.coverage[structure]), structure


@kinds
def test_a_counterfactual_that_changes_nothing_is_the_same_image_to_the_bit(kind):
    phantoms = draw_phantoms(KINDS[kind], study_of(kind, {"patients": 4, "size_px": SIZE_PX}, None))
    phantom = phantoms.phantom(3)
    name = next(n for n, what in quantities(phantom.parameters).items() if not what.choices)
    same = phantom.counterfactual(**{name: getattr(phantom.parameters, name)})
    assert np.array_equal(phantom.pixels, same.pixels)


@kinds
def test_half_of_every_split_bears_the_label_and_the_shortcut_is_set_apart(kind):
    mark = KINDS[kind].marks[0]
    settings = {"patients": 400, "images_per_patient": 1, "size_px": SIZE_PX}
    phantoms = draw_phantoms(KINDS[kind], study_of(kind, settings, {"mark": mark, "train": 0.8, "test": -0.3}))
    label = np.array([KINDS[kind].label(p) for p in phantoms.parameters])
    marked = np.array([getattr(p, mark) for p in phantoms.parameters])
    for split, correlation in (("train", 0.8), ("validation", 0.8), ("test", -0.3)):
        chosen = phantoms.where(split)
        assert 0.4 <= label[chosen].mean() <= 0.6
        assert np.corrcoef(label[chosen], marked[chosen])[0, 1] == pytest.approx(correlation, abs=0.04)
    plain = draw_phantoms(KINDS[kind], study_of(kind, settings, None))
    for name in quantities(plain.parameters[0]):
        if name != mark:
            assert [getattr(p, name) for p in plain.parameters] == [getattr(p, name) for p in phantoms.parameters]


@kinds
def test_an_image_set_opens_again_from_its_source(kind):
    settings = {"patients": 4, "images_per_patient": 2, "size_px": SIZE_PX, "seed": 3}
    images = draw_phantoms(KINDS[kind], study_of(kind, settings, None)).images
    from mechinterp.images.opening import open_images

    again = open_images(images.source)
    assert again.ids == images.ids
    assert again.labels == images.labels
    assert np.array_equal(again[3].pixels, images[3].pixels)
    masks = again.read_masks(3)
    assert set(masks) == set(KINDS[kind].structures)
    assert {m.shape for m in masks.values()} == {images[3].pixels.shape[:2]}


@kinds
def test_a_folder_of_files_is_read_back_with_all_it_held(kind, tmp_path):
    from mechinterp.images.opening import open_images

    phantoms = draw_phantoms(
        KINDS[kind], study_of(kind, {"patients": 4, "images_per_patient": 1, "size_px": SIZE_PX}, None)
    )
    images, read = phantoms.images, open_images(phantoms.write_image_folder(tmp_path / kind))
    assert (read.labels, read.groups, read.splits) == (images.labels, images.groups, images.splits)
    np.testing.assert_allclose(read.spacing_mm, images.spacing_mm)
    for name in images.attributes.names:
        np.testing.assert_allclose(read.attributes.column(name), images.attributes.column(name), rtol=1e-6)
        assert read.attributes[name].unit == images.attributes[name].unit
    assert np.abs(read[2].scaled() - images[2].pixels).max() <= 0.5 / 255 + 1e-6


@kinds
def test_images_of_a_patient_share_the_anatomy_and_not_the_noise(kind):
    phantoms = draw_phantoms(
        KINDS[kind], study_of(kind, {"patients": 4, "images_per_patient": 3, "size_px": SIZE_PX}, None)
    )
    parameters, renderer = phantoms.parameters[0], phantoms.renderer
    first, second, other = (
        renderer(parameters, who) for who in (Identity(0, 1, 0), Identity(0, 1, 1), Identity(0, 2, 0))
    )

    def alike(a, b):
        return np.corrcoef(a.pixels.ravel(), b.pixels.ravel())[0, 1]

    assert alike(first, second) < 1
    assert alike(first, second) > alike(first, other)


def test_users_mistakes_are_named():
    with pytest.raises(ConfigError, match=r"no phantom 'mamogram': .*mammogram"):
        phantom_kind("mamogram")
    with pytest.raises(ConfigError, match="has no setting 'pationts'"):
        phantom_images("mammogram", pationts=4)
    with pytest.raises(ConfigError, match="has no mark 'ruler'"):
        study_of("mammogram", {}, {"mark": "ruler"})
    with pytest.raises(ConfigError, match="correlation in train is 2"):
        study_of("mammogram", {}, {"mark": "site_tag", "train": 2.0})
    with pytest.raises(ConfigError, match="patients is 1"):
        study_of("mammogram", {"patients": 1}, None)
    with pytest.raises(ConfigError, match="images_per_patient is 0"):
        study_of("mammogram", {"images_per_patient": 0}, None)
    with pytest.raises(ConfigError, match="leave nothing to train on"):
        study_of("mammogram", {"validation_share": 0.5, "test_share": 0.5}, None)
    with pytest.raises(ImagesError, match="no structure 'lung'"):
        draw_phantoms(KINDS["mammogram"], study_of("mammogram", {"patients": 4}, None)).rendered(["lung"])
