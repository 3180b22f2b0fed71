"""Every row of the table in docs/models.md is measured here: a few rows by default, all of them with the slow tests."""

from collections import Counter
from dataclasses import replace

import pytest
from model_table import ENTRIES, attention_off, check_boxes, row, written_rows

from mechinterp.models import load_model
from mechinterp.models.loading import SOURCES

quick = [pytest.param(e, id=e.spec) for e in ENTRIES if e.quick]
others = [pytest.param(e, id=e.spec) for e in ENTRIES if not e.quick]


def test_the_table_has_every_source_and_no_family_more_than_five_times():
    assert {e.source for e in ENTRIES} == set(SOURCES)
    assert {e.source for e in ENTRIES if e.quick} == set(SOURCES)
    assert len({e.spec for e in ENTRIES}) == len(ENTRIES) >= 40
    assert max(Counter(e.family.partition(",")[0] for e in ENTRIES).values()) <= 5


def test_the_documentation_holds_a_line_for_every_model_and_no_other():
    assert list(written_rows()) == [e.spec for e in ENTRIES]


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("timm:vit_tiny_patch16_224?depth=2&input_size=48", "blocks.1.hook_resid_post"),
        ("timm:convnext_atto?input_size=96", "stages.0"),
    ],
)
def test_a_grid_that_is_off_by_one_cell_or_a_pixel_small_is_caught(spec, name):
    model = load_model(spec, "random")
    site = model.site(name)
    with attention_off(model):
        check_boxes(model, site)
        for wrong in (
            {"first_centre": tuple(c + s for c, s in zip(site.grid.first_centre, site.grid.stride, strict=True))},
            {"extent": tuple(e - 2 for e in site.grid.extent)},
        ):
            with pytest.raises(AssertionError):
                check_boxes(model, replace(site, grid=replace(site.grid, **wrong)))


@pytest.mark.parametrize("entry", quick)
def test_a_model_keeps_its_promises_as_the_table_says(entry, tmp_path):
    assert row(entry, tmp_path) == written_rows()[entry.spec]


@pytest.mark.slow
@pytest.mark.parametrize("entry", others)
def test_every_other_model_keeps_its_promises_as_the_table_says(entry, tmp_path):
    assert row(entry, tmp_path) == written_rows()[entry.spec]
