"""Models: one short file per source, and what they have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechinterp.models.loading import load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    if name == "load_model":
        from mechinterp.models.loading import load_model

        return load_model
    raise AttributeError(f"module 'mechinterp.models' has no attribute '{name}'")
