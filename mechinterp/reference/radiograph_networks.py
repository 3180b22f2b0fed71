"""The reference networks for mammograms and chest radiographs: those of the fundus, with other classes.

By spec: ``py:…/mechinterp/reference/radiograph_networks.py:chest_cnn``, untrained, for weights that are given.
"""

from __future__ import annotations

from torch import nn

from mechinterp.phantoms.datasets import phantom_kind
from mechinterp.reference.networks import reference_cnn, reference_vit


def chest_cnn() -> nn.Module:
    """Return the CNN for chest radiographs."""
    return _named(reference_cnn(), "chest")


def chest_vit() -> nn.Module:
    """Return the ViT for chest radiographs."""
    return _named(reference_vit(), "chest")


def mammogram_cnn() -> nn.Module:
    """Return the CNN for mammograms."""
    return _named(reference_cnn(), "mammogram")


def mammogram_vit() -> nn.Module:
    """Return the ViT for mammograms."""
    return _named(reference_vit(), "mammogram")


def _named(module: nn.Module, phantom: str) -> nn.Module:
    module.class_names = phantom_kind(phantom).class_names  # type: ignore[assignment]
    return module
