import pytest
import torch
from safetensors.torch import save_file

from mechinterp.errors import ModelError, WeightsError
from mechinterp.models import load_model

VIT = "timm:vit_tiny_patch16_224"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Give the hub's client an empty cache of its own, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(repository, file, state):
        snapshot = tmp_path / "hub" / f"models--{repository.replace('/', '--')}" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        refs = snapshot.parents[1] / "refs"
        refs.mkdir()
        (refs / "main").write_text("abc")
        save_file(state, snapshot / file)
        return snapshot / file

    return put


@pytest.fixture(scope="module")
def vit():
    return load_model(VIT, "random")


def test_random_weights_must_be_asked_for_and_are_untrained(vit):
    assert (vit.trained, vit.weights, vit.licence) == (False, "random", None)
    assert vit.contract.mean == (0.5, 0.5, 0.5)
    assert len(vit.class_names) == 1000


def test_missing_weights_fail_at_once_and_say_where_they_belong(hub):
    with pytest.raises(WeightsError) as caught:
        load_model(VIT)
    message = str(caught.value)
    for part in (
        "no weights on this machine",
        "--weights FILE.safetensors",
        "hub/models--timm--vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "--download",
        "--weights random",
    ):
        assert part in message
    assert "\n" not in message


def test_the_seed_decides_random_weights():
    one, same, other = (load_model("timm:resnet10t", "random", seed=s).weights_hash for s in (1, 1, 2))
    assert one == same
    assert one != other


def test_weights_in_the_hubs_cache_are_found_without_network(hub):
    import timm

    trained = timm.create_model("resnet10t")
    repository = timm.get_pretrained_cfg("resnet10t").hf_hub_id
    hub(repository, "model.safetensors", trained.state_dict())
    model = load_model("timm:resnet10t")
    assert model.trained
    assert model.weights == f"hub: {repository}"
    assert model.licence == "apache-2.0"
    assert model.module.fc.weight.equal(trained.fc.weight)


def test_an_architecture_without_published_weights_says_so(hub):
    with pytest.raises(WeightsError, match=r"timm has no weights of that name: give --weights FILE"):
        load_model("timm:vit_base_patch16_18x2_224")


def test_a_fine_tuned_head_and_grey_input_follow_the_weights_file(tmp_path):
    import timm

    tuned = timm.create_model("resnet10t", num_classes=3, in_chans=1)
    save_file({f"model.{k}": v for k, v in tuned.state_dict().items()}, tmp_path / "tuned.safetensors")
    model = load_model("timm:resnet10t", tmp_path / "tuned.safetensors", class_names=["a", "b", "c"])
    assert model.class_names == ("a", "b", "c")
    assert model.contract.channels == 1
    assert len(model.contract.mean) == len(model.contract.std) == 1
    assert model.logits(torch.rand(2, 1, model.contract.height, model.contract.width)).shape == (2, 3)
    assert model.notes[0] == "prefix 'model.' stripped from the names in tuned.safetensors"


def test_an_encoder_without_a_head_is_loaded_without_one(tmp_path):
    import timm

    encoder = timm.create_model("resnet10t", num_classes=0)
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    model = load_model("timm:resnet10t", tmp_path / "encoder.safetensors")
    assert len(model.class_names) == 512


def test_weights_of_another_architecture_are_refused(tmp_path):
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"w\.safetensors' does not fit the model: \d+ missing"):
        load_model("timm:resnet10t", tmp_path / "w.safetensors")


def test_more_class_names_than_outputs_are_refused_for_given_weights(tmp_path):
    import timm

    save_file(timm.create_model("resnet10t", num_classes=3).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"has 3 outputs, but 2 class names are given \(a, b\)"):
        load_model("timm:resnet10t", tmp_path / "w.safetensors", class_names=["a", "b"])


def test_class_names_size_an_untrained_head():
    assert load_model("timm:resnet10t", "random", class_names=["a", "b"]).class_names == ("a", "b")


def test_an_unknown_name_proposes_the_nearest():
    with pytest.raises(
        ModelError, match=r"timm has no model 'vit_tiny_patch16_22', did you mean 'vit_tiny_patch16_224'"
    ):
        load_model("timm:vit_tiny_patch16_22", "random")


