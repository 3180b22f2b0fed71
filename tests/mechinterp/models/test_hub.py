from pathlib import Path

import pytest
from huggingface_hub import constants

from mechinterp.models.hub import cache_folder, cached_file, network


@pytest.mark.parametrize(
    ("before", "allowed", "inside"),
    [(False, False, True), (False, True, False), (True, False, True), (True, True, True)],
)
def test_the_network_is_shut_unless_it_is_allowed_and_never_opened_against_the_user(
    monkeypatch, before, allowed, inside
):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", before)
    with network(allowed=allowed):
        assert constants.HF_HUB_OFFLINE is inside
    assert constants.HF_HUB_OFFLINE is before


def fail_inside():
    with network(allowed=False):
        raise RuntimeError("oops")


def test_the_network_is_as_before_after_an_error(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(RuntimeError, match="oops"):
        fail_inside()
    assert constants.HF_HUB_OFFLINE is False


def test_the_cache_is_named_without_the_users_home(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(Path.home() / "cache" / "hub"))
    assert cache_folder("a/b") == "~/cache/hub/models--a--b"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/elsewhere")
    assert cache_folder("a/b") == "/elsewhere/models--a--b"


def test_what_is_not_cached_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert cached_file("a/b", "model.safetensors") is None
    assert cached_file("not a//valid name", "model.safetensors") is None
