"""What the features of a run are known to follow: attributes and units that held-out images confirmed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from experiments.dashboard.record import Record
from mechinterp.files import read_json


def attribute_names(run: Path, sites: Mapping[str, str]) -> dict[tuple[str, int], tuple[str, str]]:
    """Return (site, feature) → attribute and unit, of the run's pages and of ``mechinterp attributes``.

    Parameters
    ----------
    run
        A run's folder; one in which nothing was attributed yields nothing.
    sites
        Weights' hash of each autoencoder or transcoder whose features are named → the site where they are called so. Feature 7 of
        another seed, or of the autoencoder as it was before it was trained anew, is another feature, and neuron 7 is none.

    """
    found: dict[tuple[str, int], tuple[str, str]] = {}
    for path in sorted((run / "saes").glob("*/attributes.json")):
        matrix = Record(read_json(path))
        site = sites.get(attributed_weights(path, matrix))
        if site is None:
            continue
        confirmed = set(matrix["survivors"].integers())
        for feature in matrix["features"].entries():
            number = feature["feature"].integer()
            if number is not None and number in confirmed:
                found[site, number] = (_words(feature["attribute"]), feature["unit"].text())
    if (run / "results.json").exists():
        results = Record(read_json(run / "results.json"))
        site = sites.get(results["sae"]["weights_hash"].text())
        for feature in results["features"].entries():
            number, best = feature["id"].integer(), feature["best"]
            if site is not None and number is not None and best["survives"].flag():
                found[site, number] = (_words(best["attribute"]), best["unit"].text())
    return found


def attributed_weights(path: Path, matrix: Record) -> str:
    """Return the hash of the autoencoder that an ``attributes.json`` speaks of; of an older file, that of its folder's."""
    said = matrix["sae_weights_hash"].text()
    whole = path.with_name("mechinterp.json")
    return said or (Record(read_json(whole))["sae_weights_hash"].text() if whole.is_file() else "")


def named(feature: int, site: str, names: dict[tuple[str, int], tuple[str, str]]) -> str:
    """Return how a feature is called: its number, and what it follows where that is known."""
    attribute, unit = names.get((site, feature), ("", ""))
    if not attribute:
        return f"feature {feature}"
    return f"feature {feature}: {attribute}" + (f" [{unit}]" if unit not in {"", "1"} else "")


def _words(attribute: Record) -> str:
    return attribute.text().replace("_", " ")
