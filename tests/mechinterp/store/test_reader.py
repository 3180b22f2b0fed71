"""What is read is what was stored, in any order asked for; what cannot be meant or was damaged is named."""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_capture import SITES, tiny_capture, tiny_images, tree

from mechinterp.errors import ConfigError, DamagedFileError, ImagesError, SiteError
from mechinterp.files import write_sealed_json
from mechinterp.images.image_set import ImageSet, MedicalImage
from mechinterp.sites import Site
from mechinterp.store.manifest import StoreManifest
from mechinterp.store.reader import ActivationStore
from mechinterp.store.shuffling import EpochPlan, shuffled_rows


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_capture(tmp_path_factory.mktemp("reader") / "store")


@pytest.fixture
def copy(store, tmp_path):
    return Path(shutil.copytree(store.folder, tmp_path / "copy"))


def numbered_store(folder, n_images, tokens, width, shard_images, groups=None):
    """Write a store whose rows say where they come from: row r holds r, r + 1/2, r + 1/3, …"""
    from mechinterp.store.shard import CapturedBatch
    from mechinterp.store.storage import storage_at
    from mechinterp.store.writer import StoreWriter

    writer = StoreWriter.__new__(StoreWriter)
    site = Site("s", "s", "output", "tokens", width, tokens)
    said = {"name": "numbers", "n": n_images, "licence": None, "units_are_patients": True, "ids_hash": "", "source": {}}
    writer.plan = StoreManifest(
        model={}, preparation={}, images=said, sites={"s": site}, dtype="float32", batch_size=1,
        shard_images=shard_images, outputs=False, threads=1,
    )  # fmt: skip
    writer.storage, writer.sites = storage_at(folder), {"s": site}
    writer._segments = [writer.plan]
    writer.plan.write(Path(folder) / "plan.json")
    rows = torch.arange(n_images * tokens, dtype=torch.float32)[:, None] + 1 / torch.arange(1, width + 1)
    acts = rows.reshape(n_images, tokens, width)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr("os.fsync", lambda _: None)  # thirty stores a test need not reach the disk
    for shard in writer.shards:
        at = writer.images_of(shard)
        images = tuple(MedicalImage(f"i{i}", np.zeros((1, 1), np.float32), group=groups and groups[i]) for i in at)
        batch = CapturedBatch(images, {"s": acts[at.start : at.stop].flatten(0, 1)}, {"s": None})
        writer.write(shard, [batch])
    writer.finish()
    monkeypatch.undo()
    return ActivationStore.open(folder), rows


def test_an_image_stored_without_a_patient_is_its_own_where_others_have_theirs(tmp_path):
    store, _ = numbered_store(tmp_path / "some", 4, 1, 1, 2, groups=["p", None, "p", "q"])
    assert store.images["group"].tolist() == ["p", "image i1", "p", "q"]
    assert numbered_store(tmp_path / "none", 3, 1, 1, 2)[0].images["group"].tolist() == [None] * 3


def rows_of(batch):
    """Return which rows a batch of a numbered store holds, after checking that they are whole."""
    number = batch[:, 0].round() - 1
    assert torch.equal(batch, number[:, None] + 1 / torch.arange(1, batch.shape[1] + 1))
    return number.long().tolist()


