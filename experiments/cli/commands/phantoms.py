"""``mechinterp phantoms KIND``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from experiments.cli.console import ConsoleProgress, emit
from experiments.cli.options import JsonFlag, with_config
from mechinterp.errors import ConfigError, nearest
from mechinterp.phantoms.fundus_population import FundusStudy
from mechinterp.phantoms.planted_shortcut import PlantedShortcut

KINDS = ("fundus",)


@with_config(FundusStudy, leave_out=["shortcut"])
def run(
    kind: Annotated[str, typer.Argument(help="fundus")],
    out: Annotated[Path, typer.Option("--out", help="folder for images, masks, metadata.csv and dataset.yaml")],
    shortcut: Annotated[
        Literal["camera_tag", "ruler_mark"] | None,
        typer.Option("--shortcut", help="plant a mark that goes with the label: camera_tag or ruler_mark"),
    ] = None,
    shortcut_train: Annotated[
        float, typer.Option("--shortcut-train", help="its correlation with the label in training")
    ] = 0.9,
    shortcut_test: Annotated[
        float, typer.Option("--shortcut-test", help="its correlation with the label in the test")
    ] = 0.0,
    masks: Annotated[bool, typer.Option("--masks/--no-masks", help="also write the mask of every structure")] = True,
    as_json: JsonFlag = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Render images with known truth: parameters in mm and mm², masks, patients, splits, and a shortcut if one is asked for.

    [bold]Examples[/bold]

      mechinterp phantoms fundus --patients 50 --out phantoms/

      mechinterp phantoms fundus --shortcut ruler_mark --shortcut-train 0.9 --out shortcut/
    """
    if kind not in KINDS:
        raise ConfigError(f"no phantom '{kind}': {nearest(kind, KINDS)}")
    from mechinterp.phantoms.datasets import fundus_phantoms

    planted = None if shortcut is None else PlantedShortcut(mark=shortcut, train=shortcut_train, test=shortcut_test)
    phantoms = fundus_phantoms(FundusStudy(**settings, shortcut=planted))
    folder = phantoms.write_image_folder(out, masks=masks, progress=ConsoleProgress())
    emit(
        {"out": str(folder), "images": len(phantoms.images)},
        f"{len(phantoms.images)} images in {folder}",
        as_json=as_json,
    )
