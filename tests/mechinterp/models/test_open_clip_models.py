import json
import sys

import pytest
import torch
from safetensors.torch import save_file

from mechinterp.errors import MissingDependencyError, ModelError, WeightsError
from mechinterp.models import load_model

open_clip = pytest.importorskip("open_clip")
TINY = "layers=1&width=32&head_width=16&input_size=64"
VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 48}
TEXT = {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 2, "layers": 1}


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def clip():
    torch.manual_seed(0)
    return open_clip.CLIP(embed_dim=8, vision_cfg=dict(VISION), text_cfg=dict(TEXT)).eval()


@pytest.fixture
def folder(tmp_path):
    """Write a folder as open_clip saves it for the hub."""
    config = {
        "model_cfg": {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT},
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "resize_mode": "squash"},
    }
    path = tmp_path / "clip"
    path.mkdir()
    (path / "open_clip_config.json").write_text(json.dumps(config))
    return path


def test_the_image_tower_alone_is_loaded_from_a_checkpoint_of_both(folder):
    whole = clip()
    save_file({k: v.contiguous() for k, v in whole.state_dict().items()}, folder / "open_clip_model.safetensors")
    model = load_model(f"open-clip:{folder}")
    assert model.trained
    assert model.notes[0] == "prefix 'visual.' stripped from the names in open_clip_model.safetensors"
    assert "are no part of the model and were left out" in model.notes[1]
    assert "has no classification head: what it returns are features, not logits" in model.notes
    x = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        assert model.run(x).equal(whole.encode_image(x))
    contract = model.contract
    assert (contract.size, contract.mean, contract.std, contract.resize) == (
        (48, 48),
        (0.1, 0.2, 0.3),
        (0.4, 0.5, 0.6),
        "stretch",
    )


def test_a_name_in_the_hubs_cache_is_its_folder(hub, folder):
    snapshot = hub / "models--some--clip" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (hub / "models--some--clip" / "refs").mkdir()
    (hub / "models--some--clip" / "refs" / "main").write_text("abc")
    (snapshot / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    torch.save(clip().state_dict(), snapshot / "open_clip_pytorch_model.bin")
    assert load_model("open-clip:some/clip").site("blocks.0.hook_resid_post").grid.shape == (3, 3)


def test_a_name_of_open_clips_own_is_built_with_its_options():
    model = load_model(f"open-clip:ViT-B-32?{TINY}&embed_dim=5", "random")
    assert (model.trained, len(model.class_names)) == (False, 5)
    assert model.contract.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert load_model(f"open-clip:ViT-B-32?{TINY}&image_size=96", "random").contract.size == (96, 96)


def test_the_normalisation_is_the_one_all_published_weights_share():
    model = load_model("open-clip:ViT-B-16-SigLIP?timm_model_name=convnext_atto&timm_pool=avg&input_size=64", "random")
    assert (model.contract.mean, model.contract.resize) == ((0.5,) * 3, "stretch")


def test_a_tower_of_timm_is_filled_like_any_other(tmp_path):
    spec = "open-clip:convnext_base?timm_model_name=convnext_atto&input_size=64&embed_dim=8"
    one = load_model(spec, "random", seed=1)
    state = {f"visual.{k}": v for k, v in one.module.state_dict().items()} | {"logit_scale": torch.zeros(1)}
    save_file(state, tmp_path / "w.safetensors")
    two = load_model(spec, tmp_path / "w.safetensors")
    assert two.weights_hash == one.weights_hash
    assert "trunk.stages.3" in two.sites
    del state["visual.trunk.stem.0.weight"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing \(trunk\.stem\.0\.weight\)"):
        load_model(spec, tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("open-clip:ViT-B-33", ModelError, "open_clip has no model 'ViT-B-33', did you mean 'ViT-B-32'"),
        ("open-clip:ViT-B-32", WeightsError, "has no weights: name a folder that holds them, give --weights FILE"),
        ("open-clip:some/model", ModelError, "open_clip has no model 'some/model'"),
        ("open-clip:ViT-B-32?layer=3", ModelError, "cannot be built: .*unexpected keyword argument 'layer'"),
    ],
)
def test_a_users_mistake_is_one_line_that_names_it(spec, error, message):
    with pytest.raises(error, match=message) as caught:
        load_model(spec, "random" if "layer" in spec else None)
    assert "\n" not in str(caught.value)


def test_a_folder_that_lacks_something_says_what(folder):
    with pytest.raises(WeightsError, match=r"put open_clip_model\.safetensors into"):
        load_model(f"open-clip:{folder}")
    for text in ("{", '{"model_cfg": 3}', "[]"):
        (folder / "open_clip_config.json").write_text(text)
        with pytest.raises(ModelError, match="describes no model of open_clip"):
            load_model(f"open-clip:{folder}", "random")
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(ModelError, match=r"there is no open_clip_config\.json"):
        load_model(f"open-clip:{folder}", "random")


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingDependencyError, match=r"mechinterp-vision\[open-clip\]"):
        load_model("open-clip:ViT-B-32", "random")
