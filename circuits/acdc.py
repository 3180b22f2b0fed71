"""ACDC: take edges away one after another, from the metric backwards, as long as the metric does not notice.

References
----------
.. [1] Conmy et al. Towards automated circuit discovery for mechanistic interpretability. 2023 (arXiv 2304.14997).

"""

from __future__ import annotations

import numpy as np
import torch

from circuits.circuit import Circuit, leading_to_metric
from circuits.corrupting import corrupted_batches
from circuits.edges import METRIC
from circuits.running_alone import CircuitRunner
from mechinterp.progress import SILENT, Progress


def acdc(circuit: Circuit, threshold: float, *, progress: Progress = SILENT) -> Circuit:
    """Return the circuit without the edges whose removal moves the metric by less than a threshold.

    Edges are tried from the metric backwards, the weakest first; each is tried in the circuit that is left by then, so of two
    that back each other up one stays.

    Parameters
    ----------
    circuit
        A wide choice of edges.
    threshold
        Mean absolute change of the metric, as a share of the circuit's scale.
    progress
        Told of every edge.

    """
    w = circuit.wiring
    batches = list(
        corrupted_batches(
            w, circuit.batch.x, circuit.reference, circuit.ablation, batch=circuit.batch_size, seed=circuit.seed
        )
    )
    runners = [CircuitRunner(w, b) for b in batches]
    kept = list(circuit.edges)

    def metric() -> np.ndarray:
        edges = [e.edge for e in kept]
        found: np.ndarray = torch.cat([r.metric(edges) for r in runners]).double().cpu().numpy()
        return found

    order = (*w.sites, METRIC)
    tried = sorted(circuit.edges, key=lambda e: (-order.index(e.edge[1][0]), -order.index(e.edge[0][0]), e.size))
    now = metric()
    for edge in progress.track(tried, "ACDC", len(tried)):
        if edge not in kept:
            continue
        before = kept
        kept = leading_to_metric([e for e in kept if e is not edge])
        without = metric()
        if float(np.abs(without - now).mean()) < threshold * circuit.scale:
            now = without
        else:
            kept = before
    return circuit.with_edges(e.edge for e in kept)
