"""Images are added to a finished store: the old files stay as they are, and together they are one store."""

from __future__ import annotations

import pytest
import torch
from tiny_capture import config, tiny_images, tiny_model, tree

from mechinterp.capturing import capture
from mechinterp.errors import ConfigError, LeakageError
from mechinterp.images.image_set import ImageSet
from mechinterp.store.reader import ActivationStore


def more_images(n=11, start=100, **settings):
    images = tiny_images(n)
    return ImageSet(
        ids=tuple(f"image-{start + i}" for i in range(n)),
        read=images.read,
        labels=images.labels,
        groups=tuple(f"patient-{start + i}" for i in range(n)),
        splits=images.splits,
        **{"name": "more", **settings},
    )


def appended(folder, images, **settings):
    return capture(tiny_model(), images, out=folder, config=config(), append=True, **settings)


@pytest.fixture
def store(tmp_path):
    return capture(tiny_model(), tiny_images(), out=tmp_path / "store", config=config())


def test_it_is_one_store_of_all_images_and_the_old_files_are_the_same(store):
    before, opened = tree(store.folder), ActivationStore.open(store.folder)
    more = more_images()
    both = appended(store.folder, more)
    after = tree(store.folder)
    assert {name: after[name] for name in before if name != "manifest.json"} == {
        name: before[name] for name in before if name != "manifest.json"
    }
    assert {n for n in after if n not in before and n.startswith(("plan", "images", "shards"))} == {
        "plan-00001.json", "images/00001.parquet", "shards/00003.json",
    }  # fmt: skip
    assert len(both) == 48
    assert list(both.images["id"]) == [*tiny_images().ids, *more.ids]
    assert torch.equal(both.read("tokens")[:37], store.read("tokens"))
    alone = capture(tiny_model(), more, out=store.folder.parent / "alone", config=config())
    assert torch.equal(both.read("tokens", range(37, 48)), alone.read("tokens"))
    assert torch.equal(both.logits(), torch.cat([store.logits(), alone.logits()]))
    assert list(both.index("head")["image"]) == list(range(48))
    rows = both.read("tokens").reshape(-1, 64).double()
    torch.testing.assert_close(both.statistics("tokens").mean, rows.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(both.statistics("tokens").variance, rows.var(0, correction=0), rtol=1e-9, atol=1e-12)
    norms = torch.linalg.vector_norm(rows, dim=1)
    assert both.norm_quantiles("tokens")[0.5] == pytest.approx(float(norms.median()), rel=1 / 128)
    assert both.norm_quantiles("tokens")[1.0] == float(norms.max())
    assert both.manifest.images["n"] == 48
    assert both.manifest.images["name"] == "images + more"
    assert both.manifest.images["source"] == {}
    assert both.verify() == []
    # who had it open before reads on what there was
    assert len(opened) == 37
    assert torch.equal(opened.read("tokens"), store.read("tokens"))


def test_either_capture_given_again_changes_nothing_and_mends_its_own(store):
    appended(store.folder, more_images())
    whole = tree(store.folder)
    appended(store.folder, more_images())
    capture(tiny_model(), tiny_images(), out=store.folder, config=config())
    assert tree(store.folder) == whole
    (store.folder / "shards/00003.json").unlink()
    with pytest.raises(
        ConfigError, match=r"shard 3 of .*, of the images 'more', is not whole: run the capture of those"
    ):
        capture(tiny_model(), tiny_images(), out=store.folder, config=config())
    appended(store.folder, more_images())
    assert tree(store.folder) == whole


def test_an_interrupted_addition_leaves_the_old_store_whole_and_is_finished(store):
    more, whole = more_images(), tree(store.folder)
    images = ImageSet(**{**vars(more), "read": lambda i: more.read(i) if i < 8 else 1 / 0})
    with pytest.raises(ZeroDivisionError):
        appended(store.folder, images)
    assert len(ActivationStore.open(store.folder)) == 37
    assert {n: h for n, h in tree(store.folder).items() if n in whole} == whole
    with pytest.raises(ConfigError, match="interrupted capture: finish it with the same images before others"):
        appended(store.folder, more_images(start=200))
    assert len(appended(store.folder, more)) == 48
    assert len(appended(store.folder, more_images(start=200))) == 59
    assert ActivationStore.open(store.folder).manifest.segments[2]["first_shard"] == 4


def test_what_does_not_belong_is_refused_and_nothing_is_written(store, tmp_path):
    before = tree(store.folder)
    with pytest.raises(ConfigError, match="holds image 'image-30' already: append other images"):
        appended(store.folder, more_images(start=30))
    groups = tuple("patient-0" for _ in range(11))  # in the training split of the store
    with pytest.raises(
        LeakageError, match=r"a group of 'more' is in split 'test' but in 'train' in .*: put all images of"
    ):
        appended(store.folder, ImageSet(**{**vars(more_images()), "groups": groups, "splits": ("test",) * 11}))
    with pytest.raises(ConfigError, match="another dtype, shard_images: give another --out"):
        capture(tiny_model(), more_images(), out=store.folder, config=config(dtype="float16"), append=True)
    with pytest.raises(ConfigError, match="holds a capture with another images ids_hash"):
        capture(tiny_model(), more_images(), out=store.folder, config=config())
    with pytest.raises(ConfigError, match="holds no store to append to: capture without --append first"):
        appended(tmp_path / "nothing", more_images())
    assert tree(store.folder) == before


def test_images_of_different_licence_are_named_both(store):
    both = appended(store.folder, more_images(licence="CC0", units_are_patients=False))
    assert both.manifest.images["licence"] == "unknown; CC0"
    assert both.manifest.images["units_are_patients"] is False
