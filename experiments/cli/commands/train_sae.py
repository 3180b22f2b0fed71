"""``mechinterp train-sae``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.cli.console import ConsoleProgress, emit
from experiments.cli.options import ActivationsFlag, JsonFlag, SiteFlag, SplitFlag, with_config
from sparse_autoencoders.config import TrainSAEConfig


@with_config(TrainSAEConfig)
def run(
    activations: ActivationsFlag,
    out: Annotated[Path, typer.Option("--out", help="folder for the autoencoders, one sub-folder each")],
    site: SiteFlag = None,
    split: SplitFlag = None,
    as_json: JsonFlag = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Train sparse autoencoders on a store.

    They train on the split named, on `train` where there is one, else on all images. What is saved loads with
    sae_lens.SAE.load_from_disk.

    [bold]Examples[/bold]

      mechinterp train-sae --activations runs/a/activations --k 32 --expansion 4 --out runs/a/saes

      mechinterp train-sae --activations runs/a/activations --site stages.3 --seeds 0,1,2 --out runs/a/saes
    """
    from experiments.run_directory import Run
    from mechinterp.store.reader import ActivationStore
    from sparse_autoencoders import train_saes

    config, progress = TrainSAEConfig(**settings), ConsoleProgress()
    store = ActivationStore.open(activations)
    images = None if split is None else store.where(split)
    with Run.create(out.parent).stage("train-sae", activations=str(activations), config=settings) as record:
        trained = train_saes(store, site=site, config=config, images=images, out=out, progress=progress)
        folders = [str(out / f"seed-{seed}") for seed in config.seeds]
        record.update(saes=[Run(out.parent).relative(f) for f in folders])
    emit({"saes": folders, "width": trained[0].width, "site": trained[0].site}, "\n".join(folders), as_json=as_json)
