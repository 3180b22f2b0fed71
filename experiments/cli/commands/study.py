"""``mechinterp study NAME``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.cli.console import ConsoleProgress, emit
from experiments.cli.options import DownloadFlag, JsonFlag, with_config
from experiments.studies.brain_mri_config import BrainMRIConfig
from mechinterp.errors import ConfigError, nearest

STUDIES = ("brain-mri",)


@with_config(BrainMRIConfig)
def run(
    name: Annotated[str, typer.Argument(help="brain-mri")],
    out: Annotated[Path, typer.Option("--out", help="folder of the run")],
    download: DownloadFlag = False,
    as_json: JsonFlag = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Run a whole case study: capture, decompose, attribute, intervene, and write the pages.

    brain-mri asks why a published tumour classifier calls slices of a tumour-free head "meningioma". Given again with the
    same folder and settings, it goes on where it was interrupted.

    [bold]Examples[/bold]

      mechinterp study brain-mri --out runs/brain-mri

      mechinterp study brain-mri --out runs/vit --model timm:vit_tiny_patch16_224 --weights random --quick
    """
    if name not in STUDIES:
        raise ConfigError(f"no study '{name}': {nearest(name, STUDIES)}")
    from experiments.studies.brain_mri import run_brain_mri

    results = run_brain_mri(out, BrainMRIConfig(**settings), download=download, progress=ConsoleProgress())
    page = out / "page" / "index.html"
    emit(
        {
            "out": str(out),
            "page": str(page),
            "results": str(out / "results.json"),
            "answer": results["answer"],
            "claims": [{k: c[k] for k in ("statement", "verdict", "reasons")} for c in results["claims"]],
        },
        "\n".join([*results["answer"], str(page)]),
        as_json=as_json,
    )
