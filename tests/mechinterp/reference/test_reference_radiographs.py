"""Reference models of mammograms and chest radiographs: tiny ones, from image to loaded model."""

import dataclasses

import numpy as np
import pytest
import torch

from mechinterp.errors import ConfigError
from mechinterp.phantoms.chest.population import ChestStudy
from mechinterp.phantoms.mammogram.population import MammogramStudy
from mechinterp.reference.radiographs import RadiographRecipe, full_recipe, train_radiograph_reference
from mechinterp.reference.recipes import Recipe

SMALL = {"patients": 16, "images_per_patient": 1, "validation_share": 0.0, "test_share": 0.25, "seed": 2}
TINY = Recipe(epochs=1, batch_size=6)
RECIPES = {
    "chest": RadiographRecipe(study=ChestStudy(size_px=96, **SMALL), training=TINY),
    "mammogram": RadiographRecipe(study=MammogramStudy(size_px=192, **SMALL), training=TINY),
}


@pytest.fixture(scope="module", params=[("chest", "cnn"), ("mammogram", "cnn"), ("mammogram", "vit")])
def trained(request, tmp_path_factory):
    phantom, kind = request.param
    cache = tmp_path_factory.mktemp("cache")
    return train_radiograph_reference(phantom, kind, recipe=RECIPES[phantom], cache_dir=cache), cache


def test_it_loads_with_its_classes_and_the_phantoms_it_was_trained_on(trained):
    reference, _ = trained
    phantoms, model = reference.phantoms(), reference.model()
    assert phantoms.kind.name == reference.phantom
    assert len(phantoms) == 16
    assert model.class_names == phantoms.kind.class_names
    assert reference.report["test_patients"] == 4
    images = [phantoms.images[int(i)] for i in phantoms.where("test")]
    with torch.no_grad():
        logits = model.logits(model.prepare(images))
    assert logits.shape == (4, 2)
    # 8-bit pixels in training, floats here
    assert np.isfinite(logits.numpy()).all()


def test_a_second_call_takes_it_from_the_cache(trained):
    reference, cache = trained
    again = train_radiograph_reference(
        reference.phantom, reference.kind, recipe=RECIPES[reference.phantom], cache_dir=cache
    )
    assert again == reference


def test_users_mistakes_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no reference model of 'stimuli'"):
        full_recipe("stimuli", "cnn")
    with pytest.raises(ConfigError, match="recipe is one for chest phantoms, not mammogram"):
        train_radiograph_reference("mammogram", "cnn", recipe=RECIPES["chest"], cache_dir=tmp_path)
    with pytest.raises(ConfigError, match="size_px is 128"):
        dataclasses.replace(RECIPES["chest"], study=ChestStudy(size_px=128))
    with pytest.raises(ConfigError, match="densest_percent is 5"):
        MammogramStudy(densest_percent=5)
    with pytest.raises(ConfigError, match="conspicuity is 2"):
        MammogramStudy(conspicuity=2)
    assert full_recipe("chest", "vit").study.patients == 2000
