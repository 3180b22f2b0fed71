"""A file is whole or it is not there, whatever happens while it is written."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import save_file

from mechinterp import files
from mechinterp.errors import DamagedFileError, DiskError
from mechinterp.files import (
    is_temporary,
    jsonable,
    read_json,
    read_sealed_json,
    remove_temporaries,
    sha256_bytes,
    sha256_file,
    sha256_json,
    write_atomically,
    write_bytes,
    write_json,
    write_sealed_json,
)


def left_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_what_is_written_is_there_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "folders" / "a.bin"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert left_in(tmp_path) == ["new/folders/a.bin"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_while_writing_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.bin"
    write_bytes(path, b"before")

    def fail(temporary):
        temporary.write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, fail)
    assert path.read_bytes() == b"before"
    assert left_in(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no space left while writing .*a.bin: free some and run the same command again"),
        (errno.EDQUOT, "no space left while writing"),
        (errno.EACCES, "cannot write .*a.bin: Permission denied"),
        (errno.EIO, "cannot write .*a.bin: Input/output error"),
    ],
)
@pytest.mark.parametrize("at", ["write", "fsync", "replace"])
def test_what_the_disk_refuses_is_named_and_what_was_there_stays(tmp_path, monkeypatch, number, message, at):
    path = tmp_path / "a.bin"
    write_bytes(path, b"before")

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    if at == "fsync":
        monkeypatch.setattr(os, "fsync", refuse)
    elif at == "replace":
        monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(DiskError, match=message) as caught:
        write_atomically(path, refuse if at == "write" else lambda temporary: temporary.write_bytes(b"after"))
    assert caught.value.exit_code == 3
    assert path.read_bytes() == b"before"
    assert left_in(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("I/O error: No space left on device (os error 28)", "no space left while writing .*a.bin: free some"),
        ("I/O error: Input/output error (os error 5)", "cannot write .*a.bin: Input/output error"),
    ],
)
def test_what_safetensors_says_of_the_disk_is_named_too(tmp_path, said, message):
    path = tmp_path / "a.bin"
    write_bytes(path, b"before")

    def refuse(_temporary):
        raise SafetensorError(f"Error while serializing: {said}")

    with pytest.raises(DiskError, match=message):
        write_atomically(path, refuse)
    assert path.read_bytes() == b"before"
    assert left_in(tmp_path) == ["a.bin"]


def test_what_safetensors_refuses_for_another_reason_is_no_fault_of_the_disk(tmp_path):
    def refuse(_temporary):
        raise SafetensorError("Error while serializing: invalid shape")

    with pytest.raises(SafetensorError, match="invalid shape"):
        write_atomically(tmp_path / "a.bin", refuse)


def test_tensors_above_the_largest_file_are_refused_in_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(DiskError, match=r"cannot write .*a\.safetensors: File too large"):
            write_atomically(path, lambda temporary: save_file({"a": np.zeros(10_000)}, temporary))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left_in(tmp_path) == []


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DiskError, match=r"cannot write .*file/a\.bin"):
        write_bytes(tmp_path / "file" / "a.bin", b"x")


def test_killed_while_writing_it_leaves_the_old_file_and_a_temporary_one_that_can_be_removed(tmp_path):
    path = tmp_path / "deep" / "a.bin"
    write_bytes(path, b"before")
    script = (
        "import os, signal, sys, pathlib; from mechinterp.files import write_atomically\n"
        "def die(t): t.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(pathlib.Path(sys.argv[1]), die)"
    )
    assert subprocess.run([sys.executable, "-c", script, path], check=False).returncode == -9
    assert path.read_bytes() == b"before"
    assert len(left_in(tmp_path)) == 2
    (tmp_path / ".mine.tmp").write_text("no temporary file of ours")
    remove_temporaries(tmp_path)
    assert left_in(tmp_path) == [".mine.tmp", "deep/a.bin"]


@pytest.mark.parametrize(
    ("name", "ours"),
    [(".a.bin.0123abcd.tmp", True), (".a.bin.123.tmp", False), ("a.bin.0123abcd.tmp", False), (".0123abcd.tmp", False)],
)
def test_only_names_of_ours_are_temporary(name, ours):
    assert is_temporary(Path("folder") / name) is ours


def test_threads_that_write_one_file_at_once_leave_one_of_their_contents(tmp_path):
    path = tmp_path / "a.bin"
    threads = [threading.Thread(target=write_bytes, args=(path, bytes([i]) * 10_000)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(path.read_bytes())) == 1
    assert left_in(tmp_path) == ["a.bin"]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: done.append("fsync") or fsync(fd))
    monkeypatch.setattr(Path, "replace", lambda self, to: done.append("replace") or replace(self, to))
    write_bytes(tmp_path / "a.bin", b"x")
    assert done == ["fsync", "replace", "fsync"]  # the file, the name, the folder that holds the name


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(value=values)
@settings(deadline=None)
def test_json_is_the_same_after_the_disk_and_so_is_its_hash(value):
    assert json.loads(json.dumps(jsonable(value))) == value
    assert sha256_json(json.loads(json.dumps(jsonable(value)))) == sha256_json(value)


def test_numbers_of_every_library_become_json():
    given = {
        1: np.float32(0.5), "a": np.arange(2), "b": torch.tensor([1.5, math.nan]), "c": (np.int64(3), np.bool_(True)),
        "d": math.inf, "e": Path("x") / "y", "f": np.array([-math.inf]), "g": None, "h": "ü",
    }  # fmt: skip
    assert jsonable(given) == {
        "1": 0.5, "a": [0, 1], "b": [1.5, None], "c": [3, True], "d": None, "e": "x/y", "f": [None], "g": None, "h": "ü"
    }  # fmt: skip


def test_json_is_written_sorted_readable_and_without_nan(tmp_path):
    write_json(tmp_path / "a.json", {"b": math.nan, "a": "größe"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "a": "größe",\n "b": null\n}\n'
    assert read_json(tmp_path / "a.json") == {"a": "größe", "b": None}


@pytest.mark.parametrize("data", [b'{"a": 1', b"", b"\xff\xfe\x00", b"PAR1"])
def test_what_is_no_json_is_named(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(DamagedFileError, match=r"a\.json is not readable JSON .*: it was cut short or altered"):
        read_json(tmp_path / "a.json")


def test_a_missing_file_is_for_the_caller_to_explain(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a.json")


@given(content=st.dictionaries(st.text().filter(lambda k: k != "sha256"), values, max_size=4))
@settings(deadline=None)
def test_what_is_sealed_is_read_back(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "sealed.json"
    write_sealed_json(path, content)
    assert read_sealed_json(path) == content


@pytest.mark.parametrize("old_new", [("0.25", "0.26"), ("[\n  1", "[\n  2"), ('"name"', '"nome"')])
def test_an_altered_seal_is_broken(tmp_path, old_new):
    path = tmp_path / "s.json"
    write_sealed_json(path, {"name": "x", "mean": 0.25, "shards": [1, 2]})
    assert old_new[0] in path.read_text()
    path.write_text(path.read_text().replace(*old_new))
    with pytest.raises(DamagedFileError, match=r"s\.json does not match its checksum: it was altered"):
        read_sealed_json(path)


@pytest.mark.parametrize("value", [[1], {"a": 1}, 3])
def test_what_was_never_sealed_is_not_believed(tmp_path, value):
    write_json(tmp_path / "s.json", value)
    with pytest.raises(DamagedFileError, match="carries no checksum of its content"):
        read_sealed_json(tmp_path / "s.json")


def test_hashes_are_sha_256(tmp_path):
    data = bytes(range(256)) * 5000
    write_bytes(tmp_path / "a", data)
    assert sha256_file(tmp_path / "a") == sha256_bytes(data) == hashlib.sha256(data).hexdigest()
    assert sha256_json({"b": 1, "a": (2, 3)}) == hashlib.sha256(b'{"a":[2,3],"b":1}').hexdigest()
    assert files.TEMPORARY == ".tmp"
