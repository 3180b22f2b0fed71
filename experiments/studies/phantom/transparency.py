"""Model transparency: a circuit of features or neurons, found on some patients, that must carry the answer on others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuits import Circuit, FindConfig, find_circuit, mean, measure_faithfulness, resample
from circuits.ablations import Ablation
from circuits.faithfulness import UnderAblation
from circuits.inputs import Batch, as_batch
from experiments.report import ElementEvidence, PlannedTest, ReportFigure
from experiments.studies.phantom.bench import StudyBench
from experiments.studies.phantom.case import CircuitSize, StudyCase
from experiments.studies.phantom.patients import Side
from mechinterp.claims import Bound, Claim, Control
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.store.reader import ActivationStore
from sparse_autoencoders import SparseAutoencoder, TrainSAEConfig, random_sae, train_saes

ELEMENT = "model transparency"
LEAST = {"mean": Bound("at least", 0.5), "resample": Bound("at least", 0.5)}
RANDOM, FROZEN = "random circuits of the same size", "circuit of as many features of a frozen-random autoencoder"
OTHER = {
    "features": "circuit of as many edges between neurons",
    "neurons": "circuit of as many edges between features",
}
"""What a circuit's units are held against: the other kind of them."""
_RANDOM_CIRCUITS, _PER_RANDOM, _OTHER_SEED = 12, 8, 1000
_EXPANSION = 8
"""Features per channel of the site whose features are named."""


def planned(case: StudyCase) -> tuple[PlannedTest, ...]:
    """Return the tests of this element, one for each ablation."""
    size = case.circuit
    missed = ", and what the autoencoder missed," if size.units == "features" else ""
    return tuple(
        PlannedTest(
            ELEMENT, _name(size, how),
            f"the {size.edges} largest edges between {size.units} of the last site and the answer, found on discovery patients, "
            f"run alone on confirmation patients; all else{missed} replaced by {'its mean' if how == 'mean' else 'that of another image'}",
            "share of the answer's change that is restored",
            f"at least {bound.threshold:g} over its whole interval", (RANDOM, OTHER[size.units], FROZEN), bound,
        )
        for how, bound in LEAST.items()
    )  # fmt: skip


@dataclass(frozen=True)
class ChosenCircuits:
    """What was found on the discovery patients under one ablation.

    Parameters
    ----------
    circuit
        Of the units that the plan names.
    rivals
        Control → a circuit of as many edges between other units, which must restore less.

    """

    circuit: Circuit
    rivals: dict[str, Circuit]


def trained_sae(bench: StudyBench, store: ActivationStore) -> SparseAutoencoder:
    """Return the autoencoder of the last site, whose features the circuit is made of."""
    return site_sae(bench, store, bench.sites[1])


def site_sae(bench: StudyBench, store: ActivationStore, site: str) -> SparseAutoencoder:
    """Train a site's autoencoder on the discovery patients, or take a frozen-random one where that is planted."""
    config = bench.config
    if config.condition == "frozen-random-sae":
        return frozen_sae(bench, store, site, config.seed)
    passes = bench.case.circuit.passes if site == bench.sites[1] else 1.0
    settings = TrainSAEConfig(
        k=config.k, expansion=expansion(bench, site), epochs=round(passes * config.sizes.epochs), seeds=(config.seed,)
    )  # fmt: skip
    # the last site's stands where every other command looks for a run's autoencoders
    out = bench.run.folder / ("saes" if site == bench.sites[1] else f"saes-{site.replace('.', '-')}")
    return train_saes(store, site=site, config=settings, out=out, progress=bench.progress)[0]


def expansion(bench: StudyBench, site: str) -> int:
    """Return how many features a channel an autoencoder of a site gets: as the settings say, or the study."""
    if bench.config.expansion is not None:
        return bench.config.expansion
    return bench.case.circuit.expansion if site == bench.sites[1] else _EXPANSION


def frozen_sae(bench: StudyBench, store: ActivationStore, site: str, seed: int) -> SparseAutoencoder:
    """Return an autoencoder of the same size that was never trained."""
    config = bench.config
    width = expansion(bench, site) * store.width(site)
    return random_sae(store, site, np.arange(len(store)), width, config.k, seed)


def choose(bench: StudyBench, store: ActivationStore, sae: SparseAutoencoder) -> dict[str, ChosenCircuits]:
    """Find the circuit under each ablation, and its rivals, on the discovery patients."""
    batch, size = _batch(bench, bench.patients.discovery, bench.config.sizes.circuit_found), bench.case.circuit
    frozen = frozen_sae(bench, store, bench.sites[1], bench.config.seed + _OTHER_SEED)
    # one more than is kept: the largest edge may be the error node's
    settings = FindConfig(
        method="attribution", discovery="top-n", top=size.edges + 1, max_nodes=64, seed=bench.config.seed, boot=200
    )

    def found(how: Ablation, encoder: FeatureEncoder | None) -> Circuit:
        circuit = find_circuit(
            bench.model, batch.x, metric=bench.objective, saes=() if encoder is None else (encoder,),
            sites=bench.sites[1:] if encoder is None else (), ablation=how, groups=batch.groups, config=settings,
            progress=bench.progress,
        )  # fmt: skip
        return of_units(circuit, size.edges)

    def chosen(how: Ablation) -> ChosenCircuits:
        circuits = {"features": found(how, sae), "neurons": found(how, None)}
        circuit = circuits.pop(size.units)
        (other,) = circuits.values()
        return ChosenCircuits(circuit, {OTHER[size.units]: other, FROZEN: found(how, frozen)})

    return {how.name: chosen(how) for how in (mean(), resample(1))}


