"""Model transparency: a circuit of features, found on some patients, that must carry the answer on others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuits import Circuit, FindConfig, find_circuit, mean, measure_faithfulness, resample
from circuits.ablations import Ablation
from circuits.faithfulness import UnderAblation
from circuits.inputs import Batch, as_batch
from experiments.report import ElementEvidence, PlannedTest, ReportFigure
from experiments.studies.phantom_study_bench import StudyBench
from experiments.studies.phantom_study_patients import Side
from mechinterp.claims import Bound, Claim, Control
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.store.reader import ActivationStore
from sparse_autoencoders import SparseAutoencoder, TrainSAEConfig, random_sae, train_saes

ELEMENT = "model transparency"
EDGES = 30
LEAST = {"mean": Bound("at least", 0.5), "resample": Bound("at least", 0.5)}
RANDOM, NEURONS = "random circuits of the same size", "circuit of as many edges between neurons"
_RANDOM_CIRCUITS, _PER_RANDOM = 12, 8


def planned() -> tuple[PlannedTest, ...]:
    """Return the tests of this element, one for each ablation."""
    return tuple(
        PlannedTest(
            ELEMENT, _name(how),
            f"the {EDGES} largest edges between features of the last site and the answer, found on discovery patients, run "
            f"alone on confirmation patients; all else replaced by {'its mean' if how == 'mean' else 'that of another image'}",
            "share of the answer's change that is restored",
            f"at least {bound.threshold:g} over its whole interval", (RANDOM, NEURONS), bound,
        )
        for how, bound in LEAST.items()
    )  # fmt: skip


def trained_sae(bench: StudyBench, store: ActivationStore) -> SparseAutoencoder:
    """Train the last site's autoencoder on the discovery patients, or take a frozen-random one where that is planted."""
    config, site = bench.config, bench.sites[1]
    if config.condition == "frozen-random-sae":
        width = round(config.expansion * store.width(site))
        return random_sae(store, site, np.arange(len(store)), width, config.k, config.seed)
    settings = TrainSAEConfig(k=config.k, expansion=config.expansion, epochs=config.sizes.epochs, seeds=(config.seed,))
    return train_saes(store, site=site, config=settings, out=bench.run.folder / "saes", progress=bench.progress)[0]


def choose(bench: StudyBench, sae: SparseAutoencoder) -> dict[str, tuple[Circuit, Circuit]]:
    """Find for each ablation the circuit of features, and that of neurons, on the discovery patients."""
    batch = _batch(bench, bench.patients.discovery, bench.config.sizes.circuit_found)
    settings = FindConfig(
        method="attribution", discovery="top-n", top=EDGES, max_nodes=64, seed=bench.config.seed, boot=200
    )

    def found(how: Ablation, encoders: tuple[FeatureEncoder, ...]) -> Circuit:
        return find_circuit(
            bench.model, batch.x, metric=bench.objective, saes=encoders, sites=() if encoders else bench.sites[1:],
            ablation=how, groups=batch.groups, config=settings, progress=bench.progress,
        )  # fmt: skip

    return {how.name: (found(how, (sae,)), found(how, ())) for how in (mean(), resample(1))}


def confirm(bench: StudyBench, chosen: dict[str, tuple[Circuit, Circuit]]) -> ElementEvidence:
    """Run each circuit alone on the confirmation patients."""
    batch = _batch(bench, bench.patients.confirmation, bench.config.sizes.circuit_tested)
    claims, figures = [], []
    for how, (circuit, of_neurons) in chosen.items():
        if not circuit.edges:
            continue
        tested = measure_faithfulness(
            circuit, images=batch, ablations=[circuit.ablation],
            random_circuits=min(_RANDOM_CIRCUITS, bench.config.sizes.n_random // _PER_RANDOM), neuron_circuit=of_neurons,
            minimality=False, curve=[len(circuit.edges)], progress=bench.progress,
        )  # fmt: skip
        claims.append(_claim(bench, how, circuit, tested.under[0]))
        text = "Features and how they act on the answer; thicker where the effect is larger."
        figures.append(ReportFigure.of(f"The circuit ({how} replacement)", text, circuit.largest(30).figure()))
    limits = (
        "The circuit begins at the last site: how the network comes to those features is not followed.",
        "What the autoencoder does not reconstruct is a node of its own, so part of the answer may flow through it.",
    )
    return ElementEvidence(ELEMENT, tuple(claims), limits, tuple(figures))


def _name(how: str) -> str:
    return f"a circuit of features carries the answer ({how} replacement)"


def _batch(bench: StudyBench, side: Side, most: int) -> Batch:
    first: NDArray[np.int64] = np.unique(side.groups, return_index=True)[1][:most]
    return as_batch(bench.model, side.images.subset(first), side.groups[first])


def _claim(bench: StudyBench, how: str, circuit: Circuit, under: UnderAblation) -> Claim:
    share, bound = under.faithfulness, LEAST[how]
    low = None if share.interval.low is None else float(share.interval.low)
    highest = float(np.max(under.random)) if len(under.random) else None
    of_neurons = None if under.neurons is None else float(under.neurons.value)
    nodes, edges = len(circuit.nodes), len(circuit.edges)
    return Claim.measured(
        f"{edges} of {circuit.possible} possible edges, between {nodes} nodes, restore {share.value:.2f} of the answer's change "
        f"on patients they were not found on.",
        "interventional", share.value, "share restored", bound, f"at least {bound.threshold:g} over its whole interval",
        controls=(
            Control(RANDOM, highest, None if highest is None or low is None else highest < low,
                    f"the best of {len(under.random)} restores {highest if highest is not None else float('nan'):.2f}"),
            Control(NEURONS, of_neurons, None if of_neurons is None or low is None else of_neurons < low,
                    f"restores {of_neurons if of_neurons is not None else float('nan'):.2f}"),
        ),
        test=_name(how), interval=share.interval.ends, interval_note=share.interval.reason or share.interval.warning,
        trained=bench.model.trained,
        numbers={"edges": edges, "possible edges": circuit.possible, "nodes": nodes, "random circuits": len(under.random)},
    )  # fmt: skip
