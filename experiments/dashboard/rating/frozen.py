"""Galleries of a frozen-random autoencoder of the same site: what people recognise although nothing was learnt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from experiments.dashboard.desk.opening import encoder_of_run
from experiments.dashboard.feature_details import MOST_IMAGES
from experiments.dashboard.rating.items import Shown
from experiments.dashboard.run_view import RunView
from mechinterp.progress import SILENT, Progress

TOP = 6


def frozen_random_examples(
    view: RunView, features: int, *, seed: int = 0, progress: Progress = SILENT
) -> list[list[Shown]]:
    """Return the strongest images of features of an autoencoder with random weights, as many active as in the run's.

    Parameters
    ----------
    view
        The run, whose store is read.
    features
        How many features, drawn at random among those that are active on at least six images.
    seed
        Of the weights and the draw.
    progress
        Sees the pass over the activations.

    Returns
    -------
    list of list
        Six images a feature, strongest first; fewer features where fewer are active on enough images.

    Raises
    ------
    ConfigError, HashMismatchError, DamagedFileError
        If the run's store or autoencoder cannot be read.

    """
    from experiments.analysis.measurements import active_at_once, evenly
    from mechinterp.store.reader import ActivationStore
    from sparse_autoencoders.baselines import random_sae
    from sparse_autoencoders.gallery import choose_examples

    store, trained = ActivationStore.open(view.run_dir / "activations"), encoder_of_run(view)
    l0 = view["sae"]["metrics"]["l0"].number()
    k = active_at_once(getattr(trained, "k", None), trained.width if l0 is None else l0, trained.width)
    images = evenly(np.arange(len(store)), MOST_IMAGES)
    frozen = random_sae(store, trained.site, images, trained.width, k, seed)
    gallery = choose_examples(frozen, store, images, top=TOP, seed=seed, progress=progress)
    enough = np.flatnonzero((gallery.activation.images >= 0).sum(1) == TOP)
    chosen = np.random.default_rng(seed).permutation(enough)[:features]
    found = []
    for feature in chosen.tolist():
        strongest = gallery.activation.images[feature]
        maps = gallery.maps(frozen, store, feature, strongest)
        found.append([Shown(int(i), _grid(view, tokens)) for i, tokens in zip(strongest, maps, strict=True)])
    return found


def _grid(view: RunView, tokens: Float[NDArray[np.float32], " token"]) -> tuple[tuple[float, ...], ...]:
    """Return a feature's values on the site's cells, which come after any prefix tokens; nothing where they have no place."""
    rows, columns = view["grid"]["rows"].integer(), view["grid"]["columns"].integer()
    if not rows or not columns or len(tokens) < rows * columns:
        return ()
    cells: Sequence[Sequence[float]] = tokens[len(tokens) - rows * columns :].reshape(rows, columns).tolist()
    return tuple(tuple(row) for row in cells)
