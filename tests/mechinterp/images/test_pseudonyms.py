"""Names by a secret key: the same for the same key, useless without it."""

import hashlib
import hmac
from pathlib import Path

import pytest

from mechinterp.errors import ConfigError
from mechinterp.images.pseudonyms import Pseudonyms, pseudonyms

KEY = bytes(range(32))


def test_a_name_is_a_keyed_hash():
    expected = hmac.new(KEY, b"patient\x00MRN-1", hashlib.sha256).hexdigest()[:16]
    assert Pseudonyms(KEY)("patient", "MRN-1") == expected
    assert Pseudonyms(KEY[::-1])("patient", "MRN-1") != expected
    assert Pseudonyms(KEY)("ab", "c") != Pseudonyms(KEY)("a", "bc")
    assert str(KEY) not in repr(Pseudonyms(KEY))


def test_the_key_is_made_once_for_the_user_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("MECHINTERP_KEY_FILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    first = pseudonyms()("x")
    path = tmp_path / "mechinterp" / "pseudonyms.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(path.read_text())) == 32
    assert pseudonyms()("x") == first
    assert pseudonyms(path)("x") == first
    assert [p.name for p in path.parent.iterdir()] == ["pseudonyms.key"]
    monkeypatch.setenv("MECHINTERP_KEY_FILE", str(tmp_path / "other"))
    assert pseudonyms()("x") != first


def test_a_random_key_is_another_every_time_and_written_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHINTERP_KEY_FILE", str(tmp_path / "key"))
    assert pseudonyms("random")("x") != pseudonyms("random")("x")
    assert not list(tmp_path.iterdir())


def test_without_a_home_there_is_none_by_chance(tmp_path, monkeypatch):
    monkeypatch.delenv("MECHINTERP_KEY_FILE", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    pseudonyms()
    assert (tmp_path / ".config" / "mechinterp" / "pseudonyms.key").exists()


@pytest.mark.parametrize("content", ["", "no hex", "abcd"])
def test_a_file_that_is_no_key_is_named(tmp_path, content):
    (tmp_path / "key").write_text(content)
    with pytest.raises(ConfigError, match=r"key file .*key holds no key of at least 32 hex digits: give --key FILE"):
        pseudonyms(tmp_path / "key")


def test_a_place_where_no_key_can_stand_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"key file .* cannot be used .*: give --key FILE, set MECHINTERP_KEY_FILE, or"
    ):
        pseudonyms(tmp_path / "file" / "key")
