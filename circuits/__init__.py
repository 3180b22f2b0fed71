"""How features drive the prediction: exact effects by intervention, sets of features beside matched random sets.

Names are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuits.ablations import Ablation, mean, resample, towards, zero
    from circuits.bands import Band, two_bands
    from circuits.node_effects import FeatureEffects, feature_effects
    from circuits.set_experiment import SetExperimentConfig, run_set_experiment
    from circuits.set_results import SetExperiment
    from circuits.set_verdict import verdict

_HOME = {
    "Ablation": "circuits.ablations",
    "Band": "circuits.bands",
    "FeatureEffects": "circuits.node_effects",
    "SetExperiment": "circuits.set_results",
    "SetExperimentConfig": "circuits.set_experiment",
    "feature_effects": "circuits.node_effects",
    "mean": "circuits.ablations",
    "resample": "circuits.ablations",
    "run_set_experiment": "circuits.set_experiment",
    "towards": "circuits.ablations",
    "two_bands": "circuits.bands",
    "verdict": "circuits.set_verdict",
    "zero": "circuits.ablations",
}

__all__ = [
    "Ablation",
    "Band",
    "FeatureEffects",
    "SetExperiment",
    "SetExperimentConfig",
    "feature_effects",
    "mean",
    "resample",
    "run_set_experiment",
    "towards",
    "two_bands",
    "verdict",
    "zero",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'circuits' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
