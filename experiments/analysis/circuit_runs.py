"""A run's circuit: found from its store and autoencoders, tested, and written as JSON, GraphML and one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from experiments.analysis.chosen_images import patients_of_rows, rows_of_split, spread
from experiments.analysis.predictions import answered
from experiments.analysis.stagewise import images_of
from experiments.run_directory import Run
from mechinterp.errors import ConfigError, HashMismatchError
from mechinterp.files import write_json
from mechinterp.images.labels import words_of
from mechinterp.objectives import Objective, logit, logit_difference, probability
from mechinterp.progress import SILENT, Progress
from mechinterp.store.reader import ActivationStore

if TYPE_CHECKING:
    from circuits import Ablation, Circuit, Faithfulness, FeatureGraph, FindConfig
    from circuits.inputs import Batch
    from mechinterp.images.image_set import ImageSet
    from mechinterp.models.vision_model import VisionModel
    from sparse_autoencoders import SparseAutoencoder


@dataclass(frozen=True, eq=False)
class Opened:
    """What a run holds for a circuit: the captured model and images, and the autoencoders.

    Parameters
    ----------
    model, images
        As they were captured.
    saes
        All of the run, in the order of their folders' names.
    preparation
        How images became the model's input.

    """

    model: VisionModel
    images: ImageSet
    saes: tuple[SparseAutoencoder, ...]
    preparation: Any

    def batch(self, rows: Sequence[int]) -> Batch:
        """Return some images prepared, with their groups."""
        from circuits.inputs import as_batch

        prepared = prepared_images(self.model, self.images.subset(list(rows)), self.preparation)
        batch = as_batch(self.model, prepared, patients_of_rows(self.images, np.asarray(rows)))
        # blocks of one head are no patients, and nobody said of which patients images without groups are
        known = self.images.units_are_patients and self.images.groups is not None
        return replace(batch, units_are_patients=known)


def opened_for_circuit(folder: Path) -> Opened:
    """Open a run's model, images and autoencoders.

    Raises
    ------
    ConfigError
        If the run has no store.
    HashMismatchError
        If the model's weights are not those that were captured.

    """
    from sparse_autoencoders import SparseAutoencoder

    store = ActivationStore.open(Run(folder).store_folder)
    saes = tuple(SparseAutoencoder.load(path.parent) for path in sorted((folder / "saes").glob("*/cfg.json")))
    return Opened(model_of_run(store), images_of(store), saes, store.manifest.preparation)


def parsed_metric(text: str) -> Objective:
    """Return what a circuit explains, from one word of the command line.

    Parameters
    ----------
    text
        ``CLASS`` or ``logit:CLASS``, ``CLASS-OTHER`` as ``difference:CLASS,OTHER``, or ``probability:CLASS``; a class is a
        name or a number.

    Raises
    ------
    ConfigError
        If it is none of these.

    """
    kind, separator, rest = text.partition(":")
    if not separator:
        kind, rest = "logit", text
    classes = [int(c) if c.strip().isdigit() else c.strip() for c in rest.split(",")]
    match (kind, len(classes)):
        case ("logit", 1) if classes[0] != "":
            return logit(classes[0])
        case ("probability", 1) if classes[0] != "":
            return probability(classes[0])
        case ("difference", 2):
            return logit_difference(classes[0], classes[1])
    raise ConfigError(
        f"--metric '{text}' is no metric: give CLASS, logit:CLASS, difference:CLASS,OTHER or probability:CLASS"
    )


def parsed_ablation(name: str) -> Ablation:
    """Return an ablation by its name.

    Raises
    ------
    ConfigError
        If there is none of that name.

    """
    from circuits import mean, resample, zero

    makers: dict[str, Callable[[], Ablation]] = {"zero": zero, "mean": mean, "resample": lambda: resample(1)}
    if name not in makers:
        raise ConfigError(f"--ablation is '{name}': it must be {', '.join(makers)}")
    return makers[name]()


def find_in_run(
    run: Run,
    metric: str,
    *,
    ablation: str,
    sites: Sequence[str],
    split: str | None,
    most_images: int,
    config: FindConfig,
    random_circuits: int,
    coarse_to_fine: bool = False,
    only: str | None = None,
    progress: Progress = SILENT,
) -> tuple[Circuit, Faithfulness]:
    """Find the circuit of a run's model, and test it on images that it was not found on.

    Half of the patients are found on, the other half tested on.

    Parameters
    ----------
    run
        Holds ``activations`` and, if features are wanted, ``saes``.
    metric, ablation
        As the command line names them.
    sites
        Sites whose neurons are nodes; with neither these nor autoencoders, stages or heads and MLPs.
    split
        Use the images of this split only.
    most_images
        At most so many images, spread over the set.
    config
        How it is found.
    random_circuits
        How many random circuits stand beside it.
    coarse_to_fine
        Look at groups of nodes first, and inside those that matter next.
    only
        ``right`` or ``wrong``: the images whose label the model answers, or does not.
    progress
        Told of every step.

    Raises
    ------
    ConfigError
        If the run has no store, or the images are too few to be divided, or cannot be told right from wrong, or fewer than no
        random circuits are asked for.
    HashMismatchError
        If the model's weights are not those that were captured.

    """
    from circuits import find_circuit, find_circuit_by_groups
    from experiments.analysis.held_out_circuits import measured_alone

    if random_circuits < 0:
        raise ConfigError(f"--random-circuits is {random_circuits}: give 0 or more")
    opened = opened_for_circuit(run.folder)
    model, images = opened.model, opened.images
    chosen, objective = rows_of_split(images, split), parsed_metric(metric)
    if only is not None:
        outputs = [c for c in objective.resolve(model).classes if isinstance(c, int)]
        chosen = answered_rows(opened, chosen, only, about=outputs)
    chosen = spread(chosen, most_images)
    found_on, tested_on = _halves(images, chosen)
    # one set of nodes a site: of several seeds the first, and none where neurons were asked for
    by_site = {sae.site: sae for sae in reversed(opened.saes) if sae.site not in sites}
    batches = [opened.batch(part.tolist()) for part in (found_on, tested_on)]
    asked: dict[str, Any] = {
        "metric": objective, "saes": list(by_site.values()), "sites": sites, "ablation": parsed_ablation(ablation),
        "config": config, "progress": progress,
    }  # fmt: skip
    if coarse_to_fine:
        circuit = find_circuit_by_groups(model, batches[0].x, patients=batches[0].groups, **asked).circuit
    else:
        circuit = find_circuit(model, batches[0].x, groups=batches[0].groups, **asked)
    claim = {**circuit.claim, "patients": batches[0].patients, **({} if only is None else {"only": only})}
    circuit = replace(circuit, batch=batches[0], claim=claim)
    if not circuit.edges:
        return circuit, _nothing(circuit)
    labels = [images.labels[i] or "no label" for i in tested_on] if images.labels else None
    between_neurons = None
    if by_site:
        progress.note("the circuit between the same sites' neurons")
        asked |= {"saes": [], "sites": [*sites, *by_site]}
        between_neurons = find_circuit(model, batches[0].x, groups=batches[0].groups, **asked)
    tested = measured_alone(
        circuit, batches[1], batches[0], neuron_circuit=between_neurons, subgroups=labels,
        random_circuits=random_circuits, progress=progress,
    )  # fmt: skip
    return circuit, tested


def write_circuit(
    circuit: Circuit, tested: Faithfulness, out: Path, *, run: Path | None = None, lines: Sequence[str] = ()
) -> dict[str, str]:
    """Write the graph (JSON and GraphML), its faithfulness, and a page that shows both; return the files' names.

    Parameters
    ----------
    circuit, tested
        What was found, and how faithful it is.
    out
        The folder.
    run
        The run's, whose attributed features give their names and units to nodes.
    lines
        What else is said above the graph.

    """
    from experiments.analysis.circuit_pictures import circuit_pictures
    from experiments.analysis.feature_names import attribute_names
    from experiments.dashboard.circuit_page import write_circuit_page

    sites = {layer.encoder.weights_hash: layer.site for layer in circuit.wiring.layers}
    graph = circuit.graph if run is None else circuit.graph.named(attribute_names(run, sites))
    graph.save(out / "circuit.json")
    graph.save(out / "circuit.graphml")
    write_json(out / "faithfulness.json", tested.to_json())
    pictures = circuit_pictures(circuit) if circuit.edges else {}
    said = [*circuit_sentences(graph, tested, circuit.possible), *lines]
    write_circuit_page(
        out / "circuit.html", f"Circuit of {circuit.wiring.metric.name}", said, graph, tested, pictures=pictures
    )
    return {name: str(out / name) for name in ("circuit.json", "circuit.graphml", "faithfulness.json", "circuit.html")}


def circuit_sentences(graph: FeatureGraph, tested: Faithfulness, possible: int) -> list[str]:
    """Return what a circuit's page says first, from its numbers alone."""
    claim, nodes = graph.claim, [n for n in graph.nodes if n.kind != "metric"]
    known = sum(bool(n.attribute) for n in nodes)
    images, patients = claim.get("images"), claim.get("patients")
    whose = f"{images} images" + (f" of {patients} patients" if patients else "")
    lines = [
        f"{len(graph.edges)} of {possible:,} possible edges between {len(nodes)} nodes drive {graph.metric} (found by "
        f"{claim.get('method')} on {whose}, {claim.get('ablation')} in place). "
        + (f"{known} of the nodes follow a measured quantity on held-out images." if known else "No node has a confirmed attribute."),
        f"Error nodes, what autoencoders do not reconstruct, are the source of {graph.error_share:.0%} of the edges' size.",
    ]  # fmt: skip
    for u in tested.under:
        low, high = u.random_interval
        beside = f"; random circuits of the size {low:.2f} to {high:.2f}" if len(u.random) else ""
        neurons = "" if u.neurons is None else f"; as many edges between neurons {u.neurons.value:.2f}"
        lines.append(
            f"Alone, on {'patients' if patients else 'images'} held out, it keeps {u.faithfulness.value:.2f} of the answer under {u.ablation.name} (worst "
            f"subgroup: {u.faithfulness.worst[0]}, {u.faithfulness.worst[1]:.2f}){beside}{neurons}; without it "
            f"{u.completeness.value:.2f} is left."
        )
    return lines


