"""``mechinterp compare-saes DIR…``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.cli.console import ConsoleProgress, emit_table
from experiments.cli.options import ActivationsFlag, JsonFlag, SplitFlag
from mechinterp.errors import ConfigError

COLUMNS = ("explained_variance", "l0", "cosine", "dead", "dense")


def run(
    saes: Annotated[list[Path], typer.Argument(help="folders of autoencoders, or folders that hold some")],
    activations: ActivationsFlag,
    split: SplitFlag = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="page with the plots; by default pareto.html in the first DIR")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="of the random baseline")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Measure several autoencoders of one site on the same held-out images, with baselines at every sparsity among them.

    Prints a table and writes a page: explained variance against active features, and how many features recur over the seeds of each
    setting.

    [bold]Example[/bold]

      mechinterp compare-saes runs/a/sweep --activations runs/a/activations
    """
    from experiments.analysis.comparison import compared, pareto_page
    from experiments.analysis.measurements import held_out, said_of_images, said_of_training_images
    from mechinterp.store.reader import ActivationStore
    from sparse_autoencoders import SparseAutoencoder

    folders = found_in(saes)
    store = ActivationStore.open(activations)
    loaded = {name: SparseAutoencoder.load(folder) for name, folder in folders.items()}
    train, test = held_out(store)
    chosen = test if split is None else store.where(split)
    comparison = compared(loaded, store, train=train, test=chosen, seed=seed, progress=ConsoleProgress())
    caution = said_of_training_images(loaded, store, chosen)
    page = pareto_page(comparison, Path(out) if out is not None else saes[0] / "pareto.html", caution=caution)
    rows: dict[str, Any] = {str(name): row for name, row in comparison.table.to_dict(orient="index").items()}
    emit_table(
        {
            "site": comparison.site,
            "metrics": rows,
            "recurs": comparison.recurs,
            "images": len(chosen),
            "caution": caution,
            "page": str(page),
        },
        said_of_images(comparison.site, chosen, store, caution),
        ["", "features", *(name.replace("_", " ") for name in COLUMNS), "recurs"],
        [
            (name, row["features"], *(f"{row[column]:.4g}" for column in COLUMNS), _recurs(comparison.recurs.get(name)))
            for name, row in rows.items()
        ],
        as_json=as_json,
    )


def found_in(folders: list[Path]) -> dict[str, Path]:
    """Return the autoencoders in and below some folders, by a name that tells them apart.

    Raises
    ------
    ConfigError
        If a folder holds none.

    """
    found: dict[str, Path] = {}
    for folder in folders:
        below = sorted(path.parent for path in folder.rglob("cfg.json"))
        if not below:
            raise ConfigError(f"{folder} holds no autoencoder: give folders that `mechinterp train-sae` wrote")
        for path in below:
            inside = path.relative_to(folder).as_posix()
            name = folder.name if inside == "." else inside if len(folders) == 1 else f"{folder.name}/{inside}"
            found[name if name not in found else path.as_posix()] = path
    return found


def _recurs(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"
