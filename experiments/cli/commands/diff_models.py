"""``mechinterp diff-models``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import ConsoleProgress, emit_table
from experiments.cli.options import JsonFlag, SiteFlag, SplitFlag


def run(
    earlier: Annotated[Path, typer.Argument(metavar="EARLIER", help="a run folder of the earlier checkpoint")],
    later: Annotated[Path, typer.Argument(metavar="LATER", help="a run folder of the later checkpoint")],
    site: SiteFlag = None,
    split: SplitFlag = None,
    images: Annotated[int, typer.Option("--most-images", help="at most so many images of the earlier run")] = 400,
    same: Annotated[float, typer.Option("--same", help="least correlation of codes at which two features match")] = 0.7,
    turned: Annotated[
        float, typer.Option("--turned", help="cosine of directions under which a matched feature has turned")
    ] = 0.7,
    out: Annotated[Path | None, typer.Option("--out", help="where it is written; default: LATER/diff-models")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say which features a later checkpoint gained, lost or turned.

    Both look at the images of the earlier run. Features are those of each run's first autoencoder, or the neurons of --site.

    [bold]Examples[/bold]

      mechinterp diff-models runs/2025 runs/2026 --split test

      mechinterp diff-models runs/2025 runs/2026 --site stages.2 --json
    """
    from experiments.analysis.acting_runs import open_run
    from experiments.analysis.checkpoint_runs import diff_run, difference_sentences, write_difference
    from experiments.run_directory import Run

    runs = Run.open(earlier), Run.open(later)
    where = out or later / "diff-models"
    with runs[1].stage("diff-models", earlier=runs[1].relative(earlier), same=same, turned=turned) as record:
        before, after = (open_run(r, site) for r in runs)
        found = diff_run(
            before, after, split=split, most_images=images, same=same, turned=turned, progress=ConsoleProgress()
        )
        trained = before.model.trained and after.model.trained
        files = write_difference(found, before.encoders[0].site, trained, where)
        record.update(result=runs[1].relative(where))
    rows = [
        ("matched", str(len(found.pairs))),
        ("of these turned", str(len(found.rotated))),
        ("lost", str(len(found.lost))),
        ("new", str(len(found.new))),
        ("never varying, earlier and later", " and ".join(map(str, found.silent))),
        ("largest correlation by chance", f"{found.by_chance:.2f}"),
    ]
    title = " ".join(difference_sentences(found, trained))
    emit_table({**found.to_json(), "files": files}, title, ["features", ""], rows, as_json=as_json)
