"""``mechinterp subgroups``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from experiments.cli.console import ConsoleProgress, emit_table
from experiments.cli.options import JsonFlag, SaeFlag, SeedFlag, SiteFlag, SplitFlag
from mechinterp.errors import ConfigError


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="a run folder: activations, and autoencoders if there are")
    ],
    by: Annotated[
        str, typer.Option("--by", help="an attribute with few values (sex, scanner, age band), `split` or `label`")
    ],
    metric: Annotated[
        str, typer.Option("--metric", help="CLASS, difference:CLASS,OTHER or probability:CLASS; names or numbers")
    ],
    method: Annotated[
        str, typer.Option("--method", help="how effects are computed: attribution, integrated, exact …")
    ] = "attribution",
    ablation: Annotated[str, typer.Option("--ablation", help="what is put in place: zero, mean or resample")] = "mean",
    nodes: Annotated[int, typer.Option("--nodes", help="so many nodes with the largest effect")] = 10,
    site: SiteFlag = None,
    sae: SaeFlag = None,
    split: SplitFlag = None,
    images: Annotated[int, typer.Option("--most-images", help="at most so many images, spread over the set")] = 300,
    out: Annotated[Path | None, typer.Option("--out", help="where it is written; default: RUN/subgroups")] = None,
    seed: SeedFlag = 0,
    as_json: JsonFlag = False,
) -> None:
    """Measure what the strongest nodes do in every subgroup of patients, with intervals.

    [bold]Examples[/bold]

      mechinterp subgroups runs/a --by sex --metric tumour

      mechinterp subgroups runs/a --by scanner --metric difference:tumour,none --site stages.2 --method exact --json
    """
    from circuits.measuring import Method
    from experiments.analysis.acting_runs import interval_words, open_run
    from experiments.analysis.subgroup_runs import subgroup_run, write_subgroups
    from experiments.run_directory import Run

    known: tuple[Method, ...] = get_args(Method)
    chosen = next((m for m in known if m == method), None)
    if chosen is None:
        raise ConfigError(f"--method is '{method}': it must be {', '.join(known)}")
    found_run = Run.open(folder)
    where = out or folder / "subgroups"
    with found_run.stage("subgroups", by=by, metric=metric, method=method, ablation=ablation, seed=seed) as record:
        found = subgroup_run(
            open_run(found_run, site, sae), by, metric, method=chosen, ablation=ablation, split=split,
            most_images=images, nodes=nodes, seed=seed, progress=ConsoleProgress(),
        )  # fmt: skip
        files = write_subgroups(found, where)
        record.update(result=found_run.relative(where))
    rows = [(f.node.name, f.subgroup, str(f.images), f"{f.mean:+.3g}", interval_words(f.interval)) for f in found.found]
    columns = ["node", "subgroup", "images", "mean effect", "95 % over patients"]
    emit_table({**found.to_json(), "files": files}, " ".join(found.sentences()), columns, rows, as_json=as_json)
