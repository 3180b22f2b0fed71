"""``mechinterp capture``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from experiments.cli.console import ConsoleProgress, emit
from experiments.cli.options import (
    DeviceFlag,
    DownloadFlag,
    ImagesFlag,
    JsonFlag,
    ModelFlag,
    SplitFlag,
    WeightsFlag,
    with_config,
)
from mechinterp.capturing import CaptureConfig


@with_config(CaptureConfig, leave_out=["sites"])
def run(
    model: ModelFlag,
    images: ImagesFlag,
    site: Annotated[list[str], typer.Option("--site", help="a place in the model; repeat it for several")],
    out: Annotated[Path, typer.Option("--out", help="folder of the store; its parent becomes the run")],
    weights: WeightsFlag = None,
    split: SplitFlag = None,
    fit: Annotated[
        Literal["pad", "stretch", "crop"],
        typer.Option("--fit", help="pad, stretch or crop images into the model's input"),
    ] = "pad",
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
    """
    from experiments.run_directory import Run
    from mechinterp.capturing import capture
    from mechinterp.images.opening import open_images
    from mechinterp.images.preparation import Preparation
    from mechinterp.models.loading import load_model

    progress = ConsoleProgress()
    preparation = Preparation(fit=fit)
    config = CaptureConfig(sites=tuple(site), **settings)
    opened = open_images(images)
    if split is not None:
        opened = opened.subset(opened.where(split))
    loaded = load_model(model, weights, download=download, device=device)
    for name in config.sites:
        loaded.site(name)
    with Run.create(out.parent).stage(
        "capture", model=model, weights=loaded.weights, images=str(images), split=split
    ) as record:
        store = capture(loaded, opened, out=out, config=config, preparation=preparation, progress=progress)
        record.update(activations=Run(out.parent).relative(out), hash=store.hash, images_n=len(store))
    text = f"{len(store)} images, {len(store.sites)} site(s) in {out}" + (
        "" if loaded.trained else "\nUNTRAINED: the model has random weights"
    )
    emit(
        {
            "store": str(out),
            "images": len(store),
            "sites": list(store.sites),
            "hash": store.hash,
            "trained": loaded.trained,
        },
        text,
        as_json=as_json,
    )
