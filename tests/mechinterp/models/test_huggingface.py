import json
import time

import pytest
import torch
from safetensors.torch import save_file

from mechinterp.errors import ModelError, WeightsError
from mechinterp.models import load_model

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 24,
    "patch_size": 8,
}


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def folder(tmp_path):
    """Write a configuration to a folder."""

    def written(config="ViTConfig", **options):
        import transformers

        path = tmp_path / "model"
        getattr(transformers, config)(**(SMALL | options)).save_pretrained(path)
        return path

    return written


def test_a_folder_with_only_a_configuration_gives_an_untrained_model(folder):
    path = folder(id2label={0: "normal", 1: "tumour"})
    model = load_model(f"hf:{path}", "random", seed=4)
    assert (model.trained, model.weights) == (False, "random")
    assert model.class_names == ("normal", "tumour")
    assert (model.contract.height, model.contract.mean, model.contract.std) == (24, (0.0,) * 3, (1.0,) * 3)
    assert model.logits(torch.rand(2, 3, 24, 24)).shape == (2, 2)
    assert "has no preprocessor_config.json: pixels are fed from 0 to 1, without normalisation" in model.notes
    assert model.weights_hash == load_model(f"hf:{path}", "random", seed=4).weights_hash
    assert model.weights_hash != load_model(f"hf:{path}", "random", seed=5).weights_hash


def test_without_weights_the_folder_says_what_to_put_into_it(folder):
    with pytest.raises(
        WeightsError, match=r"has no weights: put model\.safetensors into '.*/model', give --weights FILE"
    ):
        load_model(f"hf:{folder()}")


def test_a_saved_model_comes_back_with_its_weights(folder):
    from transformers import ViTConfig, ViTForImageClassification

    path = folder()
    saved = ViTForImageClassification(ViTConfig(**SMALL, num_labels=3)).eval()
    saved.save_pretrained(path)
    model = load_model(f"hf:{path}")
    assert model.trained
    assert model.weights == str(path)
    x = torch.rand(2, 3, 24, 24)
    with torch.inference_mode():
        assert model.logits(x).equal(saved(x).logits)
    assert model.class_names == ("class 0", "class 1", "class 2")


def test_a_weights_file_beside_the_configuration_is_loaded(folder, tmp_path):
    path = folder(num_labels=3)
    other = load_model(f"hf:{path}", "random", seed=9)
    save_file(dict(other.module.state_dict()), tmp_path / "w.safetensors")
    model = load_model(f"hf:{path}", tmp_path / "w.safetensors")
    assert (model.trained, model.weights_hash) == (True, other.weights_hash)


def test_weights_without_a_head_are_not_passed_off_as_a_classifier(folder):
    from transformers import ViTConfig, ViTModel

    path = folder()
    ViTModel(ViTConfig(**SMALL), add_pooling_layer=False).save_pretrained(path)
    config = json.loads((path / "config.json").read_text()) | {"architectures": ["ViTForImageClassification"]}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        WeightsError, match=r"its weights leave 2 tensors of ViTForImageClassification untrained \(classifier"
    ):
        load_model(f"hf:{path}")


def test_an_encoder_is_loaded_as_one_and_says_so(folder):
    from transformers import Dinov2Config, Dinov2Model

    path = folder("Dinov2Config")
    Dinov2Model(Dinov2Config(**SMALL)).save_pretrained(path)
    model = load_model(f"hf:{path}")
    assert model.class_names == ()
    assert "has no classification head: what it returns are features, not logits" in model.notes
    assert model.site("blocks.1.hook_resid_post").prefix_tokens == 1


def test_the_image_processor_decides_the_contract(folder):
    path = folder()
    processor = {
        "do_normalize": True,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": 256},
        "do_center_crop": True,
        "crop_size": {"height": 24, "width": 24},
    }
    (path / "preprocessor_config.json").write_text(json.dumps(processor))
    contract = load_model(f"hf:{path}", "random").contract
    assert (contract.mean, contract.std, contract.value_range) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (0.0, 1.0))
    (path / "preprocessor_config.json").write_text(json.dumps(processor | {"do_normalize": False, "do_rescale": False}))
    contract = load_model(f"hf:{path}", "random").contract
    assert (contract.mean, contract.std, contract.value_range) == ((0.0,) * 3, (1.0,) * 3, (0.0, 255.0))


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"size": {"height": 32, "width": 64}}, (32, 64)),
        ({"size": 32}, (32, 32)),
        ({"size": {"shortest_edge": 64}}, (64, 64)),
    ],
)
def test_a_network_of_any_size_takes_the_processors(folder, processor, expected):
    path = folder("ResNetConfig", embedding_size=4, hidden_sizes=[4, 8, 8, 8], depths=[1, 1, 1, 1])
    config = {k: v for k, v in json.loads((path / "config.json").read_text()).items() if k != "image_size"}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="does not say its input size: give input_size="):
        load_model(f"hf:{path}", "random")
    (path / "preprocessor_config.json").write_text(json.dumps(processor))
    contract = load_model(f"hf:{path}", "random").contract
    assert (contract.height, contract.width) == expected


