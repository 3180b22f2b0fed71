"""``mechinterp circuit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.finding_config import FindConfig
from experiments.cli.console import ConsoleProgress, emit_table
from experiments.cli.options import JsonFlag, SplitFlag, with_config

if TYPE_CHECKING:
    from experiments.run_directory import Run


@with_config(FindConfig)
def run(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="a run folder: activations, and autoencoders if there are")
    ],
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            help="CLASS, difference:CLASS,OTHER or probability:CLASS; names or numbers; "
            "without it, a run of the brain study gets its own circuit (minutes), other flags but --out and --json unused",
        ),
    ] = None,
    site: Annotated[
        list[str] | None, typer.Option("--site", help="make this site's neurons nodes; may be given several times")
    ] = None,
    ablation: Annotated[
        str, typer.Option("--ablation", help="what is put in place: zero, mean or resample")
    ] = "resample",
    split: SplitFlag = None,
    images: Annotated[int, typer.Option("--most-images", help="at most so many images, half of them held out")] = 64,
    random_circuits: Annotated[
        int, typer.Option("--random-circuits", help="random circuits of the same size beside it")
    ] = 20,
    coarse_to_fine: Annotated[
        bool, typer.Option("--coarse-to-fine", help="look at groups of nodes first, and inside those that matter next")
    ] = False,
    only: Annotated[
        str | None, typer.Option("--only", help="right or wrong: images whose label the model answers, or does not")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="where it is written; default: RUN/circuit")] = None,
    as_json: JsonFlag = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Find which nodes and edges drive an answer, and test how faithful they are on patients held out.

    Nodes are the features (and errors) of the run's autoencoders; without any, a CNN's channels or a ViT's heads and MLPs.

    [bold]Examples[/bold]

      mechinterp circuit runs/a --metric tumour --method eap-ig

      mechinterp circuit runs/a --metric difference:tumour,none --site stages.2 --site stages.3 --json
    """
    from circuits.agreements import agreement_of, agreement_sentence
    from experiments.analysis.circuit_runs import find_in_run, write_circuit
    from experiments.run_directory import Run

    found_run = Run.open(folder)
    target = out or folder / "circuit"
    if metric is None:
        _of_brain_study(found_run, target, as_json=as_json)
        return
    config = FindConfig(**settings)
    with found_run.stage("circuit", metric=metric, ablation=ablation, **settings) as record:
        circuit, tested = find_in_run(
            found_run, metric, ablation=ablation, sites=tuple(site or ()), split=split, most_images=images, config=config,
            random_circuits=random_circuits, coarse_to_fine=coarse_to_fine, only=only, progress=ConsoleProgress(),
        )  # fmt: skip
        agreed = agreement_of(circuit, progress=ConsoleProgress())
        near = agreement_sentence(agreed)
        ConsoleProgress().note(near)
        files = write_circuit(circuit, tested, target, run=found_run.folder, lines=[near])
        record.update(result=found_run.relative(target))
    summary = {
        "metric": circuit.wiring.metric.name,
        "nodes": len(circuit.nodes),
        "edges": len(circuit.edges),
        "possible_edges": circuit.possible,
        "self_repair": [f"{s}:{n}" for s, n in circuit.self_repair],
        "claim": dict(circuit.claim),
        "faithfulness": tested.to_json(),
        "agreement": [a.to_json() for a in agreed],
        "files": files,
    }
    rows = [
        (
            u.ablation.name,
            f"{u.faithfulness.value:.2f}",
            f"{u.faithfulness.worst[0]}: {u.faithfulness.worst[1]:.2f}",
            f"{u.completeness.value:.2f}",
            f"{u.random_interval[0]:.2f} to {u.random_interval[1]:.2f}",
            "" if u.neurons is None else f"{u.neurons.value:.2f}",
        )
        for u in tested.under
    ]
    untrained = "" if circuit.wiring.model.trained else " – UNTRAINED model: no claim about it is met"
    title = f"{len(circuit.edges)} of {circuit.possible} edges drive {circuit.wiring.metric.name}{untrained}"
    columns = ["everything else", "faithfulness", "worst subgroup", "without it", "random circuits", "neurons"]
    emit_table(summary, title, columns, rows, as_json=as_json)


def _of_brain_study(run: Run, target: Path, *, as_json: bool) -> None:
    from experiments.studies.brain_mri.circuit import find_brain_circuit
    from experiments.studies.brain_mri.circuit_page import write_brain_circuit

    with run.stage("circuit", metric="brain-mri") as record:
        found = find_brain_circuit(run.folder, progress=ConsoleProgress())
        page, said = write_brain_circuit(found, run.folder, target)
        record.update(result=run.relative(target))
    summary = {"sentences": said, "faithfulness": found.to_json(), "page": str(page)}
    emit_table(summary, "Brain study: its circuit", ["what can be said"], [(s,) for s in said], as_json=as_json)
