"""The reference CNN by spec: ``py:…/mechinterp/reference/cnn.py:build``."""

from __future__ import annotations

from torch import nn

from mechinterp.models.fitting import load_into
from mechinterp.models.weights import read_state_dict
from mechinterp.reference.networks import reference_cnn
from mechinterp.reference.training import train_reference


def build() -> nn.Module:
    """Return the trained CNN; trains it first (minutes) if the cache does not hold it."""
    trained = train_reference("cnn")
    module = reference_cnn()
    load_into(module, read_state_dict(trained.weights), str(trained.weights))
    return module


def architecture() -> nn.Module:
    """Return the CNN untrained, for weights that are given."""
    return reference_cnn()
