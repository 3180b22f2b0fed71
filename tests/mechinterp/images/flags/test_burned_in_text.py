"""Text that was drawn into an image is found, anatomy is not taken for it: rates over rendered text and real pictures."""

from pathlib import Path

import numpy as np
import pydicom.data
import pytest
import skimage
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from mechinterp.images import ImageSet
from mechinterp.images.brain_template import mni_template_slices
from mechinterp.images.flags.burned_in_text import text_lines
from mechinterp.images.image_files import read_image_file
from mechinterp.phantoms.datasets import fundus_phantoms
from mechinterp.phantoms.fundus_population import FundusStudy

PICTURES = Path(skimage.__file__).parent / "data"
WORDS = ("DOE^JOHN", "12/03/1961", "MRN 0048213", "St. Mary Hospital", "F 063Y 2004-01-19")


def anatomy():
    """Slices of a head, rendered fundi, stained tissue, a retina, a microscope's cell, and smooth noise."""
    heads = [image.scaled() for image in mni_template_slices(12.0)]
    eyes = [image.scaled().mean(-1) for image in fundus_phantoms(FundusStudy(patients=6, images_per_patient=1)).images]
    pictures = [read_image_file(PICTURES / n) / 255 for n in ("ihc.png", "cell.png", "microaneurysms.png", "moon.png")]
    retina = read_image_file(PICTURES / "retina.jpg")[400:1000, 400:1000] / 255
    rng = np.random.default_rng(0)
    noise = [ndimage.gaussian_filter(rng.normal(size=(256, 256)), s) for s in (3, 5, 8)]
    smooth = [(n - n.min()) / np.ptp(n) for n in noise]
    greys = [p.mean(-1) if p.ndim == 3 else p for p in (*pictures, retina)]
    return [np.asarray(a, dtype=np.float32) for a in (*heads, *eyes, *greys, *smooth)]


def written(base, word, size, pen, at):
    picture = Image.fromarray((base * 255).astype(np.uint8))
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(picture)
    draw.text(at, word, fill=int(pen * 255), font=font)
    left, top, right, bottom = draw.textbbox(at, word, font=font)
    return np.asarray(picture, dtype=np.float32) / 255, (top, left, bottom, right)


def overlaps(box, other):
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def test_text_in_the_corners_is_found_and_anatomy_is_not_taken_for_it():
    bases = anatomy()
    false = [bool(text_lines(base)) for base in bases]
    assert sum(false) <= 0.1 * len(bases)
    rng = np.random.default_rng(1)
    hits = []
    for k in range(40):
        base = np.kron(bases[k % 12], np.ones((2, 2), np.float32))  # heads and eyes, large enough to write on
        word, size = WORDS[k % len(WORDS)], int(rng.choice([14, 18, 24]))
        bottom = rng.random() < 0.5
        at = (4, base.shape[0] - size - 8 if bottom else 3)
        background = float(np.median(base[at[1] : at[1] + size, 4 : 4 + 6 * size]))
        pen = 1.0 if background < 0.5 else 0.0
        shown, box = written(base, word, size, pen, at)
        if box[3] > base.shape[1]:
            continue
        hits.append(any(overlaps(line.box, box) for line in text_lines(shown)))
    assert len(hits) >= 25
    assert np.mean(hits) >= 0.85


@pytest.mark.parametrize("name", ["examples_palette.dcm", "examples_jpeg2k.dcm"])
def test_real_ultrasound_with_a_burned_in_banner_is_flagged(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MECHINTERP_KEY_FILE", str(tmp_path / "key"))
    shown = ImageSet.from_dicom(pydicom.data.get_testdata_file(name, download=False))[0].scaled().mean(-1)
    assert len(text_lines(shown)) >= 3


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "693_J2KI.dcm"])
def test_real_slices_without_text_are_not(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MECHINTERP_KEY_FILE", str(tmp_path / "key"))
    assert not text_lines(ImageSet.from_dicom(pydicom.data.get_testdata_file(name, download=False))[0].scaled())


def test_dark_print_on_white_is_found_with_its_place():
    shown, box = written(np.ones((120, 300), np.float32), "DOE^JOHN", 20, 0.1, (40, 50))
    line = text_lines(shown)[0]
    assert overlaps(line.box, box)
    assert line.glyphs >= 4
    assert abs(line.box[0] - box[0]) <= 6


def test_what_is_no_line_of_glyphs_is_not_flagged():
    assert not text_lines(np.zeros((64, 64), np.float32))
    one, _ = written(np.zeros((128, 128), np.float32), "L", 24, 1.0, (10, 10))
    assert not text_lines(one)
    grid = np.zeros((128, 128), np.float32)
    grid[::16], grid[:, ::16] = 1, 1
    assert not text_lines(grid)
    assert not text_lines(np.random.default_rng(0).normal(0.5, 0.2, (128, 128)).clip(0, 1).astype(np.float32))
