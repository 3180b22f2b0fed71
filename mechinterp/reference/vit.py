"""The reference ViT by spec: ``py:…/mechinterp/reference/vit.py:build``."""

from __future__ import annotations

from torch import nn

from mechinterp.models.fitting import load_into
from mechinterp.models.weights import read_state_dict
from mechinterp.reference.networks import reference_vit
from mechinterp.reference.training import train_reference


def build() -> nn.Module:
    """Return the trained ViT; trains it first (minutes) if the cache does not hold it."""
    trained = train_reference("vit")
    module = reference_vit()
    load_into(module, read_state_dict(trained.weights), str(trained.weights))
    return module


def architecture() -> nn.Module:
    """Return the ViT untrained, for weights that are given."""
    return reference_vit()
