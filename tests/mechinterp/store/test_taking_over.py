"""A store that is there is taken over only if the same images and the same code would give it."""

from __future__ import annotations

import pytest
import torch
from tiny_capture import config, tiny_capture, tiny_images, tiny_model, tree

from mechinterp.capturing import capture
from mechinterp.errors import ConfigError
from mechinterp.images.image_set import ImageSet
from mechinterp.store import taking_over


def with_pixels(images, change):
    """Return the same names, labels and splits with other pixels."""
    return ImageSet(**{**vars(images), "read": lambda i: change(i, images.read(i))})


@pytest.fixture
def store(tmp_path):
    tiny_capture(tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize("replaced", [0, 20, 36])
def test_one_image_replaced_under_its_name_is_found(store, replaced):
    before = tree(store)
    images = with_pixels(tiny_images(), lambda i, pixels: pixels * 0.5 if i == replaced else pixels)
    with pytest.raises(ConfigError, match=r"other pixels under the same names \(images 'image-\d+' to .*another --out"):
        capture(tiny_model(), images, out=store, config=config())
    assert tree(store) == before


def test_replaced_pixels_are_found_before_an_interrupted_capture_goes_on(store):
    (store / "shards" / "00002.json").unlink()
    images = with_pixels(tiny_images(), lambda _, pixels: 1 - pixels)
    with pytest.raises(ConfigError, match="other pixels"):
        capture(tiny_model(), images, out=store, config=config())


def test_images_of_a_shard_that_is_made_again_may_have_changed(store):
    (store / "shards" / "00002.json").unlink()
    images = with_pixels(tiny_images(), lambda i, pixels: 1 - pixels if i >= 30 else pixels)
    capture(tiny_model(), images, out=store, config=config())


def test_code_changed_under_the_same_weights_is_found(store):
    model = tiny_model()
    plain = model.module.forward
    model.module.forward = lambda x: plain(x.flip(-1))
    assert model.weights_hash == tiny_model().weights_hash
    with pytest.raises(
        ConfigError, match=r"other activations at 'net/block 1/Conv'.*\d+% apart.*its code or a package"
    ):
        capture(model, tiny_images(), out=store, config=config())


def test_rounding_of_another_machine_is_no_change_of_code(store):
    before = tree(store)
    model = tiny_model()
    plain = model.module.conv.forward
    model.module.conv.forward = lambda x: plain(x) * (1 + 1e-4)
    capture(model, tiny_images(), out=store, config=config())
    assert tree(store) == before


def test_a_damaged_file_is_left_to_the_reader_to_name(store):
    file = next((store / "sites" / "head").glob("00000.safetensors"))
    data = bytearray(file.read_bytes())
    data[-2] ^= 0x40
    file.write_bytes(data)
    capture(tiny_model(), tiny_images(), out=store, config=config())


@pytest.mark.parametrize("tokens", ["foreground", "patches"])
def test_a_choice_of_tokens_is_compared_row_by_row(tmp_path, tokens):
    settings = config(sites=("tokens",), tokens=tokens, threshold=0.5 if tokens == "foreground" else 0.0)
    for _ in range(2):
        capture(tiny_model(), tiny_images(), out=tmp_path / "store", config=settings)


def test_of_many_images_shards_spread_over_them_are_read(store, monkeypatch):
    monkeypatch.setattr(taking_over, "MOST_IMAGES", 30)
    read = []
    images = with_pixels(tiny_images(), lambda i, pixels: read.append(i) or pixels)
    capture(tiny_model(), images, out=store, config=config())
    assert set(read) == set(range(15)) | set(range(30, 37))


def test_activations_that_are_all_zero_agree_with_themselves(tmp_path):
    model = tiny_model(scale=0.0)
    with torch.no_grad():
        model.module.conv.bias.zero_()
    for _ in range(2):
        capture(model, tiny_images(), out=tmp_path / "store", config=config(sites=("net/block 1/Conv",)))
