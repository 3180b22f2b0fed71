"""A dot drawn at a known pixel of an image of any size and spacing lands in the right token's box, for every transform and family.

Nothing here knows how grids are found: the dot is drawn into the recorded image, the image is prepared, the model runs with and
without the dot, and the tokens that changed are compared with those whose boxes hold the dot.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dot_families import FAMILIES, family, with_policy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mechinterp.capturing import run_with_cache
from mechinterp.images.image_set import MedicalImage
from mechinterp.images.preparation import Preparation

FITS = ["stretch", "pad", "crop", "model"]
POLICIES = [("stretch", 1.0), ("crop", 0.875), ("crop", 1.0), ("pad", 0.95), ("stretch", 0.8)]
REAL_SIZES = [(512, 333), (333, 512), (300, 200), (97, 256)]

fractions = st.floats(0, 1, exclude_max=True)
cases = st.fixed_dictionaries(
    {
        "size": st.one_of(st.tuples(*[st.integers(9, 150)] * 3), st.sampled_from([(12, *s) for s in REAL_SIZES])),
        "spacing": st.tuples(*[st.floats(0.4, 3)] * 3),
        "at": st.tuples(fractions, fractions, fractions),
        "fit": st.sampled_from(FITS),
        "policy": st.sampled_from(POLICIES),
        "margin": st.sampled_from([0.0, 0.0, 0.1]),
    }
)


def drawn(axes, case):
    """Return an empty image, the same with a dot, and the dot's pixel."""
    shape = tuple(min(n, 40) if axes == 3 else n for n in case["size"])[-axes:]
    pixel = tuple(int(f * n) for f, n in zip(case["at"][-axes:], shape, strict=True))
    empty, dot = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    dot[pixel] = 1
    spacing = case["spacing"][-axes:]
    return [
        MedicalImage(name, image, spacing_mm=spacing, axes=axes) for name, image in (("e", empty), ("d", dot))
    ], pixel


def touched(boxes, pixels):
    """Return for every box whether it holds, or partly holds, one of some input pixels."""
    axes = pixels.shape[1]
    low, high = boxes[:, None, :axes], boxes[:, None, axes:]
    return ((low < pixels + 1 - 1e-6) & (pixels + 1e-6 < high)).all(2).any(1)


def changed_cells(site, acts):
    empty, dot = acts[:, site.prefix_tokens :]
    assert torch.equal(acts[0, : site.prefix_tokens], acts[1, : site.prefix_tokens])
    return (empty != dot).any(1).numpy()


def check(name, case):
    model, watched = family(name)
    model = with_policy(model, *case["policy"])
    axes = len(model.contract.size)
    preparation = Preparation(fit=case["fit"], margin=case["margin"])
    images, pixel = drawn(axes, case)
    x = model.prepare(images, preparation)
    placement = preparation.apply(images[1], model.contract)[1]
    where = placement.to_input(np.array(pixel) + 0.5)
    light = (x[1] - x[0]).abs().amax(0)
    lit = np.argwhere((light > 0).numpy())
    # a weight of linear resampling that is zero but for rounding lights a pixel by 1e-16: no token need see that
    bright = np.argwhere((light > 1e-9 * light.max()).numpy())
    inside = bool(((where >= 0) & (where < np.array(model.contract.size))).all())
    if not len(lit):
        assert not inside or case["margin"] or case["fit"] != "stretch"
        return
    # linear resampling spreads a dot over one pixel of the coarser of the two grids
    assert (np.abs(lit + 0.5 - where) <= np.maximum(1, 1 / np.asarray(placement.scale)) + 1e-6).all()
    with torch.no_grad():
        captured = run_with_cache(model, x, [w.name for w in watched])
    for site_watched in watched:
        site = model.site(site_watched.name)
        grid = site.grid
        assert grid.cells == site.tokens - site.prefix_tokens
        changed = changed_cells(site, captured[site.name])
        assert not (changed & ~touched(grid.boxes(), lit)).any(), (
            f"{site.name}: a cell changed whose box does not hold the dot"
        )
        if site_watched.claim != "within":
            boxes = grid.boxes()
            seeing = touched(boxes, bright)
            whole = ((boxes[:, :axes] >= 0) & (boxes[:, axes:] <= model.contract.size)).all(1)
            at_edge = ~whole if site_watched.claim == "exact" else np.zeros_like(whole)
            assert not (seeing & ~changed & ~at_edge).any(), (
                f"{site.name}: a cell whose box holds the dot did not change"
            )
        cell = grid.cell_at(where)
        if cell is None or not (lit == np.floor(where)).all(1).any():
            continue  # cut off, or in a border that the grid does not cover
        assert changed[cell], f"{site.name}: the dot's own token did not change"
        # in millimetres: the dot's centre as the image has it, the token's box as the grid says it
        spacing = images[1].spacing_mm
        box = grid.boxes_mm(placement, spacing, tiles=True)[cell]
        millimetres = (np.array(pixel) + 0.5) * spacing
        assert (box[:axes] - 1e-6 <= millimetres).all()
        assert (millimetres <= box[axes:] + 1e-6).all()


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(case=cases)
@example(case={"size": (12, 512, 333), "spacing": (3.0, 0.5, 2.0), "at": (0.4, 0.3, 0.6), "fit": "pad", "policy": ("crop", 0.875), "margin": 0.0})  # fmt: skip
@example(case={"size": (12, 333, 512), "spacing": (1.0, 1.0, 1.0), "at": (0.5, 0.5, 0.5), "fit": "model", "policy": ("crop", 0.875), "margin": 0.0})  # fmt: skip
@example(case={"size": (9, 9, 18), "spacing": (1.0, 0.4375, 1.0), "at": (0.0, 0.5, 0.0), "fit": "pad", "policy": ("stretch", 1.0), "margin": 0.0})  # fmt: skip
def test_a_dot_changes_the_tokens_whose_boxes_hold_it(name, case):
    check(name, case)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=100, deadline=None)
