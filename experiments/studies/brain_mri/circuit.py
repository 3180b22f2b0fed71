"""The brain study's circuit: from the features of the last convolution back two stages, and how large it must be to carry the answer.

It asks what makes a slice “meningioma” where a slice of the same head that is answered “notumor” is not. Nodes are ranked on
positive slices of training blocks; circuits of every size are run alone on positive slices of held-out blocks, where all other
nodes take what they have in slices answered “notumor”. All slices are of one head, so no number here has an interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.studies.brain_mri.circuit_channels import Closest, channel_attributes
from mechinterp.errors import ConfigError
from mechinterp.files import read_json
from mechinterp.progress import SILENT, Progress
from mechinterp.reused_memory import reused_memory

if TYPE_CHECKING:
    from circuits import Ablation, Circuit
    from circuits.agreements import Agreement
    from circuits.circuit import Place
    from circuits.corrupting import Corrupted
    from circuits.inputs import Batch
    from circuits.node_curves import NodeCurves, Ranked
    from circuits.wiring import Wiring
    from experiments.analysis.circuit_runs import Opened
    from mechinterp.models.vision_model import VisionModel

STAGES_BEFORE = ("functional_1/block3_pool_1/MaxPool2d", "functional_1/block4_pool_1/MaxPool2d")
"""What the published classifier hands from its third and fourth stage to the next."""

START = "functional_1/block3_conv3_1/Relu"
"""Just before the first of them: all that comes earlier is computed once per slice."""

STEPS = 1
"""Points on the way between both runs at which gradients are taken to rank nodes: a whole pass there and back each."""

BATCH = 8
"""Slices at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrainCircuitConfig:
    """How large the circuit's search and tests are.

    Parameters
    ----------
    found_on, tested_on, references
        Slices: to rank nodes on, held out, and to take values from.
    drawn_nodes, drawn_edges
        Of the graph: nodes of every site, the error node among them, and edges between them, at most.
    sizes
        Nodes kept of every site, along the curve; the drawn size and all nodes are added.
    last_sizes
        The same for the features' site alone, which costs little.
    random_circuits, last_random_circuits
        Of every size.
    checked_on, checked_nodes
        Slices, and nodes of a site, on which estimates are held against exact effects.
    stages
        Sites before the features' own.
    start
        A site before those; runs begin there. ``None``: at the image.
    seed
        Of draws.

    """

    found_on: int = 5
    tested_on: int = 5
    references: int = 6
    drawn_nodes: int = 6
    drawn_edges: int = 18
    sizes: tuple[int, ...] = (64, 256, 384)
    last_sizes: tuple[int, ...] = (16, 64, 128, 256, 512)
    random_circuits: int = 3
    last_random_circuits: int = 5
    checked_on: int = 2
    checked_nodes: int = 12
    stages: tuple[str, ...] = STAGES_BEFORE
    start: str | None = START
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "found_on",
            "tested_on",
            "references",
            "drawn_nodes",
            "drawn_edges",
            "checked_on",
            "checked_nodes",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")


@dataclass(frozen=True)
class EdgeCheck:
    """The drawn edges' estimated effects beside what replacing their source really does through their target.

    Parameters
    ----------
    rho
        Spearman's, over slices and edges.
    same_sign
        Share of the edges whose mean effects have the same sign.
    edges, slices
        How many.

    """

    rho: float
    same_sign: float
    edges: int
    slices: int


