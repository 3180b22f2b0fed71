"""``mechinterp compare RUN RUN…``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import emit
from experiments.cli.options import JsonFlag


def run(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of at least two runs with a report")],
    out: Annotated[Path, typer.Option("--out", help="folder for compare.json and compare.html")] = Path("comparison"),
    as_json: JsonFlag = False,
) -> None:
    """Show several runs' reports side by side: studies, models, or a model planted right and planted wrong.

    Nothing is computed anew. Each run keeps its own verdicts; the page says whether the runs were confirmed on the same
    patients, without which their numbers cannot be held against each other.

    [bold]Examples[/bold]

      mechinterp compare runs/dr-cnn runs/dr-vit --out runs/cnn-vit

      mechinterp compare runs/dr runs/breast runs/brain-mri --json
    """
    from experiments.report.saving import read_report
    from experiments.report.side_by_side import run_names, side_by_side
    from experiments.report.side_by_side_page import side_by_side_page
    from mechinterp.files import jsonable, write_bytes, write_json

    names = run_names(folders)
    record = jsonable(side_by_side({name: read_report(path) for name, path in zip(names, folders, strict=True)}))
    page = out / "compare.html"
    write_json(out / "compare.json", record)
    write_bytes(page, side_by_side_page(record).encode())
    lines = [_line("", list(names)), _line("the model", [run["check"]["state"] for run in record["runs"]])]
    lines += [_line(part["element"], [cell["word"] for cell in part["cells"]]) for part in record["elements"]]
    emit(
        {**record, "page": str(page), "results": str(out / "compare.json")},
        "\n".join([*lines, *record["shared"], str(page)]),
        as_json=as_json,
    )


def _line(head: str, cells: list[str]) -> str:
    return "  ".join([f"{head:<23}", *(f"{cell[:22]:<22}" for cell in cells)]).rstrip()
