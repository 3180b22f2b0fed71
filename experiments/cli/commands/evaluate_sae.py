"""``mechinterp evaluate-sae SAE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import ConsoleProgress, emit_table
from experiments.cli.options import ActivationsFlag, JsonFlag, SplitFlag


def run(
    sae: Annotated[Path, typer.Argument(help="folder of an autoencoder, as `mechinterp train-sae` writes it")],
    activations: ActivationsFlag,
    split: SplitFlag = None,
    seed: Annotated[int, typer.Option("--seed", help="of the random baseline")] = 0,
    allow_mismatch: Annotated[
        bool, typer.Option("--allow-mismatch", help="measure on activations of another model or preparation too")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure a sparse autoencoder on held-out images, beside baselines with as many active features.

    Measured on the split named, on `test` where there is one, else on all images (and said so).

    [bold]Example[/bold]

      mechinterp evaluate-sae runs/a/saes/topk-seed0 --activations runs/a/activations
    """
    from experiments.analysis.measurements import held_out
    from mechinterp.store.reader import ActivationStore
    from sparse_autoencoders import SparseAutoencoder, classical_encoders, control_encoders, evaluate_sae
    from sparse_autoencoders.autoencoder import require_same_source

    store, loaded = ActivationStore.open(activations), SparseAutoencoder.load(sae)
    require_same_source(loaded, store, allow_mismatch=allow_mismatch)
    train, test = held_out(store)
    chosen = test if split is None else store.where(split)
    own = evaluate_sae(loaded, store, chosen, allow_mismatch=allow_mismatch)
    # where the number of active features varies from token to token, baselines keep as many as it has in the mean
    few = min(loaded.k or max(1, round(own.l0)), loaded.width)
    encoders = {
        name: encoder
        for make in (control_encoders, classical_encoders)
        for name, encoder in make(store, site=loaded.site, width=loaded.width, k=few, images=train, seed=seed).items()
    }
    rows = {"sae": own.to_json()} | {
        name: evaluate_sae(encoder, store, chosen).to_json()
        for name, encoder in ConsoleProgress().track(list(encoders.items()), "evaluating", total=len(encoders))
    }
    names = [k for k, v in rows["sae"].items() if isinstance(v, (int, float))]
    emit_table(
        {"sae": str(sae), "images": len(chosen), "metrics": rows},
        f"{loaded.site}, {len(chosen)} images" + ("" if len(chosen) < len(store) else " (all: no split is held out)"),
        ["", *rows],
        [(n.replace("_", " "), *(_shown(row.get(n)) for row in rows.values())) for n in names],
        as_json=as_json,
    )


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "–"