@dataclass(frozen=True, eq=False)
class BrainCircuit:
    """What was found.

    Parameters
    ----------
    circuit
        The drawn edges, as complete paths.
    curves
        What circuits of every size restore on held-out slices; the smallest size is the drawn nodes with every edge
        between them.
    last_curves
        The same of circuits of the features alone: the stages before are left as they are.
    drawn_alone
        What the drawn edges alone restore under ``mean``: every other edge is cut.
    agreements
        Of the nodes' estimated effects with exact ones, site by site.
    edge_check
        The same of the drawn edges.
    rerun_difference
        By how much, at most, the curve under ``mean`` differs from plain re-runs with an edit at every site.
    slices
        Numbers of the images: ``found_on``, ``tested_on``, ``references``, ``partners``.
    channels
        Of the drawn channels: the closest measured quantity, and whether held-out slices confirmed it.

    """

    circuit: Circuit
    curves: NodeCurves
    last_curves: NodeCurves
    drawn_alone: float
    agreements: tuple[Agreement, ...]
    edge_check: EdgeCheck
    rerun_difference: float
    slices: Mapping[str, tuple[int, ...]]
    channels: Mapping[Place, Closest]

    def to_json(self) -> dict[str, Any]:
        """Return its numbers as plain JSON."""
        return {
            **self.curves.to_json(),
            "features_alone": self.last_curves.to_json(),
            "drawn": {
                "edges": len(self.circuit.edges),
                "nodes": len(self.circuit.nodes),
                "alone_mean": self.drawn_alone,
            },
            "agreement": [a.to_json() for a in self.agreements],
            "edge_check": vars(self.edge_check),
            "rerun_difference": self.rerun_difference,
            "slices": {what: list(rows) for what, rows in self.slices.items()},
            "channels": [{"site": site, "channel": n, **closest} for (site, n), closest in self.channels.items()],
        }


def find_brain_circuit(
    folder: Path, config: BrainCircuitConfig | None = None, *, progress: Progress = SILENT
) -> BrainCircuit:
    """Find and test the circuit of a finished run of the brain study.

    Parameters
    ----------
    folder
        The run's: its store, autoencoder and ``results.json``.
    config
        Sizes.
    progress
        Told of every step.

    Raises
    ------
    ConfigError
        If the run is not finished, or has too few slices of a kind.
    SiteError
        If the model has not the stages, or something bypasses the site at which runs begin.

    """
    from experiments.analysis.circuit_runs import opened_for_circuit

    config = config or BrainCircuitConfig()
    if not (folder / "results.json").exists():
        raise ConfigError(f"{folder} has no results.json: run mechinterp study brain-mri --out {folder} first")
    results = read_json(folder / "results.json")
    opened = opened_for_circuit(folder)
    if not opened.saes:
        raise ConfigError(f"{folder} has no autoencoder: run mechinterp study brain-mri --out {folder} first")
    with reused_memory():
        return _Search(results, opened, config, chosen_slices(results, config)).found(progress)


