"""``mechinterp heads``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import ConsoleProgress, emit_table
from experiments.cli.options import ActivationsFlag, JsonFlag, SeedFlag, SiteFlag


def run(
    activations: ActivationsFlag,
    site: SiteFlag = None,
    label: Annotated[
        str | None, typer.Option("--label", help="binary attribute to tell apart; default: the images' two classes")
    ] = None,
    concepts: Annotated[
        str | None,
        typer.Option(
            "--concepts", help="attributes that serve as concepts, with commas between; default: all complete ones"
        ),
    ] = None,
    head: Annotated[
        list[str] | None, typer.Option("--head", help="bottleneck, additive, prototype or kernel; default: all")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="where the attributes are; default: where the store's images came from"),
    ] = None,
    prototypes: Annotated[int, typer.Option("--prototypes", help="prototypes of each class")] = 5,
    held_out: Annotated[float, typer.Option("--held-out", help="share of the patients that is scored")] = 0.4,
    seed: SeedFlag = 0,
    as_json: JsonFlag = False,
) -> None:
    """Fit classifiers that are interpretable by construction to a site's features, and say what that costs.

    A concept bottleneck and an additive model decide by attributes in their units, prototypes by likeness to training images,
    a kernel by shares of training patients: every answer is the sum of the terms shown. Scored on held-out patients beside an
    opaque classifier, with concept leakage and the gain from correcting concepts. Writes JSON and a page.

    [bold]Examples[/bold]

      mechinterp heads --activations runs/a/activations --site stages.3

      mechinterp heads --activations runs/a/activations --label referable --concepts lesion_area_mm2,blur_mm --head bottleneck

      mechinterp heads --activations runs/a/activations --head prototype --prototypes 8 --json
    """
    from experiments.analysis.head_runs import head_run, write_head_page
    from experiments.analysis.stagewise import images_of
    from experiments.run_directory import Run
    from mechinterp.errors import ConfigError, nearest
    from mechinterp.files import write_json
    from mechinterp.store.reader import ActivationStore
    from probes.heads import compare_heads
    from probes.heads.comparing import KINDS

    for kind in head or ():
        if kind not in KINDS:
            raise ConfigError(f"--head is '{kind}': {nearest(kind, KINDS)}")
    progress = ConsoleProgress()
    store = ActivationStore.open(activations)
    sites = tuple(store.manifest.sites)
    chosen_site = site or sites[-1]
    if chosen_site not in sites:
        raise ConfigError(f"the store has no site '{chosen_site}': {nearest(chosen_site, sites)}")
    opened = images_of(store, images)
    named = [part.strip() for part in concepts.split(",")] if concepts else []
    data = head_run(store, opened, chosen_site, label=label, concepts=named, held_out=held_out, seed=seed)
    for note in data.notes:
        progress.note(note)
    found = compare_heads(
        data.train, data.held_out, kinds=tuple(k for k in KINDS if not head or k in head), per_class=prototypes,
        units_are_patients=data.units_are_patients, seed=seed, progress=progress,
    )  # fmt: skip
    run_folder = Run.create(Path(activations).parent)
    folder = run_folder.folder / "heads"
    target = folder / f"{chosen_site}.json"
    with run_folder.stage(f"heads {chosen_site}", activations=str(activations), seed=seed) as record:
        result = {
            "site": chosen_site, "label": data.label, "classes": list(data.classes), "concepts": list(data.train.names),
            "trained": store.manifest.trained, "notes": list(data.notes), **found.to_json(),
        }  # fmt: skip
        write_json(target, result)
        page = write_head_page(
            data, found, opened, chosen_site, target.with_suffix(".html"), trained=store.manifest.trained
        )
        record.update(result=run_folder.relative(target), page=run_folder.relative(page))
    rows = [
        (
            s.name, f"{s.auroc:.3f}", s.interval.text if not s.interval.ends else f"{s.interval.low:.3f} to {s.interval.high:.3f}",
            f"{s.bits:.3f}", f"{s.brier:.3f}", f"{s.price:+.3f}",
        )
        for s in found.scores
    ]  # fmt: skip
    title = f"Heads at {chosen_site}: {data.classes[1]} or {data.classes[0]}"
    if not store.manifest.trained:
        title += " – UNTRAINED model: no claim about it is met"
    columns = ["head", "AUROC", "95 % interval", "log-loss [bits]", "Brier", "price"]
    emit_table({**result, "result": str(target), "page": str(page)}, title, columns, rows, as_json=as_json)
    if not as_json:
        for line in found.sentences():
            progress.note(line)
        progress.note(f"page: {page}")
