"""``mechinterp counterfactuals``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import ConsoleProgress, emit_table
from experiments.cli.options import JsonFlag, SaeFlag, SiteFlag, SplitFlag, parsed_list


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="a run folder: activations, and autoencoders if there are")
    ],
    target: Annotated[str, typer.Option("--target", help="the class decided on; name or number")],
    site: SiteFlag = None,
    sae: SaeFlag = None,
    features: Annotated[
        str, typer.Option("--features", help="features that may be changed, separated by commas; all by default")
    ] = "",
    most: Annotated[int, typer.Option("--most", help="at most so many features of a case are changed")] = 32,
    split: SplitFlag = None,
    cases: Annotated[int, typer.Option("--cases", help="so many cases, spread over the split")] = 12,
    reference: Annotated[
        str | None, typer.Option("--reference-split", help="whose images give values and neighbours; all by default")
    ] = None,
    images: Annotated[int, typer.Option("--most-images", help="at most so many reference images")] = 400,
    out: Annotated[Path | None, typer.Option("--out", help="where it is written; default: RUN/counterfactuals")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the fewest features whose change turns a decision, and the real images nearest to the result.

    [bold]Examples[/bold]

      mechinterp counterfactuals runs/a --target tumour --split test --reference-split train

      mechinterp counterfactuals runs/a --target 1 --site stages.2 --cases 4 --json
    """
    from experiments.analysis.acting_runs import open_run
    from experiments.analysis.counterfactual_runs import turn_run, turning_sentences, write_turned
    from experiments.analysis.feature_names import attribute_names, named
    from experiments.run_directory import Run

    numbers = parsed_list("features", features, int)
    found_run = Run.open(folder)
    where = out or folder / "counterfactuals"
    with found_run.stage("counterfactuals", target=target, cases=cases, most=most) as record:
        opened = open_run(found_run, site, sae)
        turned = turn_run(
            opened, target, split=split, reference_split=reference, cases=cases, most_images=images, most=most,
            features=numbers, progress=ConsoleProgress(),
        )  # fmt: skip
        encoder = opened.encoders[0]
        known = attribute_names(folder, {encoder.weights_hash: encoder.site})
        names = [named(f, encoder.site, known) for f in range(encoder.width)]
        files = write_turned(turned, names, opened, where)
        record.update(result=found_run.relative(where))
    ids = opened.images.ids
    rows = [
        (
            ids[row],
            f"{one.before:+.2f}",
            f"{one.after:+.2f}",
            "yes" if one.turned else "no",
            ", ".join(map(str, one.features)),
            ", ".join(ids[turned.reference[n]] for n in one.neighbours),
        )
        for one, row in zip(turned.found, turned.cases, strict=True)
    ]
    columns = ["image", "log-odds", "changed", "turned", "features", "nearest real images"]
    title = " ".join(turning_sentences(turned, opened))
    emit_table({**turned.to_json(opened), "files": files}, title, columns, rows, as_json=as_json)