@dataclass(eq=False)
class _Search:
    """One search: the run's model and slices."""

    results: Mapping[str, Any]
    opened: Opened
    config: BrainCircuitConfig
    slices: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        from circuits.metrics import as_metric
        from mechinterp.objectives import logit_difference

        question = self.results["target"]
        self.metric = as_metric(logit_difference(question["class"], question["reference"]), self.opened.model)
        self.images = {what: self._batch(rows) for what, rows in self.slices.items()}
        self.model: VisionModel = self.opened.model
        self.batches = self.images
        if self.config.start is not None:
            from circuits.late_start import starting_at

            late = starting_at(self.model, self.config.start, self.images["references"].x[:2])
            self.model = late
            self.batches = {what: replace(b, x=late.inputs(b.x, BATCH)) for what, b in self.images.items()}
        self.reference = self.batches["references"].x

    def _batch(self, rows: Sequence[int]) -> Batch:
        """Return slices prepared; one may be the partner of several."""
        from circuits.inputs import Batch

        unique = list(dict.fromkeys(rows))
        batch = self.opened.batch(unique)
        at = [unique.index(i) for i in rows]
        # blocks of one head are no patients
        return Batch(batch.x[at], None if batch.groups is None else batch.groups[at], False)

    def found(self, progress: Progress) -> BrainCircuit:
        """Rank, test every size, draw, and check what was estimated."""
        from circuits.agreements import agreement

        progress.note("ranking nodes on training slices")
        config = self.config
        ranked, neurons = (self._ranked(with_features=basis) for basis in (True, False))
        last = [self._last(whole) for whole in (ranked, neurons)]
        curves = self._curves(ranked, neurons, config.sizes, config.random_circuits, progress)
        last_curves = self._curves(last[0], last[1], config.last_sizes, config.last_random_circuits, progress)
        drawn = self._drawn(ranked, progress)
        few = self.batches["found_on"].x[: self.config.checked_on]
        agreements = agreement(
            self.metric, ranked.wiring.layers, model=self.model, images=few, reference=self.reference,
            most_nodes=self.config.checked_nodes, rows=32, seed=self.config.seed, progress=progress,
        )  # fmt: skip
        progress.note("checking drawn edges, and running the circuits again")
        channels = [p for p in drawn.nodes if drawn.wiring.layer(p[0]).kind_of(p[1]) == "channel"]
        return BrainCircuit(
            self._of_images(drawn), curves, last_curves, self._alone(drawn), agreements, self._edge_check(drawn),
            self._rerun_difference(ranked, curves), self.slices,
            channel_attributes(self.opened, channels, batch=BATCH, seed=self.config.seed, progress=progress),
        )  # fmt: skip

    def _of_images(self, drawn: Circuit) -> Circuit:
        """Return the circuit with the slices themselves, where runs began later: they are what a page shows."""
        from circuits.wiring import Wiring

        shown = self.images["found_on"]
        wiring = Wiring(self.opened.model, drawn.wiring.layers, self.metric, shown.x)
        return replace(drawn, wiring=wiring, batch=shown, reference=self.images["references"].x)

    def _ranked(self, *, with_features: bool) -> Ranked:
        """Return the stages and the features' site with their nodes in order: its features and error, or its channels."""
        from circuits import features, mean, neurons
        from circuits.node_circuits import rank_nodes
        from circuits.node_curves import Ranked
        from circuits.wiring import Wiring

        model, sae, shown = self.model, self.opened.saes[0], self.batches["found_on"]
        last = features(sae) if with_features else neurons(model, sae.site)
        wiring = Wiring(model, [*(neurons(model, site) for site in self.config.stages), last], self.metric, shown.x)
        return Ranked(wiring, rank_nodes(wiring, self._runs(wiring, shown, mean()), steps=STEPS))

    def _last(self, whole: Ranked) -> Ranked:
        """Return the features' site alone, its nodes in the same order."""
        from circuits.node_curves import Ranked
        from circuits.wiring import Wiring

        layer = whole.wiring.layer(self.opened.saes[0].site)
        wiring = Wiring(self.model, [layer], self.metric, self.batches["found_on"].x)
        return Ranked(wiring, whole.ranking.of([layer.site]))

    def _runs(self, wiring: Wiring, shown: Batch, ablation: Ablation, *, consistent: bool = True) -> list[Corrupted]:
        from circuits.corrupting import corrupted_batches

        settings: dict[str, Any] = {"batch": BATCH, "seed": self.config.seed, "consistent": consistent}
        return list(corrupted_batches(wiring, shown.x, self.reference, ablation, **settings))

    def _curves(
        self, ranked: Ranked, neurons: Ranked, sizes: Sequence[int], random_circuits: int, progress: Progress
    ) -> NodeCurves:
        from circuits import counterfactual, mean, resample, zero
        from circuits.node_curves import measure_curves

        every = max(len(layer) for layer in ranked.wiring.layers)
        chosen = {self.config.drawn_nodes, *sizes, every}
        return measure_curves(
            ranked, images=self.batches["tested_on"], neurons=neurons,
            ablations=(zero(), mean(), resample(1), counterfactual()), reference=self.reference,
            partners=self.batches["partners"].x, sizes=sorted(n for n in chosen if n <= every),
            subgroups=bands_of(self.results["target"]["bands"], self.slices["tested_on"]),
            random_circuits=random_circuits, batch=BATCH, seed=self.config.seed, progress=progress,
        )  # fmt: skip

    def _drawn(self, ranked: Ranked, progress: Progress) -> Circuit:
        """Return the largest edges between the largest nodes, as complete paths."""
        from circuits import FindConfig, find_circuit, mean
        from circuits.paths import complete_paths

        among = ranked.ranking.largest(self.config.drawn_nodes)
        every = sum(map(len, among.values())) ** 2
        settings = FindConfig(
            method="attribution", discovery="top-n", top=every, batch=BATCH, rows=32, seed=self.config.seed
        )
        whole = find_circuit(
            self.model, self.batches["found_on"].x, metric=self.metric, nodes=ranked.wiring.layers,
            reference=self.reference, ablation=mean(), among=among, config=settings, progress=progress,
        )  # fmt: skip
        return complete_paths(whole, self.config.drawn_edges)

    def _alone(self, drawn: Circuit) -> float:
        """Return what the drawn edges alone restore of held-out slices, every other edge cut."""
        import torch

        from circuits import mean
        from circuits.running_alone import CircuitRunner
        from circuits.shares import restored

        runs = self._runs(drawn.wiring, self.batches["tested_on"], mean(), consistent=False)
        edges = [e.edge for e in drawn.edges]
        alone, none = (
            torch.cat([CircuitRunner(drawn.wiring, b).metric(kept) for b in runs]).double().numpy()
            for kept in (edges, [])
        )
        return restored(alone, torch.cat([b.clean.metric for b in runs]).double().numpy(), none)

    def _edge_check(self, drawn: Circuit) -> EdgeCheck:
        from circuits import mean
        from circuits.edge_checks import real_effects
        from mechinterp.statistics import spearman

        few = self.config.checked_on
        shown = replace(self.batches["found_on"], x=self.batches["found_on"].x[:few])
        if not drawn.edges:
            return EdgeCheck(float("nan"), float("nan"), 0, len(shown.x))
        runs = self._runs(drawn.wiring, shown, mean(), consistent=False)
        real = real_effects(drawn.wiring, runs, [e.edge for e in drawn.edges])
        estimated = np.stack([e.noising[: len(real)] for e in drawn.edges], 1)
        rho = float(spearman(real.reshape(-1, 1), estimated.reshape(-1, 1))[0, 0])
        same = float(np.mean(np.sign(real.mean(0)) == np.sign(estimated.mean(0))))
        return EdgeCheck(rho, same, len(drawn.edges), len(shown.x))

    def _rerun_difference(self, ranked: Ranked, curves: NodeCurves) -> float:
        """Run the circuit of every size the plain way, and return by how much its faithfulness differs from the curve's."""
        import torch

        from circuits import mean
        from circuits.plain_runs import direct_rerun
        from circuits.shares import restored

        wiring, ranking = ranked.wiring, ranked.ranking
        runs = self._runs(wiring, self.batches["tested_on"], mean(), consistent=False)

        def metric(kept: Mapping[str, Sequence[int]]) -> NDArray[np.float64]:
            found: NDArray[np.float64] = torch.cat([direct_rerun(wiring, b, kept) for b in runs]).double().numpy()
            return found

        whole = torch.cat([b.clean.metric for b in runs]).double().numpy()
        none = metric({})
        points = next(u.points for u in curves.under if u.ablation.name == "mean")
        return max(abs(restored(metric(ranking.largest(p.most)), whole, none) - p.faithfulness.value) for p in points)


