"""``mechinterp shortcuts``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from experiments.cli.console import ConsoleProgress, emit_table
from experiments.cli.options import JsonFlag, SeedFlag, SiteFlag, SplitFlag
from mechinterp.errors import ConfigError


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="a run folder: activations, and autoencoders if there are")
    ],
    environment: Annotated[
        str,
        typer.Option(
            "--environment", help="attribute of two values (hospital, scanner), or `split` where there are two"
        ),
    ],
    target: Annotated[str, typer.Option("--target", help="the class that the decision is about; name or number")],
    label: Annotated[
        str | None, typer.Option("--label", help="the images' label that is the target; by default the class's name")
    ] = None,
    site: SiteFlag = None,
    split: SplitFlag = None,
    method: Annotated[
        str, typer.Option("--method", help="how effects are computed: exact, attribution or integrated")
    ] = "exact",
    images: Annotated[int, typer.Option("--most-images", help="at most so many images, spread over the set")] = 600,
    out: Annotated[Path | None, typer.Option("--out", help="where it is written; default: RUN/shortcuts")] = None,
    seed: SeedFlag = 0,
    as_json: JsonFlag = False,
) -> None:
    """Find features whose use differs between two environments, with false alarms controlled.

    Features are those of the run's autoencoders, or the neurons of --site. Take images that the model was not trained on.

    [bold]Examples[/bold]

      mechinterp shortcuts runs/a --environment scanner --target tumour --split test

      mechinterp shortcuts runs/a --environment hospital --target tumour --site stages.2 --json
    """
    from circuits.measuring import Method
    from experiments.analysis.acting_runs import open_run, search_run, write_search
    from experiments.run_directory import Run

    known: tuple[Method, ...] = get_args(Method)
    chosen = next((m for m in known if m == method), None)
    if chosen is None:
        raise ConfigError(f"--method is '{method}': it must be {', '.join(known)}")
    found_run = Run.open(folder)
    where = out or folder / "shortcuts"
    progress = ConsoleProgress()
    asked = {"environment": environment, "target": target, "split": split, "method": method, "seed": seed}
    with found_run.stage("shortcuts", **asked) as record:
        opened = open_run(found_run, site)
        search = search_run(
            opened,
            environment,
            target,
            label=label,
            split=split,
            most_images=images,
            method=chosen,
            seed=seed,
            progress=progress,
        )
        files = write_search(search, where, opened.caution)
        record.update(result=found_run.relative(where), encoders=[e.weights_hash for e in opened.encoders])
    rows = [
        (str(f.rank), f.node.name, f"{f.first:+.3f}", f"{f.second:+.3f}", f"{f.difference:+.3f}", f"{f.p:.4f}")
        for f in search.ranked(10)
    ]
    title = f"{search.claim.verdict}: {search.claim.statement}"
    columns = ["rank", "feature", search.environments[0], search.environments[1], "difference", "p"]
    emit_table({**search.to_json(), "files": files}, title, columns, rows, as_json=as_json)