def answered_rows(opened: Opened, chosen: np.ndarray, only: str, *, about: Sequence[int] | None = None) -> np.ndarray:
    """Return the images whose label the model answers (``right``), or those whose it does not (``wrong``).

    Images without a label are neither. Where the model's outputs are findings of their own, several labels may stand between
    bars, and an image is right where all findings that are asked about (`about`, all by default) are found if and only if they
    are there; a label that is no finding means none of them.

    Raises
    ------
    ConfigError
        If a label is none of the model's classes, or no image is left.

    """
    images, names = opened.images, opened.model.class_names
    if only not in {"right", "wrong"}:
        raise ConfigError(f"--only is '{only}': it must be right or wrong")
    several = opened.model.activation == "sigmoid"
    truth = [words_of(label, several=several) for label in images.labels or ()]
    labels = {word for words in truth for word in words}
    if not labels & set(names) or (labels - set(names) and not several):
        of = f"the label '{sorted(labels - set(names))[0]}' is not" if labels else "no label of the images is"
        raise ConfigError(f"{of} one of the model's classes ({', '.join(names)}): right and wrong cannot be told")
    # nobody knows whether an answer to an image without a label is right
    chosen = np.array([i for i in chosen if truth[i]], dtype=np.int64)
    asked = names if about is None or not several else [names[c] for c in about]
    said: list[bool] = []
    for start in range(0, len(chosen), 64):
        rows = chosen[start : start + 64]
        with torch.no_grad():
            answers = answered(opened.model.logits(opened.batch(rows.tolist()).x), opened.model.activation, about)
        there = [[name in truth[i] for name in asked] for i in rows.tolist()]
        said += (answers.cpu() == torch.tensor(there)).all(1).tolist()
    found: np.ndarray = chosen[np.asarray(said) == (only == "right")]
    if not len(found):
        raise ConfigError(f"the model answers no image {only}: there is no circuit to find")
    return found


