"""A run's transcoder graph: traced back from a metric through its transcoders, written as JSON, GraphML and one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from experiments.analysis.chosen_images import rows_of_split, spread
from experiments.analysis.circuit_pictures import InputPictures
from experiments.analysis.circuit_runs import model_of_run, parsed_metric, prepared_images
from experiments.analysis.stagewise import images_of
from experiments.dashboard.circuit_page import NodePicture, write_circuit_page
from experiments.run_directory import Run
from mechinterp.errors import ConfigError
from mechinterp.progress import SILENT, Progress
from mechinterp.store.reader import ActivationStore

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from circuits.graph import FeatureGraph
    from circuits.transcoder_paths import WritesFeatures
    from mechinterp.models.vision_model import VisionModel
    from sparse_autoencoders import Transcoder


@dataclass(frozen=True, eq=False)
class TracedRun:
    """A transcoder graph with what its page shows.

    Parameters
    ----------
    graph
        The graph.
    model, x, transcoders
        What it was traced in.

    """

    graph: FeatureGraph
    model: VisionModel
    x: Float[Tensor, "image channel height width"]
    transcoders: tuple[WritesFeatures, ...]

    def sentences(self) -> list[str]:
        """Return what the graph shows, from its numbers alone."""
        graph, claim = self.graph, self.graph.claim
        features = sum(n.kind == "feature" for n in graph.nodes)
        into = list(graph.edges_into("metric"))
        total = sum(e.size for e in into) or 1.0
        kinds = {n.id: n.kind for n in graph.nodes}
        shares = {
            word: sum(e.size for e in into if kinds[e.source] == kind) / total
            for word, kind in (("features", "feature"), ("errors of transcoders", "error"), ("embedding and other MLPs", "layer"))
        }  # fmt: skip
        whose = f"{claim['images']} images" + (f" of {claim['patients']} patients" if claim["patients"] else "")
        return [
            f"{len(graph.edges)} edges between {features} features and their sources, traced back from {graph.metric} on {whose}. "
            "Attention patterns, the spread of normalisation and thresholds are held: it says what happens under that holding.",
            "Of the size of what reaches the metric directly: "
            + ", ".join(f"{share:.0%} from {word}" for word, share in shares.items())
            + ".",
            f"Errors of transcoders are the source of {graph.error_share:.0%} of all edges' size.",
        ]


def trace_run(
    run: Run, metric: str, folder: Path, *, split: str | None, most_images: int, features: int, edges: int, seed: int,
    progress: Progress = SILENT,
) -> TracedRun:  # fmt: skip
    """Trace a metric back through the transcoders of a run.

    Parameters
    ----------
    run
        Holds ``activations``.
    metric
        As the command line names it.
    folder
        Holds transcoders, or is one.
    split, most_images
        Which images, and at most how many, spread over them.
    features, edges, seed, progress
        See :func:`circuits.transcoder_tracing.transcoder_graph`.

    Raises
    ------
    ConfigError
        If there is no store or no transcoder.

    """
    from circuits.transcoder_tracing import transcoder_graph
    from experiments.analysis.feature_names import attribute_names

    store = ActivationStore.open(run.store_folder)
    model, images = model_of_run(store), images_of(store)
    images = images.subset(spread(rows_of_split(images, split), most_images).tolist())
    x = torch.as_tensor(prepared_images(model, images, store.manifest.preparation)).to(model.device)
    transcoders = load_transcoders(folder)
    graph = transcoder_graph(
        model, x, transcoders, metric=parsed_metric(metric), groups=images.groups if images.units_are_patients else None, features=features, edges=edges,
        seed=seed, attributes=attribute_names(run.folder, {t.weights_hash: t.to_site for t in transcoders}), progress=progress,
    )  # fmt: skip
    return TracedRun(graph, model, x, tuple(transcoders))


def load_transcoders(folder: Path) -> Sequence[Transcoder]:
    """Load every transcoder of a folder, or the one that it is.

    Raises
    ------
    ConfigError
        If there is none.

    """
    from sparse_autoencoders import Transcoder

    places = [folder] if (folder / "cfg.json").is_file() else sorted(p.parent for p in folder.rglob("cfg.json"))
    if not places:
        raise ConfigError(
            f"{folder} holds no transcoder: mechinterp train-sae --site blocks.1.norm2 --to-site blocks.1.hook_mlp_out --out {folder}"
        )
    by_site: dict[str, Transcoder] = {}
    for place in places:  # of several seeds the first
        transcoder = Transcoder.load(place)
        by_site.setdefault(transcoder.to_site, transcoder)
    return list(by_site.values())


def write_trace(found: TracedRun, out: Path) -> dict[str, str]:
    """Write the graph (JSON and GraphML) and its page; return the files' names."""
    from circuits.transcoder_paths import EMBEDDING

    found.graph.save(out / "transcoder-graph.json")
    found.graph.save(out / "transcoder-graph.graphml")
    title = f"What drives {found.graph.metric} through transcoder features"
    words = {n.site: f"block {n.site.split('.')[1]} MLP" for n in found.graph.nodes if n.kind != "metric"}
    write_circuit_page(
        out / "transcoder-graph.html", title, found.sentences(), found.graph, pictures=_pictures(found),
        columns_named=words | {EMBEDDING: "embedding"},
    )  # fmt: skip
    return {
        name: str(out / name) for name in ("transcoder-graph.json", "transcoder-graph.graphml", "transcoder-graph.html")
    }


def _pictures(found: TracedRun) -> dict[str, list[NodePicture]]:
    """Return where each feature of the graph is most active."""
    from mechinterp.capturing import run_with_cache

    shown: dict[str, list[NodePicture]] = {}
    drawn = InputPictures(found.x, found.model.contract)
    for transcoder in found.transcoders:
        own = [n for n in found.graph.nodes if n.kind == "feature" and n.site == transcoder.to_site]
        if not own:
            continue
        columns = [n.index for n in own]
        parts = []
        for start in range(0, len(found.x), 32):
            with torch.no_grad():
                acts = run_with_cache(found.model, found.x[start : start + 32], [transcoder.site])[transcoder.site]
                parts.append(transcoder.encode(acts)[..., columns].max(1))
        values, tokens = (torch.cat([p[k] for p in parts]).cpu().numpy() for k in (0, 1))
        site = found.model.site(transcoder.site)
        for column, node in enumerate(own):
            shown[node.id] = drawn.strongest(site, values[:, column], tokens[:, column])
    return shown
