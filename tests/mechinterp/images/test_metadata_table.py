"""A table is CSV or Parquet and means the same; masks are named by columns or lie beside."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mechinterp.errors import AttributeTableError, ImagesError, LeakageError
from mechinterp.images import ImageSet, open_images

ROWS = {
    "file_name": ["images/a.png", "images/b.png"],
    "label": ["x", None],
    "group": [7, 8],
    "case": ["e1", "e2"],
    "split": ["train", "val"],
    "spacing_row_mm": [0.5, None],
    "spacing_column_mm": [0.25, None],
    "area": [1.5, float("nan")],
    "smoker": [True, False],
    "mask_file_name": ["masks/disc/a.png", None],
    "lesion_mask_file_name": [None, "masks/disc/b.png"],
}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "eyes"
    for name in "ab":
        for where in ("images", "masks/disc"):
            (root / where).mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((4, 6), np.uint8)
            pixels[1, 2:4] = [127, 128]
            Image.fromarray(pixels).save(root / where / f"{name}.png")
    return root


def test_parquet_and_csv_say_the_same(folder):
    pq.write_table(pa.table(ROWS), folder / "metadata.parquet")
    by_parquet = ImageSet.from_folder(folder)
    (folder / "metadata.parquet").unlink()

    def word(value):
        return "" if value is None or value != value else str(int(value)) if isinstance(value, bool) else str(value)

    lines = [",".join(ROWS), *(",".join(map(word, row)) for row in zip(*ROWS.values(), strict=True))]
    (folder / "metadata.csv").write_text("\n".join(lines))
    by_csv = ImageSet.from_folder(folder)
    for what in ("ids", "labels", "groups", "cases", "splits", "spacing_mm"):
        assert getattr(by_parquet, what) == getattr(by_csv, what)
    np.testing.assert_array_equal(by_parquet.attributes.values, by_csv.attributes.values)
    assert by_csv.attributes.names == ("area", "smoker")
    assert by_csv.groups == ("7", "8")
    assert by_csv.cases == ("e1", "e2")


def test_columns_name_masks_and_empty_cells_mean_none(folder):
    pq.write_table(pa.table(ROWS), folder / "metadata.parquet")
    images = ImageSet.from_folder(folder)
    assert set(images.masks(0)) == {"mask"}
    assert set(images.masks(1)) == {"lesion"}
    assert images.masks(0)["mask"].sum() == 1  # 128 is inside, 127 is not
    assert open_images(images.source).masks(1)["lesion"][1, 3]


def test_masks_beside_images_are_found_by_their_names(folder):
    images = ImageSet.from_folder(folder)
    assert images.ids == ("images/a.png", "images/b.png")
    assert images.labels is None
    assert set(images.masks(1)) == {"disc"}
    (folder / "masks" / "c.png").write_bytes((folder / "masks/disc/a.png").read_bytes())
    (folder / "images" / "c.png").write_bytes((folder / "masks/disc/a.png").read_bytes())
    assert set(ImageSet.from_folder(folder).masks(2)) == {"mask"}


def test_a_key_hides_files_and_patients(folder, tmp_path):
    pq.write_table(pa.table(ROWS), folder / "metadata.parquet")
    images = ImageSet.from_folder(folder, key=tmp_path / "key")
    again = open_images(images.source)
    assert (again.ids, again.groups, again.cases) == (images.ids, images.groups, images.cases)
    assert all(len(name) == 16 for name in (*images.ids, *images.groups, *images.cases))


def test_damage_is_named(folder):
    (folder / "metadata.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ImagesError, match=r"metadata\.parquet is no readable Parquet .*: write it again"):
        ImageSet.from_folder(folder)
    (folder / "metadata.csv").write_text("file_name\nimages/a.png\n")
    with pytest.raises(ImagesError, match=r"holds both metadata\.csv and metadata\.parquet: remove one"):
        ImageSet.from_folder(folder)
    (folder / "metadata.parquet").unlink()
    (folder / "metadata.csv").write_text("file_name,mask_file_name\nimages/a.png,masks/none.png\n")
    with pytest.raises(ImagesError, match=r"row 2: image 'masks/none\.png' is not there"):
        ImageSet.from_folder(folder)


def test_arrays_are_images_too(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(12.0).reshape(3, 4) - 5)
    np.save(tmp_path / "b.npy", np.zeros((3, 4)))
    images = ImageSet.from_folder(tmp_path)
    assert images.intensity_range == (-5, 6)
    np.testing.assert_array_equal(images[0].pixels, np.arange(12.0).reshape(3, 4) - 5)
    np.save(tmp_path / "b.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ImagesError, match=r"b\.npy cannot be read"):
        ImageSet.from_folder(tmp_path)


def write_table(folder, text, said=""):
    (folder / "metadata.csv").write_text(text, encoding="utf-8")
    if said:
        (folder / "dataset.yaml").write_text(said)
    return open_images(folder)


@pytest.mark.parametrize("name", ["patient", "Patient_ID", "subject"])
def test_a_column_of_patients_names_the_groups_and_is_no_attribute(folder, name):
    images = write_table(folder, f"file_name,{name},study_id,area\nimages/a.png,7,e1,1.5\nimages/b.png,8,e1,2\n")
    assert images.groups == ("7", "8")
    assert images.cases == ("e1", "e1")
    assert images.attributes.names == ("area",)


def test_where_a_group_is_given_other_columns_stay_what_they_are(folder):
    images = write_table(folder, "file_name,group,patient\nimages/a.png,x,7\nimages/b.png,y,8\n")
    assert images.groups == ("x", "y")
    assert images.attributes.names == ("patient",)


def test_a_patient_on_both_sides_of_a_split_is_refused_whatever_the_column_is_called(folder):
    with pytest.raises(LeakageError, match="a group stands in both"):
        write_table(folder, "file_name,patient_id,split\nimages/a.png,7,train\nimages/b.png,7,test\n")


def test_columns_of_words_are_left_out_by_name_until_the_description_speaks_of_them(folder):
    table = "file_name,camera,area\nimages/a.png,east,1.5\nimages/b.png,,2\n"
    images = write_table(folder, table)
    assert images.attributes.names == ("area",)
    assert any("since they hold words: camera" in note and "kind: categorical" in note for note in images.notes)
    assert write_table(folder, table, "attributes: {camera: {kind: categorical}}").attributes.names == (
        "camera",
        "area",
    )


@pytest.mark.parametrize("between", [";", "\t"])
def test_semicolons_and_tabs_separate_as_commas_do(folder, between):
    text = "\ufefffile_name,area\nimages/a.png,1.5\nimages/b.png,2\n".replace(",", between)
    assert write_table(folder, text).attributes.values[:, 0].tolist() == [1.5, 2.0]


def test_a_decimal_comma_is_an_error_and_no_word(folder):
    with pytest.raises(AttributeTableError, match=r"column 'area': '1,5' is not a number"):
        write_table(folder, "file_name;area\nimages/a.png;1,5\nimages/b.png;2,5\n")


def test_volumes_say_the_same_of_columns_of_words(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    for name in "ab":
        nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4)), tmp_path / f"{name}.nii")
    (tmp_path / "metadata.csv").write_text("file_name,patient_id,scanner\na.nii,p1,one\nb.nii,p2,two\n")
    images = open_images(tmp_path)
    assert set(images.groups) == {"p1", "p2"}
    assert any("since they hold words: scanner" in note for note in images.notes)
