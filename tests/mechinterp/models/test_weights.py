import argparse
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mechinterp.errors import WeightsError
from mechinterp.models.weights import first_line, read_state_dict, some


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


@pytest.fixture
def trained():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)).state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_are_read_back_as_they_were_saved(tmp_path, trained, suffix):
    file = tmp_path / f"weights{suffix}"
    save_file(trained, file) if suffix == ".safetensors" else torch.save(trained, file)
    read = read_state_dict(file)
    assert read.keys() == trained.keys()
    assert all(read[k].equal(trained[k]) for k in trained)


@pytest.mark.parametrize("wrap", ["state_dict", "model", "model_state_dict"])
def test_a_checkpoint_of_a_training_script_is_unwrapped(tmp_path, trained, wrap):
    torch.save({"epoch": 7, wrap: trained, "optimizer": {"lr": 0.1}}, tmp_path / "checkpoint.pth")
    assert read_state_dict(tmp_path / "checkpoint.pth").keys() == trained.keys()


def test_two_wrappers_are_unwrapped(tmp_path, trained):
    torch.save({"state_dict": {"model": trained}}, tmp_path / "checkpoint.pth")
    assert read_state_dict(tmp_path / "checkpoint.pth").keys() == trained.keys()


def test_the_options_a_checkpoint_was_trained_with_do_no_harm(tmp_path, trained):
    torch.save({"model": trained, "args": argparse.Namespace(epochs=3, lr=0.1)}, tmp_path / "mae.pth")
    assert read_state_dict(tmp_path / "mae.pth").keys() == trained.keys()


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_python_objects_are_never_unpickled(tmp_path, capsys):
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(
        WeightsError, match=r"evil\.pt' holds Python objects, which are not unpickled.*state_dict alone"
    ):
        read_state_dict(tmp_path / "evil.pt")
    assert capsys.readouterr().out == ""


def test_a_whole_pickled_module_is_refused_with_the_remedy(tmp_path, net):
    torch.save(net, tmp_path / "module.pt")
    with pytest.raises(WeightsError, match="save its state_dict alone"):
        read_state_dict(tmp_path / "module.pt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.safetensors", b"\x40\x00\x00\x00\x00\x00\x00\x00{", "is no readable safetensors file"),
        ("text.safetensors", b"not weights at all, only text", "is no readable safetensors file"),
        ("empty.pt", b"", "is no readable weights file"),
        ("text.pt", b"not weights at all, only text", "holds Python objects|is no readable weights file"),
        ("list.pt", pickle.dumps([1, 2]), "is no readable weights file|holds no state dict|holds Python objects"),
    ],
    ids=["cut safetensors", "text as safetensors", "empty", "text", "a pickled list"],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        read_state_dict(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_tensors_is_named(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(WeightsError, match=r"empty\.pt' holds no state dict"):
        read_state_dict(tmp_path / "empty.pt")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(WeightsError, match="there is no weights file"):
        read_state_dict(tmp_path / "missing.safetensors")
    with pytest.raises(WeightsError, match="is a folder"):
        read_state_dict(tmp_path)


def test_messages_are_cut_to_one_line():
    assert first_line(ValueError("\n\n first \n second")) == "first"
    assert first_line(ValueError()) == "ValueError"
    assert len(first_line(ValueError("x" * 999))) == 200
    assert some(["a", "b"]) == "a, b"
    assert some(["a", "b", "c", "d"]) == "a, b, c, …"
