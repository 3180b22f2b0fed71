"""Every image is read once: damaged ones are set aside and the rest goes on; too many stop it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from typer.testing import CliRunner

from mechinterp.errors import ImagesError
from mechinterp.images import ImageSet, open_images
from mechinterp.images.screening import flags_of, screened


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "scans"
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (16, 16)).astype(np.uint8)).save(root / f"{i}.png")
    (root / "3.png").write_bytes((root / "3.png").read_bytes()[:70])
    return root


def test_a_damaged_image_is_set_aside_with_its_reason_and_the_rest_goes_on(folder):
    images = open_images(folder, max_bad="20%")
    assert images.ids == ("0.png", "1.png", "2.png", "4.png", "5.png", "6.png", "7.png")
    (bad,) = images.set_aside
    assert bad.name == "3.png"
    assert "\n" not in bad.reason
    assert str(folder) not in bad.reason
    assert "1 damaged file set aside" in images.notes
    again = open_images(images.source)
    assert (again.ids, again.hash) == (images.ids, images.hash)
    assert images.without(["0.png"]).source["without"] == ["0.png", "3.png"]


def test_too_many_damaged_images_stop_with_one_line(folder):
    with pytest.raises(
        ImagesError, match=r"1 of 8 images of 'scans' cannot be read, more than --max-bad 0 allows .first 3\.png: "
    ):
        open_images(folder, max_bad=0)
    for i in range(8):
        (folder / f"{i}.png").write_bytes(b"no picture")
    with pytest.raises(ImagesError, match=r"no image of .* can be read"):
        open_images(folder, max_bad="100%")


def test_damage_that_only_the_pixels_show_is_found_in_deep_images_too(folder):
    for i in range(8):
        Image.fromarray(np.full((64, 64), 1000 * i + 1, np.uint16)).save(folder / f"{i}.png")
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:-40])
    images = open_images(folder, max_bad=1)
    assert len(images) == 7
    assert images.intensity_range == (0, 7001)
    assert images.set_aside[0].name == "5.png"
    assert open_images(images.source).intensity_range == images.intensity_range
    with pytest.raises(ImagesError, match=r"5\.png cannot be read"):
        open_images(folder)


def test_nothing_that_is_no_number_comes_through():
    arrays = [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(4)]
    images = screened(ImageSet.from_arrays(arrays, intensity_range=(0, 1)), max_bad=1)
    assert [(s.name, s.reason) for s in images.set_aside] == [("1", "none of its pixels is a number")]
    assert images.source == {}
    with pytest.raises(ImagesError, match=r"no image of 'arrays' can be read .first 0: none of its pixels"):
        screened(ImageSet.from_arrays([np.full((4, 4), np.nan)], intensity_range=(0, 1)), max_bad=1)


def test_text_is_flagged_and_nothing_is_stopped(folder):
    picture = Image.new("L", (256, 128))
    ImageDraw.Draw(picture).text((5, 5), "DOE^JOHN 1961", fill=255, font=ImageFont.load_default(18))
    picture.save(folder / "text.png")
    images = open_images(folder, max_bad=1)
    assert [(f.kind, f.image) for f in images.flags] == [("burned-in text", "text.png")]
    assert "rows of glyphs, the longest at rows" in images.flags[0].reason
    assert any(note.startswith("WARNING: 1 of 9 images may show text") for note in images.notes)
    assert open_images(folder, max_bad=1, look=False).flags == ()
    assert images.subset([0]).flags == ()


def test_a_set_is_looked_at_in_an_even_sample():
    looked = []
    images = ImageSet(tuple(map(str, range(500))), lambda i: looked.append(i) or np.zeros((8, 8)))
    found = screened(images)
    assert sorted(looked) == list(range(500))
    assert "text and faces were looked for in 200 of 500 images" in found.notes


def test_a_volume_is_looked_at_for_a_face_alone():
    volume = ImageSet(("v",), lambda i: np.zeros((4, 8, 8)), axes=3, spacing_mm=((3.0, 1.0, 1.0),))
    assert flags_of(volume[0]) == []


def test_capture_sets_aside_writes_the_list_beside_the_run_and_stops_when_told(folder, tmp_path, monkeypatch):
    from experiments.cli.entry import app

    (tmp_path / "net.py").write_text(
        "import torch\n"
        "from mechinterp.models.vision_model import InputContract\n"
        "def build():\n"
        "    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 4, 4), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), "
        "torch.nn.Linear(2, 2))\n"
        "    net.contract = InputContract(16, 16, 1)\n"
        "    net.class_names = ('a', 'b')\n"
        "    return net\n"
    )
    command = [
        "capture", "--model", f"py:{tmp_path}/net.py:build", "--images", str(folder), "--site", "0",
        "--out", str(tmp_path / "run" / "activations"),
    ]  # fmt: skip
    stopped = CliRunner().invoke(app, [*command, "--max-bad", "0"])
    assert stopped.exit_code != 0
    assert not (tmp_path / "run" / "activations" / "manifest.json").exists()
    done = CliRunner().invoke(app, [*command, "--max-bad", "20%", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads((tmp_path / "run" / "set_aside.json").read_text())
    assert (said["read"], [s["name"] for s in said["set_aside"]]) == (7, ["3.png"])
    record = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["capture"]
    assert record["set_aside"] == 1
    assert record["images_n"] == 7


def test_equal_pixels_under_two_patients_names_are_said_with_their_files():
    rng = np.random.default_rng(0)
    pixels = rng.random((7, 8, 8)).astype(np.float32)
    pixels[4], pixels[6] = pixels[0], pixels[3]  # of another patient; of the same one
    pixels[1] = pixels[5] = 0.0  # nothing is on either
    groups = ["p", "q", "r", "s", "t", "u", "s"]
    ids = tuple(f"{i}.png" for i in range(7))

    def said(**changed):
        images = replace(ImageSet.from_arrays(pixels, groups=groups), ids=ids, **changed)
        return [note for note in screened(images, look=False).notes if "another patient" in note]

    (note,) = said()
    assert note == (
        "WARNING: 2 images have the pixels of another patient's ('0.png', '4.png'): held out is not held out there; "
        "leave copies out, or give them one group"
    )
    assert said(groups=("p",) * 7) == []
    assert "4 images" in said(groups=None)[0]  # each is taken for a patient of its own
    assert said(units_are_patients=False) == []


def test_many_copies_are_counted_and_some_named():
    pixels = np.repeat(np.random.default_rng(1).random((5, 4, 4)).astype(np.float32), 2, axis=0)
    images = ImageSet.from_arrays(pixels, groups=[f"p{i}" for i in range(10)])
    (note,) = (n for n in screened(images, look=False).notes if "another patient" in n)
    assert "10 images have" in note
    assert "and 2 more such sets" in note
