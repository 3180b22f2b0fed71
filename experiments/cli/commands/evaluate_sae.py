"""``mechinterp evaluate-sae SAE``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.console import ConsoleProgress, emit_table
from experiments.cli.options import ActivationsFlag, JsonFlag, SplitFlag

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mechinterp.store.reader import ActivationStore
    from sparse_autoencoders.joint_format import Trained


def run(
    sae: Annotated[
        Path,
        typer.Argument(help="folder of an autoencoder, transcoder or crosscoder, as `mechinterp train-sae` writes it"),
    ],
    activations: ActivationsFlag,
    split: SplitFlag = None,
    seed: Annotated[int, typer.Option("--seed", help="of the random baseline")] = 0,
    allow_mismatch: Annotated[
        bool, typer.Option("--allow-mismatch", help="measure on activations of another model or preparation too")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure a sparse autoencoder on held-out images, beside baselines with as many active features.

    Measured on the split named, on `test` where there is one, else on what is not in `train`, else on all images. Images that it was
    trained on are no measure of it, and said. Of a transcoder, what counts is the
    site that it writes, beside the best linear map; of a crosscoder, each site has a column.

    [bold]Example[/bold]

      mechinterp evaluate-sae runs/a/saes/topk-seed0 --activations runs/a/activations
    """
    from experiments.analysis.measurements import held_out, said_of_images, said_of_training_images
    from mechinterp.store.reader import ActivationStore
    from sparse_autoencoders.joint_format import load_trained

    store, loaded = ActivationStore.open(activations), load_trained(sae)
    train, test = held_out(store)
    chosen = test if split is None else store.where(split)
    site, rows = _measured(loaded, store, train, chosen, seed, allow_mismatch)
    first = next(iter(rows.values()))
    names = [k for k, v in first.items() if isinstance(v, (int, float))]
    caution = said_of_training_images({sae.name: loaded}, store, chosen)
    emit_table(
        {"sae": str(sae), "site": site, "images": len(chosen), "caution": caution, "metrics": rows},
        said_of_images(site, chosen, store, caution),
        ["", *rows],
        [(n.replace("_", " "), *(_shown(row.get(n)) for row in rows.values())) for n in names],
        as_json=as_json,
    )


def _measured(
    loaded: Trained,
    store: ActivationStore,
    train: NDArray[np.int64],
    chosen: NDArray[np.int64],
    seed: int,
    allow_mismatch: bool,
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return what was measured at, and the metrics of what was loaded and of its controls."""
    from experiments.analysis.measurements import active_at_once
    from sparse_autoencoders import Crosscoder, Transcoder, classical_encoders, control_encoders, evaluate_sae
    from sparse_autoencoders.autoencoder import require_same_source
    from sparse_autoencoders.joint_metrics import evaluate_crosscoder, evaluate_transcoder, linear_map

    if isinstance(loaded, Crosscoder):
        found = evaluate_crosscoder(loaded, store, chosen, allow_mismatch=allow_mismatch)
        return ", ".join(loaded.sites), {name: metrics.to_json() for name, metrics in found.items()}
    if isinstance(loaded, Transcoder):
        written = evaluate_transcoder(loaded, store, chosen, allow_mismatch=allow_mismatch)
        linear = linear_map(store, loaded.site, loaded.to_site, train)
        control = evaluate_transcoder(linear, store, chosen).to_json()
        shared = {name: control[name] for name in ("explained_variance", "norm_explained", "norm_ratio", "cosine")}
        return f"{loaded.site} to {loaded.to_site}", {"transcoder": written.to_json(), "best linear map": shared}
    require_same_source(loaded, store, allow_mismatch=allow_mismatch)
    own = evaluate_sae(loaded, store, chosen, allow_mismatch=allow_mismatch)
    # where the number of active features varies from token to token, baselines keep as many as it has in the mean
    few = active_at_once(loaded.k, own.l0, loaded.width)
    encoders = {
        name: encoder
        for make in (control_encoders, classical_encoders)
        for name, encoder in make(store, site=loaded.site, width=loaded.width, k=few, images=train, seed=seed).items()
    }
    rows = {"sae": own.to_json()} | {
        name: evaluate_sae(encoder, store, chosen).to_json()
        for name, encoder in ConsoleProgress().track(list(encoders.items()), "evaluating", total=len(encoders))
    }
    return loaded.site, rows


def _shown(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else "–"
