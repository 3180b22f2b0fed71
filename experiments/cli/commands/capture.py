"""``mechinterp capture``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from experiments.cli.console import ConsoleProgress, emit
from experiments.cli.options import (
    CheckFlag,
    DeviceFlag,
    DownloadFlag,
    FitFlag,
    ImagesFlag,
    JsonFlag,
    KeyFlag,
    MaxBadFlag,
    ModelFlag,
    SplitFlag,
    WeightsFlag,
    WindowFlag,
    with_config,
)
from mechinterp.capturing import CaptureConfig


@with_config(CaptureConfig, leave_out=["sites"])
def run(
    model: ModelFlag,
    images: ImagesFlag,
    site: Annotated[list[str], typer.Option("--site", help="a place in the model; repeat it for several")],
    out: Annotated[
        str,
        typer.Option(
            "--out", help="folder of the store, whose parent becomes the run; or a URL such as s3://bucket/store"
        ),
    ],
    weights: WeightsFlag = None,
    split: SplitFlag = None,
    window: WindowFlag = None,
    key: KeyFlag = None,
    max_bad: MaxBadFlag = "10%",
    check: CheckFlag = True,
    fit: FitFlag = "pad",
    append: Annotated[bool, typer.Option("--append", help="add these images to a finished store")] = False,
    engine: Annotated[
        Literal["local", "ray"], typer.Option("--engine", help="make shards in this process, or as Ray tasks")
    ] = "local",
    address: Annotated[
        str,
        typer.Option("--address", help="with --engine ray: the cluster, as host:port or `auto`; without, this machine"),
    ] = "",
    workers: Annotated[
        int, typer.Option("--workers", help="with --engine ray: shards made at once; 0: one for each processor")
    ] = 0,
    gpus_per_task: Annotated[
        float,
        typer.Option("--gpus-per-task", help="with --engine ray: part of a GPU that each shard takes, such as 0.5"),
    ] = 0.0,
    device: DeviceFlag = "cpu",
    download: DownloadFlag = False,
    as_json: JsonFlag = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Run a model over images and store the activations of some sites.

    An interrupted capture goes on where it was when the same command is given again.

    [bold]Examples[/bold]

      mechinterp capture --model timm:vit_small_patch16_224 --weights mine.safetensors --images scans/
        --site blocks.8.hook_resid_post --outputs --out runs/a/activations

      mechinterp capture --model py:net.py:build --images scans/ --site stages.3 --out runs/b/activations
        --engine ray --workers 8
    """
    from experiments.engine.ray_engine import RayConfig, ray_map
    from mechinterp.capturing import Mapper, capture, local_map
    from mechinterp.errors import ConfigError
    from mechinterp.images.findings import write_set_aside
    from mechinterp.images.opening import open_images
    from mechinterp.images.preparation import Preparation
    from mechinterp.images.proportions import note_of_proportions
    from mechinterp.models.loading import load_model
    from mechinterp.store.storage import is_remote

    progress = ConsoleProgress()
    preparation = Preparation(fit=fit)
    on_ray = RayConfig(address=address, workers=workers, gpus_per_task=gpus_per_task)
    if engine == "local" and on_ray != RayConfig():
        raise ConfigError("--address, --workers and --gpus-per-task are of --engine ray: add it, or leave them out")
    config = CaptureConfig(sites=tuple(site), **settings)
    mapper: Mapper = local_map
    if engine == "ray":
        # one thread a task, so that bits depend on no machine's number of processors
        config = replace(config, threads=config.threads or 1)
        mapper = ray_map(on_ray)
    # the model before the images: a misspelt site is told at once, not when all images have been read
    loaded = load_model(model, weights, download=download, device=device)
    for name in config.sites:
        loaded.site(name)
    opened = open_images(images, window=window, key=key, max_bad=max_bad if check else None, progress=progress)
    if split is not None:
        opened = opened.of_split(split)
    notes = [*opened.notes, *filter(None, [note_of_proportions(opened, loaded.contract, preparation)])]
    for sentence in notes:
        progress.note(sentence)
    if not is_remote(out):
        write_set_aside(Path(out).parent / "set_aside.json", opened)
    with _recorded(
        out, model=model, weights=loaded.weights, images=str(images), split=split, engine=engine, append=append
    ) as record:
        store = capture(
            loaded,
            opened,
            out=out,
            config=config,
            preparation=preparation,
            append=append,
            mapper=mapper,
            progress=progress,
        )
        record.update(
            hash=store.hash,
            images_n=len(store),
            coverage={name: store.coverage(name) for name in store.sites},
            notes=notes,
            set_aside=len(opened.set_aside),
        )
    text = f"{len(store)} images, {len(store.sites)} site(s) in {out}" + (
        "" if loaded.trained else "\nUNTRAINED: the model has random weights"
    )
    emit(
        {
            "store": str(out),
            "images": len(store),
            "sites": list(store.sites),
            "coverage": {name: store.coverage(name) for name in store.sites},
            "hash": store.hash,
            "trained": loaded.trained,
        },
        text,
        as_json=as_json,
    )


@contextmanager
def _recorded(out: str, **given: Any) -> Iterator[dict[str, Any]]:
    """Record the stage in the run beside the store; a store behind a URL has no run beside it."""
    from experiments.run_directory import Run
    from mechinterp.store.storage import is_remote

    if is_remote(out):
        yield {}
        return
    run = Run.create(Path(out).parent)
    with run.stage("capture", **given) as record:
        yield record
        record.update(activations=run.relative(out))
