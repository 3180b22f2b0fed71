"""``mechinterp export-sae SAE --format FORMAT --out PATH``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import emit
from experiments.cli.options import JsonFlag


def run(
    sae: Annotated[Path, typer.Argument(help="folder of an autoencoder, as `mechinterp train-sae` writes it")],
    out: Annotated[Path, typer.Option("--out", help="folder to write; a file for overcomplete")],
    library: Annotated[
        str, typer.Option("--format", help="saelens (what is written anyway), dictionary_learning or overcomplete")
    ] = "saelens",
    as_json: JsonFlag = False,
) -> None:
    """Write a sparse autoencoder so that another library reads it.

    [bold]Example[/bold]

      mechinterp export-sae runs/a/saes/seed-0 --format dictionary_learning --out theirs
    """
    from sparse_autoencoders import SparseAutoencoder
    from sparse_autoencoders.importing import export_sae

    path = export_sae(SparseAutoencoder.load(sae), out, library=library)  # type: ignore[arg-type]  # checked there, by name
    emit({"sae": str(sae), "format": library, "path": str(path)}, f"{path}: written for {library}", as_json=as_json)
