import dataclasses
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mechinterp.errors import ConfigError, DamagedFileError
from mechinterp.phantoms.fundus_population import FundusStudy
from mechinterp.phantoms.planted_shortcut import PlantedShortcut
from mechinterp.progress import SILENT
from mechinterp.provenance import code_without_comments
from mechinterp.reference import fitting, training
from mechinterp.reference.networks import CLASS_NAMES, reference_cnn, reference_vit
from mechinterp.reference.recipes import FULL, TINY, Recipe, check_kind
from mechinterp.reference.training import cache_folder, code_version, load_reference, train_reference
from mechinterp.reference.training_data import training_data

SMALL = Recipe(
    study=FundusStudy(patients=24, images_per_patient=1, validation_share=0.0, test_share=0.25, seed=2),
    epochs=1,
    batch_size=6,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", params=["cnn", "vit"])
def trained(request, cache):
    return train_reference(request.param, recipe=SMALL, cache_dir=cache)


def test_it_says_what_it_is(trained):
    report = json.loads((trained.folder / "reference.json").read_text())
    assert report["test_patients"] == 6
    assert report["recipe"]["study"]["patients"] == 24
    assert 0 <= trained.auroc <= 1
    assert report["parameters"] == sum(p.numel() for p in trained.model().module.parameters())


def test_the_model_has_sites_classes_and_contract(trained):
    model = trained.model()
    assert model.class_names == CLASS_NAMES
    assert (model.contract.height, model.contract.width, model.contract.channels) == (96, 96, 3)
    assert model.trained
    assert model.output == "logits"
    wanted = {
        "cnn": {"stages.0": (2304, 16), "stages.2": (144, 64), "stages.3": (36, 96)},
        "vit": {"blocks.0.hook_resid_pre": (145, 96), "blocks.3.hook_resid_post": (145, 96)},
    }
    for name, (tokens, width) in wanted[trained.kind].items():
        site = model.site(name)
        assert (site.tokens, site.width) == (tokens, width)


def test_the_reported_auroc_is_that_of_the_loaded_model_on_patients_never_seen(trained):
    phantoms, model = trained.phantoms(), trained.model()
    test = phantoms.where("test")
    images = [phantoms.images[int(i)] for i in test]
    with torch.no_grad():
        logits = model.logits(model.prepare(images))
    labels = [phantoms.parameters[i].referable for i in test]
    # 8-bit pixels in training, floats here: ranks of so few images agree all the same
    assert roc_auc_score(labels, logits[:, 1] - logits[:, 0]) == pytest.approx(trained.auroc, abs=0.12)
    seen = {phantoms.groups[i] for i in phantoms.where("train")}
    assert not seen & {phantoms.groups[i] for i in test}


def test_a_second_call_takes_it_from_the_cache_and_trains_nothing(trained, cache, monkeypatch):
    monkeypatch.setattr(training, "_trained", None)
    again = train_reference(trained.kind, recipe=SMALL, cache_dir=cache)
    assert again == trained


def test_training_again_gives_the_same_bytes_and_another_seed_others(tmp_path, cache):
    first = train_reference("cnn", recipe=SMALL, cache_dir=cache)
    again = train_reference("cnn", recipe=SMALL, cache_dir=tmp_path)
    assert first.weights.read_bytes() == again.weights.read_bytes()
    assert first.folder.name == again.folder.name
    other = train_reference("cnn", recipe=SMALL, seed=1, cache_dir=tmp_path)
    assert other.folder.name != first.folder.name
    assert other.weights.read_bytes() != first.weights.read_bytes()


def test_training_leaves_the_random_state_and_the_threads_alone(tmp_path):
    torch.manual_seed(5)
    wanted, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    train_reference("cnn", recipe=SMALL, cache_dir=tmp_path)
    assert torch.equal(torch.rand(3), wanted)
    assert torch.get_num_threads() == threads


def test_altered_weights_are_noticed(tmp_path):
    trained = train_reference("cnn", recipe=SMALL, cache_dir=tmp_path)
    trained.weights.write_bytes(trained.weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(DamagedFileError, match="is not what was trained: remove"):
        train_reference("cnn", recipe=SMALL, cache_dir=tmp_path)


def test_users_mistakes_are_named():
    with pytest.raises(ConfigError, match="no reference model 'vitt': did you mean 'vit'"):
        load_reference("vitt")
    with pytest.raises(ConfigError, match="epochs is 0: it must be at least 1"):
        Recipe(epochs=0)
    with pytest.raises(ConfigError, match="learning_rate is -1"):
        Recipe(learning_rate=-1.0)
    with pytest.raises(ConfigError, match="size_px is 64: the reference models take images of 96 pixels"):
        Recipe(study=FundusStudy(size_px=64))
    assert check_kind("cnn") == "cnn"


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MECHINTERP_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MECHINTERP_CACHE")
    assert cache_folder().name == "mechinterp"
    assert cache_folder(tmp_path / "here") == tmp_path / "here"


def test_comments_and_docstrings_do_not_train_anew_but_code_does():
    plain = "def f(x):\n    return x + 1\n"
    worded = '"""Doc."""\n' + plain.replace("    return", '    """Doc."""\n    # why\n    return')
    assert code_without_comments(worded) == code_without_comments(plain)
    assert code_without_comments(plain.replace("+ 1", "+ 2")) != code_without_comments(plain)
    assert len(code_version()) == 64


def test_a_study_with_a_shortcut_comes_back_from_the_report(tmp_path):
    study = dataclasses.replace(SMALL.study, shortcut=PlantedShortcut(mark="ruler_mark", train=0.8, test=0.0))
    trained = train_reference("cnn", recipe=dataclasses.replace(SMALL, study=study), cache_dir=tmp_path)
    assert trained.phantoms().study == study


def test_auroc_equals_scikit_learns_with_ties_and_has_no_answer_for_one_class():
    random = np.random.default_rng(0)
    scored, labels = torch.from_numpy(random.integers(0, 6, 80).astype(np.float32)), random.random(80) < 0.4
    assert fitting.auroc(scored, torch.from_numpy(labels)) == pytest.approx(roc_auc_score(labels, scored))
    assert np.isnan(fitting.auroc(scored, torch.ones(80)))


def test_cells_of_both_networks_lie_where_their_pixels_are():
    """A bright spot in one cell must be seen first by that cell."""
    x = torch.zeros(1, 3, 96, 96)
    spot = x.clone()
    spot[..., 40:48, 64:72] = 3.0
    torch.manual_seed(0)
    stem = reference_vit().eval().patch_embed
    change = (stem(spot) - stem(x)).norm(dim=-1).view(12, 12)
    assert divmod(int(change.argmax()), 12) == (5, 8)
    maps = [reference_cnn().eval().forward_features(v)[2] for v in (spot, x)]
    assert maps[0].shape[-2:] == (12, 12)


def test_the_curriculum_starts_with_clear_images():
    recipe = dataclasses.replace(SMALL, epochs=4, curriculum_epochs=2, batch_size=1)
    data = training_data(recipe.study, SILENT)
    sizes = [len(fitting._batches(recipe, data, e, torch.Generator().manual_seed(0))) for e in range(4)]
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3] == len(data.where("train"))
    first = torch.cat(fitting._batches(recipe, data, 0, torch.Generator().manual_seed(0)))
    assert data.clearness[first].min() >= fitting.CLEAREST_LOG


def test_cells_hold_the_lesions_area():
    data = training_data(SMALL.study, SILENT)
    area = data.phantoms.attributes().column("lesion_area_mm2")
    np.testing.assert_allclose(data.lesions_mm2.sum((1, 2, 3)).numpy(), area, rtol=1e-4, atol=1e-5)
    assert training_data(SMALL.study, SILENT) is data


def test_the_tiny_recipes_are_tiny():
    assert all(r.study.patients * r.study.images_per_patient * r.epochs <= 200 for r in TINY.values())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "least"), [("cnn", 0.97), ("vit", 0.95)])
def test_the_full_recipe_reaches_its_auroc_on_patients_never_seen(kind, least):
    trained = train_reference(kind, recipe=FULL[kind])
    assert trained.report["test_patients"] >= 300
    assert trained.auroc >= least


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_the_reference_models_load_by_spec(kind):
    import importlib

    from mechinterp.models.loading import load_model

    file = importlib.import_module(f"mechinterp.reference.{kind}").__file__
    assert load_model(f"py:{file}:build").weights_hash == load_reference(kind).weights_hash
