"""What a planted circuit computes, as a list of gates: values and logit in closed form, true nodes and signed edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

LOGIT = "logit"
STRONGEST = 1.3
"""Largest amplitude that a pattern is shown with."""

Kind = Literal["and", "nor", "sum", "inhibit", "threshold", "carry", "backup", "distractor"]


@dataclass(frozen=True)
class Gate:
    """One unit: ``relu(sum of weight × source + bias)``.

    Parameters
    ----------
    name
        How tables call it.
    kind
        What it is meant as. An OR is planted as its negation, ``nor``: a unit that is on only when all its sources are
        off, read with a negative weight.
    layer
        1 for gates that read the inputs.
    weights
        Weight of each source, which is an input or a gate of an earlier layer.
    bias
        Added before the ReLU.

    """

    name: str
    kind: Kind
    layer: int
    weights: Mapping[str, float]
    bias: float = 0.0


@dataclass(frozen=True)
class CircuitPlan:
    """A planted circuit.

    Parameters
    ----------
    inputs
        Names of the visual features that images may show. Their value is the amplitude they are shown with.
    gates
        In order of layers.
    readout
        Weight of each unit (input or gate) in the logit.
    bias
        Of the logit.
    crosstalk
        Per layer: how much of each unit written before (rows, by name) a reader of another one (columns) sees, where
        features are in superposition. Layers that are not named are read without any.

    """

    inputs: tuple[str, ...]
    gates: tuple[Gate, ...]
    readout: Mapping[str, float]
    bias: float = 0.0
    crosstalk: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Number of layers of gates."""
        return max((gate.layer for gate in self.gates), default=0)

    def layer(self, number: int) -> tuple[str, ...]:
        """Return the names of one layer's units; layer 0 are the inputs."""
        return self.inputs if number == 0 else tuple(gate.name for gate in self.gates if gate.layer == number)

    def values(
        self,
        amplitudes: Float[NDArray[np.float64], "image input"],
        *,
        without: tuple[str, str] | None = None,
        instead: Float[NDArray[np.float64], " image"] | float = 0.0,
    ) -> dict[str, Float[NDArray[np.float64], " image"]]:
        """Return every unit's value and the logit, in closed form.

        Parameters
        ----------
        amplitudes
            With what strength each input is shown.
        without
            An edge (source, target) whose target sees `instead` of the source.
        instead
            What it sees.

        """
        values = {name: np.asarray(amplitudes[:, i], dtype=np.float64) for i, name in enumerate(self.inputs)}
        for layer in range(1, self.depth + 1):
            # a layer's gates are written at once: none of them leaks into what another one reads
            values |= {
                gate.name: np.maximum(self._read(gate.name, gate.weights, gate.bias, values, without, instead), 0)
                for gate in self.gates
                if gate.layer == layer
            }
        values[LOGIT] = self._read(LOGIT, self.readout, self.bias, values, without, instead)
        return values

    def _read(
        self,
        target: str,
        weights: Mapping[str, float],
        bias: float,
        values: Mapping[str, NDArray[np.float64]],
        without: tuple[str, str] | None,
        instead: NDArray[np.float64] | float,
    ) -> NDArray[np.float64]:
        total = np.full(len(next(iter(values.values()))), bias)
        for source, weight in weights.items():
            seen = values[source] if without != (source, target) else np.broadcast_to(instead, total.shape)
            # what others leak into the direction that is read
            leaks = [
                amount * values[other] for other, amount in self.crosstalk.get(source, {}).items() if other in values
            ]
            total = total + weight * (seen + sum(leaks))
        return total

    def logit(self, amplitudes: Float[NDArray[np.float64], "image input"]) -> Float[NDArray[np.float64], " image"]:
        """Return the logit in closed form."""
        return self.values(amplitudes)[LOGIT]

    @cached_property
    def used(self) -> frozenset[str]:
        """Units from which a path leads to the logit."""
        reached = {name for name, weight in self.readout.items() if weight}
        for gate in reversed(self.gates):
            if gate.name in reached:
                reached |= {name for name, weight in gate.weights.items() if weight}
        return frozenset(reached)

    @cached_property
    def edges(self) -> dict[tuple[str, str], int]:
        """The true edges with the sign of their weight; the last target is the logit."""
        found = {
            (source, gate.name): int(np.sign(weight))
            for gate in self.gates
            if gate.name in self.used
            for source, weight in gate.weights.items()
            if weight
        }
        return found | {(name, LOGIT): int(np.sign(weight)) for name, weight in self.readout.items() if weight}

    def edge_effects(self, amplitudes: Float[NDArray[np.float64], "image input"]) -> dict[tuple[str, str], float]:
        """Return how much each true edge moves the logit: the mean size of the change when its source is not seen.

        The larger of three: the source is replaced by 0, by its value in another image, or shown alone where it is absent.
        """
        whole = self.values(amplitudes)
        found: dict[tuple[str, str], float] = {}
        for edge in self.edges:
            others = (np.zeros(len(amplitudes)), np.roll(whole[edge[0]], 1), np.ones(len(amplitudes)))
            found[edge] = max(
                float(np.abs(self.values(amplitudes, without=edge, instead=other)[LOGIT] - whole[LOGIT]).mean())
                for other in others
            )
        return found


def and_gate(name: str, layer: int, sources: Sequence[str]) -> Gate:
    """Return a gate that is on when all its sources are."""
    return Gate(name, "and", layer, dict.fromkeys(sources, 1.0), -STRONGEST * (len(sources) - 1))


def nor_gate(name: str, layer: int, sources: Sequence[str]) -> Gate:
    """Return a gate that is on when none of its sources is; read negatively it is an OR."""
    return Gate(name, "nor", layer, dict.fromkeys(sources, -2.0), 1.0)


def sum_gate(name: str, layer: int, weights: Mapping[str, float]) -> Gate:
    """Return a gate that adds up."""
    return Gate(name, "carry" if len(weights) == 1 else "sum", layer, dict(weights))


def inhibit_gate(name: str, layer: int, source: str, by: str) -> Gate:
    """Return a gate that passes a source on unless another is on."""
    return Gate(name, "inhibit", layer, {source: 1.0, by: -2.0})


def threshold_gate(name: str, layer: int, source: str, at: float = 0.9) -> Gate:
    """Return a gate that is on when its source is stronger than a threshold."""
    return Gate(name, "threshold", layer, {source: 2.0}, -2.0 * at)


def backup_gate(name: str, layer: int, source: str, primary: str) -> Gate:
    """Return a gate that does what the primary does, but only when that is silent: self-repair."""
    return Gate(name, "backup", layer, {source: 1.0, primary: -4.0})
