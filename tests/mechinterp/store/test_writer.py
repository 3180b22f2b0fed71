"""A store is whole or it is none: killed, filled up, tampered with or written twice, it says so or mends itself."""

from __future__ import annotations

import errno
import gc
import json
import os
import pickle
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_capture import GRID, SITES, config, tiny_capture, tiny_images, tiny_model, tree

from mechinterp import files as files_module
from mechinterp.capturing import CaptureConfig, capture, run_with_cache
from mechinterp.errors import ConfigError, DamagedFileError, DiskError, MechinterpError, ModelError, SiteError
from mechinterp.files import WholeFile, sha256_file
from mechinterp.images.image_set import ImageSet
from mechinterp.images.preparation import Preparation
from mechinterp.store import storage as storage_module
from mechinterp.store.manifest import StoreManifest, site_folder
from mechinterp.store.reader import ActivationStore
from mechinterp.store.shard import CapturedBatch
from mechinterp.store.writer import StoreWriter

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    tiny_capture(folder)
    return folder


@pytest.fixture
def copy(undisturbed, tmp_path):
    folder = tmp_path / "store"
    subprocess.run(["cp", "-r", undisturbed, folder], check=True)
    return folder


def refused(error, message, folder, **settings):
    with pytest.raises(error, match=message) as caught:
        tiny_capture(folder, **settings)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("how_many", ["some", pytest.param("all", marks=pytest.mark.slow)])
def test_killed_at_any_moment_and_resumed_it_has_the_bytes_of_an_undisturbed_run(tmp_path, how_many):
    script = subprocess.run(
        [sys.executable, HERE / "tiny_capture.py", tmp_path, "0", how_many], capture_output=True, text=True, check=False
    )
    assert script.returncode == 0, script.stderr
    expected = tree(tmp_path / "undisturbed")
    assert len(expected) == 4 + 3 * (
        3 * 2 + 2
    )  # plan, list, manifest, lock; a shard: 3 tensors and indices, logits, receipt
    for folder in tmp_path.iterdir():
        assert tree(folder) == expected, folder.name


def test_two_runs_into_two_folders_have_the_same_bytes(undisturbed, tmp_path):
    tiny_capture(tmp_path / "another" / "place")
    assert tree(tmp_path / "another" / "place") == tree(undisturbed)


def test_a_finished_store_is_left_as_it_is(copy):
    before = tree(copy)
    stamps = {p: p.stat().st_mtime_ns for p in copy.rglob("*.safetensors")}
    tiny_capture(copy)
    assert tree(copy) == before
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("*.safetensors")} == stamps


def test_the_number_of_threads_of_a_resumed_capture_is_the_plans(copy, undisturbed):
    (copy / "shards" / "00001.json").unlink()
    before = torch.get_num_threads()
    seen = []
    images = tiny_images()
    spying = ImageSet(**{**vars(images), "read": lambda i: seen.append(torch.get_num_threads()) or images.read(i)})
    torch.set_num_threads(before + 1)
    try:
        capture(tiny_model(), spying, out=copy, config=config())
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {before}
    assert tree(copy) == tree(undisturbed)


