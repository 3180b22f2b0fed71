"""A store behind a URL has the bytes of one in a folder, and is written in the same order."""

from __future__ import annotations

import hashlib
import sys

import fsspec
import pytest
import torch
from tiny_capture import config, tiny_capture, tiny_images, tiny_model, tree

from mechinterp.capturing import capture
from mechinterp.errors import ConfigError, DamagedFileError, DiskError, MissingDependencyError
from mechinterp.store.reader import ActivationStore
from mechinterp.store.storage import LocalStorage, RemoteStorage, storage_at


@pytest.fixture
def url(request):
    place = f"memory://{request.node.name}/store"
    yield place
    files, root = fsspec.url_to_fs(place)
    if files.exists(root):
        files.rm(root, recursive=True)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return tiny_capture(tmp_path_factory.mktemp("local") / "store")


def remote_tree(url):
    files, root = fsspec.url_to_fs(url)
    return {p[len(root) :].lstrip("/"): hashlib.sha256(files.cat_file(p)).hexdigest() for p in files.find(root)}


def without_lock(folder):
    return {name: digest for name, digest in tree(folder).items() if name != ".lock"}


def check_remote(url, local):
    store = capture(tiny_model(), tiny_images(), out=url, config=config())
    assert remote_tree(url) == without_lock(local.folder)
    assert torch.equal(store.read("tokens"), local.read("tokens"))
    assert torch.equal(store.logits(), local.logits())
    ours, theirs = store.batches("tokens", 64, seed=1), local.batches("tokens", 64, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert store.verify() == []
    files, root = fsspec.url_to_fs(url)
    files.rm_file(f"{root}/shards/00001.json")  # interrupted there
    files.rm_file(f"{root}/manifest.json")
    with pytest.raises(ConfigError, match="holds an interrupted capture"):
        ActivationStore.open(url)
    capture(tiny_model(), tiny_images(), out=url, config=config())
    assert remote_tree(url) == without_lock(local.folder)
    capture(tiny_model(), tiny_images(), out=url, config=config())  # nothing to do
    with pytest.raises(ConfigError, match="holds a capture with another dtype"):
        capture(tiny_model(), tiny_images(), out=url, config=config(dtype="float16"))
    path = f"{root}/sites/head/00001.safetensors"
    data = bytearray(files.cat_file(path))
    files.pipe_file(path, bytes(data[:-1]))
    with pytest.raises(DamagedFileError, match=rf"head/00001\.safetensors has {len(data) - 1} bytes instead of"):
        ActivationStore.open(url)
    data[-1] ^= 1
    files.pipe_file(path, bytes(data))
    assert [url in line for line in ActivationStore.open(url).verify()] == [True]
    files.rm_file(path)
    with pytest.raises(DamagedFileError, match=r"00001\.safetensors is missing"):
        ActivationStore.open(url)


def test_a_store_in_memory_is_that_of_a_folder(url, local):
    check_remote(url, local)


@pytest.mark.slow
def test_a_store_on_s3_is_that_of_a_folder(local, monkeypatch):
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        files.mkdir("scans")
        check_remote("s3://scans/a/store", local)
    finally:
        server.stop()


def test_what_was_read_is_kept_in_memory_as_long_as_it_fits(url, local, monkeypatch):
    capture(tiny_model(), tiny_images(), out=url, config=config())
    read, plain = [], RemoteStorage.read
    monkeypatch.setattr(RemoteStorage, "read", lambda self, name: read.append(name) or plain(self, name))

    def epochs(cache_mib):
        store = ActivationStore.open(url, cache_mib=cache_mib)
        read.clear()
        for epoch in range(3):
            assert torch.equal(
                torch.cat(list(store.batches("tokens", 64, seed=0, epoch=epoch))),
                torch.cat(list(local.batches("tokens", 64, seed=0, epoch=epoch))),
            )
        return len(read)

    assert epochs(64) == 3  # each of the three shards once
    assert epochs(0) == 9
    assert epochs(2) in range(4, 10)  # two of the three fit


def test_a_folder_of_other_files_and_a_put_that_fails_are_named(url, monkeypatch):
    files, root = fsspec.url_to_fs(url)
    files.pipe_file(f"{root}/thesis.docx", b"years of work")
    with pytest.raises(ConfigError, match=r"holds other files \(thesis\.docx, …\)"):
        capture(tiny_model(), tiny_images(), out=url, config=config())
    files.rm_file(f"{root}/thesis.docx")

    def refuse(*_, **__):
        raise PermissionError("access denied")

    monkeypatch.setattr(type(files), "pipe_file", refuse)
    with pytest.raises(DiskError, match=rf"cannot write {url}/plan\.json: access denied") as caught:
        capture(tiny_model(), tiny_images(), out=url, config=config())
    assert caught.value.exit_code == 3


def test_what_is_abandoned_was_never_there(url):
    storage = storage_at(url)
    sink = storage.create("a.bin")
    sink.write(b"one")
    sink.abandon()
    assert storage.size("a.bin") is None
    sink = storage.create("a.bin")
    sink.write(b"two")
    sink.commit()
    assert bytes(storage.read("a.bin")) == b"two"
    assert storage.sizes(["a.bin", "b.bin"]) == {"a.bin": 3, "b.bin": None}
    assert storage.free_bytes() is None
    storage.remove("a.bin")
    storage.remove("a.bin")
    assert storage.top() == set()


def test_a_place_that_cannot_be_reached_is_named(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="'nowhere://x' is no place for a store"):
        storage_at("nowhere://x")
    assert isinstance(storage_at(tmp_path), LocalStorage)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    # where another test has used it, fsspec remembers the class
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mechinterp-vision\[s3\]'"):
        storage_at("s3://bucket/store")


def test_an_empty_file_is_read_as_one(tmp_path):
    storage = LocalStorage(tmp_path)
    storage.write("a", b"")
    assert bytes(storage.read("a")) == b""
    with pytest.raises(FileNotFoundError):
        storage.read("b")
