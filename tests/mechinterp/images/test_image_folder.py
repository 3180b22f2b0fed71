"""A folder says what its images are; what it says wrongly is named with its row."""

import numpy as np
import pytest
from PIL import Image

from mechinterp.errors import AttributeTableError, ImagesError, LeakageError
from mechinterp.images.image_set import ImageSet
from mechinterp.images.opening import open_images

ROWS = """file_name,label,group,split,spacing_row_mm,spacing_column_mm,lesion_area,severity
one/a.png,tumour,p1,train,2.0,1.0,12.5,mild
one/b.png,none,p1,train,2.0,1.0,,none
c.png,tumour,p2,val,,,3e2,severe
"""
DESCRIPTION = """
name: Three scans
licence: CC0-1.0
intensity_range: [0, 4095]
spacing_mm: 0.5
units_are_patients: false
units:
  lesion_area: mm²
attributes:
  severity: {kind: ordinal, categories: [none, mild, severe], measured: by two readers}
"""


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "scans"
    (root / "one").mkdir(parents=True)
    for i, name in enumerate(("one/a.png", "one/b.png", "c.png")):
        Image.fromarray(np.full((4, 6), 1000 * (i + 1), dtype=np.uint16)).save(root / name)
    (root / "metadata.csv").write_text(ROWS)
    (root / "dataset.yaml").write_text(DESCRIPTION)
    return root


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_folder_with_metadata_carries_everything_said(folder):
    images = ImageSet.from_folder(folder)
    assert images.ids == ("one/a.png", "one/b.png", "c.png")
    assert images.labels == ("tumour", "none", "tumour")
    assert images.groups == ("p1", "p1", "p2")
    assert images.splits == ("train", "train", "validation")
    assert images.spacing_mm == ((2.0, 1.0), (2.0, 1.0), (0.5, 0.5))
    assert images.intensity_range == (0, 4095)
    assert (images.name, images.licence, images.units_are_patients) == ("Three scans", "CC0-1.0", False)
    assert images[2].pixels[0, 0] == 3000
    area, severity = images.attributes
    assert (area.name, area.unit, area.kind) == ("lesion_area", "mm²", "continuous")
    assert (severity.kind, severity.measured) == ("ordinal", "by two readers")
    np.testing.assert_array_equal(images.attributes.column("lesion_area"), [12.5, np.nan, 300])
    np.testing.assert_array_equal(images.attributes.column("severity"), [1, 0, 2])
    assert images.attributes.categories["severity"] == ("none", "mild", "severe")


def test_without_a_description_deep_images_reach_to_their_largest_value(folder):
    (folder / "dataset.yaml").unlink()
    (folder / "metadata.csv").write_text("file_name\none/a.png\nc.png\n")
    images = ImageSet.from_folder(folder)
    assert images.intensity_range == (0, 3000)
    assert images.labels is images.groups is images.splits is images.spacing_mm is None
    assert images.name == "scans"
    assert images.attributes.names == ()


def test_what_is_given_wins_over_the_description(folder):
    images = ImageSet.from_folder(folder, name="mine", intensity_range=(0, 5000), spacing_mm=(3, 4), licence="ours")
    assert (images.name, images.licence, images.intensity_range) == ("mine", "ours", (0, 5000))
    assert images.spacing_mm == ((2.0, 1.0), (2.0, 1.0), (3.0, 4.0))


@pytest.mark.parametrize("settings", [{}, {"name": "n", "intensity_range": (0, 9), "spacing_mm": 2, "licence": "l"}])
def test_the_source_opens_the_same_set_again(folder, settings):
    images = ImageSet.from_folder(folder, **settings)
    again = open_images(images.source)
    assert again.hash == images.hash
    for what in ("ids", "labels", "splits", "spacing_mm", "intensity_range", "name", "licence", "source"):
        assert getattr(again, what) == getattr(images, what)


