"""Sets of medical images, their readers, and how an image becomes a model's input."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechinterp.images.image_set import ImageSet, MedicalImage
    from mechinterp.images.opening import open_images
    from mechinterp.images.preparation import Preparation

__all__ = ["ImageSet", "MedicalImage", "Preparation", "open_images"]

_MODULE_OF = {
    "ImageSet": "image_set",
    "MedicalImage": "image_set",
    "Preparation": "preparation",
    "open_images": "opening",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
