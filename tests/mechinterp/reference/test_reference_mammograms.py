"""The mammogram CNN: tiny ones, from image to loaded model, and what its cells are asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mechinterp.errors import ConfigError
from mechinterp.files import sha256_file
from mechinterp.phantoms.mammogram.parameters import MammogramParameters
from mechinterp.phantoms.mammogram.population import MammogramStudy
from mechinterp.phantoms.mammogram.renderer import MammogramRenderer
from mechinterp.reference import mammogram_fitting
from mechinterp.reference.mammogram_fitting import crops
from mechinterp.reference.mammograms import FINDINGS, MammogramRecipe, findings_by_cell, train_mammogram_reference
from mechinterp.reference.recipes import Recipe

SMALL = {"patients": 16, "images_per_patient": 1, "validation_share": 0.0, "test_share": 0.25, "seed": 2}
TINY = MammogramRecipe(
    study=MammogramStudy(size_px=192, mark_share=0.5, **SMALL),
    crop_epochs=1,
    training=Recipe(epochs=1, batch_size=6, token_loss=10.0),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return train_mammogram_reference(TINY, cache_dir=cache), cache


def test_it_loads_with_its_classes_and_the_phantoms_it_was_trained_on(trained):
    reference, _ = trained
    phantoms, model = reference.phantoms(), reference.model()
    assert (phantoms.kind.name, len(phantoms)) == ("mammogram", 16)
    assert model.class_names == phantoms.kind.class_names
    assert reference.report["test_patients"] == 4
    with torch.no_grad():
        logits = model.logits(model.prepare([phantoms.images[int(i)] for i in phantoms.where("test")]))
    assert np.isfinite(logits.numpy()).all()


def test_a_second_call_takes_it_from_the_cache_and_another_cache_gets_the_same_bits(trained, tmp_path):
    reference, cache = trained
    assert train_mammogram_reference(TINY, cache_dir=cache) == reference
    again = train_mammogram_reference(TINY, cache_dir=tmp_path)
    assert sha256_file(again.weights) == sha256_file(reference.weights)
    other = train_mammogram_reference(TINY, seed=1, cache_dir=tmp_path)
    assert sha256_file(other.weights) != sha256_file(reference.weights)


def test_it_says_in_which_arithmetic_it_was_trained(trained, monkeypatch, tmp_path):
    expected = "bfloat16" if mammogram_fitting.multiplies_bfloat16() else "float32"
    assert trained[0].report["arithmetic"] == expected
    monkeypatch.setattr(mammogram_fitting, "multiplies_bfloat16", lambda: False)
    assert train_mammogram_reference(TINY, cache_dir=tmp_path).report["arithmetic"] == "float32"


@pytest.mark.parametrize(
    ("found", "asked"),
    [
        ({}, set()),
        ({"mass_diameter_mm": 20.0}, {"smooth mass"}),
        ({"mass_diameter_mm": 20.0, "mass_spiculation": 0.6}, {"spiculated mass", "spicules"}),
        ({"calcification_count": 12, "calcification_extent_mm": 12.0}, {"cluster of calcifications"}),
        ({"calcification_count": 12, "calcification_extent_mm": 40.0}, {"other calcifications"}),
        ({"calcification_count": 3}, {"other calcifications"}),
    ],
)
def test_cells_are_asked_for_the_kind_of_what_lies_in_them(found, asked):
    image = MammogramRenderer(192, 180.0)(MammogramParameters(**found))
    cells = findings_by_cell(image)
    assert cells.shape == (len(FINDINGS), 24, 19)
    assert cells.min() >= 0
    assert cells.max() <= 1
    assert {name for name, map_ in zip(FINDINGS, cells, strict=True) if map_.any()} == asked
    if "mass_diameter_mm" in found:
        # nothing of a mass is lost or counted twice: the shares times a cell's area are its area
        area = cells[:2].sum() * (8 * image.spacing_mm[0]) ** 2
        assert area == pytest.approx(image.area_mm2("mass"), rel=1e-4)


def test_crops_hold_a_finding_where_there_is_one_and_are_asked_for_what_they_show():
    random = torch.Generator().manual_seed(0)
    x = torch.arange(24 * 19).view(1, 1, 24, 19).float().repeat_interleave(8, 2).repeat_interleave(8, 3)
    asked = torch.zeros(1, 5, 24, 19)
    asked[0, 2, 13, 9] = 0.7
    places = set()
    for _ in range(50):
        shown, cells = crops(x.expand(1, 3, -1, -1), asked, random)
        assert shown.shape == (1, 3, 96, 96)
        assert cells.sum() == pytest.approx(0.7)
        (at,) = cells[0, 2].nonzero().tolist()
        # the pixels under that cell are those of the finding's own
        assert (shown[0, 0, 8 * at[0] : 8 * at[0] + 8, 8 * at[1] : 8 * at[1] + 8] == 13 * 19 + 9).all()
        places.add(tuple(at))
    assert len(places) > 3


def test_crops_without_a_finding_show_tissue_rather_than_air():
    x = torch.zeros(200, 3, 192, 152)
    x[:, :, 160:168, 8:16] = 1.0
    shown, _ = crops(x, torch.zeros(200, 5, 24, 19), torch.Generator().manual_seed(0))
    assert (shown.amax((1, 2, 3)) == 1).float().mean() > 0.9


def test_users_mistakes_are_named():
    with pytest.raises(ConfigError, match="size_px is 128"):
        MammogramRecipe(study=MammogramStudy(size_px=128))
    with pytest.raises(ConfigError, match="crop_epochs is -1"):
        replace(TINY, crop_epochs=-1)