def test_a_rectangular_input_is_taken(folder):
    model = load_model(f"hf:{folder()}", "random", input_size=(16, 40), class_names=["a", "b", "c", "d"])
    grid = model.site("blocks.0.hook_resid_pre").grid
    assert (grid.rows, grid.columns) == (2, 5)
    assert model.class_names == ("a", "b", "c", "d")


def test_a_model_of_images_and_text_keeps_its_size_with_the_images(folder):
    vision = SMALL
    text = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 50,
    }
    path = folder("SiglipConfig", vision_config=vision, text_config=text)
    model = load_model(f"hf:{path}", "random")
    assert (model.contract.height, model.site("blocks.1.hook_attn_out").tokens) == (24, 9)


def test_a_name_that_is_not_here_fails_at_once_without_network():
    start = time.perf_counter()
    with pytest.raises(
        ModelError, match=r"neither a folder nor in the hub's cache \(.*models--some--model\): give the folder"
    ):
        load_model("hf:some/model")
    with pytest.raises(ModelError, match="neither a folder nor in the hub's cache"):
        load_model("hf:no//such name/at all")
    assert time.perf_counter() - start < 2


def test_a_name_in_the_cache_is_loaded_from_there(hub, folder):
    from transformers import ViTConfig, ViTForImageClassification

    snapshot = hub / "models--some--vit" / "snapshots" / "abc"
    (snapshot.parents[1] / "refs").mkdir(parents=True)
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    ViTConfig(**SMALL, num_labels=3).save_pretrained(snapshot)
    with pytest.raises(WeightsError, match="has no weights in the hub's cache"):
        load_model("hf:some/vit")
    assert not load_model("hf:some/vit", "random").trained
    ViTForImageClassification(ViTConfig(**SMALL, num_labels=3)).save_pretrained(snapshot)
    (snapshot / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5], "image_std": [0.25]}))
    model = load_model("hf:some/vit")
    assert (model.trained, model.weights, model.contract.std) == (True, "hub: some/vit", (0.25,) * 3)


def test_the_network_is_asked_only_for_what_is_not_here(hub, monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    from mechinterp.models.huggingface import _fetched
    from mechinterp.models.source import Request

    asked = []

    def fetch(error):
        def download(repository, name):
            asked.append((repository, name))
            if error is not None:
                raise error
            return str(tmp_path / name)

        return download

    request = Request("hf:some/vit", "some/vit", download=True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch(None))
    assert _fetched(request, "preprocessor_config.json") == tmp_path / "preprocessor_config.json"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch(EntryNotFoundError("none")))
    assert _fetched(request, "preprocessor_config.json") is None
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch(LocalEntryNotFoundError("no network")))
    with pytest.raises(ModelError, match=r"hf:some/vit': preprocessor_config\.json cannot be fetched: no network"):
        _fetched(request, "preprocessor_config.json")
    assert asked == [("some/vit", "preprocessor_config.json")] * 3


def test_without_a_network_an_allowed_download_fails_in_one_line():
    with pytest.raises(ModelError, match=r"hf:some/model' has no usable config\.json") as caught:
        load_model("hf:some/model", download=True)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_usable_configuration_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"there is no config\.json in"):
        load_model(f"hf:{tmp_path}", "random")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is not readable JSON"):
        load_model(f"hf:{tmp_path}", "random")
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(ModelError, match=r"has no usable config\.json.*no-such-model"):
        load_model(f"hf:{tmp_path}", "random")


