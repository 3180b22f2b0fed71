"""What made a result: versions of the packages that decide numbers."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = (
    "mechinterp-vision",
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "sae-lens",
    "numpy",
    "scikit-learn",
    "scipy",
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide numbers; missing ones are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
