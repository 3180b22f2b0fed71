"""How features drive the prediction: effects and circuits by intervention, sets of features beside matched random sets.

Names are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuits.ablations import Ablation, counterfactual, mean, resample, towards, zero
    from circuits.acting.counterfactuals import CounterfactualFeatures, counterfactual_features
    from circuits.acting.deferring import Deferral, defer
    from circuits.acting.edit_bill import EditBill
    from circuits.acting.editing import EditedModel, edit
    from circuits.acting.model_differences import ModelDifference, diff_models
    from circuits.acting.shortcuts import ShortcutSearch, find_shortcuts
    from circuits.acting.steering import Steered, steer
    from circuits.acting.subgroup_effects import SubgroupEffect, subgroups
    from circuits.agreements import Agreement, agreement
    from circuits.attention import attention_patterns, rollout
    from circuits.bands import Band, two_bands
    from circuits.circuit import Circuit
    from circuits.decomposition import Decomposition, residual_decompose
    from circuits.faithfulness import Faithfulness, measure_faithfulness, prune
    from circuits.finding import find_circuit
    from circuits.finding_config import FindConfig
    from circuits.graph import FeatureGraph, difference
    from circuits.hierarchical_finding import HierarchicalCircuit, find_circuit_by_groups
    from circuits.measuring import effects
    from circuits.metrics import loss, regression
    from circuits.node_circuits import rank_nodes
    from circuits.node_curves import NodeCurves, Ranked, measure_curves
    from circuits.node_effects import FeatureEffects, feature_effects
    from circuits.node_results import Effects
    from circuits.nodes import NodeSet, features, heads, neurons, whole
    from circuits.paths import complete_paths
    from circuits.set_experiment import SetExperimentConfig, run_set_experiment
    from circuits.set_results import SetExperiment
    from circuits.set_verdict import verdict
    from circuits.transcoder_tracing import transcoder_graph

_HOME = {
    "Ablation": "circuits.ablations",
    "Agreement": "circuits.agreements",
    "Band": "circuits.bands",
    "Circuit": "circuits.circuit",
    "CounterfactualFeatures": "circuits.acting.counterfactuals",
    "Decomposition": "circuits.decomposition",
    "Deferral": "circuits.acting.deferring",
    "EditBill": "circuits.acting.edit_bill",
    "EditedModel": "circuits.acting.editing",
    "Effects": "circuits.node_results",
    "Faithfulness": "circuits.faithfulness",
    "FeatureEffects": "circuits.node_effects",
    "FeatureGraph": "circuits.graph",
    "FindConfig": "circuits.finding_config",
    "HierarchicalCircuit": "circuits.hierarchical_finding",
    "ModelDifference": "circuits.acting.model_differences",
    "NodeCurves": "circuits.node_curves",
    "NodeSet": "circuits.nodes",
    "Ranked": "circuits.node_curves",
    "SetExperiment": "circuits.set_results",
    "SetExperimentConfig": "circuits.set_experiment",
    "ShortcutSearch": "circuits.acting.shortcuts",
    "Steered": "circuits.acting.steering",
    "SubgroupEffect": "circuits.acting.subgroup_effects",
    "agreement": "circuits.agreements",
    "attention_patterns": "circuits.attention",
    "complete_paths": "circuits.paths",
    "counterfactual": "circuits.ablations",
    "counterfactual_features": "circuits.acting.counterfactuals",
    "defer": "circuits.acting.deferring",
    "diff_models": "circuits.acting.model_differences",
    "difference": "circuits.graph",
    "edit": "circuits.acting.editing",
    "effects": "circuits.measuring",
    "feature_effects": "circuits.node_effects",
    "features": "circuits.nodes",
    "find_circuit": "circuits.finding",
    "find_circuit_by_groups": "circuits.hierarchical_finding",
    "find_shortcuts": "circuits.acting.shortcuts",
    "heads": "circuits.nodes",
    "loss": "circuits.metrics",
    "mean": "circuits.ablations",
    "measure_curves": "circuits.node_curves",
    "measure_faithfulness": "circuits.faithfulness",
    "neurons": "circuits.nodes",
    "prune": "circuits.faithfulness",
    "rank_nodes": "circuits.node_circuits",
    "regression": "circuits.metrics",
    "resample": "circuits.ablations",
    "residual_decompose": "circuits.decomposition",
    "rollout": "circuits.attention",
    "run_set_experiment": "circuits.set_experiment",
    "steer": "circuits.acting.steering",
    "subgroups": "circuits.acting.subgroup_effects",
    "towards": "circuits.ablations",
    "transcoder_graph": "circuits.transcoder_tracing",
    "two_bands": "circuits.bands",
    "verdict": "circuits.set_verdict",
    "whole": "circuits.nodes",
    "zero": "circuits.ablations",
}

__all__ = [
    "Ablation",
    "Agreement",
    "Band",
    "Circuit",
    "CounterfactualFeatures",
    "Decomposition",
    "Deferral",
    "EditBill",
    "EditedModel",
    "Effects",
    "Faithfulness",
    "FeatureEffects",
    "FeatureGraph",
    "FindConfig",
    "HierarchicalCircuit",
    "ModelDifference",
    "NodeCurves",
    "NodeSet",
    "Ranked",
    "SetExperiment",
    "SetExperimentConfig",
    "ShortcutSearch",
    "Steered",
    "SubgroupEffect",
    "agreement",
    "attention_patterns",
    "complete_paths",
    "counterfactual",
    "counterfactual_features",
    "defer",
    "diff_models",
    "difference",
    "edit",
    "effects",
    "feature_effects",
    "features",
    "find_circuit",
    "find_circuit_by_groups",
    "find_shortcuts",
    "heads",
    "loss",
    "mean",
    "measure_curves",
    "measure_faithfulness",
    "neurons",
    "prune",
    "rank_nodes",
    "regression",
    "resample",
    "residual_decompose",
    "rollout",
    "run_set_experiment",
    "steer",
    "subgroups",
    "towards",
    "transcoder_graph",
    "two_bands",
    "verdict",
    "whole",
    "zero",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'circuits' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