@pytest.mark.parametrize("name", ["sites/head/00001.safetensors", "outputs/00000.safetensors", "shards/00002.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_what_is_missing_or_cut_is_made_again(copy, undisturbed, name, damage):
    if damage == "missing":
        (copy / name).unlink()
    else:
        (copy / name).write_bytes((copy / name).read_bytes()[:-7])
    tiny_capture(copy)
    assert tree(copy) == tree(undisturbed)


def test_a_receipt_with_a_flipped_bit_is_not_believed(copy, undisturbed):
    path = copy / "shards" / "00000.json"
    text = path.read_text()
    at = text.index('"mean"') + 20
    path.write_text(text[:at] + text[at:].replace("1", "2", 1))
    tiny_capture(copy)
    assert tree(copy) == tree(undisturbed)


def test_a_store_that_is_being_mended_does_not_call_itself_whole(copy):
    (copy / "shards" / "00002.json").unlink()
    with StoreWriter(copy, tiny_model(), tiny_images(), Preparation(), config()) as writer:
        assert writer.pending() == [2]
        with pytest.raises(ConfigError, match=r"interrupted capture: run the same .* again"):
            ActivationStore.open(copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": config(dtype="float16")}, "another dtype, shard_images:"),
        ({"config": config(batch_size=3)}, "another batch_size:"),
        ({"config": config(sites=("head",))}, "another shard_images, sites net/block 1/Conv, sites tokens:"),
        ({"config": config(outputs=False)}, "another outputs:"),
        ({"model": tiny_model(seed=1)}, "another model spec, model weights_hash:"),
        ({"images": tiny_images(36)}, "another images ids_hash, images n:"),
        ({"images": tiny_images(intensity_range=(0.0, 2.0))}, "another images scale_hash:"),
        ({"images": tiny_images(spacing_mm=((1.0, 2.0),) * 37)}, "another images scale_hash:"),
        ({"preparation": Preparation(gain=0.5)}, "another preparation gain:"),
    ],
)
def test_a_folder_with_another_capture_is_left_alone_and_says_what_differs(undisturbed, change, words):
    given = {"model": tiny_model(), "images": tiny_images(), "config": config(), **change}
    before = tree(undisturbed)
    with pytest.raises(ConfigError, match="holds a capture with " + words):
        capture(given.pop("model"), given.pop("images"), out=undisturbed, **given)
    assert tree(undisturbed) == before


def test_a_model_fed_otherwise_is_another_model(undisturbed):
    model = tiny_model()
    model.contract = type(model.contract)(16, 16, 1, mean=(0.5,), std=(1.0,))
    with pytest.raises(ConfigError, match="another model contract"):
        capture(model, tiny_images(), out=undisturbed, config=config())


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.docx").write_text("years of work")
    refused(ConfigError, r"holds other files \(thesis\.docx, …\): give --out an empty or new folder", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.docx"]


def test_a_store_without_its_plan_is_left_alone(copy):
    (copy / "plan.json").unlink()
    refused(ConfigError, r"holds other files \(images, …\)", copy)


def test_a_file_that_was_put_into_a_store_later_does_no_harm(copy):
    (copy / "notes.txt").write_text("mine")
    tiny_capture(copy)
    assert (copy / "notes.txt").read_text() == "mine"


def test_a_damaged_plan_is_named(copy):
    (copy / "plan.json").write_text((copy / "plan.json").read_text()[:100])
    refused(DamagedFileError, r"plan\.json is not readable JSON", copy)


def test_two_writers_are_told_apart(tmp_path):
    folder = tmp_path / "store"
    with StoreWriter(folder, tiny_model(), tiny_images(), Preparation(), config()):
        refused(ConfigError, "another process is writing to", folder)
    tiny_capture(folder)  # the lock was given back


def test_the_lock_is_given_back_after_an_error(tmp_path):
    images = tiny_images()

    def read(i):
        if i == 20:
            raise ZeroDivisionError
        return images.read(i)

    with pytest.raises(ZeroDivisionError):
        capture(tiny_model(), ImageSet(**{**vars(images), "read": read}), out=tmp_path / "store", config=config())
    assert (tmp_path / "store" / "shards" / "00000.json").exists()
    tiny_capture(tmp_path / "store")


def test_a_disk_too_small_is_seen_before_the_first_image(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=1000, f_frsize=4096))
    refused(
        DiskError,
        r"will take 5 MiB but only 4 MiB are free: capture fewer sites or tokens, use --dtype float16",
        tmp_path,
    )


def test_what_is_written_already_needs_no_space(copy, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=1, f_frsize=4096))
    tiny_capture(copy)