def model_of_run(store: ActivationStore) -> VisionModel:
    """Load the model that a store was captured from, and refuse another one in its place."""
    from mechinterp.models.loading import load_model

    made = store.manifest.model
    weights = None if made["weights"] == "embedded" else made["weights"]
    model = load_model(made["spec"], weights, class_names=tuple(made["class_names"]))
    if model.weights_hash != made["weights_hash"]:
        raise HashMismatchError(
            f"'{made['spec']}' has other weights now than when {store.folder} was captured: capture again"
        )
    return model


def prepared_images(model: VisionModel, images: ImageSet, preparation: Any) -> Any:
    """Return all images of a set as the model's input, prepared as the store's were."""
    from mechinterp.images.preparation import Preparation

    return model.prepare([images[i] for i in range(len(images))], Preparation(**preparation))


def _halves(images: ImageSet, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide images so that no patient is in both halves."""
    groups = patients_of_rows(images, chosen)
    order = list(dict.fromkeys(groups.tolist()))
    if len(order) < 2:
        raise ConfigError(
            f"{len(order)} patient(s) in the chosen images: a circuit is found on some and tested on others"
        )
    first = set(order[::2])
    inside = np.array([g in first for g in groups.tolist()])
    return chosen[inside], chosen[~inside]


def _nothing(circuit: Circuit) -> Faithfulness:
    from circuits import Faithfulness

    return Faithfulness((), 0, circuit.possible, 0.0)
