"""``mechinterp diff-circuits``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import emit_table
from experiments.cli.options import JsonFlag


def run(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="a circuit.json, or the run or folder that holds one")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="another one, over the same nodes")],
    names: Annotated[
        str, typer.Option("--names", help="how the two are called, separated by a comma")
    ] = "the first,the second",
    out: Annotated[Path, typer.Option("--out", help="where it is written")] = Path("diff-circuits"),
    as_json: JsonFlag = False,
) -> None:
    """Say which edges two circuits share, which only one of them has, and which turned.

    [bold]Examples[/bold]

      mechinterp diff-circuits runs/2025 runs/2026 --names 2025,2026 --out runs/2026/diff-circuits

      mechinterp diff-circuits runs/a/circuit-right runs/a/circuit-wrong --names right,wrong --json
    """
    from circuits import difference
    from experiments.analysis.graph_differences import (
        difference_json,
        difference_lines,
        read_graph,
        write_graph_difference,
    )
    from mechinterp.errors import ConfigError

    called = [n.strip() for n in names.split(",")]
    if len(called) != 2 or not all(called):
        raise ConfigError(f"--names is '{names}': give two names, separated by a comma")
    both = called[0], called[1]
    a, b = read_graph(first), read_graph(second)
    found = difference(a, b)
    files = write_graph_difference(found, a, b, both, out)
    largest = [
        *((e.source, e.target, f"only {both[0]}", f"{e.size:.3g}") for e in found.only_first),
        *((e.source, e.target, f"only {both[1]}", f"{e.size:.3g}") for e in found.only_second),
    ]
    rows = sorted(largest, key=lambda row: -float(row[3]))[:20]
    title = " ".join(difference_lines(found, a, b, both))
    summary = {**difference_json(found, both), "files": files}
    emit_table(summary, title, ["source", "target", "edge", "size"], rows, as_json=as_json)
