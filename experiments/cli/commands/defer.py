"""``mechinterp defer``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import ConsoleProgress, emit_table
from experiments.cli.options import JsonFlag, SaeFlag, SeedFlag, SiteFlag, parsed_list


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="a run folder whose images have labels and two splits at least")
    ],
    target: Annotated[str, typer.Option("--target", help="the class that the decision is about; name or number")],
    features: Annotated[
        str,
        typer.Option("--features", help="features that a case should not depend on, a shortcut's say; with commas"),
    ] = "",
    score: Annotated[
        list[str] | None,
        typer.Option("--score", help="an attribute that is high where a case is doubtful; may be given several times"),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report/--no-report",
            help="take scores from the run's own findings: its attributes, its search for shortcuts",
        ),
    ] = True,
    distrust: Annotated[
        str, typer.Option("--distrust", help="attributes that no answer should rest on, a mark's say; with commas")
    ] = "",
    label: Annotated[
        str | None, typer.Option("--label", help="the images' label that is the target; by default the class's name")
    ] = None,
    site: SiteFlag = None,
    sae: SaeFlag = None,
    split: Annotated[str, typer.Option("--split", help="whose cases are handed over or kept")] = "test",
    reference: Annotated[
        str, typer.Option("--reference-split", help="whose images say what is usual at the site")
    ] = "train",
    images: Annotated[int, typer.Option("--most-images", help="at most so many images of either split")] = 1000,
    out: Annotated[Path | None, typer.Option("--out", help="where it is written; default: RUN/defer")] = None,
    seed: SeedFlag = 0,
    as_json: JsonFlag = False,
) -> None:
    """Say whether a score knows when not to trust the model, beside the model's own confidence.

    Scores: distance of a case's activation from the data, and what the features leave out of it. From the run's findings: the
    share of the answer that rests on features with no attribute that held-out images confirmed (mechinterp attributes), and how
    far the answer moves when those that serve a shortcut are taken away (mechinterp shortcuts on another split, --distrust, or
    --features).

    [bold]Examples[/bold]

      mechinterp defer runs/a --target referable --distrust camera_tag

      mechinterp defer runs/a --target referable --site stages.3 --score blur_px --json
    """
    from experiments.analysis.acting_runs import interval_words, open_run
    from experiments.analysis.deferral_runs import KEPT, defer_run, write_deferral
    from experiments.analysis.report_findings import report_findings
    from experiments.run_directory import Run

    numbers = parsed_list("features", features, int)
    found_run = Run.open(folder)
    where = out or folder / "defer"
    with found_run.stage("defer", target=target, features=list(numbers), split=split, seed=seed) as record:
        opened = open_run(found_run, site, sae)
        findings = None
        if report:
            distrusted = tuple(name.strip() for name in distrust.split(",") if name.strip())
            for name in distrusted:
                opened.column("--distrust", name)  # an attribute that nobody has would silently distrust nothing
            findings = report_findings(found_run, opened.encoders[0], sae=sae, cases_split=split, distrusted=distrusted)
        found = defer_run(
            opened, target, label=label, features=numbers, attributes=score or (), split=split,
            reference_split=reference, most_images=images, seed=seed, findings=findings, progress=ConsoleProgress(),
        )  # fmt: skip
        files = write_deferral(found, where)
        record.update(result=found_run.relative(where))
    rows = [
        (
            one.name,
            f"{one.excess:.4f}",
            f"{one.gain:+.4f}",
            interval_words(one.interval),
            *(f"{one.risk_at(k):.1%}" for k in KEPT),
        )
        for one in found.found
    ]
    columns = ["score", "excess area", "gain", "95 % over patients", *(f"wrong of {k:.0%} kept" for k in KEPT)]
    title = " ".join(found.sentences()[-len(found.found) - bool(found.source) :])
    emit_table({**found.to_json(), "files": files}, title, columns, rows, as_json=as_json)
