"""``mechinterp steer``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import ConsoleProgress, emit_table
from experiments.cli.options import JsonFlag, SaeFlag, SeedFlag, SiteFlag, SplitFlag, parsed_list


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="a run folder: activations, and autoencoders if there are")
    ],
    features: Annotated[str, typer.Option("--features", help="numbers of the features, separated by commas")],
    target: Annotated[str, typer.Option("--target", help="the class whose log-odds are measured; name or number")],
    site: SiteFlag = None,
    sae: SaeFlag = None,
    doses: Annotated[
        str, typer.Option("--doses", help="in standard deviations of the feature's code, separated by commas")
    ] = "-4,-2,-1,1,2,4",
    split: SplitFlag = None,
    images: Annotated[int, typer.Option("--most-images", help="at most so many images, spread over the set")] = 200,
    random: Annotated[int, typer.Option("--random", help="random directions of the same norm beside it")] = 20,
    out: Annotated[Path | None, typer.Option("--out", help="where it is written; default: RUN/steer")] = None,
    seed: SeedFlag = 0,
    as_json: JsonFlag = False,
) -> None:
    """Add more and more of a feature, and say what that does to the decision, beside random directions.

    Features are those of the run's autoencoder, or the neurons of --site. The model's weights stay as they are.

    [bold]Examples[/bold]

      mechinterp steer runs/a --features 17 --target tumour --split test

      mechinterp steer runs/a --site stages.2 --features 3,8 --target 1 --doses -2,2 --json
    """
    from experiments.analysis.acting_runs import interval_words, open_run
    from experiments.analysis.feature_names import attribute_names, named
    from experiments.analysis.steering_runs import steer_run, write_steered
    from experiments.run_directory import Run

    numbers, amounts = parsed_list("features", features, int), parsed_list("doses", doses, float)
    found_run = Run.open(folder)
    where = out or folder / "steer"
    with found_run.stage("steer", features=list(numbers), target=target, doses=list(amounts), seed=seed) as record:
        opened = open_run(found_run, site, sae)
        found = steer_run(
            opened, numbers, target, doses=amounts, split=split, most_images=images, random=random, seed=seed,
            progress=ConsoleProgress(),
        )  # fmt: skip
        encoder = opened.encoders[0]
        known = attribute_names(folder, {encoder.weights_hash: encoder.site})
        names = [named(f, encoder.site, known) for f in numbers]
        files = write_steered(found, names, opened, where)
        record.update(result=found_run.relative(where))
    rows = [
        (
            name,
            f"{dose:+g}",
            f"{one.change[k]:+.3f}",
            interval_words(one.intervals[k]),
            f"{one.random[:, k].min():+.3f} to {one.random[:, k].max():+.3f}" if len(one.random) else "–",
            f"{one.off_data[k]:.2f} ×",
        )
        for one, name in zip(found, names, strict=True)
        for k, dose in enumerate(one.doses)
    ]
    columns = ["feature", "dose [SD]", "change", "95 % over patients", "random directions", "distance from the data"]
    result = {"target": found[0].target, "site": opened.encoders[0].site, "features": [f.to_json() for f in found]}
    title = f"Change of the log-odds of {found[0].target}" + ("" if opened.model.trained else " – UNTRAINED model")
    emit_table({**result, "files": files}, title, columns, rows, as_json=as_json)
