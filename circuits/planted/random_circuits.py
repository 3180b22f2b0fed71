"""Random planted circuits of a chosen size, depth and superposition, every edge of which matters on some image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from circuits.planted.cnn import planted_cnn
from circuits.planted.model import PlantedModel
from circuits.planted.pictures import pattern_names
from circuits.planted.plan import (
    CircuitPlan,
    Gate,
    and_gate,
    backup_gate,
    inhibit_gate,
    nor_gate,
    sum_gate,
    threshold_gate,
)
from circuits.planted.vit import planted_vit
from mechinterp.errors import ConfigError

ATTEMPTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCircuitConfig:
    """What a random circuit looks like."""

    kind: Annotated[Literal["cnn", "vit"], "which architecture it is planted into"] = "cnn"
    inputs: Annotated[int, "patterns that the circuit reads"] = 5
    distractors: Annotated[int, "patterns, and gates in every layer, that are decodable but not used"] = 3
    gates: Annotated[int, "gates in every layer"] = 4
    depth: Annotated[int, "layers of gates"] = 2
    superposition: Annotated[float, "features per neuron"] = 1.0
    weak_share: Annotated[float, "share of the read-out's weights that are weak"] = 0.0
    weak_scale: Annotated[float, "what weak weights are multiplied by"] = 1.0
    backup: Annotated[bool, "whether one unit has a backup that is silent until it fails"] = False
    least_effect: Annotated[float, "every edge moves the logit by at least this share of its standard deviation"] = 0.05

    def __post_init__(self) -> None:
        for name in ("inputs", "gates", "depth"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.superposition < 1:
            raise ConfigError(f"superposition is {self.superposition:g}: it must be at least 1 feature per neuron")


def random_circuit(config: RandomCircuitConfig | None = None, *, seed: int = 0) -> PlantedModel:
    """Draw a circuit and plant it.

    A draw with an edge that matters on no image is thrown away: a wire that nothing ever uses is no part of a circuit.

    Raises
    ------
    ConfigError
        If no draw of this shape has only edges that matter.

    """
    config = config or RandomCircuitConfig()
    amplitudes = _amplitudes(config.inputs + config.distractors, seed)
    for attempt in range(ATTEMPTS):
        plan = _plan(config, np.random.default_rng([seed, attempt]))
        spread = plan.logit(amplitudes).std()
        weakest = config.weak_scale if config.weak_share else 1.0
        if spread > 0 and min(plan.edge_effects(amplitudes).values()) >= config.least_effect * weakest * spread:
            build = planted_cnn if config.kind == "cnn" else planted_vit
            return build(plan, superposition=config.superposition, seed=seed)
    raise ConfigError(f"no circuit of this shape was found in {ATTEMPTS} draws: ask for fewer layers or more inputs")


def _amplitudes(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, 99])
    return np.where(rng.random((256, n)) < 0.5, rng.uniform(0.7, 1.3, (256, n)), 0.0)


def _plan(config: RandomCircuitConfig, rng: np.random.Generator) -> CircuitPlan:
    names = pattern_names(config.inputs + config.distractors)
    order = rng.permutation(len(names))
    real = [names[i] for i in order[: config.inputs]]
    idle = [names[i] for i in order[config.inputs :]]
    gates: list[Gate] = []
    below, skips = real, list(real)
    for layer in range(1, config.depth + 1):
        made = _layer(rng, layer, below, config.gates)
        if config.backup and layer == config.depth and layer > 1:
            made = _with_backup(rng, made, gates, below, layer, skipping=config.kind == "vit")
        # every unit is read by something, or it would be no part of the circuit
        read = {source for gate in made for source in gate.weights}
        left = [name for name in below if name not in read]
        made += [
            sum_gate(f"carry {name}"[:60], layer, {name: 1.0}) for name in left if layer > 1 or config.kind == "cnn"
        ]
        decoys = [sum_gate(f"decoy {layer}.{k}", layer, {s: 1.0}) for k, s in enumerate(idle)]
        gates += made + [Gate(d.name, "distractor", layer, d.weights) for d in decoys]
        below, skips = [gate.name for gate in made], skips + [gate.name for gate in made]
        idle = [d.name for d in decoys]
    used = {source for gate in gates if gate.kind != "distractor" for source in gate.weights}
    sinks = [name for name in skips if name not in used] if config.kind == "vit" else below
    weights = rng.uniform(1, 2, len(sinks)) * rng.choice([-1, 1], len(sinks))
    weak = rng.random(len(sinks)) < config.weak_share
    readout = {
        name: float(w * (config.weak_scale if s else 1)) for name, w, s in zip(sinks, weights, weak, strict=True)
    }
    return CircuitPlan(tuple(names), tuple(gates), readout, float(rng.normal()))


def _layer(rng: np.random.Generator, layer: int, below: list[str], n: int) -> list[Gate]:
    made: list[Gate] = []
    for j in range(n):
        name = f"{layer}.{j}"
        kind = rng.choice(["and", "nor", "sum", "inhibit", "threshold"])
        pair = [below[i] for i in rng.choice(len(below), size=min(2, len(below)), replace=False)]
        if len(pair) < 2 or kind == "threshold":
            made.append(threshold_gate(f"threshold {name}", layer, pair[0], float(rng.uniform(0.3, 0.9))))
        elif kind == "and":
            made.append(and_gate(f"and {name}", layer, pair))
        elif kind == "nor":
            made.append(nor_gate(f"nor {name}", layer, pair))
        elif kind == "inhibit":
            made.append(inhibit_gate(f"inhibit {name}", layer, *pair))
        else:
            made.append(sum_gate(f"sum {name}", layer, dict(zip(pair, rng.uniform(0.5, 1.5, 2).tolist(), strict=True))))
    return made


def _with_backup(
    rng: np.random.Generator, made: list[Gate], gates: list[Gate], below: list[str], layer: int, *, skipping: bool
) -> list[Gate]:
    """Let the last layer hold a unit that takes over when a unit of the layer before it is silent.

    In a CNN the backup reads a carried copy of what the primary reads; a ViT's reads it past the primary.
    """
    primary = next((g for g in gates if g.layer == layer - 1 and g.kind in {"threshold", "carry", "sum"}), None)
    if primary is None or not skipping:
        return made
    source = next(iter(primary.weights))
    return [*made, backup_gate(f"backup of {primary.name}"[:60], layer, source, primary.name)]