@given(case=cases)
def test_a_dot_changes_the_tokens_whose_boxes_hold_it_in_a_wider_sweep(name, case):
    check(name, case)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_token_can_be_hit_by_its_own_dot(name):
    model, watched = family(name)
    for site in (model.site(w.name) for w in watched):
        centres = site.grid.centres()
        inside = ((centres >= 0) & (centres < model.contract.size)).all(1)
        assert inside.any()
        assert [site.grid.cell_at(c) for c in centres] == list(range(site.grid.cells))


def test_windows_are_seen_as_windows():
    model, _ = family("Swin")
    site = model.site("layers.0.blocks.0")
    # windows of 4 × 4 patches of 2 × 2 pixels: a cell's box holds its window, and windows beyond the next are not in it
    x = torch.zeros(2, 3, 32, 48)
    x[1, :, 9, 17] = 1e3
    with torch.no_grad():
        acts = run_with_cache(model, x, [site.name])[site.name]
    changed = changed_cells(site, acts).reshape(site.grid.shape)
    expected = np.zeros_like(changed)
    expected[4:8, 8:12] = True
    assert (changed == expected).all()
    # which token of its window a cell is, is not followed: the box reaches a window's length both ways, and no further
    assert site.grid.extent == (14, 14)


def off_by_half_a_cell(grid):
    return replace(grid, first_centre=tuple(c + s / 2 for c, s in zip(grid.first_centre, grid.stride, strict=True)))


def turned(grid):
    """Return the grid with rows and columns exchanged."""
    return replace(grid, rows=grid.columns, columns=grid.rows)


def a_square_of_the_token_count(grid):
    side = round(grid.cells ** (1 / len(grid.shape)))
    stretch = [n / side for n in grid.shape]
    longer = {n: tuple(v * f for v, f in zip(getattr(grid, n), stretch, strict=True)) for n in LENGTHS}
    return replace(grid, rows=side, columns=side, depth=side if grid.depth else None, **longer)


LENGTHS = ("stride", "first_centre", "extent")


@pytest.mark.parametrize("wrong", [off_by_half_a_cell, turned, a_square_of_the_token_count])
@pytest.mark.parametrize("name", ["ViT with registers", "ResNet", "ViT of volumes"])
def test_a_wrong_grid_would_be_noticed(name, wrong, monkeypatch):
    model, watched = family(name)
    site = model.site(watched[0].name)
    altered = replace(site, grid=wrong(site.grid))
    monkeypatch.setitem(globals(), "family", lambda _: (replace(model, sites={site.name: altered}), watched[:1]))
    case = {"size": (20, 90, 140), "spacing": (2.0, 1.0, 0.5), "fit": "pad", "policy": ("crop", 0.9), "margin": 0.0}

    def check_twenty():
        for at in np.random.default_rng(0).random((20, 3)):
            check(name, {**case, "at": tuple(at)})

    with pytest.raises((AssertionError, IndexError, ValueError)):
        check_twenty()
