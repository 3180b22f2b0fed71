import sys

import pytest
import torch

from mechinterp.errors import MissingDependencyError, ModelError, WeightsError
from mechinterp.models import load_model

nets = pytest.importorskip("monai.networks.nets")
TINY = "block_config=1,1&init_features=8&growth_rate=4"
VIT = "hidden_size=16&num_heads=2&num_layers=1&mlp_dim=16"


def test_what_the_spec_leaves_out_is_the_usual():
    model = load_model(f"monai:DenseNet121?{TINY}&input_size=32,32", "random")
    assert (model.contract.channels, model.contract.size, len(model.class_names)) == (1, (32, 32), 2)
    assert isinstance(model.module.features.conv0, torch.nn.Conv2d)
    volume = load_model(
        f"monai:DenseNet121?{TINY}&input_size=16,32,32&in_channels=2", "random", class_names=["a", "b", "c"]
    )
    assert (volume.contract.channels, volume.contract.size) == (2, (16, 32, 32))
    assert volume.class_names == ("a", "b", "c")
    assert "states no normalisation: pixels are fed from 0 to 1" in volume.notes


def test_a_network_of_volumes_has_grids_of_volumes():
    site = load_model(f"monai:ViT?img_size=16,32,48&patch_size=8&{VIT}", "random").site("blocks.0.hook_resid_post")
    assert (site.grid.shape, site.grid.stride, site.prefix_tokens) == ((2, 4, 6), (8.0, 8.0, 8.0), 0)


def test_a_network_built_by_a_function_may_have_two_axes():
    model = load_model("monai:resnet10?spatial_dims=2&n_input_channels=1&input_size=64", "random")
    assert (model.contract.size, model.contract.channels) == ((64, 64), 1)


def test_nothing_is_fetched_by_a_constructor_that_would():
    model = load_model("monai:EfficientNetBN?model_name=efficientnet-b0&input_size=64,64", "random")
    assert len(model.class_names) == 1000


def test_a_part_is_filled_from_a_checkpoint_of_the_whole(tmp_path):
    whole = nets.UNETR(1, 2, (32, 32, 32), feature_size=4, hidden_size=16, mlp_dim=16, num_heads=2)
    torch.save({"state_dict": {f"module.{k}": v for k, v in whole.state_dict().items()}}, tmp_path / "unetr.pt")
    spec = "monai:UNETR.vit?img_size=32,32,32&feature_size=4&hidden_size=16&mlp_dim=16&num_heads=2"
    model = load_model(spec, tmp_path / "unetr.pt")
    assert model.trained
    x = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        assert model.run(x).equal(whole.eval().vit(x)[0])
    assert model.site("blocks.11.hook_resid_post").grid.shape == (2, 2, 2)


def test_the_number_of_classes_follows_a_file(tmp_path):
    tuned = nets.DenseNet121(
        spatial_dims=2, in_channels=1, out_channels=5, block_config=(1, 1), init_features=8, growth_rate=4
    )
    torch.save(tuned.state_dict(), tmp_path / "w.pt")
    assert len(load_model(f"monai:DenseNet121?{TINY}&input_size=32,32", tmp_path / "w.pt").class_names) == 5


@pytest.mark.parametrize(
    ("spec", "weights", "error", "message"),
    [
        ("monai:DenseNet12", "random", ModelError, "MONAI has no network 'DenseNet12', did you mean 'DenseNet1"),
        ("monai:Linear", "random", ModelError, "MONAI has no network 'Linear'"),
        ("monai:DenseNet121", None, WeightsError, "has no weights of its own: give --weights FILE"),
        (
            f"monai:ViT.blocs?img_size=16,16&patch_size=8&{VIT}",
            "random",
            ModelError,
            "no part 'blocs', did you mean 'blocks'",
        ),
        (
            f"monai:DenseNet121?{TINY}&spatial_dims=2&input_size=8,32,32",
            "random",
            ModelError,
            "takes images: give its size",
        ),
        (
            f"monai:DenseNet121?{TINY}&spatial_dims=3&input_size=32,32",
            "random",
            ModelError,
            "takes volumes: give its size",
        ),
        (
            "monai:ViT?img_size=16,16&depth=3",
            "random",
            ModelError,
            "cannot be built: .*unexpected keyword argument 'depth'",
        ),
        ("monai:FullyConnectedNet?hidden_channels=3,", "random", ModelError, "no convolution that says what it is fed"),
    ],
)
def test_a_users_mistake_is_one_line_that_names_it(spec, weights, error, message):
    with pytest.raises(error, match=message) as caught:
        load_model(spec, weights)
    assert "\n" not in str(caught.value)


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks", None)
    with pytest.raises(MissingDependencyError, match=r"mechinterp-vision\[monai\]"):
        load_model("monai:ViT", "random")
