"""How many damaged files are borne, and what is written of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from mechinterp.errors import ConfigError, ImagesError, UnreadableImageError
from mechinterp.images import ImageSet
from mechinterp.images.findings import Flag, MaxBad, SetAside, write_set_aside


@pytest.mark.parametrize(
    ("said", "shown", "of_5", "of_1000"),
    [
        (3, "3", 3, 3), ("0", "0", 0, 0), ("10%", "10%", 1, 100), (0.1, "10%", 1, 100), ("0.5%", "0.5%", 1, 5), ("0%", "0%", 0, 0),
        ("100%", "100%", 5, 1000), (MaxBad(count=2), "2", 2, 2),
    ],
)  # fmt: skip
def test_a_count_or_a_share_is_understood(said, shown, of_5, of_1000):
    limit = MaxBad.parse(said)
    assert (str(limit), limit.allowed(5), limit.allowed(1000)) == (shown, of_5, of_1000)


@pytest.mark.parametrize("said", ["many", "-1", "101%", "nan", 2.5, "inf", "-5%", ""])
def test_what_is_neither_is_refused(said):
    with pytest.raises(ConfigError, match=r"give a count of files as 3, or a share as 10% or 0.1"):
        MaxBad.parse(said)


def test_too_many_damaged_files_stop_with_the_first_and_its_reason():
    bad = [
        SetAside("report", "it holds no pixels", damaged=False),
        SetAside("a.png", "cut short"),
        SetAside("b.png", "empty"),
    ]
    MaxBad.parse(2).check(bad, 10, "scans")
    with pytest.raises(
        ImagesError,
        match=r"2 of 10 images of 'scans' cannot be read, more than --max-bad 1 allows .first a\.png: cut short",
    ):
        MaxBad.parse(1).check(bad, 10, "scans")


def test_what_is_written_holds_no_path(tmp_path):
    images = ImageSet.from_arrays(np.zeros((2, 4, 4)))
    assert not write_set_aside(tmp_path / "none.json", images)
    assert not (tmp_path / "none.json").exists()
    found = ImageSet(
        ids=("a",), read=lambda i: np.zeros((4, 4)),
        set_aside=(SetAside("file 2 of 3", "empty", path=Path("/patients/Doe")),), flags=(Flag("face", "a", "a profile"),),
    )  # fmt: skip
    assert write_set_aside(tmp_path / "some.json", found)
    assert json.loads((tmp_path / "some.json").read_text()) == {
        "images": "images",
        "read": 1,
        "set_aside": [{"name": "file 2 of 3", "reason": "empty", "damaged": True}],
        "flags": [{"kind": "face", "image": "a", "reason": "a profile"}],
    }


def test_the_error_of_one_image_travels_between_processes():
    import pickle

    error = UnreadableImageError("a.png", "cut short")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.name, again.reason) == (str(error), "a.png", "cut short")
