"""``mechinterp verify DIR``."""

from __future__ import annotations

from typing import Annotated

import typer

from experiments.cli.console import emit
from experiments.cli.options import JsonFlag


def run(
    store: Annotated[
        str, typer.Argument(help="an activation store, as `mechinterp capture` makes it: a folder or a URL")
    ],
    as_json: JsonFlag = False,
) -> int:
    """Check every file of an activation store against its checksum; exits 1 when one is damaged.

    [bold]Example[/bold]

      mechinterp verify runs/a/activations
    """
    from mechinterp.store.reader import ActivationStore

    opened = ActivationStore.open(store)
    damaged = opened.verify()
    files = opened.files
    text = "\n".join(damaged) if damaged else f"{store}: {files} files, {len(opened)} images, all whole"
    emit({"store": store, "files": files, "images": len(opened), "damaged": damaged}, text, as_json=as_json)
    return 1 if damaged else 0
