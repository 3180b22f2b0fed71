"""The reference model of stimuli: learns from few, the same bits twice, and says when its cache is damaged."""

import pytest
import torch

from mechinterp.errors import ConfigError, DamagedFileError
from mechinterp.phantoms.stimuli.population import StimulusStudy
from mechinterp.reference.stimuli import StimulusRecipe, train_stimulus_reference

TINY = StimulusRecipe(
    study=StimulusStudy(patients=40, images_per_patient=1, size_px=96, validation_share=0.0, test_share=0.25, seed=2),
    epochs=2, batch_size=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(cache):
    return train_stimulus_reference(recipe=TINY, cache_dir=cache)


def test_it_is_loaded_as_every_model_is_and_names_its_classes(trained):
    model = trained.model()
    assert tuple(model.class_names) == ("gabor", "face", "scene", "scrambled")
    assert model.trained
    assert {"stages.1", "stages.2", "stages.3"} <= set(model.sites)
    assert 0 <= trained.accuracy <= 1


def test_the_same_recipe_gives_the_same_bits(trained, tmp_path):
    again = train_stimulus_reference(recipe=TINY, cache_dir=tmp_path)
    assert again.report["weights_sha256"] == trained.report["weights_sha256"]
    assert again.folder.name == trained.folder.name


def test_it_is_trained_once(trained, cache):
    before = trained.weights.stat().st_mtime_ns
    assert train_stimulus_reference(recipe=TINY, cache_dir=cache).weights.stat().st_mtime_ns == before


def test_training_leaves_the_callers_randomness_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train_stimulus_reference(recipe=TINY, seed=1, cache_dir=tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_there_is_a_vit_as_well_which_is_asked_at_its_patches(cache):
    trained = train_stimulus_reference("vit", recipe=TINY, cache_dir=cache)
    model = trained.model()
    assert (trained.kind, model.trained) == ("vit", True)
    assert tuple(model.class_names) == ("gabor", "face", "scene", "scrambled")
    assert model.sites["blocks.2.hook_resid_post"].grid.cells == 144


def test_damaged_weights_are_named(tmp_path):
    trained = train_stimulus_reference(recipe=TINY, cache_dir=tmp_path)
    trained.weights.write_bytes(b"cut short")
    with pytest.raises(DamagedFileError, match="is not what was trained"):
        train_stimulus_reference(recipe=TINY, cache_dir=tmp_path)


def test_numbers_that_cannot_be_meant_are_refused():
    with pytest.raises(ConfigError, match="epochs is 0"):
        StimulusRecipe(epochs=0)
    with pytest.raises(ConfigError, match="learning_rate is 0"):
        StimulusRecipe(learning_rate=0.0)
    with pytest.raises(ConfigError, match="there is no reference model 'resnet'"):
        train_stimulus_reference("resnet")
    with pytest.raises(ConfigError, match="96 pixels"):
        StimulusRecipe(study=StimulusStudy(size_px=64))
