"""Every user's error is one line with a remedy, an exit code, and a way between processes."""

from __future__ import annotations

import pickle

import pytest

from mechinterp import errors
from mechinterp.errors import MechinterpError, MissingDependencyError, UnreadableImageError, nearest
from mechinterp.progress import SILENT

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, MechinterpError)]


@pytest.mark.parametrize(
    ("name", "valid", "answer"),
    [
        ("blocks.3.hook_resid_pst", ["blocks.3.hook_resid_post", "head"], "did you mean 'blocks.3.hook_resid_post'?"),
        ("conv3", ["features.conv3.weight_long_name", "zzz"], "did you mean 'features.conv3.weight_long_name'?"),
        ("xyz", ["alpha", "beta", "gamma", "delta"], "valid are 'alpha', 'beta', 'gamma' and 1 more"),
        ("xyz", ["alpha"], "valid are 'alpha'"),
        ("x", [], "there are none"),
    ],
)
def test_the_nearest_names_are_proposed(name, valid, answer):
    assert nearest(name, valid) == answer
    assert nearest(name, iter(valid)) == answer


def test_what_is_the_users_to_mend_exits_with_2_and_damage_with_3():
    codes = {c.__name__: c.exit_code for c in CLASSES}
    assert {name for name, code in codes.items() if code == 3} == {"DamagedFileError", "DiskError"}
    assert set(codes.values()) == {2, 3}


@pytest.mark.parametrize("kind", [c for c in CLASSES if c not in {MissingDependencyError, UnreadableImageError}])
def test_errors_travel_between_processes(kind):
    again = pickle.loads(pickle.dumps(kind("what and how")))
    assert type(again) is kind
    assert str(again) == "what and how"


def test_a_missing_package_says_how_to_get_it_in_another_process_too():
    error = pickle.loads(pickle.dumps(MissingDependencyError("nibabel", "nifti")))
    assert str(error) == "nibabel is not installed: pip install 'mechinterp-vision[nifti]'"


def test_an_image_that_cannot_be_read_is_named_in_another_process_too():
    error = pickle.loads(pickle.dumps(UnreadableImageError("0007", "cut short")))
    assert (error.name, error.reason) == ("0007", "cut short")
    assert str(error) == "image 0007 cannot be read (cut short): replace it, or take it out of the set"


def test_silent_progress_hands_everything_on():
    assert list(SILENT.track(iter([3, 1]), "counting", total=2)) == [3, 1]
    assert SILENT.note("nothing") is None