@st.composite
def shapes(draw):
    n, tokens, width = draw(st.integers(1, 23)), draw(st.integers(1, 9)), draw(st.integers(1, 4))
    return n, tokens, width, draw(st.integers(-(-n // 3), 24)), draw(st.integers(1, n * tokens))


@given(shape=shapes(), seed=st.integers(0, 2**31), epoch=st.integers(0, 50), groups=st.integers(1, 200))
@settings(deadline=None, max_examples=25)
def test_an_epoch_is_every_row_once_in_an_order_that_seed_and_epoch_decide(shape, seed, epoch, groups):
    n, tokens, width, shard_images, batch_size = shape
    folder = tempfile.mkdtemp()
    try:
        store, rows = numbered_store(folder, n, tokens, width, shard_images)
        most_rows = -(-n * tokens // groups)

        def batches(seed=seed, epoch=epoch, start=0, chosen=None):
            chosen = np.arange(n) if chosen is None else chosen
            plan = EpochPlan.of(
                chosen, store.rows_of("s", chosen), store._shards_of(chosen), (seed, epoch), batch_size, most_rows
            )
            return list(shuffled_rows(plan, start, width, lambda images, ends: store._parts("s", images, ends)))

        epochs = batches()
        seen = [r for b in epochs for r in rows_of(b)]
        assert [len(b) for b in epochs] == [batch_size] * (n * tokens // batch_size)
        assert len(set(seen)) == len(seen)  # and so every row but the remainder
        assert all(torch.equal(a, b) for a, b in zip(epochs, batches(), strict=True))
        for start in {0, 1, len(epochs) // 2, len(epochs) - 1, len(epochs), len(epochs) + 3}:
            rest = batches(start=start)
            assert len(rest) == max(0, len(epochs) - start)
            assert all(torch.equal(a, b) for a, b in zip(epochs[start:], rest, strict=True))
        if len(seen) > 12:
            assert seen != [r for b in batches(seed=seed + 1) for r in rows_of(b)]
            assert seen != [r for b in batches(epoch=epoch + 1) for r in rows_of(b)]
        some = np.arange(0, n, 2)
        if len(some) * tokens >= batch_size:
            wanted = {i * tokens + t for i in some for t in range(tokens)}
            assert {r for b in batches(chosen=some) for r in rows_of(b)} <= wanted
        assert torch.equal(store.read("s").reshape(-1, width), rows)
    finally:
        shutil.rmtree(folder)


def test_rows_of_one_batch_come_from_everywhere_when_everything_fits(tmp_path):
    store, _ = numbered_store(tmp_path, 64, 16, 2, 8)
    numbers = torch.tensor([rows_of(b) for b in store.batches("s", 128, seed=3)]).double()
    assert numbers.shape == (8, 128)
    # means of 128 of 1,024 uniform numbers have σ = 1024 / √12 / √128 ≈ 26; a batch of neighbours would be hundreds off
    assert (numbers.mean(1) - 511.5).abs().max() < 110
    order = numbers.flatten()
    assert abs(float(torch.corrcoef(torch.stack([order[1:], order[:-1]]))[0, 1])) < 0.12
    assert abs(float(torch.corrcoef(torch.stack([order, torch.arange(1024.0).double()]))[0, 1])) < 0.12


def test_with_one_token_an_image_the_order_of_images_is_not_applied_twice(tmp_path):
    store, _ = numbered_store(tmp_path, 60, 1, 1, 60)
    order = rows_of(next(store.batches("s", 60, seed=5)))
    images = np.random.default_rng((5, 0)).permutation(60)
    assert order != images[images].tolist()
    assert order != images[np.argsort(images)].tolist()


def test_the_buffer_bounds_what_is_held(tmp_path):
    store = numbered_store(tmp_path, 256, 64, 64, 32)[0]  # 4 MiB in all
    gc.collect()
    largest, held = 0, 0
    for batch in store.batches("s", 512, seed=0, buffer_mib=2):
        stores = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors()}
        held = max(held, sum(stores.values()))
        largest = max(largest, batch.untyped_storage().nbytes())
    assert largest <= (1 << 20)
    # the group that is handed out, the one that is read, the rows left over, the caller's batch, a piece on its way
    assert held < 3 << 20


def _tensors():
    return [o for o in gc.get_objects() if type(o) is torch.Tensor and o.dtype == torch.float32 and o.numel() > 1000]


def test_batches_start_where_asked_without_reading_what_is_skipped(tmp_path, monkeypatch):
    store, _ = numbered_store(tmp_path, 256, 64, 64, 32)
    read = []
    parts = ActivationStore._parts
    monkeypatch.setattr(
        ActivationStore,
        "_parts",
        lambda self, s, images, e: read.append(set(images // 32)) or parts(self, s, images, e),
    )
    whole = list(store.batches("s", 512, seed=0, buffer_mib=2))
    assert [len(shards) for shards in read] == [2] * 4  # whole shards, each in one group
    assert set.union(*read) == set(range(8))
    groups = list(read)
    read.clear()
    rest = list(store.batches("s", 512, seed=0, buffer_mib=2, start=17))
    assert read == groups[2:]
    assert all(torch.equal(a, b) for a, b in zip(whole[17:], rest, strict=True))


def test_a_changed_batch_changes_no_other(tmp_path):
    store, _ = numbered_store(tmp_path, 8, 4, 2, 8)
    expected = [b.clone() for b in store.batches("s", 8, seed=0)]
    for batch, unchanged in zip(store.batches("s", 8, seed=0), expected, strict=True):
        assert torch.equal(batch, unchanged)
        batch.zero_()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 37 * 257 + 1}, r"batch size 9510 is above the 9509 tokens of 37 images"),
        ({"batch_size": 0}, "batch size is 0: it must be at least 1"),
        ({"start": -1}, "start is -1: it must be at least 0"),
        ({"buffer_mib": 0}, "buffer is 0: it must be at least 1"),
        ({"seed": -1}, "seed is -1"),
        ({"images": []}, "batch size 8 is above the 0 tokens of 0 images"),
    ],
)
def test_batches_that_cannot_be_meant_are_refused_at_the_call(store, given, message):
    with pytest.raises(ConfigError, match=message):
        store.batches("tokens", **{"batch_size": 8, "seed": 0, **given})


def test_images_are_read_in_the_order_given(store):
    everything = store.read("tokens")
    assert everything.shape == (37, 257, 64)
    assert everything.dtype == torch.float32
    for chosen in ([36, 0, 15, 14, 16, 0], [5], np.arange(36, -1, -1), torch.tensor([3, 30]), range(7), []):
        assert torch.equal(store.read("tokens", chosen), everything[np.asarray(chosen, dtype=int)])
    train = store.images["split"] == "train"
    assert torch.equal(store.read("tokens", train), everything[np.flatnonzero(train)])
    assert torch.equal(store.read("tokens", train.to_numpy()), store.read("tokens", store.where("train")))


@given(chosen=st.lists(st.integers(0, 36), max_size=50))
@settings(deadline=None, max_examples=20)
def test_any_choice_equals_indexing(chosen):
    store = _shared()
    assert torch.equal(store.read("head", chosen), store.read("head")[chosen])


_kept: dict[str, ActivationStore] = {}


@pytest.fixture(autouse=True, scope="module")
def _keep(store):
    _kept["store"] = store
    yield
    _kept.clear()


def _shared():
    return _kept["store"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([0, 37], "image 37 asked for, but .* holds 37, counted from 0"),
        ([-1], "image -1 asked for"),
        ([0.5], "chosen by a list of positions from 0 to 36, or by a mask of 37: not by float64"),
        ([True, False], r"not by bool of shape \(2,\)"),
        ([[1]], r"not by int64 of shape \(1, 1\)"),
    ],
)
def test_images_that_are_not_there_are_named(store, chosen, message):
    for ask in (store.read, store.statistics, lambda s, images: store.batches(s, 1, seed=0, images=images)):
        with pytest.raises(ImagesError, match=message):
            ask("head", images=chosen)


def test_what_a_store_says(store):
    images = tiny_images()
    assert len(store) == 37
    assert store.sites == tuple(sorted(SITES)) or store.sites == tuple(SITES)
    assert (store.width("tokens"), store.tokens("tokens")) == (64, 257)
    assert list(store.images["id"]) == list(images.ids)
    assert list(store.images["label"]) == list(images.labels)  # None stays None
    assert list(store.images["group"]) == list(images.groups)
    assert list(store.where("train")) == [i for i, s in enumerate(images.splits) if s == "train"]
    assert store.logits().shape == (37, 3)
    assert torch.equal(store.logits(), store.read("head")[:, 0])
    assert store.hash == ActivationStore.open(store.folder).hash


def test_an_empty_split_is_named(store, tmp_path):
    with pytest.raises(ImagesError, match=r"has no image of split 'validation': it has \['test', 'train'\]"):
        store.where("validation")
    images = tiny_images(5)
    without = ImageSet(ids=images.ids, read=images.read)
    from tiny_capture import config, tiny_model

    from mechinterp.capturing import capture

    plain = capture(tiny_model(), without, out=tmp_path, config=config(outputs=False))
    with pytest.raises(ImagesError, match="of split 'train': it has no splits"):
        plain.where("train")
    with pytest.raises(ConfigError, match="holds no logits: capture with --outputs"):
        plain.logits()
    with pytest.raises(ImagesError, match="statistics of no image"):
        plain.statistics("head", [])
    assert plain.read("head", []).shape == (0, 1, 3)


def test_an_unknown_site_gets_the_nearest_names(store):
    for ask in (store.read, store.width, store.tokens, store.statistics, store.index):
        with pytest.raises(SiteError, match=r"holds no site 'token': did you mean 'tokens'"):
            ask("token")
    with pytest.raises(SiteError, match="holds no site 'token'"):
        store.batches("token", 1, seed=0)


def test_statistics_are_those_of_the_rows(store):
    for site in SITES:
        rows = store.read(site).reshape(-1, store.width(site)).double()
        got = store.statistics(site)
        assert got.rows == len(rows)
        torch.testing.assert_close(got.mean, rows.mean(0), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(got.variance, rows.var(0, correction=0), rtol=1e-9, atol=1e-12)
        some = store.statistics(site, [36, 2, 17])
        rows = store.read(site, [36, 2, 17]).reshape(-1, store.width(site)).double()
        torch.testing.assert_close(some.mean, rows.mean(0), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(some.variance, rows.var(0, correction=0), rtol=1e-9, atol=1e-12)


def test_the_index_has_a_row_for_every_row(store):
    index = store.index("tokens")
    assert len(index) == 37 * 257
    at = int(np.flatnonzero((index["image"] == 20) & (index["cell"] == 100))[0])
    assert torch.equal(store.read("tokens").reshape(-1, 64)[at], store.read("tokens", [20])[0, 101])


def test_a_whole_store_has_nothing_wrong(store):
    assert store.verify() == []


@pytest.mark.parametrize(
    "name", ["sites/tokens/00001.safetensors", "sites/tokens/00001.parquet", "outputs/00001.safetensors"]
)
def test_a_flipped_bit_is_found_by_whoever_reads_it_and_by_verify(copy, store, name):
    path = copy / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    damaged = ActivationStore.open(copy)
    message = rf"{name} does not match its checksum: it was altered; remove it and run the same capture again"
    reading = {
        "sites/tokens/00001.safetensors": lambda: damaged.read("tokens", [15]),
        "sites/tokens/00001.parquet": lambda: damaged.index("tokens"),
        "outputs/00001.safetensors": damaged.logits,
    }[name]
    with pytest.raises(DamagedFileError, match=message) as caught:
        reading()
    assert caught.value.exit_code == 3
    wrong = damaged.verify()
    assert len(wrong) == 1
    assert name in wrong[0]
    assert torch.equal(damaged.read("tokens", [0, 36]), store.read("tokens", [0, 36]))  # other shards are still good
    path.unlink()
    tiny_capture(copy)  # as the message says
    assert ActivationStore.open(copy).verify() == []
    assert tree(copy) == tree(store.folder)


def test_damage_after_opening_is_found_by_verify(copy):
    opened = ActivationStore.open(copy)
    opened.read("tokens")
    path = copy / "sites/tokens/00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    (copy / "sites/head/00000.parquet").unlink()
    assert [("bytes instead of" in w, "is missing" in w) for w in sorted(opened.verify())] == [
        (False, True),
        (True, False),
    ]


def test_a_missing_and_a_cut_file_are_named_on_opening(copy):
    path = copy / "sites/tokens/00002.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-3])
    with pytest.raises(DamagedFileError, match=rf"00002\.safetensors has {len(data) - 3} bytes instead of {len(data)}"):
        ActivationStore.open(copy)
    path.unlink()
    with pytest.raises(DamagedFileError, match=r"00002\.safetensors is missing: capture again into this folder"):
        ActivationStore.open(copy)


def test_a_file_that_is_no_tensor_file_is_named_even_with_the_right_checksum(copy):
    from mechinterp.files import sha256_file

    path = copy / "outputs/00000.safetensors"
    path.write_bytes(b"no tensors at all")
    raw = json.loads((copy / "manifest.json").read_text())
    del raw["sha256"]
    raw["shards"][0]["files"]["outputs/00000.safetensors"] = {"bytes": 17, "sha256": sha256_file(path)}
    write_sealed_json(copy / "manifest.json", raw)
    with pytest.raises(DamagedFileError, match="is not a shard of this format"):
        ActivationStore.open(copy).logits()


def test_no_store_an_interrupted_one_and_a_damaged_one_are_told_apart(tmp_path, copy):
    with pytest.raises(ConfigError, match="holds no activation store: make one with"):
        ActivationStore.open(tmp_path / "nothing")
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text[: len(text) // 2])
    with pytest.raises(DamagedFileError, match=r"manifest\.json is not readable JSON"):
        ActivationStore.open(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="holds an interrupted capture"):
        ActivationStore.open(copy)


@pytest.mark.parametrize("break_it", [lambda r: r["shards"][0].pop("files"), lambda r: r["segments"][0].pop("file")])
def test_a_manifest_of_another_form_is_named(copy, break_it):
    raw = json.loads((copy / "manifest.json").read_text())
    del raw["sha256"]
    break_it(raw)
    write_sealed_json(copy / "manifest.json", raw)
    with pytest.raises(DamagedFileError, match="is not a manifest of this format"):
        ActivationStore.open(copy)


def test_several_readers_at_once_do_no_harm(store):
    first, second = ActivationStore.open(store.folder), ActivationStore.open(store.folder)
    one, other = first.batches("head", 4, seed=0), second.batches("head", 4, seed=0)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)
