"""``mechinterp import-sae SOURCE --out DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import emit
from experiments.cli.options import JsonFlag, SiteFlag


def run(
    source: Annotated[
        Path,
        typer.Argument(help="folder of SAELens or dictionary_learning, or a state dict of overcomplete"),
    ],
    out: Annotated[Path, typer.Option("--out", help="folder to write, as `mechinterp train-sae` writes one")],
    site: SiteFlag = None,
    library: Annotated[
        str | None,
        typer.Option("--format", help="saelens, dictionary_learning or overcomplete; told by the files if left out"),
    ] = None,
    k: Annotated[int | None, typer.Option("--k", help="active features; a TopK of overcomplete does not say")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Take over a sparse autoencoder that another library trained.

    Its codes stay the same but for their scale: decoder directions are brought to unit length where that changes no selection.

    [bold]Example[/bold]

      mechinterp import-sae trainer_0 --site blocks.8.hook_resid_post --out runs/a/saes/theirs
    """
    from sparse_autoencoders.importing import import_sae

    sae = import_sae(source, site=site, library=library, k=k)  # type: ignore[arg-type]  # checked there, by name
    folder = sae.save(out)
    emit(
        {
            "sae": str(folder),
            "architecture": sae.architecture,
            "site": sae.site,
            "d_in": sae.d_in,
            "features": sae.width,
        },
        f"{folder}: {sae.architecture} of site {sae.site}, {sae.d_in} wide, {sae.width} features",
        as_json=as_json,
    )
