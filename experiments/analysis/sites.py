"""Which site a study looks at when the user names none."""

from __future__ import annotations

import re

from mechinterp.errors import SiteError
from mechinterp.models.vision_model import VisionModel


def default_site(model: VisionModel) -> str:
    """Return a deep site that still knows where in the image it looks.

    For a transformer the residual stream after three quarters of the blocks, for a CNN its last stage.

    Raises
    ------
    SiteError
        If no site has a grid.

    """
    blocks = sorted(
        int(found[1]) for name in model.sites if (found := re.fullmatch(r"blocks\.(\d+)\.hook_resid_post", name))
    )
    if blocks:
        return f"blocks.{blocks[(3 * len(blocks)) // 4 - (len(blocks) % 4 == 0)]}.hook_resid_post"
    stages = sorted((int(found[1]), name) for name in model.sites if (found := re.fullmatch(r"stages\.(\d+)", name)))
    if stages:
        return stages[-1][1]
    with_grid = [name for name, site in model.sites.items() if site.grid is not None and site.grid.cells > 1]
    if not with_grid:
        raise SiteError(
            f"'{model.spec}' has no site with a grid: name one with --site (mechinterp sites {model.spec} --all)"
        )
    return with_grid[-1]
