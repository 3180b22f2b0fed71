"""What the features of a run are known to follow: attributes and units that held-out images confirmed."""

from __future__ import annotations

from pathlib import Path

from experiments.dashboard.record import Record
from mechinterp.files import read_json


def attribute_names(run: Path) -> dict[tuple[str, int], tuple[str, str]]:
    """Return (site, feature) → attribute and unit, of the run's pages and of ``mechinterp attributes``.

    Parameters
    ----------
    run
        A run's folder; one in which nothing was attributed yields nothing.

    """
    found: dict[tuple[str, int], tuple[str, str]] = {}
    for path in sorted((run / "saes").glob("*/attributes.json"), reverse=True):
        site = Record(read_json(path.with_name("cfg.json")))["metadata"]["hook_name"].text()
        matrix = Record(read_json(path))
        confirmed = set(matrix["survivors"].integers())
        for feature in matrix["features"].entries():
            number = feature["feature"].integer()
            if number is not None and number in confirmed:
                found[site, number] = (_words(feature["attribute"]), feature["unit"].text())
    if (run / "results.json").exists():
        results = Record(read_json(run / "results.json"))
        site = results["model"]["site"].text()
        for feature in results["features"].entries():
            number, best = feature["id"].integer(), feature["best"]
            if number is not None and best["survives"].flag():
                found[site, number] = (_words(best["attribute"]), best["unit"].text())
    return found


def named(feature: int, site: str, names: dict[tuple[str, int], tuple[str, str]]) -> str:
    """Return how a feature is called: its number, and what it follows where that is known."""
    attribute, unit = names.get((site, feature), ("", ""))
    if not attribute:
        return f"feature {feature}"
    return f"feature {feature}: {attribute}" + (f" [{unit}]" if unit not in {"", "1"} else "")


def _words(attribute: Record) -> str:
    return attribute.text().replace("_", " ")