def test_a_disk_that_fills_up_stops_the_capture_and_it_goes_on_later(tmp_path, monkeypatch, undisturbed):
    folder, plain, count = tmp_path / "store", WholeFile.write, iter(range(1000))

    def write(self, data):
        if next(count) == 31:
            plain(self, memoryview(data).cast("B")[: memoryview(data).nbytes // 2])
            with files_module._disk_errors(self.path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(self, data)

    monkeypatch.setattr(WholeFile, "write", write)
    error = refused(DiskError, r"no space left while writing .*: free some and run the same command again", folder)
    assert error.exit_code == 3
    assert not list(folder.rglob("*.tmp"))
    monkeypatch.undo()
    tiny_capture(folder)
    assert tree(folder) == tree(undisturbed)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_that_really_is_full(tmp_path, monkeypatch, undisturbed):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        monkeypatch.setattr(StoreWriter, "_check_space", lambda self: None)
        refused(DiskError, "no space left while writing", disk / "store")
        subprocess.run(["mount", "-o", "remount,size=30m", disk], check=True)
        tiny_capture(disk / "store")
        assert tree(disk / "store") == tree(undisturbed)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path, where):
    (tmp_path / "file").write_text("")
    refused(DiskError, f"cannot use the folder .*{where}", tmp_path / where)


def test_a_folder_that_cannot_be_locked_is_named(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(storage_module.fcntl, "flock", flock)
    refused(DiskError, "cannot use the folder .*: No locks available", tmp_path / "store")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_names_the_image_and_the_site(tmp_path, value):
    model, x = tiny_model(), []

    def poison(_module, _args, output):
        x.append(len(output))
        if len(x) == 4:  # the fourth batch of five, its third image
            output[2, 3, 4] = value
        return output

    model.module.tokens.register_forward_hook(poison)
    with pytest.raises(ModelError, match=r"'py:tiny0' gives NaN or infinity at site 'tokens' for image 'image-17'"):
        capture(model, tiny_images(), out=tmp_path, config=config(sites=("tokens",), outputs=False))


def test_logits_that_are_no_numbers_are_seen_too(tmp_path):
    model = tiny_model()
    model.module.register_forward_hook(lambda m, a, out: out.index_fill(0, torch.tensor([1]), float("nan")))
    with pytest.raises(ModelError, match="at the logits for image 'image-1'"):
        capture(model, tiny_images(), out=tmp_path, config=config())


def test_values_beyond_float16_say_which_type_holds_them(tmp_path):
    model = tiny_model(scale=1e6)
    with pytest.raises(
        ModelError, match=r"beyond float16 for image 'image-0': store it with --dtype bfloat16 or float32"
    ):
        capture(model, tiny_images(), out=tmp_path / "half", config=config(sites=("tokens",), dtype="float16"))
    store = capture(model, tiny_images(), out=tmp_path / "b", config=config(sites=("tokens",), dtype="bfloat16"))
    assert store.read("tokens", [0]).abs().max() > 65504
    # the largest float32 is rounded up, to infinity, in bfloat16
    model.module.tokens.register_forward_hook(lambda m, a, out: out.fill_(torch.finfo(torch.float32).max))
    with pytest.raises(ModelError, match="beyond bfloat16 for image 'image-0': store it with --dtype float32"):
        capture(
            model, tiny_images(), out=tmp_path / "c", config=config(sites=("tokens",), dtype="bfloat16", outputs=False)
        )


def test_activations_of_another_size_than_the_sites_are_refused(tmp_path):
    model = tiny_model()
    model.sites = {"tokens": type(SITES["tokens"])("tokens", "tokens", "output", "tokens", 64, 197, 1)}
    with pytest.raises(SiteError, match="site 'tokens' gave 257 tokens 64 wide instead of 197 tokens 64 wide"):
        capture(model, tiny_images(), ["tokens"], out=tmp_path)


def test_tensors_and_index_rows_match(undisturbed):
    images = tiny_images()
    for name, site in SITES.items():
        for shard in range(3):
            place = undisturbed / "sites" / site_folder(name) / f"{shard:05d}"
            rows = load_file(f"{place}.safetensors")["activations"]
            index = pd.read_parquet(f"{place}.parquet")
            n = min(15, 37 - 15 * shard)
            assert rows.shape == (n * site.tokens, site.width)
            assert list(index.columns) == ["image", "token", "cell", "id", "label", "group", "split"]
            assert len(index) == len(rows)
            for row in [0, 1, site.tokens - 1, site.tokens % len(rows), len(rows) - 1]:
                entry, image = index.iloc[row], 15 * shard + row // site.tokens
                assert entry["image"] == image
                assert entry["token"] == row % site.tokens
                assert entry["id"] == images.ids[image]
                assert entry["group"] == images.groups[image]
                assert entry["split"] == images.splits[image]
                assert (entry["label"] if isinstance(entry["label"], str) else None) == images.labels[image]
    cells = pd.read_parquet(undisturbed / "sites" / "tokens" / "00000.parquet")["cell"]
    assert cells[:257].isna().sum() == 1  # the prefix token has no place
    assert list(cells[1:257]) == list(range(GRID.cells))
    assert pd.read_parquet(undisturbed / "sites" / "head" / "00000.parquet")["cell"].isna().all()


def test_the_rows_are_what_run_with_cache_gives_batch_by_batch(undisturbed):
    model, images = tiny_model(), tiny_images()
    store = ActivationStore.open(undisturbed)
    for first in range(0, 37, 5):
        at = range(first, min(first + 5, 37))
        with torch.inference_mode():
            acts = run_with_cache(model, model.prepare([images[i] for i in at]), list(SITES), logits=True)
        for name in SITES:
            assert torch.equal(store.read(name, list(at)), acts[name])
        assert torch.equal(store.logits()[list(at)], acts["logits"][:, 0])


def test_files_hold_no_path_no_time_no_metadata_and_the_folder_is_that_of_a_site_with_slashes(undisturbed):
    assert (undisturbed / "sites" / "net%2Fblock%201%2FConv" / "00000.safetensors").exists()
    for path in undisturbed.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert file.metadata() is None
    text = "".join(p.read_text() for p in undisturbed.rglob("*.json"))
    assert str(undisturbed) not in text
    assert os.uname().nodename not in text
    assert not {"time", "host", "date", "version"} & set(json.loads((undisturbed / "plan.json").read_text()))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_is_read_is_what_was_stored(tmp_path, undisturbed, dtype):
    exact = ActivationStore.open(undisturbed).read("tokens")
    store = tiny_capture(tmp_path, dtype=dtype)
    assert torch.equal(store.read("tokens"), exact.to(getattr(torch, dtype)).float())
    assert load_file(tmp_path / "sites/tokens/00000.safetensors")["activations"].dtype == getattr(torch, dtype)


def test_the_manifest_is_the_plan_with_what_seals_all_receipts(undisturbed):
    plan, manifest = (StoreManifest.read(undisturbed / f"{n}.json") for n in ("plan", "manifest"))
    assert plan.shards == ()
    assert plan.plan_hash == manifest.plan_hash
    assert plan.hash != manifest.hash
    receipts = [json.loads((undisturbed / f"shards/0000{i}.json").read_text()) for i in range(3)]
    assert [(r["first_image"], len(r["images"]), r["files"]) for r in receipts] == [
        (s["first_image"], s["images"], s["files"]) for s in manifest.shards
    ]
    assert [r["first_image"] for r in receipts] == [0, 15, 30]
    for i, shard in enumerate(manifest.shards):
        assert sha256_file(undisturbed / f"shards/0000{i}.json") == shard["receipt"]


def test_a_mapper_may_make_shards_elsewhere_and_in_any_order(tmp_path, undisturbed):
    sent = []

    def backwards(work, shards):
        for shard in reversed(shards):
            work.__dict__["images"].__dict__["read"] = tiny_images().read
            sent.append(type(work).__reduce_ex__(work, 2))
            yield work(shard)

    capture(tiny_model(), tiny_images(), out=tmp_path / "store", config=config(), mapper=backwards)
    assert tree(tmp_path / "store") == tree(undisturbed)
    assert list(sent[0][2]["ticks"]) == []  # progress is not sent along


def test_progress_counts_the_batches_that_are_left(copy):
    class Counting:
        def track(self, items, description, total=None):
            self.said, self.total, self.n = description, total, 0
            for item in items:
                yield item
                self.n += 1

        def note(self, text):
            pass

    (copy / "shards" / "00001.json").unlink()
    counting = Counting()
    capture(tiny_model(), tiny_images(), out=copy, config=config(), progress=counting)
    assert (counting.said, counting.total, counting.n) == ("capturing 3 site(s)", 3, 3)


def test_pixels_are_not_held_until_the_shard_is_written(tmp_path):
    model, images, alive, most = tiny_model(), tiny_images(), [], 0

    def batches():
        nonlocal most
        for first in range(0, 37, 5):
            batch = tuple(images[i] for i in range(first, min(first + 5, 37)))
            alive.extend(weakref.ref(image) for image in batch)
            yield CapturedBatch(batch, {"head": torch.zeros(len(batch), 3)}, {"head": None})
            del batch
            gc.collect()
            most = max(most, sum(image() is not None for image in alive))

    settings = config(sites=("head",), outputs=False)
    with StoreWriter(tmp_path, model, images, Preparation(), settings) as writer:
        writer.write(0, batches())
    assert most <= 5 * 4  # two batches that wait, one that is written, one that is made


def test_errors_travel_between_processes():
    for error in (DiskError("no space"), ModelError("x"), SiteError("y")):
        again = pickle.loads(pickle.dumps(error))
        assert isinstance(again, MechinterpError)
        assert str(again) == str(error)


def test_a_shard_is_whole_batches_of_at_most_a_thousand_images():
    model = tiny_model()
    assert config().shard_images(model) == 15
    assert config(sites=("head",)).shard_images(model) == 1020
    assert config(sites=("head",), batch_size=2000).shard_images(model) == 2000
    assert CaptureConfig(sites=("tokens",), dtype="float16", shard_mib=1, batch_size=5).shard_images(model) == 30


def test_a_stray_file_of_another_writer_of_tensors_is_no_shard(copy):
    path = copy / "sites" / "head" / "00000.safetensors"
    save_file({"something": torch.zeros(3)}, path)
    with pytest.raises(
        DamagedFileError, match=r"has \d+ bytes instead of \d+: it was cut or altered; remove it and run"
    ):
        ActivationStore.open(copy)