def of_units(circuit: Circuit, edges: int) -> Circuit:
    """Return the largest edges without those of error nodes: what an autoencoder missed must not carry its circuit."""
    kept = [
        e.edge for e in circuit.edges if circuit.wiring.layer(e.edge[0][0]).kind_of(e.edge[0][1]) != "error"
    ]  # fmt: skip
    return circuit.with_edges(kept[:edges])


def confirm(bench: StudyBench, chosen: dict[str, ChosenCircuits]) -> ElementEvidence:
    """Run each circuit alone on the confirmation patients."""
    batch = _batch(bench, bench.patients.confirmation, bench.config.sizes.circuit_tested)
    claims, figures = [], []
    for how, found in chosen.items():
        circuit = found.circuit
        if not circuit.edges:
            continue
        tested = measure_faithfulness(
            circuit, images=batch, ablations=[circuit.ablation],
            random_circuits=min(_RANDOM_CIRCUITS, bench.config.sizes.n_random // _PER_RANDOM),
            minimality=False, curve=[len(circuit.edges)], progress=bench.progress,
        )  # fmt: skip
        rivals = {name: _restored(rival, batch) for name, rival in found.rivals.items()}
        claims.append(_claim(bench, how, circuit, tested.under[0], rivals))
        text = (
            f"The twelve {bench.case.circuit.units} with the largest effect on the answer; thicker where it is larger."
        )
        figures.append(ReportFigure.of(f"The circuit ({how} replacement)", text, circuit.largest(12).figure()))
    units = bench.case.circuit.units
    limits = [f"The circuit begins at the last site: how the network comes to those {units} is not followed."]
    if units == "features":
        limits.append("What the autoencoder does not reconstruct is replaced too: it counts against the circuit.")
    return ElementEvidence(ELEMENT, tuple(claims), tuple(limits), tuple(figures))


def _name(size: CircuitSize, how: str) -> str:
    return f"a circuit of {size.units} carries the answer ({how} replacement)"


def _batch(bench: StudyBench, side: Side, most: int) -> Batch:
    first: NDArray[np.int64] = np.unique(side.groups, return_index=True)[1][:most]
    return as_batch(bench.model, side.images.subset(first), side.groups[first])


def _claim(
    bench: StudyBench, how: str, circuit: Circuit, under: UnderAblation, rivals: dict[str, float | None]
) -> Claim:
    share, bound = under.faithfulness, LEAST[how]
    low = None if share.interval.low is None else float(share.interval.low)
    highest = float(np.max(under.random)) if len(under.random) else None
    nodes, edges = len(circuit.nodes), len(circuit.edges)
    return Claim.measured(
        f"{edges} of {circuit.possible} possible edges, between {nodes} {bench.case.circuit.units}, restore {share.value:.2f} of the answer's change "
        f"on patients they were not found on, everything else under {how} replacement.",
        "interventional", share.value, "share restored", bound, f"at least {bound.threshold:g} over its whole interval",
        controls=(
            _below(RANDOM, highest, low, f"the best of {len(under.random)}"),
            *(_below(name, restored, low, "it") for name, restored in rivals.items()),
        ),
        test=_name(bench.case.circuit, how), interval=share.interval.ends, interval_note=share.interval.reason or share.interval.warning,
        trained=bench.model.trained,
        numbers={"edges": edges, "possible edges": circuit.possible, "nodes": nodes, "random circuits": len(under.random)},
    )  # fmt: skip


def _below(name: str, restored: float | None, low: float | None, what: str) -> Control:
    """Return the control that a rival restores less than the lower end of the circuit's own interval."""
    if restored is None or low is None:
        return Control(name, restored, None, "not measured")
    detail = f"{what} restores {restored:.2f}, the circuit at least {low:.2f}"
    return Control(name, restored, detail=detail, bound=Bound("at most", low))


def _restored(circuit: Circuit, batch: Batch) -> float | None:
    """Return what a rival circuit restores alone."""
    if not circuit.edges:
        return None
    tested = measure_faithfulness(
        circuit, images=batch, ablations=[circuit.ablation], random_circuits=0, minimality=False,
        curve=[len(circuit.edges)],
    )  # fmt: skip
    return float(tested.under[0].faithfulness.value)