def test_an_unknown_set_of_weights_is_named():
    with pytest.raises(
        WeightsError, match=r"timm knows no such weights, did you mean 'vit_tiny_patch16_224\.augreg_in21k'"
    ):
        load_model("timm:vit_tiny_patch16_224.augreg_in22k")


def test_a_convolutional_network_takes_any_size_and_a_vit_is_built_for_it():
    assert load_model("timm:resnet10t", "random", input_size=(64, 96)).site("stages.1").grid.columns == 24
    model = load_model(VIT, "random", input_size=(64, 96))
    grid = model.site("blocks.0.hook_resid_post").grid
    assert (grid.rows, grid.columns, grid.stride) == (4, 6, (16, 16))


def test_a_size_the_architecture_cannot_take_is_refused():
    with pytest.raises(ModelError, match=r"vit_tiny_patch16_224' (cannot be built|fails)"):
        load_model(VIT, "random", input_size=(8, 8))


@pytest.fixture
def folder(tmp_path):
    """Save a model of another shape than its architecture's default as timm saves it for the hub."""
    import timm
    from timm.models import save_for_hf

    options = {
        "num_classes": 0,
        "reg_tokens": 2,
        "init_values": 1e-5,
        "img_size": 48,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
    }
    module = timm.create_model("vit_tiny_patch16_224", **options)
    save_for_hf(module, tmp_path / "encoder", model_args=options, safe_serialization=True)
    return tmp_path / "encoder"


def test_a_folder_as_timm_saves_it_is_an_encoder_with_its_own_options(folder):
    model = load_model(f"timm:{folder}")
    assert (model.trained, model.weights, model.contract.height) == (True, str(folder), 48)
    site = model.site("blocks.1.hook_resid_post")
    assert (site.prefix_tokens, site.grid.cells, site.width) == (3, 9, 24)
    assert model.module.blocks[0].ls1.gamma.shape == (24,)
    assert not load_model(f"timm:{folder}", "random").trained


def test_a_folder_without_weights_or_configuration_says_what_is_missing(folder):
    (folder / "model.safetensors").rename(folder / "elsewhere.safetensors")
    with pytest.raises(WeightsError, match=r"has no weights: put model\.safetensors into '.*encoder'"):
        load_model(f"timm:{folder}")
    assert load_model(f"timm:{folder}", folder / "elsewhere.safetensors").trained
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be built"):
        load_model(f"timm:{folder}")
    with pytest.raises(ModelError, match=f"holds a model of timm: write timm:{folder}"):
        load_model(f"hf:{folder}")
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"there is no config\.json"):
        load_model(f"timm:{folder}", "random")


def test_a_layer_is_named_by_its_class():
    from timm.layers import GluMlp

    model = load_model(
        "timm:vit_tiny_patch16_224?depth=1&mlp_layer=SwiGLUPacked&act_layer=SiLU&input_size=32", "random"
    )
    assert isinstance(model.module.blocks[0].mlp, GluMlp)
    assert not model.module.blocks[0].mlp.gate_last
    assert isinstance(model.module.blocks[0].mlp.act, torch.nn.SiLU)
    with pytest.raises(
        ModelError, match=r"neither timm nor torch has a layer 'SwiGLUPackd', did you mean 'SwiGLUPacked'"
    ):
        load_model("timm:vit_tiny_patch16_224?mlp_layer=SwiGLUPackd", "random")


def test_a_head_in_the_file_is_built_where_the_architecture_comes_without_one(tmp_path):
    import timm

    tuned = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=4)
    save_file(tuned.state_dict(), tmp_path / "w.safetensors")
    assert len(load_model("timm:vit_tiny_patch16_224?depth=1", tmp_path / "w.safetensors").class_names) == 4
    assert (
        len(load_model("timm:vit_small_patch14_reg4_dinov2?depth=1&num_classes=2&input_size=28", "random").class_names)
        == 2
    )


def test_a_size_that_the_spec_states_for_the_architecture_is_not_given_up():
    with pytest.raises(ModelError, match=r"cannot be built: .*unexpected keyword argument 'img_size'"):
        load_model("timm:resnet10t?img_size=64&input_size=64", "random")
