import pytest
import torch
from safetensors.torch import save_file

from mechinterp.errors import ModelError, WeightsError
from mechinterp.models import load_model

SMALL = "torchvision:squeezenet1_1"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Give torch's hub an empty cache of its own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_random_weights_are_untrained_and_the_contract_is_torchvisions_preset():
    model = load_model(f"{SMALL}?input_size=64,96", "random")
    assert (model.trained, model.weights) == (False, "random")
    contract = model.contract
    assert (contract.size, contract.mean, contract.std) == ((64, 96), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (contract.resize, contract.crop_fraction) == ("crop", 0.875)
    assert load_model(SMALL, "random", class_names=["a", "b"]).class_names == ("a", "b")


def test_published_weights_are_found_in_the_cache_with_their_classes(cache):
    from torchvision.models import squeezenet1_1

    trained = squeezenet1_1(weights=None)
    torch.save(trained.state_dict(), cache / "squeezenet1_1-b8a52dc0.pth")
    model = load_model(SMALL)
    assert (model.trained, model.weights) == (True, "torchvision: SqueezeNet1_1_Weights.IMAGENET1K_V1")
    assert model.class_names[0] == "tench"
    assert len(set(model.class_names)) == 1000  # ImageNet has two cranes and two maillots
    assert model.module.state_dict()["classifier.1.weight"].equal(trained.classifier[1].weight)


def test_missing_weights_fail_at_once_and_say_where_they_belong(cache):
    with pytest.raises(WeightsError) as caught:
        load_model("torchvision:resnet18")
    message = str(caught.value)
    for part in ("no weights on this machine", "resnet18-f37072fd.pth", str(cache), "--download", "--weights random"):
        assert part in message


def test_a_tag_chooses_among_the_published_weights(cache):
    with pytest.raises(WeightsError, match=r"resnet50-0676ba61\.pth"):
        load_model("torchvision:resnet50.IMAGENET1K_V1")
    with pytest.raises(WeightsError, match=r"knows no such weights of resnet50, did you mean 'IMAGENET1K_V"):
        load_model("torchvision:resnet50.IMAGENET1K_V3")


def test_a_fine_tuned_head_follows_the_file(tmp_path):
    from torchvision.models import squeezenet1_1

    tuned = squeezenet1_1(weights=None, num_classes=3)
    save_file({f"module.{k}": v for k, v in tuned.state_dict().items()}, tmp_path / "w.safetensors")
    model = load_model(f"{SMALL}?input_size=64", tmp_path / "w.safetensors", class_names=["a", "b", "c"])
    assert model.class_names == ("a", "b", "c")
    assert model.notes[0] == "prefix 'module.' stripped from the names in w.safetensors"
    with pytest.raises(WeightsError, match=r"2 of another shape \(classifier\.1\.weight \(3, 512, 1, 1\) for \(4, 512"):
        load_model(f"{SMALL}?num_classes=4&input_size=64", tmp_path / "w.safetensors")


def test_a_densenet_with_the_names_of_torchvisions_first_version_is_read(tmp_path):
    from torchvision.models import DenseNet

    net = DenseNet(block_config=(1, 1), num_classes=2)
    renamed = {k.replace("norm1", "norm.1").replace("conv2", "conv.2"): v for k, v in net.state_dict().items()}
    assert any("denselayer1.norm.1.weight" in k for k in renamed)
    torch.save(renamed, tmp_path / "densenet.pth")
    from mechinterp.models.torchvision_models import _read

    assert _read(tmp_path / "densenet.pth").keys() == net.state_dict().keys()


def test_an_inception_rescales_its_input_only_with_the_published_weights(cache):
    from torchvision.models import googlenet

    torch.save(googlenet(weights=None, init_weights=False).state_dict(), cache / "googlenet-1378be20.pth")
    assert load_model("torchvision:googlenet?input_size=64").module.transform_input
    assert not load_model("torchvision:googlenet?input_size=64", "random").module.transform_input


def test_a_network_of_videos_takes_volumes_and_says_so():
    with pytest.raises(ModelError, match="takes volumes: give its size as DEPTH,HEIGHT,WIDTH"):
        load_model("torchvision:r3d_18?input_size=64,64", "random")
    with pytest.raises(ModelError, match="takes images: give its size as HEIGHT,WIDTH"):
        load_model(f"{SMALL}?input_size=8,64,64", "random")


def test_an_unknown_name_or_argument_is_named():
    with pytest.raises(ModelError, match=r"torchvision has no classifier 'resnet19', did you mean 'resnet18'"):
        load_model("torchvision:resnet19", "random")
    with pytest.raises(ModelError, match=r"cannot be built: .*unexpected keyword argument 'depth'"):
        load_model(f"{SMALL}?depth=3", "random")


def test_what_is_fetched_is_fetched_only_if_it_was_allowed(cache, monkeypatch):
    from torchvision.models import SqueezeNet1_1_Weights

    asked = []
    monkeypatch.setattr(SqueezeNet1_1_Weights, "get_state_dict", lambda self, **options: asked.append(options))
    with pytest.raises(WeightsError, match="there is no weights file"):  # nothing came
        load_model(SMALL, download=True)
    assert asked == [{"progress": False, "check_hash": True, "weights_only": True}]
