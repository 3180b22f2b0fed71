"""What a page of probes shows on demand: which confounders a probe follows besides, and how few features would do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.dashboard.single_page import Shown
from mechinterp.errors import AttributeTableError, ConfigError, nearest
from mechinterp.progress import SILENT, Progress
from probes import (
    baseline_encoders,
    confounder_figure,
    confounder_graph,
    sparse_probe_figure,
    sparse_probe_store,
)
from probes.pooling import patients_of

if TYPE_CHECKING:
    from mechinterp.attributes.table import AttributeTable
    from mechinterp.store.reader import ActivationStore
    from probes import ProbeResult
    from probes.pooling import Pooling

Extra = tuple[dict[str, Any], Shown]
"""What goes into the JSON, and what onto the page."""


def check_confounders(store: ActivationStore, attributes: AttributeTable, attribute: str, names: Sequence[str]) -> None:
    """Refuse confounders that cannot be, before anything is probed.

    Raises
    ------
    AttributeTableError
        If one is what is read, or is not there.
    ConfigError
        If the store's groups are parts of one subject.

    """
    if not patients_of(store)[1]:
        raise ConfigError("--confounder needs patients: the groups of these images are parts of one subject")
    for name in names:
        if name == attribute:
            raise AttributeTableError(f"--confounder {name} is the attribute that is read: name others")
        if name not in attributes.names:
            raise AttributeTableError(f"no attribute '{name}': {nearest(name, attributes.names)}")


def confounders_of(
    best: ProbeResult, store: ActivationStore, attributes: AttributeTable, names: Sequence[str], *, seed: int = 0
) -> Extra:
    """Ask which of the named attributes a probe's predictions follow, the others and what it was trained on held fixed.

    Parameters
    ----------
    best
        Held-out predictions of one number an image.
    store
        For the patients.
    attributes, names
        Of the store's images; the confounders.
    seed
        Of folds and draws.

    Raises
    ------
    ConfigError
        If the prediction is a class.

    """
    groups, _ = patients_of(store)
    if best.kind == "categorical":
        raise ConfigError(f"--confounder needs one number an image, and '{best.attribute}' is read as classes")
    graph = confounder_graph(
        best.predicted, attributes.select(best.images), [best.attribute, *dict.fromkeys(names)],
        groups=None if groups is None else groups[best.images], readout_name=f"predicted {best.attribute}", seed=seed,
    )  # fmt: skip
    said = (
        f"What the predictions at {best.site} follow. A probe that reads its attribute alone has a slope over it and none over "
        "the others, once all of them are held fixed."
    )
    return graph.to_json(), Shown("Confounders", confounder_figure(graph), said)


def few_features_of(
    sae: Path,
    store: ActivationStore,
    attributes: AttributeTable,
    name: str,
    *,
    pooling: Pooling = "mean",
    kind: Any = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Extra:
    """Ask how few features of an autoencoder read an attribute, beside as many neurons, components and random directions.

    Parameters
    ----------
    sae
        Its folder.
    store, attributes, name
        Activations, the attributes of their images, and which.
    pooling, kind, seed, progress
        As for the probe.

    Raises
    ------
    ConfigError
        If the store does not hold the autoencoder's site.

    """
    from sparse_autoencoders import SparseAutoencoder

    loaded = SparseAutoencoder.load(sae)
    if loaded.site not in store.sites:
        raise ConfigError(
            f"the autoencoder reads '{loaded.site}', which the store does not hold: {nearest(loaded.site, store.sites)}"
        )
    settings: dict[str, Any] = {"pooling": pooling, "seed": seed, "progress": progress} | (
        {"kind": kind} if kind else {}
    )
    encoders = [loaded, *baseline_encoders(store, loaded.site, loaded.width, seed=seed).values()]
    found = [sparse_probe_store(encoder, store, attributes, name, **settings) for encoder in encoders]
    said = (
        f"Probes of the best k features at {loaded.site}, chosen on the training patients of each fold. Few features that do as "
        "well as all hold the attribute as one thing; neurons, components and random directions are the controls."
    )
    return {"sparse": [f.to_json() for f in found]}, Shown("How few features do", sparse_probe_figure(found), said)