def test_without_metadata_folders_are_labels_and_splits(tmp_path):
    for path in ("train/cat/2.png", "train/cat/1.png", "train/dog/1.jpg", "test/dog/3.png", ".cache/x.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((3, 3), dtype=np.uint8)).save(tmp_path / path)
    images = ImageSet.from_folder(tmp_path)
    assert images.ids == ("test/dog/3.png", "train/cat/1.png", "train/cat/2.png", "train/dog/1.jpg")
    assert images.labels == ("dog", "cat", "cat", "dog")
    assert images.splits == ("test", "train", "train", "train")
    assert ImageSet.from_folder(tmp_path / "train").labels == ("cat", "cat", "dog")
    assert ImageSet.from_folder(tmp_path / "train" / "cat").labels is None
    assert images.intensity_range == (0, 255)


def test_a_table_saved_by_a_spreadsheet_is_read(folder):
    (folder / "dataset.yaml").unlink()
    (folder / "metadata.csv").write_bytes('\ufefffile_name,note\r\n"c.png",1\r\n'.encode())
    assert ImageSet.from_folder(folder).ids == ("c.png",)


def test_a_missing_folder_names_its_siblings(folder):
    with pytest.raises(ImagesError, match=r"image folder .*scan is not there: did you mean 'scans'"):
        ImageSet.from_folder(folder.with_name("scan"))
    with pytest.raises(ImagesError, match="is a file, not a folder"):
        ImageSet.from_folder(folder / "c.png")
    with pytest.raises(ImagesError, match="is not there: there are none"):
        ImageSet.from_folder(folder / "no" / "where")


def test_an_empty_folder_says_what_to_put_there(tmp_path):
    with pytest.raises(ImagesError, match=r"holds no image: put \.png"):
        ImageSet.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("c.png", "cc.png", r"metadata\.csv, row 4: image 'cc\.png' is not there: did you mean 'c\.png'"),
        ("c.png", "two/c.png", r"row 4: image 'two/c\.png' is not there: there are none"),
        ("c.png", "../c.png", r"row 4: file_name '\.\./c\.png' must be a path below"),
        ("c.png", "/etc/c.png", "row 4: file_name '/etc/c.png' must be a path below"),
        ("c.png", "C:/c.png", "row 4: file_name 'C:/c.png' must be a path below"),
        ("c.png", "c.gif", r"row 4: 'c\.gif' is not one of \.png"),
        ("c.png", "", "row 4: file_name '' must be"),
        ("c.png", "one/a.png", r"image 'one/a\.png' stands in row 2 already: remove one"),
        (",val,", ",vall,", r"row 4: split 'vall' is none: did you mean 'validation'"),
        ("file_name,", "filename,", r"no column 'file_name': did you mean 'filename'"),
        ("severe\n", "severe,9\n", r"row 4 does not have 8 cells: quote"),
        (",3e2,severe", "", r"row 4 does not have 8 cells"),
        ("severity", "label", r"names a column twice"),
        ("2.0,1.0,,", "-2,1,,", r"row 3: spacing is \[-2, 1\]: millimetres per pixel are positive"),
        ("2.0,1.0,,", "x,1,,", r"row 3: spacing is \['x', '1'\]"),
        ("spacing_column_mm", "other", r"has 'spacing_row_mm' alone: give both"),
        (ROWS, "file_name\n", "has no rows"),
        (ROWS, 'file_name\n"c.png\n', "is no readable CSV"),
    ],
)
def test_a_row_that_cannot_be_meant_is_named(folder, old, new, message):
    change(folder / "metadata.csv", old, new)
    with pytest.raises(ImagesError, match=message):
        ImageSet.from_folder(folder)


def test_a_value_that_is_no_number_is_named_with_row_and_column(folder):
    change(folder / "metadata.csv", "3e2", "big")
    with pytest.raises(AttributeTableError, match=r"metadata\.csv: row 4, column 'lesion_area': 'big' is not a number"):
        ImageSet.from_folder(folder)


def test_a_patient_in_two_splits_is_refused(folder):
    change(folder / "metadata.csv", "p2", "p1")
    with pytest.raises(LeakageError):
        ImageSet.from_folder(folder)


def test_an_unreadable_image_is_named_when_it_is_needed(folder):
    (folder / "c.png").write_bytes((folder / "c.png").read_bytes()[:40])
    images = ImageSet.from_folder(folder)
    assert images[0].pixels.shape == (4, 6)
    with pytest.raises(ImagesError, match=r"c\.png cannot be read"):
        images[2]


def test_bytes_and_deeper_images_have_no_range_in_common(folder):
    (folder / "dataset.yaml").unlink()
    (folder / "metadata.csv").unlink()
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(folder / "d.png")
    with pytest.raises(ImagesError, match=r"c\.png is uint16 and .*d\.png is uint8: say in .*dataset\.yaml"):
        ImageSet.from_folder(folder)
    assert ImageSet.from_folder(folder, intensity_range=(0, 255))[1].pixels.max() == 0
