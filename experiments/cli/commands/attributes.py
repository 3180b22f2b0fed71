"""``mechinterp attributes SAE``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from experiments.cli.console import ConsoleProgress, emit, emit_table
from experiments.cli.options import ActivationsFlag, JsonFlag, SeedFlag

if TYPE_CHECKING:
    from mechinterp.attributes.table import AttributeTable
    from probes.pooling import Pooling


def run(
    sae: Annotated[Path, typer.Argument(help="folder of an autoencoder, as `mechinterp train-sae` writes it")],
    activations: ActivationsFlag,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="where the attributes are; default: where the store's images came from"),
    ] = None,
    pooling: Annotated[
        str, typer.Option("--pooling", help="a feature's value of an image: mean, max or active share of its tokens")
    ] = "mean",
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="also measure every mask of the images: MASK_area, MASK_contrast, MASK_entropy, …"
        ),
    ] = False,
    seed: SeedFlag = 0,
    as_json: JsonFlag = False,
) -> None:
    """Say which physical attribute each feature follows, in units.

    Each feature's attribute is chosen on the training images and tested on the held-out ones, at a false-discovery rate of 5 %
    and by the highest of all pairs tested, beside neurons, PCA, random directions, and the directions that the attributes
    themselves give. Writes the numbers as JSON, and a page with the heat map, the survivors' intervals, and the activation of
    the strongest against their attributes in units.

    [bold]Example[/bold]

      mechinterp attributes runs/a/saes/topk-seed0 --activations runs/a/activations
    """
    from dataclasses import replace

    import numpy as np

    from experiments.analysis.attribute_page import (
        interval_text,
        known_well_enough,
        lines_of,
        sentence_of,
        shown_features,
        summary,
        survivors_curves,
        write_attribute_page,
    )
    from experiments.analysis.measurements import held_out, middle_of_volume
    from experiments.analysis.stagewise import images_of
    from experiments.analysis.store_cautions import unnamed_patients
    from mechinterp.attributes.from_masks import attributes_from_masks
    from mechinterp.errors import ConfigError
    from mechinterp.files import jsonable, write_json
    from mechinterp.store.reader import ActivationStore
    from probes import attribute_matrix
    from probes.pooling import patients_of
    from sparse_autoencoders import SparseAutoencoder

    store, loaded, progress = ActivationStore.open(activations), SparseAutoencoder.load(sae), ConsoleProgress()
    opened = images_of(store, images)
    if measure:
        opened = replace(opened, attributes=attributes_from_masks(opened, progress=progress).joined(opened.attributes))
    train, test = held_out(store) if opened.units_are_patients else middle_of_volume(len(opened))
    if np.intersect1d(train, test).size:
        raise ConfigError("no images are held out, so nothing can be confirmed: give the images a split `test`")
    table: AttributeTable = opened.attributes
    left_out: tuple[str, ...] = ()
    if opened.units_are_patients:
        table, left_out = known_well_enough(table, patients_of(store)[0], (train, test))
    if left_out:
        progress.note(f"left out, under 10 patients have a value on one side: {', '.join(left_out)}")
    matrix = attribute_matrix(
        loaded, store, table, discovery=train, confirmation=test,
        pooling=cast("Pooling", pooling),  # an unknown one is refused there, with the names
        seed=seed, progress=progress,
    )  # fmt: skip
    curves = survivors_curves(
        matrix, loaded, store, table, test, cast("Pooling", pooling), seed=seed, progress=progress
    )
    whole = summary(matrix, table.select(test))
    target, page = Path(sae) / "attributes.json", Path(sae) / "attributes.html"
    write_json(
        target,
        {
            **matrix.to_json(),
            "sae_weights_hash": loaded.weights_hash,
            "whole": jsonable(whole),
            "trained": store.manifest.trained,
            "curves": [c.to_json() for c in curves],
        },
    )
    lines = [*unnamed_patients(store), *lines_of(matrix, whole, store.manifest.trained)]
    write_attribute_page(page, f"Attributes of {loaded.site}", lines, matrix, curves)
    found = jsonable(
        {
            "result": str(target),
            "page": str(page),
            "text": sentence_of(matrix),
            "survivors": [vars(f) for f in matrix.survivors],
            "findings": [vars(f) for f in matrix.findings],
            "whole": whole,
            "curves": [c.to_json() for c in curves],
            "left_out": list(left_out),
            "trained": store.manifest.trained,
        }
    )
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
            interval_text(f),
            f"{f.q:.3g}",
            f.verdict,
        )
        for f in shown_features(matrix)
    ]
    heads = ["feature", "attribute", "unit", "rho, chosen on", "rho, held out", "95 % interval", "q", "verdict"]
    emit_table(found, "\n".join([*lines, f"page: {page}"]), heads, rows, as_json=False)
