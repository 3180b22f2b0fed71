"""``mechinterp probe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import emit, emit_table
from experiments.cli.options import ActivationsFlag, JsonFlag, SeedFlag, SiteFlag


def run(
    activations: ActivationsFlag,
    attribute: Annotated[str, typer.Option("--attribute", help="which attribute of the images to read")],
    site: SiteFlag = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="where the attributes are; default: where the store's images came from"),
    ] = None,
    folds: Annotated[int, typer.Option("--folds", help="cross-validation folds; a patient is never in two")] = 5,
    seed: SeedFlag = 0,
    as_json: JsonFlag = False,
) -> None:
    """Read a physical attribute off a site with a linear probe, beside its controls.

    Cross-validated by patient (by contiguous blocks for the slices of one volume); error in the attribute's unit.

    [bold]Examples[/bold]

      mechinterp probe --activations runs/a/activations --attribute lesion_area

      mechinterp probe --activations runs/a/activations --attribute brain_area --site stages.2 --json
    """
    from experiments.analysis.measurements import probe_record
    from experiments.analysis.stagewise import images_of
    from experiments.run_directory import Run
    from mechinterp.files import write_json
    from mechinterp.store.reader import ActivationStore
    from probes import probe_store

    store = ActivationStore.open(activations)
    opened = images_of(store, images)
    opened.attributes.column(attribute)
    found = {}
    for name in [site] if site else store.sites:
        found[name] = probe_record(probe_store(store, name, opened.attributes, attribute, folds=folds, seed=seed))
    run_folder = Run.create(Path(activations).parent)
    target = run_folder.folder / "probes" / f"{attribute}.json"
    with run_folder.stage(f"probe {attribute}", activations=str(activations), seed=seed) as record:
        write_json(target, found)
        record.update(result=run_folder.relative(target))
    if as_json:
        emit(
            {"attribute": attribute, "result": str(target), "sites": found, "trained": store.manifest.trained},
            "",
            as_json=True,
        )
        return
    rows = [
        (
            name,
            f"{p['score_name']} {p['score']:.3f}",
            p["interval_note"] if not p["interval"] else f"{p['interval'][0]:.3f} to {p['interval'][1]:.3f}",
            "–" if p["mae"] is None else f"{p['mae']:.3g} {p['unit']}",
            "–" if p["p"] is None else f"{p['p']:.3g}",
            "; ".join(f"{c['name']}: {'passed' if c['passed'] else 'FAILED'}" for c in p["controls"]),
        )
        for name, p in found.items()
    ]
    title = f"{attribute}" + ("" if store.manifest.trained else " – UNTRAINED model: no claim about it is met")
    emit_table({}, title, ["site", "score", "95 % interval", "mean error", "p", "controls"], rows, as_json=False)
