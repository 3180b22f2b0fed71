"""``mechinterp train-reference KIND``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import ConsoleProgress, emit
from experiments.cli.options import JsonFlag, SeedFlag


def run(
    kind: Annotated[str, typer.Argument(help="cnn or vit")],
    out: Annotated[Path | None, typer.Option("--out", help="where trained models are kept; default: the cache")] = None,
    phantom: Annotated[str, typer.Option("--phantom", help="fundus, chest or mammogram")] = "fundus",
    seed: SeedFlag = 0,
    as_json: JsonFlag = False,
) -> None:
    """Train a small reference model on phantoms, the same bits every time; minutes, and nothing when it is cached.

    [bold]Examples[/bold]

      mechinterp train-reference cnn

      mechinterp train-reference vit --json

      mechinterp train-reference cnn --phantom chest
    """
    from mechinterp.reference.training import train_reference

    if phantom == "fundus":
        trained = train_reference(kind, seed=seed, cache_dir=out, progress=ConsoleProgress())
    else:
        from mechinterp.reference.radiographs import train_radiograph_reference

        trained = train_radiograph_reference(phantom, kind, seed=seed, cache_dir=out, progress=ConsoleProgress())
    emit(
        {"spec": trained.spec, "weights": str(trained.weights), "auroc": trained.auroc, "report": trained.report},
        f"AUROC {trained.auroc:.3f} on patients never seen\n--model {trained.spec} --weights {trained.weights}",
        as_json=as_json,
    )
