"""``mechinterp transcoder-graph``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.console import ConsoleProgress, emit_table
from experiments.cli.options import JsonFlag, SeedFlag, SplitFlag


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder of a ViT: activations and transcoders")],
    metric: Annotated[
        str, typer.Option("--metric", help="CLASS, difference:CLASS,OTHER or probability:CLASS; names or numbers")
    ],
    transcoders: Annotated[
        Path | None, typer.Option("--transcoders", help="folder of transcoders, or one; default: RUN/transcoders")
    ] = None,
    features: Annotated[int, typer.Option("--features", help="so many features are nodes, the strongest")] = 48,
    edges: Annotated[int, typer.Option("--edges", help="so many edges are kept, the largest")] = 200,
    split: SplitFlag = None,
    images: Annotated[int, typer.Option("--most-images", help="at most so many images, spread over the set")] = 64,
    out: Annotated[
        Path | None, typer.Option("--out", help="where it is written; default: RUN/transcoder-graph")
    ] = None,
    seed: SeedFlag = 0,
    as_json: JsonFlag = False,
) -> None:
    """Trace an answer of a ViT back through transcoder features, attention and normalisation held.

    [bold]Examples[/bold]

      mechinterp transcoder-graph runs/a --metric tumour --split test

      mechinterp transcoder-graph runs/a --metric difference:tumour,none --features 30 --json
    """
    from experiments.analysis.transcoder_runs import trace_run, write_trace
    from experiments.run_directory import Run

    found_run = Run.open(folder)
    where = out or folder / "transcoder-graph"
    with found_run.stage("transcoder-graph", metric=metric, features=features, edges=edges, seed=seed) as record:
        found = trace_run(
            found_run, metric, transcoders or folder / "transcoders", split=split, most_images=images,
            features=features, edges=edges, seed=seed, progress=ConsoleProgress(),
        )  # fmt: skip
        files = write_trace(found, where)
        record.update(result=found_run.relative(where))
    graph = found.graph
    names = {n.id: n.name for n in graph.nodes}
    rows = [(names[e.source], names[e.target], f"{e.denoising.mean:+.3g}", f"{e.size:.3g}") for e in graph.edges[:20]]
    untrained = "" if found.model.trained else "UNTRAINED model – "
    title = untrained + " ".join(found.sentences())
    summary = {
        "metric": graph.metric, "nodes": len(graph.nodes), "edges": len(graph.edges), "error_share": graph.error_share,
        "claim": dict(graph.claim), "sentences": found.sentences(), "files": files,
    }  # fmt: skip
    emit_table(summary, title, ["source", "target", "mean effect", "size"], rows, as_json=as_json)
