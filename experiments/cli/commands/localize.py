"""``mechinterp localize``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.localization.config import LocalizationConfig
from experiments.cli.console import ConsoleProgress, emit_table
from experiments.cli.options import (
    DeviceFlag,
    DownloadFlag,
    FitFlag,
    ImagesFlag,
    JsonFlag,
    ModelFlag,
    WeightsFlag,
    WindowFlag,
    with_config,
)

if TYPE_CHECKING:
    from circuits.localization import LocalizationTable

DRAWN_IMAGES = 3


@with_config(LocalizationConfig)
def run(
    model: ModelFlag,
    images: ImagesFlag,
    metric: Annotated[
        str, typer.Option("--metric", help="CLASS, difference:CLASS,OTHER or probability:CLASS; names or numbers")
    ],
    mask: Annotated[list[str], typer.Option("--mask", help="what maps should find; several masks count together")],
    out: Annotated[Path, typer.Option("--out", help="folder for localization.json and localization.html")],
    weights: WeightsFlag = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", help="integrated-gradients, grad-cam, occlusion, lrp, rollout, gradient; default: all"
        ),
    ] = None,
    discovery: Annotated[
        str | None,
        typer.Option("--discovery", help="split on which thresholds are chosen; default: validation, else train"),
    ] = None,
    confirmation: Annotated[str, typer.Option("--confirmation", help="split that is scored")] = "test",
    ground_truth: Annotated[
        bool, typer.Option("--ground-truth", help="masks are known by construction: a phantom, never a real image")
    ] = False,
    window: WindowFlag = None,
    fit: FitFlag = "pad",
    download: DownloadFlag = False,
    device: DeviceFlag = "cpu",
    as_json: JsonFlag = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Say where in the image an answer comes from, and whether such maps can be believed.

    Every method is scored against masks and for faithfulness, beside an edge detector, a centre prior and noise; a map that
    does not change when the weights are made random is flagged.

    [bold]Examples[/bold]

      mechinterp localize --model py:net.py:build --images eyes/ --metric referable --mask haemorrhages --mask exudates
        --out runs/a/localization

      mechinterp localize --model timm:resnet18 --weights mine.safetensors --images scans/ --metric difference:tumour,none
        --mask tumour --method lrp --random-images 0 --out runs/b/localization --json
    """
    from circuits.localization import localization_table
    from experiments.analysis.circuit_runs import parsed_metric
    from mechinterp.files import write_json
    from mechinterp.images.opening import open_images
    from mechinterp.images.preparation import Preparation
    from mechinterp.images.proportions import note_of_proportions
    from mechinterp.models.loading import load_model

    progress = ConsoleProgress()
    opened = open_images(images, window=window, progress=progress)
    loaded = load_model(model, weights, download=download, device=device)
    preparation = Preparation(fit=fit)
    if said := note_of_proportions(opened, loaded.contract, preparation):
        progress.note(said)
    if discovery is None:  # many keep two splits: what was trained on chooses the thresholds then
        discovery = "validation" if "validation" in (opened.splits or ()) else "train"
    table = localization_table(
        loaded,
        opened.subset(opened.where(discovery)),
        opened.subset(opened.where(confirmation)),
        parsed_metric(metric),
        truth=tuple(mask),
        methods=tuple(method) if method else None,
        ground_truth=ground_truth,
        config=LocalizationConfig(**settings),
        preparation=preparation,
        progress=progress,
    )
    write_json(out / "localization.json", table.to_json())
    page = _write_page(table, out / "localization.html")
    rows = [
        (
            r.method,
            r.score("auprc").text,
            r.score("pointing").text,
            f"{r.score('distance').text} {r.score('distance').unit}",
            r.faithfulness["deletion"].text if r.faithfulness else "–",
            "; ".join(r.flags) or "none",
        )
        for r in table.rows
    ]
    untrained = "" if loaded.trained else " – UNTRAINED model: no claim about it is met"
    title = f"Maps of {table.metric}: {table.images} images {_whose(table)}{untrained}"
    summary = {**table.to_json(), "result": str(out / "localization.json"), "page": str(page)}
    columns = ["method", "AUPRC", "pointing", "distance", "deletion", "flags"]
    emit_table(summary, title, columns, rows, as_json=as_json)


def _whose(table: LocalizationTable) -> str:
    return f"of {table.patients} patients" if table.patients else "that name no patients"


def _write_page(table: LocalizationTable, path: Path) -> Path:
    """Write the table, its picture, and the maps of a few images side by side."""
    from circuits.localization.figures import maps_figure, scores_figure
    from experiments.dashboard.single_page import Shown, write_single_page

    truth = " and ".join(table.truth)
    maps = [table.maps[row.method] for row in table.rows]
    n = min(DRAWN_IMAGES, table.images)
    lines = [
        f"{table.images} images with {truth}, {_whose(table)}. Thresholds were chosen on others.",
        "Every number is a mean over patients with its 95 % interval."
        if table.patients
        else "Every number is a mean; there is no interval without patients.",
        *(f"{c.statement}: {c.verdict}." for c in table.claims()),
    ]
    if not table.trained:
        lines.insert(0, "Untrained model (random weights): no claim about it is met.")
    figures = [
        Shown(
            "Precision and recall", table.figure(), "Higher is better; what stands left of a baseline finds nothing."
        ),
        Shown("All scores", scores_figure(table), "AUPRC, pointing, Dice: higher; distance to the lesion: lower."),
        *(
            Shown(f"Maps of image {maps[0].shown.ids[i]}", maps_figure(maps, i, truth=table.truth), f"White: {truth}.")
            for i in range(n)
        ),
    ]
    return write_single_page(path, f"Where {table.metric} comes from", lines, figures)
