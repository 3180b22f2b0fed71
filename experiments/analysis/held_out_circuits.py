"""A run's circuit run alone on patients held out: under all four ablations, beside the circuit between neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.inputs import Batch
from circuits.metrics import OfLogits
from circuits.running import slices
from experiments.analysis.predictions import answered
from mechinterp.objectives import Objective
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from circuits import Circuit, Faithfulness
    from mechinterp.models.vision_model import VisionModel


def measured_alone(
    circuit: Circuit,
    held_out: Batch,
    others: Batch,
    *,
    neuron_circuit: Circuit | None = None,
    subgroups: Sequence[str] | None = None,
    random_circuits: int = 20,
    progress: Progress = SILENT,
) -> Faithfulness:
    """Test a circuit under zero, mean, resample, and each image's counterfactual where there is one.

    A counterfactual is a real image: of those of other patients that the model answers otherwise the one that is nearest as
    the model's input. Where it answers all alike there is none, and a note says so.

    Parameters
    ----------
    circuit
        What was found.
    held_out
        Images of patients that it was not found on.
    others
        More images that may be counterfactuals: those it was found on.
    neuron_circuit
        The circuit between the same sites' neurons.
    subgroups
        Class or subgroup of each held-out image.
    random_circuits
        How many of its size.
    progress
        Told of every ablation.

    """
    from circuits import counterfactual, measure_faithfulness

    found = measure_faithfulness(
        circuit, images=held_out, subgroups=subgroups, random_circuits=random_circuits, neuron_circuit=neuron_circuit,
        minimality=False, progress=progress,
    )  # fmt: skip
    partners = answered_otherwise(circuit.wiring.model, held_out, others, about=_asked(circuit))
    if partners is None:
        progress.note("no counterfactual: the model gives images of all other patients the same answer")
        return found
    pool = torch.cat([held_out.x, others.x])
    paired = measure_faithfulness(
        circuit, images=held_out, ablations=[counterfactual()], reference=pool[partners], subgroups=subgroups,
        random_circuits=random_circuits, neuron_circuit=neuron_circuit, minimality=False, progress=progress,
    )  # fmt: skip
    return replace(found, under=(*found.under, *paired.under))


def answered_otherwise(
    model: VisionModel, images: Batch, others: Batch, *, about: Sequence[int] | None = None
) -> Int[Tensor, " image"] | None:
    """Return each image's nearest one, among all of them, of another patient and with another answer.

    Parameters
    ----------
    model
        It answers.
    images, others
        Numbers count through the first and go on in the second.
    about
        Outputs that the answer is about where they are findings of their own; all by default.

    Returns
    -------
    Tensor, or None
        ``None`` where some image has no such partner.

    """
    x = torch.cat([images.x, others.x])
    with torch.no_grad():
        answers = torch.cat([answered(model.logits(x[part]), model.activation, about) for part in slices(len(x), 32)])
    flat = x.flatten(1).double()
    distances = torch.cdist(flat[: len(images.x)], flat)
    same = (answers[: len(images.x), None] == answers[None]).all(-1)
    if images.groups is not None and others.groups is not None:
        names = [*images.groups.tolist(), *others.groups.tolist()]
        same |= torch.tensor([[a == b for b in names] for a in images.groups.tolist()], device=same.device)
    distances[same] = torch.inf
    return None if bool(torch.isinf(distances).all(1).any()) else distances.argmin(1)


def _asked(circuit: Circuit) -> Sequence[int] | None:
    """Return the outputs that a circuit's metric is of; ``None`` where it is a function of the user's own."""
    metric = circuit.wiring.metric
    objective = metric.function if isinstance(metric, OfLogits) else None
    if not isinstance(objective, Objective):
        return None
    return [output for output in objective.classes if isinstance(output, int)]