def chosen_slices(results: Mapping[str, Any], config: BrainCircuitConfig) -> dict[str, tuple[int, ...]]:
    """Return which slices nodes are ranked on, tested on, and compared with: spread evenly over those there are.

    Each tested slice's partner, for counterfactuals, is the nearest slice of the head that is answered otherwise.

    Raises
    ------
    ConfigError
        If there are none of a kind.

    """
    splits, positive = results["images"]["splits"], results["target"]["positive"]
    others = results["target"]["reference_images"]
    kinds = {
        "found_on": ([i for i in positive if splits[i] == "train"], config.found_on, "positive training slices"),
        "tested_on": ([i for i in positive if splits[i] == "test"], config.tested_on, "positive held-out slices"),
        "references": (others, config.references, "reference slices"),
    }
    found = {}
    for kind, (rows, most, words) in kinds.items():
        if not rows:
            raise ConfigError(f"the run has no {words}: a circuit is found on some and tested on others")
        at = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)
        found[kind] = tuple(int(rows[i]) for i in at)
    found["partners"] = tuple(min(others, key=lambda j: abs(j - i)) for i in found["tested_on"])
    return found


def bands_of(bands: Sequence[Mapping[str, Any]], rows: Sequence[int]) -> list[str]:
    """Return the band of each slice, ``between`` for those in none."""
    return [next((b["name"] for b in bands if i in b["images"]), "between") for i in rows]
