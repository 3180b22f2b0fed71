"""``mechinterp report RUN``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.console import ConsoleProgress, emit
from experiments.cli.options import JsonFlag

if TYPE_CHECKING:
    from experiments.report import Report
    from mechinterp.progress import Progress


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run")],
    strict: Annotated[
        bool, typer.Option("--strict", help="exit with 1 unless every element that the use needs is met")
    ] = False,
    pdf: Annotated[bool, typer.Option("--pdf", help="also print report.pdf, with Chromium")] = False,
    as_json: JsonFlag = False,
) -> int:
    """Say, for each of the five elements, whether the run makes its model interpretable, and how well that is shown.

    Writes report.json and report.html into the run. Verdicts follow from metrics, intervals and controls alone, and are reached
    anew every time. A run made stage by stage is analysed first, if that has not been done.

    [bold]Examples[/bold]

      mechinterp report runs/brain-mri

      mechinterp report runs/a --strict --pdf --json
    """
    from experiments.dashboard.rating.results import with_ratings
    from experiments.report.pdf import print_pdf
    from experiments.report.saving import PAGE, write_report

    report = with_ratings(_report_of(folder, ConsoleProgress()), folder)
    path = write_report(folder, report)
    page = folder / PAGE
    printed = print_pdf(page, folder / "report.pdf") if pdf else None
    record = report.to_json()
    emit(
        {**record, "page": str(page), "pdf": None if printed is None else str(printed), "report": str(path)},
        "\n".join([*_lines(report), str(printed or page)]),
        as_json=as_json,
    )
    return report.strict() if strict else 0


def _report_of(folder: Path, progress: Progress) -> Report:
    """Return a run's report: as its study wrote it, or made from its results."""
    from experiments.analysis.run_report import exploration_report
    from experiments.analysis.stagewise import ensure_results
    from experiments.report.saving import FILE, read_report
    from experiments.run_directory import Run
    from experiments.studies.brain_mri.report import brain_mri_report
    from mechinterp.files import read_json

    stages = Run.open(folder).stages if (folder / "run.json").exists() else {}
    if (folder / FILE).exists() and "study" in stages:
        return read_report(folder)
    ensure_results(folder, progress=progress)
    results = read_json(folder / "results.json")
    return brain_mri_report(results) if "replication" in results else exploration_report(results)


def _lines(report: Report) -> list[str]:
    needs = report.use_case.needs
    width = max(len(name) for name in report.verdicts)
    lines = [f"{report.use_case.title}: {report.model_check.state}"]
    for name, verdict in report.verdicts.items():
        needed = " (needed)" if name in needs else ""
        why = f": {verdict.reasons[0]}" if verdict.reasons else ""
        lines.append(f"  {name:<{width}}  {verdict.word}{needed}{why}")
    return [*lines, f"{len(needs) - len(report.unmet)} of {len(needs)} needed elements are met. Research use only."]
