"""``mechinterp attributes SAE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import ConsoleProgress, emit, emit_table
from experiments.cli.options import ActivationsFlag, JsonFlag, SeedFlag


def run(
    sae: Annotated[Path, typer.Argument(help="folder of an autoencoder, as `mechinterp train-sae` writes it")],
    activations: ActivationsFlag,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="where the attributes are; default: where the store's images came from"),
    ] = None,
    seed: SeedFlag = 0,
    as_json: JsonFlag = False,
) -> None:
    """Say which physical attribute each feature follows, in units.

    Each feature's attribute is chosen on the training images and tested on the held-out ones, corrected for all features
    and attributes, beside neurons, PCA and random directions.

    [bold]Example[/bold]

      mechinterp attributes runs/a/saes/topk-seed0 --activations runs/a/activations
    """
    from experiments.analysis.measurements import held_out
    from experiments.analysis.stagewise import images_of
    from mechinterp.files import write_json
    from mechinterp.store.reader import ActivationStore
    from probes import attribute_matrix
    from sparse_autoencoders import SparseAutoencoder

    store, loaded = ActivationStore.open(activations), SparseAutoencoder.load(sae)
    opened = images_of(store, images)
    train, test = held_out(store)
    matrix = attribute_matrix(
        loaded, store, opened.attributes, discovery=train, confirmation=test, seed=seed, progress=ConsoleProgress()
    )
    target = Path(sae) / "attributes.json"
    write_json(target, matrix.to_json())
    closest = (
        matrix.findings
        or sorted((matrix[i] for i in range(len(matrix))), key=lambda f: -abs(f.rho_confirmation or 0))[:10]
    )
    found = {"result": str(target), "text": matrix.text, "findings": [vars(f) for f in matrix.findings]}
    if as_json:
        emit(found, "", as_json=True)
        return
    rows = [
        (
            f.feature,
            f.attribute,
            f.unit,
            f"{f.rho_discovery:+.2f}",
            f"{f.rho_confirmation:+.2f}",
            f"{f.p_corrected:.3g}",
            f.verdict,
        )
        for f in closest
    ]
    emit_table(
        found,
        matrix.text,
        ["feature", "attribute", "unit", "rho, chosen on", "rho, held out", "p", "verdict"],
        rows,
        as_json=False,
    )
