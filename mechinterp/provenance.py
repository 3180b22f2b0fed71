"""What made a result: versions of the packages that decide numbers, and the code that does."""

from __future__ import annotations

import ast
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


def code_without_comments(source: str) -> str:
    """Return a module's syntax tree without docstrings, as text: what changes only its words keeps it."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            node.body = body[1:]  # type: ignore[attr-defined]
    return ast.dump(tree)
