"""Several autoencoders of one site on the same held-out images, with baselines at every sparsity among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.dashboard.single_page import Shown, write_single_page
from mechinterp.errors import ConfigError
from mechinterp.progress import SILENT, Progress
from sparse_autoencoders import SparseAutoencoder, control_encoders, metrics_table
from sparse_autoencoders.classical import classical_encoders_at
from sparse_autoencoders.figures import pareto_figure
from sparse_autoencoders.other_seeds import of_other_seeds
from sparse_autoencoders.stability import RECURS_ABOVE, stability

if TYPE_CHECKING:
    from mechinterp.feature_encoder import FeatureEncoder
    from mechinterp.store.reader import ActivationStore


@dataclass(frozen=True)
class Comparison:
    """What :func:`compared` found.

    Parameters
    ----------
    site
        Of all of them.
    table
        One row for each autoencoder and baseline: ``features`` and the scalars of the metrics.
    saes
        Names of the rows that are no baselines.
    recurs
        For autoencoders of several seeds: share of the features that recur in every other seed of the same settings.

    """

    site: str
    table: pd.DataFrame
    saes: tuple[str, ...]
    recurs: dict[str, float]


def compared(
    saes: Mapping[str, SparseAutoencoder],
    store: ActivationStore,
    *,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    seed: int = 0,
    progress: Progress = SILENT,
) -> Comparison:
    """Measure autoencoders and their baselines.

    Parameters
    ----------
    saes
        By name; all of one site.
    store
        Activations.
    train, test
        Positions of the images that baselines are fitted to, and that all are measured on.
    seed
        Of the frozen-random baseline.
    progress
        Sees one step per block of images.

    Raises
    ------
    ConfigError
        If the autoencoders read different sites.

    """
    sites = sorted({sae.site for sae in saes.values()})
    if len(sites) != 1:
        raise ConfigError(f"autoencoders of several sites cannot be compared ({', '.join(sites)}): give those of one")
    measured = metrics_table(saes, store, test, progress=progress)
    controls: dict[str, FeatureEncoder] = {}
    widest = max(sae.width for sae in saes.values())
    ks = sorted({min(max(1, round(l0)), widest) for l0 in measured["l0"]})
    classical = classical_encoders_at(store, ks=ks, width=widest, site=sites[0], images=train, seed=seed)
    for k in ks:
        made = control_encoders(store, k=k, width=widest, site=sites[0], images=train, seed=seed) | classical[k]
        fixed = {"k-means"} | {name for name in made if name.rsplit(" ", 1)[-1].isdigit()}
        controls |= {name if name in fixed else f"{name}, k {k}": encoder for name, encoder in made.items()}
    table: pd.DataFrame = pd.concat([measured, metrics_table(controls, store, test, progress=progress)])
    return Comparison(sites[0], table, tuple(saes), _recurring(saes))


def _recurring(saes: Mapping[str, SparseAutoencoder]) -> dict[str, float]:
    shares = {}
    for name, sae in saes.items():
        others = of_other_seeds(sae, list(saes.values()))
        if others:
            found = stability(sae, others)
            shares[name] = float((found.recurs_in == found.others).mean())
    return shares


def pareto_page(comparison: Comparison, path: Path, *, caution: str | None = None) -> Path:
    """Write the page, with what is to be held against its numbers, and return its path."""
    lines = [] if caution is None else [f"CAUTION: {caution}."]
    lines += [
        f"Site {comparison.site}. Explained variance of {'held-out' if caution is None else 'these'} images against active features of a token: up and to the left is "
        "better. Grey: baselines with as many active features. Reconstruction is not recovery of features: look at what recurs over "
        "seeds too."
    ]
    lines += [
        f"{name}: {share:.0%} of the features recur in every other seed (cosine above {RECURS_ABOVE:g})."
        for name, share in comparison.recurs.items()
    ]
    figure = pareto_figure(comparison.table, comparison.saes)
    return write_single_page(path, "Autoencoders compared", lines, [Shown("Explained variance and sparsity", figure)])
