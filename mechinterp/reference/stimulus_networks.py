"""The reference network for stimuli: the fundus' stages, told which of three contents is shown.

By spec: ``py:…/mechinterp/reference/stimulus_networks.py:stimulus_cnn``, untrained, for weights that are given.
"""

from __future__ import annotations

from torch import nn

from mechinterp.phantoms.stimuli.parameters import CONTENTS
from mechinterp.reference.networks import ReferenceCNN

SIZE_PX = 96
# of all pixels of 200 phantoms
GREY_MEAN, GREY_STD = 0.50, 0.09


def stimulus_cnn() -> nn.Module:
    """Return the CNN for stimuli; it says what it wants to be fed, where ``py:`` looks for it."""
    network = ReferenceCNN(classes=len(CONTENTS))
    about = {
        "input_size": (SIZE_PX, SIZE_PX), "mean": (GREY_MEAN,) * 3, "std": (GREY_STD,) * 3, "class_names": CONTENTS,
    }  # fmt: skip
    for name, value in about.items():
        setattr(network, name, value)
    return network
