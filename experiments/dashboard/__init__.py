"""Pages of a run: one page model, drawn by a static export that opens from disk and by a served app."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.dashboard.app import make_app, serve
    from experiments.dashboard.export import export_static
    from experiments.dashboard.site import build_pages

__all__ = ["build_pages", "export_static", "make_app", "serve"]

_HOMES = {"build_pages": "site", "export_static": "export", "make_app": "app", "serve": "app"}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used; Plotly and Dash cost a second."""
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
