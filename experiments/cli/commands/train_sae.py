"""``mechinterp train-sae``."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from experiments.cli.console import ConsoleProgress, emit
from experiments.cli.options import ActivationsFlag, JsonFlag, SiteFlag, SplitFlag, with_config
from mechinterp.errors import ConfigError, nearest
from sparse_autoencoders.config import TrainSAEConfig


@with_config(TrainSAEConfig)
def run(
    activations: ActivationsFlag,
    out: Annotated[Path, typer.Option("--out", help="folder for the autoencoders, one sub-folder each")],
    site: SiteFlag = None,
    split: SplitFlag = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep", help="train one for each value of a setting, on one read of the store: k=16,32; repeatable"
        ),
    ] = None,
    as_json: JsonFlag = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Train sparse autoencoders on a store.

    They train on the split named, on `train` where there is one, else on all images. A training that was interrupted goes on where
    it was when the same command is given again. Look at OUT/training.html while it runs. What is saved loads with
    sae_lens.SAE.load_from_disk.

    [bold]Examples[/bold]

      mechinterp train-sae --activations runs/a/activations --k 32 --expansion 4 --out runs/a/saes

      mechinterp train-sae --activations runs/a/activations --site stages.3 --seeds 0,1,2 --out runs/a/saes

      mechinterp train-sae --activations runs/a/activations --arch batchtopk --sweep k=16,32,64 --out runs/a/saes
    """
    from experiments.dashboard.training_page import TrainingPage
    from experiments.run_directory import Run
    from mechinterp.store.reader import ActivationStore
    from sparse_autoencoders import train_sweep

    configs, progress = swept(TrainSAEConfig(**settings), sweep or []), ConsoleProgress()
    store = ActivationStore.open(activations)
    images = None if split is None else store.where(split)
    page = TrainingPage(out)
    with Run.create(out.parent).stage(
        "train-sae", activations=str(activations), config=settings, sweep=sweep
    ) as record:
        trained = train_sweep(store, configs, site=site, images=images, out=out, progress=progress, watch=page.write)
        names = [f"{name}/seed-{seed}".lstrip("/") for name, config in configs.items() for seed in config.seeds]
        folders = [str(out / name) for name in names]
        record.update(saes=[Run(out.parent).relative(f) for f in folders])
    progress.note(f"training curves: {page.path}")
    emit({"saes": folders, "width": trained[0].width, "site": trained[0].site}, "\n".join(folders), as_json=as_json)


def swept(config: TrainSAEConfig, sweeps: list[str]) -> dict[str, TrainSAEConfig]:
    """Return one config for each combination of the swept values, by the name of its folder.

    Raises
    ------
    ConfigError
        If a sweep is not ``setting=value,value``, or names no setting that can be swept.

    """
    kinds = {name: kind for name, kind in get_type_hints(TrainSAEConfig).items() if name not in {"seeds", "prefixes"}}
    chosen: dict[str, list[Any]] = {}
    for text in sweeps:
        name, _, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if name not in kinds:
            raise ConfigError(f"--sweep {text}: no setting '{name}' to sweep; {nearest(name, kinds)}")
        chosen[name] = [_parsed(text, kinds[name], value.strip()) for value in values.split(",") if value.strip()]
        if not chosen[name]:
            raise ConfigError(f"--sweep {text}: give values, as {name}=…,…")
    names = list(chosen)
    return {
        "_".join(
            f"{name.replace('_', '-')}-{value}" for name, value in zip(names, values, strict=True)
        ): dataclasses.replace(config, **dict(zip(names, values, strict=True)))
        for values in itertools.product(*chosen.values())
    }


def _parsed(text: str, kind: Any, value: str) -> Any:
    for number in (int, float):
        if kind in {number, number | None}:
            try:
                return number(value)
            except ValueError:
                raise ConfigError(f"--sweep {text}: '{value}' is no {number.__name__}") from None
    return value
