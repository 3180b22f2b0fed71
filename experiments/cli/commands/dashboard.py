"""``mechinterp dashboard RUN``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import ConsoleProgress, emit
from experiments.cli.options import JsonFlag


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run")],
    export: Annotated[
        Path | None, typer.Option("--export", help="write static pages that open from disk, and end")
    ] = None,
    port: Annotated[int, typer.Option("--port", help="port of the served pages, on this machine only")] = 8050,
    desks: Annotated[
        int, typer.Option("--desks", help="with --export: on how many images moves of features are computed beforehand")
    ] = 6,
    as_json: JsonFlag = False,
) -> None:
    """Show a run in the browser, or export pages that open from disk without any network.

    A run made stage by stage is analysed first, if that has not been done: features, attributes, effects. Of a screening study
    the features that its circuit is made of become a run of their own, RUN/explorer, with the patients of both halves.

    Served pages answer on this machine only, at the address that is printed, with its token; there, moving a feature on the
    desk runs the model. An export holds moves that were computed beforehand, and says so.

    [bold]Examples[/bold]

      mechinterp dashboard runs/brain-mri

      mechinterp dashboard runs/a --export pages/

      mechinterp dashboard runs/dr
    """
    from experiments.analysis.stagewise import ensure_results
    from experiments.dashboard import export_static, serve
    from experiments.studies.phantom.explorer import explorable
    from mechinterp.errors import ConfigError

    if desks < 0:
        raise ConfigError(f"--desks is {desks}: give 0 or more")
    progress = ConsoleProgress()
    folder = explorable(folder, progress=progress)
    ensure_results(folder, progress=progress)
    if export is not None:
        page = export_static(folder, export, progress=progress, stored_desks=desks)
        emit({"page": str(page)}, str(page), as_json=as_json)
        return
    serve(folder, port=port, progress=progress)
