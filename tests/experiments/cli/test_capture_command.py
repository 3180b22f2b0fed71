"""What the capture command makes and refuses: chosen tokens, more images, engines, URLs, and the exit code of what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
from PIL import Image

from experiments.cli import entry
from mechinterp.store.reader import ActivationStore
from mechinterp.store.storage import LocalStorage
from mechinterp.store.writer import StoreWriter

MODEL = f"py:{Path(__file__).with_name('user_net.py')}:build"


def pictures(folder, names):
    folder.mkdir()
    for i, name in enumerate(names):
        grey = np.random.default_rng(i).integers(0, 255, (48, 48), dtype=np.uint8)
        Image.fromarray(grey).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("data") / "scans", [f"scan-{i}" for i in range(20)])


def run(*argv):
    return entry.run([str(a) for a in argv])


def captured(scans, out, *more):
    return run(
        "capture", "--model", MODEL, "--images", scans, "--site", "stages.2", "--batch-size", 8, "--out", out, *more
    )


@pytest.fixture(scope="module")
def finished(scans, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "activations"
    assert captured(scans, out, "--outputs") == 0
    return out


@pytest.fixture
def store(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run" / "activations"))


def refusal(capsys):
    """Return the one line of an error."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mechinterp:")]
    assert len(lines) == 1
    return lines[0]


def test_a_misspelt_site_is_told_before_any_image_is_read(scans, tmp_path, capsys):
    out = tmp_path / "run" / "activations"
    assert run("capture", "--model", MODEL, "--images", scans, "--site", "stage.2", "--out", out) == 2
    said = capsys.readouterr().err
    assert "did you mean 'stages.2'" in said
    assert "reading every image" not in said


def test_what_it_says_and_records(scans, tmp_path, capsys):
    out = tmp_path / "run" / "activations"
    assert captured(scans, out, "--tokens", "foreground", "--threshold", 0.5, "--per-image", 4, "--json") == 0
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    store = ActivationStore.open(out)
    assert said["images"] == 20
    assert said["coverage"]["stages.2"] == store.coverage("stages.2")
    assert "20 images will take at most" in printed.err
    assert "of 20 images" in printed.err
    assert store.rows_of("stages.2").max() <= 4
    stage = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["capture"]
    assert stage["hash"] == store.hash
    assert stage["activations"] == "activations"


def test_more_images_are_appended_and_the_same_ones_are_refused(store, scans, tmp_path, capsys):
    more = pictures(tmp_path / "more", ["late-1", "late-2"])
    assert captured(more, store, "--outputs", "--append") == 0
    assert len(ActivationStore.open(store)) == 22
    assert run("verify", store) == 0
    assert "22 images, all whole" in capsys.readouterr().out
    assert captured(scans, store, "--outputs") == 0  # its images are all there
    assert captured(pictures(tmp_path / "again", ["late-2", "late-3"]), store, "--outputs", "--append") == 2
    assert "holds image 'late-2" in refusal(capsys)


def test_a_flipped_bit_and_a_cut_file_end_with_3_and_verify_with_1(store, capsys):
    path = next(store.rglob("stages.2/*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-5] ^= 16
    path.write_bytes(data)
    train = (
        "train-sae",
        "--activations",
        store,
        "--k",
        2,
        "--expansion",
        2,
        "--epochs",
        1,
        "--out",
        store.parent / "saes",
    )
    assert run(*train) == 3
    assert f"{path} does not match its checksum: it was altered; remove it and run" in refusal(capsys)
    assert run("verify", store, "--json") == 1
    assert len(json.loads(capsys.readouterr().out)["damaged"]) == 1
    path.write_bytes(data[:-9])
    assert run(*train) == 3
    assert f"has {len(data) - 9} bytes instead of {len(data)}: it was cut or altered" in refusal(capsys)
    assert run("verify", store) == 3


def test_two_writers_end_with_2(store, scans, capsys):
    holder = LocalStorage(store)
    holder.lock()
    try:
        assert captured(scans, store, "--outputs") == 2
    finally:
        holder.unlock()
    assert f"another process is writing to {store}: wait for it, or give another --out" in refusal(capsys)
    assert captured(scans, store, "--outputs") == 0


def test_a_disk_too_small_ends_with_3_before_anything_is_captured(tmp_path, scans, capsys, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=0, f_frsize=4096))
    assert captured(scans, tmp_path / "run" / "activations") == 3
    assert "but only 0 MiB are free" in refusal(capsys)
    assert not (tmp_path / "run" / "activations" / "shards").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_that_really_fills_up_ends_with_3_and_goes_on_when_there_is_room(
    tmp_path, scans, finished, capsys, monkeypatch
):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = sum(p.stat().st_size for p in finished.rglob("*") if p.is_file()) // 1024
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size // 2}k", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        monkeypatch.setattr(StoreWriter, "_check_space", lambda self: None)
        assert captured(scans, disk / "run" / "activations", "--outputs") == 3
        assert "no space left while writing" in refusal(capsys)
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        assert captured(scans, disk / "run" / "activations", "--outputs") == 0
        assert ActivationStore.open(disk / "run" / "activations").hash == ActivationStore.open(finished).hash
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_url_is_no_run_but_a_store(scans, finished, capsys):
    url = "memory://capture-command/store"
    try:
        assert captured(scans, url, "--outputs", "--json") == 0
        assert json.loads(capsys.readouterr().out)["store"] == url
        assert ActivationStore.open(url).hash == ActivationStore.open(finished).hash
        assert run("verify", url) == 0
    finally:
        fsspec.filesystem("memory").rm("/capture-command", recursive=True)


def test_flags_of_another_engine_are_refused(scans, tmp_path, capsys):
    assert captured(scans, tmp_path / "run" / "activations", "--workers", 3) == 2
    assert "--address, --workers and --gpus-per-task are of --engine ray" in refusal(capsys)


@pytest.mark.slow
def test_ray_makes_the_bytes_of_one_thread(scans, tmp_path):
    assert captured(scans, tmp_path / "a" / "s", "--engine", "ray", "--workers", 2, "--shard-mib", 1) == 0
    assert captured(scans, tmp_path / "b" / "s", "--threads", 1, "--shard-mib", 1) == 0
    assert ActivationStore.open(tmp_path / "a" / "s").hash == ActivationStore.open(tmp_path / "b" / "s").hash
