"""``mechinterp train-sae``."""

from __future__ import annotations

import dataclasses
import itertools
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from experiments.cli.console import ConsoleProgress, emit
from experiments.cli.options import ActivationsFlag, JsonFlag, SiteFlag, SplitFlag, with_config
from mechinterp.errors import ConfigError, nearest
from sparse_autoencoders.config import TrainSAEConfig

if TYPE_CHECKING:
    from mechinterp.store.reader import ActivationStore
    from sparse_autoencoders.training import TrainingStatus

_MANY_DEAD = 0.2  # share of the features that is worth a line


@with_config(TrainSAEConfig)
def run(
    activations: ActivationsFlag,
    out: Annotated[Path, typer.Option("--out", help="folder for the autoencoders, one sub-folder each")],
    site: SiteFlag = None,
    to_site: Annotated[
        str | None,
        typer.Option(
            "--to-site", help="train transcoders: from --site to this one, as from an MLP's input to its output"
        ),
    ] = None,
    sites: Annotated[
        str | None,
        typer.Option("--sites", help="train crosscoders: one dictionary for these sites, separated by commas"),
    ] = None,
    split: SplitFlag = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep", help="train one for each value of a setting, on one read of the store: k=16,32; repeatable"
        ),
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(
            "--track", help="log curves to tensorboard, wandb (offline unless WANDB_MODE=online) or mlflow, by commas"
        ),
    ] = None,
    as_json: JsonFlag = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Train sparse autoencoders, transcoders or crosscoders on a store.

    They train on the split named, on `train` where there is one, else on all images. A training that was interrupted goes on where
    it was when the same command is given again. Look at OUT/training.html while it runs. What is saved loads with
    sae_lens.SAE.load_from_disk. Several processes or GPUs share each step by `accelerate launch --no-python`.

    [bold]Examples[/bold]

      mechinterp train-sae --activations runs/a/activations --k 32 --expansion 4 --out runs/a/saes

      mechinterp train-sae --activations runs/a/activations --site stages.3 --seeds 0,1,2 --out runs/a/saes

      mechinterp train-sae --activations runs/a/activations --arch batchtopk --sweep k=16,32,64 --out runs/a/saes

      mechinterp train-sae --activations runs/a/activations --site blocks.2.norm2 --to-site blocks.2.hook_mlp_out --arch batchtopk
      --out runs/a/transcoders

      mechinterp train-sae --activations runs/a/activations --sites blocks.1.hook_resid_post,blocks.2.hook_resid_post
      --out runs/a/crosscoders

      accelerate launch --num_processes 4 --no-python mechinterp train-sae --activations runs/a/activations --device cuda
      --out runs/a/saes
    """
    from experiments.analysis.finished_training import refuse_to_overwrite
    from experiments.analysis.tracking import Trackers
    from experiments.dashboard.training_page import TrainingPage
    from experiments.run_directory import Run
    from mechinterp.progress import SILENT
    from mechinterp.store.reader import ActivationStore
    from sparse_autoencoders.processes import Processes

    if sites is not None and (site is not None or to_site is not None):
        raise ConfigError("--sites trains crosscoders and takes neither --site nor --to-site: leave them out")
    configs = swept(TrainSAEConfig(**settings), sweep or [])
    if to_site is None and any(config.skip for config in configs.values()):
        raise ConfigError("--skip is for transcoders: name the site that is written with --to-site")
    store = ActivationStore.open(activations)
    images = None if split is None else store.where(split)
    refuse_to_overwrite(out, configs, store, _sites(store, site, to_site, sites), images)
    if not Processes.joined(settings["device"]).first:
        # the first process alone speaks and writes
        _trained(store, configs, site, to_site, sites, {"images": images, "out": out, "progress": SILENT})
        return
    progress = ConsoleProgress()
    if (idle := said_of_idle_flags(configs)) is not None:
        progress.note(idle)
    page = TrainingPage(out)
    trackers = None if not track else Trackers([name.strip() for name in track.split(",")], out, settings)
    with (
        Run.create(out.parent).stage("train-sae", activations=str(activations), config=settings, sweep=sweep) as record,
        nullcontext() if trackers is None else trackers,
    ):
        dead: dict[str, float] = {}

        def watch(status: TrainingStatus) -> None:
            dead.update({name: curve["dead"][-1] for name, curve in status.curves.items() if curve["dead"]})
            page.write(status)
            if trackers is not None:
                trackers.write(status)

        common = {"images": images, "out": out, "progress": progress, "watch": watch}
        width, read = _trained(store, configs, site, to_site, sites, common)
        names = [f"{name}/seed-{seed}".lstrip("/") for name, config in configs.items() for seed in config.seeds]
        folders = [str(out / name) for name in names]
        record.update(saes=[Run(out.parent).relative(f) for f in folders])
    progress.note(f"training curves: {page.path}")
    if (advice := said_of_silence(dead, configs)) is not None:
        progress.note(advice)
    emit({"saes": folders, "width": width, "site": read}, "\n".join(folders), as_json=as_json)


def _sites(store: ActivationStore, site: str | None, to_site: str | None, sites: str | None) -> list[str]:
    """Return the sites that are asked for: of autoencoders one, of transcoders what is read and written, of crosscoders all."""
    from sparse_autoencoders.autoencoder import only_site

    if sites is not None:
        return [name.strip() for name in sites.split(",") if name.strip()]
    if to_site is None:
        return [only_site(store, site)]
    if site is None:
        raise ConfigError(f"--to-site {to_site} says what is written: name what is read with --site")
    return [only_site(store, site), to_site]


def _trained(
    store: ActivationStore,
    configs: dict[str, TrainSAEConfig],
    site: str | None,
    to_site: str | None,
    sites: str | None,
    common: dict[str, Any],
) -> tuple[int, str]:
    """Train what the sites ask for; return the number of features and what they read, in words."""
    from sparse_autoencoders import crosscoder_sweep, train_sweep, transcoder_sweep

    names = _sites(store, site, to_site, sites)
    if sites is not None:
        return crosscoder_sweep(store, configs, sites=names, **common)[0].width, ", ".join(names)
    read = names[0]
    if to_site is None:
        return train_sweep(store, configs, site=read, **common)[0].width, read
    return transcoder_sweep(store, configs, site=read, to_site=to_site, **common)[0].width, f"{read} to {to_site}"


def said_of_silence(dead: dict[str, float], configs: dict[str, TrainSAEConfig]) -> str | None:
    """Say what helps where many features fell silent and were not woken; nothing where few did.

    Parameters
    ----------
    dead
        Share of the features that were silent at the end of each training, by its name.
    configs
        What was trained, by the name that the trainings' names begin with.

    """
    from sparse_autoencoders.sparse_learner import ARCHITECTURES

    wakeable = {
        name: share
        for name, share in dead.items()
        for sweep, config in configs.items()
        if name.rpartition("/")[0] == sweep and config.arch in ARCHITECTURES and config.wake == 0
    }
    if not wakeable or max(wakeable.values()) <= _MANY_DEAD:
        return None
    worst = max(wakeable, key=lambda name: wakeable[name])
    return (
        f"{wakeable[worst]:.0%} of the features of {worst} are dead: without --wake 0 silent features get a new place; "
        "train so into another folder and compare-saes"
    )


def said_of_idle_flags(configs: dict[str, TrainSAEConfig]) -> str | None:
    """Return which settings that somebody gave do not act, since silent features are woken instead; nothing where all do."""
    from sparse_autoencoders.sparse_learner import ARCHITECTURES

    usual = TrainSAEConfig()
    idle = [
        (f"--{name} {getattr(config, name):g}", config.arch)
        for config in configs.values()
        for name in ("aux", "restarts")
        if config.arch in ARCHITECTURES and config.wake and getattr(config, name) != getattr(usual, name)
    ]
    if not idle:
        return None
    flag, arch = idle[0]
    return f"{flag} does not act on {arch} while silent features are woken: --wake 0 lets it"


def swept(config: TrainSAEConfig, sweeps: list[str]) -> dict[str, TrainSAEConfig]:
    """Return one config for each combination of the swept values, by the name of its folder.

    Raises
    ------
    ConfigError
        If a sweep is not ``setting=value,value``, or names no setting that can be swept.

    Notes
    -----
    A setting that is named twice takes the values of both.

    """
    kinds = {name: kind for name, kind in get_type_hints(TrainSAEConfig).items() if name not in {"seeds", "prefixes"}}
    chosen: dict[str, list[Any]] = {}
    for text in sweeps:
        name, _, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if name not in kinds:
            raise ConfigError(f"--sweep {text}: no setting '{name}' to sweep; {nearest(name, kinds)}")
        found = [_parsed(text, kinds[name], value.strip()) for value in values.split(",") if value.strip()]
        chosen[name] = list(dict.fromkeys([*chosen.get(name, []), *found]))
        if not found:
            raise ConfigError(f"--sweep {text}: give values, as {name}=…,…")
    names = list(chosen)
    return {
        "_".join(
            f"{name.replace('_', '-')}-{str(value).lower() if kinds[name] is bool else value}"
            for name, value in zip(names, values, strict=True)
        ): dataclasses.replace(config, **dict(zip(names, values, strict=True)))
        for values in itertools.product(*chosen.values())
    }


def _parsed(text: str, kind: Any, value: str) -> Any:
    if kind is bool:
        if value.lower() not in {"true", "false"}:
            raise ConfigError(f"--sweep {text}: '{value}' is neither true nor false")
        return value.lower() == "true"
    for number in (int, float):
        if kind in {number, number | None}:
            try:
                return number(value)
            except ValueError:
                raise ConfigError(f"--sweep {text}: '{value}' is no {number.__name__}") from None
    return value
