"""What dataset.yaml says is taken at its word; what it cannot mean is named."""

import pytest

from mechinterp.errors import ImagesError
from mechinterp.images.dataset_description import DatasetDescription, read_description


def described(tmp_path, text):
    path = tmp_path / "dataset.yaml"
    path.write_text(text)
    return read_description(path)


def test_nothing_is_said_without_a_file_or_in_an_empty_one(tmp_path):
    assert read_description(tmp_path / "dataset.yaml") == DatasetDescription()
    assert described(tmp_path, "# later\n") == DatasetDescription()


def test_licence_may_be_spelt_either_way(tmp_path):
    assert described(tmp_path, "license: MIT").licence == "MIT"


def test_the_long_form_wins_over_the_short_one(tmp_path):
    columns = described(tmp_path, "units: {a: mm, b: 1}\nattributes: {a: {unit: cm, level: region}}").columns
    assert columns["a"].unit == "cm"
    assert columns["a"].level == "region"
    assert columns["b"].unit == "1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "is no readable YAML"),
        ("- a\n- b", "it must hold keys and values"),
        ("intensityrange: [0, 1]", "unknown key 'intensityrange': did you mean 'intensity_range'"),
        ("intensity_range: [1, 0]", "black must be below white"),
        ("spacing_mm: wide", "spacing_mm is 'wide'"),
        ("units: mm", "units must map columns"),
        ("units_are_patients: maybe", "units_are_patients is 'maybe': write true or false"),
        ("attributes: {a: {kindd: binary}}", "attribute 'a' has no key 'kindd': did you mean 'kind'"),
        ("attributes: {a: {kind: binry}}", "kind of attribute 'a' is 'binry': did you mean 'binary'"),
        ("attributes: {a: {level: pixel}}", "level of attribute 'a' is 'pixel'"),
        ("attributes: {a: {categories: mild}}", "categories of attribute 'a' must be a list"),
    ],
)
def test_what_cannot_be_meant_is_named_with_the_file(tmp_path, text, message):
    with pytest.raises(ImagesError, match=rf"dataset\.yaml.*{message}") as raised:
        described(tmp_path, text)
    assert "\n" not in str(raised.value)
