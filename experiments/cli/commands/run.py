"""``mechinterp run CONFIG``."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import ConsoleProgress


def run(
    config: Annotated[Path, typer.Argument(help="a TOML file, as `mechinterp init` writes it")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only print the commands")] = False,
) -> None:
    """Run the commands of a config file, one after another; a later run goes on where an earlier one stopped.

    Paths in the file are relative to it.

    [bold]Examples[/bold]

      mechinterp run study.toml

      mechinterp run study.toml --dry-run
    """
    from experiments.cli import entry
    from experiments.cli.config_file import read_stages

    stages = read_stages(config)
    progress = ConsoleProgress()
    with contextlib.chdir(config.resolve().parent):
        for number, stage in enumerate(stages, 1):
            line = shlex.join(["mechinterp", *stage.words])
            if dry_run:
                print(line)
                continue
            progress.note(f"{number} of {len(stages)}: {line}")
            code = entry.run(stage.words)
            if code:
                progress.note(f"stopped at {number} of {len(stages)}, {stage.command}: what the ones before made stays")
                raise typer.Exit(code)
