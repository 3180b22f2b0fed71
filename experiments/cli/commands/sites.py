"""``mechinterp sites MODEL``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.console import ConsoleProgress, emit_table
from experiments.cli.options import JsonFlag, WeightsFlag

if TYPE_CHECKING:
    from mechinterp.sites import Site

CARRY_WEIGHTS = {"onnx", "py"}  # no layout without them


def run(
    model: Annotated[str, typer.Argument(help="SOURCE:NAME?OPTION=VALUE, as `mechinterp models` lists them")],
    weights: WeightsFlag = None,
    every_module: Annotated[
        bool, typer.Option("--all", help="every module's dotted path too, not only named sites")
    ] = False,
    search: Annotated[str, typer.Option("--search", help="only sites whose name contains this")] = "",
    as_json: JsonFlag = False,
) -> None:
    """List the places of a model that can be captured: name, module, layout, width, tokens, grid.

    The layout does not depend on the weights, so none are needed or fetched.

    [bold]Examples[/bold]

      mechinterp sites timm:vit_tiny_patch16_224

      mechinterp sites 'monai:ViT?img_size=96,96,96&patch_size=16'

      mechinterp sites onnx:tumour.onnx --search block5 --json
    """
    from mechinterp.models.loading import load_model
    from mechinterp.store.manifest import site_to_json

    loaded = load_model(model, weights or (None if model.partition(":")[0] in CARRY_WEIGHTS else "random"))
    sites = [s for s in loaded.sites.values() if search in s.name]
    named = [s for s in sites if s.name != s.module]
    shown = sites if every_module or search or not named else named
    rows = [
        (
            s.name,
            _place(s),
            s.layout,
            s.width if not s.heads else f"{s.width} ({s.heads} heads)",
            s.tokens if not s.prefix_tokens else f"{s.tokens} ({s.prefix_tokens} prefix)",
            "–"
            if s.grid is None
            else f"{'×'.join(str(n) for n in s.grid.shape)}, every {s.grid.stride[0]:g} px, sees {s.grid.extent[0]:g} px",
        )
        for s in shown
    ]
    left = len(sites) - len(shown)
    emit_table(
        {"model": model, "sites": [site_to_json(s) for s in shown], "notes": list(loaded.notes)},
        f"{model}: {len(shown)} sites" + (f" (and {left} more by dotted path: --all)" if left else ""),
        ["site", "module", "layout", "width", "tokens", "grid"],
        rows,
        as_json=as_json,
    )
    for note in loaded.notes:
        ConsoleProgress().note(f"note: {note}")


def _place(site: Site) -> str:
    """Return where a site is reached, in words."""
    where = site.module if site.weight is None or site.take == "result" else site.weight.removesuffix(".weight")
    where = where if site.call is None else f"call {site.call + 1} of {where}"
    if site.columns is not None:
        where += f" [{site.columns[0]}:{site.columns[1]}]"
    return where if site.take == "output" else f"{site.take} of {where}"
