"""The brain circuit on disk: graph, numbers, and the page that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.studies.brain_mri.circuit_words import columns_named, named, sentences
from mechinterp.files import read_json, write_json

if TYPE_CHECKING:
    from experiments.studies.brain_mri.circuit import BrainCircuit


def write_brain_circuit(found: BrainCircuit, folder: Path, out: Path) -> tuple[Path, tuple[str, ...]]:
    """Write the graph, its numbers, and a page with the sentences, the graph, and the curves over size.

    Parameters
    ----------
    found
        The circuit.
    folder
        The study's run.
    out
        Where ``circuit.json``, ``circuit.graphml``, ``faithfulness.json`` and ``circuit.html`` are written.

    Returns
    -------
    tuple
        The page, and its sentences.

    """
    from experiments.analysis.circuit_pictures import circuit_pictures
    from experiments.dashboard.circuit_page import write_circuit_page
    from experiments.dashboard.single_page import Shown

    results = read_json(folder / "results.json")
    graph = named(found.circuit.graph, results, found.channels)
    said = sentences(found, graph, results)
    graph.save(out / "circuit.json")
    graph.save(out / "circuit.graphml")
    write_json(out / "faithfulness.json", {**found.to_json(), "sentences": list(said)})
    sites = list(dict.fromkeys(n.site for n in graph.nodes))
    names = [results["images"]["ids"][i] for i in found.slices["found_on"]]
    question = results["target"]
    curves = Shown(
        "How much circuits of every size carry alone",
        found.curves.figure(),
        "1 is all of what separates the answers, 0 none of it; the leftmost size is what the graph is drawn from. Point at a "
        "mark to see how many nodes and edges it holds.",
    )
    last = Shown(
        "How much the features of the last convolution carry alone",
        found.last_curves.figure(),
        "The same, with the stages before left as they are.",
    )
    page = write_circuit_page(
        out / "circuit.html",
        f"Circuit: “{question['class']}” against “{question['reference']}” in this head",
        said,
        graph,
        pictures=circuit_pictures(found.circuit, names) if found.circuit.edges else {},
        columns_named=columns_named(results, sites),
        figures=[curves, last],
    )
    return page, said
