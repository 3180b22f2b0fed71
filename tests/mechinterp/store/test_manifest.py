"""What a store says of itself survives the disk, and what was altered is not believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.errors import DamagedFileError
from mechinterp.files import write_json, write_sealed_json
from mechinterp.sites import Site
from mechinterp.store.manifest import StoreManifest, site_folder, site_from_json, site_to_json
from mechinterp.token_grid import TokenGrid

GRID = TokenGrid(2, 3, (16, 16.0), (8, 8), (16, 16))


def manifest(**changes):
    fields = {
        "model": {
            "spec": "timm:x",
            "weights_hash": "ab",
            "trained": True,
            "weights": "mine",
            "class_names": ["ä", "b"],
        },
        "preparation": {"fit": "pad", "margin": 0.0, "gain": 1.0},
        "images": {
            "name": "scans",
            "n": 3,
            "ids_hash": "cd",
            "source": {},
            "licence": None,
            "units_are_patients": True,
        },
        "sites": {
            "a/b": Site("a/b", "a.b", "input", "tokens", 8, 7, 1, GRID),
            "c": Site("c", "c", "output", "vector", 4, 1),
        },
        "dtype": "float16",
        "batch_size": 4,
        "shard_images": 8,
        "outputs": True,
        "threads": 2,
    }
    return StoreManifest(**{**fields, **changes})


def test_it_is_the_same_after_the_disk(tmp_path):
    written = manifest(shards=({"shard": 0, "sites": {"c": {"mean": [0.1, 1e-300]}}},))
    written.write(tmp_path / "m.json")
    read = StoreManifest.read(tmp_path / "m.json")
    assert read == written
    assert read.hash == written.hash
    assert read.to_json() == written.to_json()
    read.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "m.json").read_bytes()


def test_whole_numbers_in_a_grid_are_written_as_what_is_read_back(tmp_path):
    manifest().write(tmp_path / "m.json")
    first = (tmp_path / "m.json").read_bytes()
    StoreManifest.read(tmp_path / "m.json").write(tmp_path / "m.json")
    assert (tmp_path / "m.json").read_bytes() == first


def test_what_it_says():
    said = manifest()
    assert (said.model_spec, said.weights_hash, said.trained) == ("timm:x", "ab", True)
    assert said.device == "cpu"
    assert said.preparation_hash != manifest(preparation={"fit": "crop"}).preparation_hash


def test_the_plan_hash_is_blind_to_shards_and_nothing_else():
    plan = manifest()
    assert manifest(shards=({"shard": 0},)).plan_hash == plan.plan_hash
    assert manifest(shards=({"shard": 0},)).hash != plan.hash
    changes = [
        {"dtype": "float32"},
        {"batch_size": 5},
        {"threads": 1},
        {"device": "cuda"},
        {"outputs": False},
        {"sites": {}},
    ]
    assert len({manifest(**c).plan_hash for c in changes} | {plan.plan_hash}) == len(changes) + 1


@given(
    take=st.sampled_from(["input", "output"]),
    layout=st.sampled_from(["tokens", "map", "channels_last", "vector"]),
    numbers=st.tuples(*[st.integers(1, 5000)] * 4),
    place=st.none() | st.tuples(*[st.floats(0.1, 1e6)] * 6),
    name=st.text(min_size=1, max_size=30),
)
@settings(deadline=None, max_examples=50)
def test_a_site_is_the_same_after_json(take, layout, numbers, place, name):
    rows, columns, width, prefix = numbers
    grid = place and TokenGrid(rows, columns, place[:2], place[2:4], place[4:])
    site = Site(name, "m." + name, take, layout, width, rows * columns + prefix, prefix, grid or None)
    assert site_from_json(json.loads(json.dumps(site_to_json(site)))) == site


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("blocks.3.hook_resid_post", "blocks.3.hook_resid_post"),
        ("functional_1/block5_conv3_1/BiasAdd", "functional_1%2Fblock5_conv3_1%2FBiasAdd"),
        ("a b:c\\d%", "a%20b%3Ac%5Cd%25"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("", "%"),
    ],
)
def test_the_folder_of_a_site_is_one_harmless_path_part(name, folder):
    assert site_folder(name) == folder


@given(st.text(max_size=40), st.text(max_size=40))
@settings(deadline=None)
def test_two_sites_never_share_a_folder_and_none_leaves_the_store(a, b):
    assert (site_folder(a) == site_folder(b)) == (a == b)
    assert not set(site_folder(a)) & set('/\\:*?"<>|\0')
    assert site_folder(a) not in {"", ".", ".."}


def test_a_flipped_digit_is_seen(tmp_path):
    path = tmp_path / "m.json"
    manifest().write(path)
    path.write_text(path.read_text().replace('"batch_size": 4', '"batch_size": 5'))
    with pytest.raises(DamagedFileError, match=r"m\.json does not match its checksum: it was altered"):
        StoreManifest.read(path)


def test_what_is_cut_of_another_version_or_another_kind_is_named(tmp_path):
    path = tmp_path / "m.json"
    manifest().write(path)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DamagedFileError, match="not readable JSON"):
        StoreManifest.read(path)
    manifest(format_version=99).write(path)
    with pytest.raises(DamagedFileError, match="is of format 99, this version reads 2: capture again"):
        StoreManifest.read(path)
    write_json(path, [1, 2])
    with pytest.raises(DamagedFileError, match="is of format None"):
        StoreManifest.read(path)
    write_json(path, manifest().to_json())
    with pytest.raises(DamagedFileError, match="carries no checksum"):
        StoreManifest.read(path)


@pytest.mark.parametrize(
    "change",
    [{"sites": []}, {"sites": {"a": {}}}, {"shards": None}, {"unknown": 1}, {"sites": {"a": {"grid": {"rows": 1}}}}],
)
def test_content_of_another_form_is_no_manifest(tmp_path, change):
    write_sealed_json(tmp_path / "m.json", {**manifest().to_json(), **change})
    with pytest.raises(DamagedFileError, match="is not a manifest of this format"):
        StoreManifest.read(tmp_path / "m.json")