def test_damaged_weights_are_named(folder):
    path = folder()
    (path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be loaded by transformers"):
        load_model(f"hf:{path}")


def test_a_model_that_draws_random_numbers_is_refused(folder):
    path = folder("ViTMAEConfig")
    with pytest.raises(ModelError, match="something in it is random even in evaluation mode"):
        load_model(f"hf:{path}", "random")


TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50}
WRITTEN = "&".join(f"{key}={value}" for key, value in SMALL.items() if key != "intermediate_size")


def test_a_kind_of_model_is_built_without_any_file():
    model = load_model(f"hf:dinov2_with_registers?{WRITTEN}&num_register_tokens=2", "random", class_names=["a", "b"])
    assert (model.trained, model.class_names) == (False, ("a", "b"))
    assert model.site("blocks.1.hook_resid_post").prefix_tokens == 3
    with pytest.raises(WeightsError, match="names a kind of model, without weights: give --weights FILE"):
        load_model("hf:dinov2")
    with pytest.raises(ModelError, match=r"of the kinds of models, did you mean 'vit'"):
        load_model("hf:vitt")


def test_what_follows_from_an_option_is_worked_out():
    model = load_model("hf:swin?embed_dim=12&depths=1,1&num_heads=1,2&window_size=4&input_size=32", "random")
    assert model.site("stages.1").width == 24


def test_an_option_that_a_configuration_does_not_have_is_named(folder):
    with pytest.raises(ModelError, match=r"its configuration has no 'hiden_size', did you mean 'hidden_size'"):
        load_model("hf:vit?hiden_size=3", "random")
    with pytest.raises(ModelError, match=r"has no usable config\.json: .*hidden_size"):
        load_model("hf:vit?hidden_size=wide", "random")
    path = folder()
    assert "blocks.2.hook_resid_pre" in load_model(f"hf:{path}?num_hidden_layers=3", "random").sites
    with pytest.raises(ModelError, match=r"its configuration has no 'depth'"):
        load_model(f"hf:{path}?depth=3", "random")


def test_a_kind_that_wants_both_sides_of_a_square_is_given_them():
    from transformers import HieraConfig

    from mechinterp.models.huggingface import _resize

    config = HieraConfig()
    _resize(config, (96, 96))
    assert list(config.image_size) == [96, 96]


@pytest.mark.parametrize("name", ["CLIP", "Siglip"])
def test_a_model_of_images_and_text_is_loaded_as_its_tower_of_images(tmp_path, name):
    import transformers

    config = getattr(transformers, f"{name}Config")(vision_config=SMALL, text_config=TEXT, projection_dim=8)
    torch.manual_seed(0)
    whole = getattr(transformers, f"{name}Model")(config).eval()
    whole.save_pretrained(tmp_path / "clip")
    model = load_model(f"hf:{tmp_path / 'clip'}")
    assert type(model.module).__name__ == f"{name}VisionModel"
    x = torch.rand(2, 3, 24, 24)
    with torch.no_grad():
        assert model.run(x).equal(whole.vision_model(x).last_hidden_state)
    assert "has no classification head: what it returns are features, not logits" in model.notes


def test_a_class_may_be_named(folder):
    path = folder("DeiTConfig")
    teacher = load_model(f"hf:{path}?class=DeiTForImageClassificationWithTeacher", "random")
    assert type(teacher.module).__name__ == "DeiTForImageClassificationWithTeacher"
    encoder = load_model(f"hf:{path}?class=transformers.models.deit.modeling_deit.DeiTModel", "random")
    assert encoder.class_names == ()
    with pytest.raises(ModelError, match=r"there is no class 'DeiTModl', did you mean 'DeiTModel'"):
        load_model(f"hf:{path}?class=DeiTModl", "random")
    with pytest.raises(ModelError, match=r"'collections\.OrderedDict' is no model of transformers"):
        load_model(f"hf:{path}?class=collections.OrderedDict", "random")


def test_a_fine_tuned_head_follows_the_weights_file(folder, tmp_path):
    path = folder(num_labels=2)
    tuned = load_model(f"hf:{path}?num_labels=5", "random", seed=3)
    save_file({f"module.{k}": v for k, v in tuned.module.state_dict().items()}, tmp_path / "w.safetensors")
    model = load_model(f"hf:{path}", tmp_path / "w.safetensors")
    assert (len(model.class_names), model.weights_hash) == (5, tuned.weights_hash)


def test_several_findings_in_one_image_stand_alone(folder):
    model = load_model(f"hf:{folder(problem_type='multi_label_classification')}", "random")
    assert model.activation == "sigmoid"
