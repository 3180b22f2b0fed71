"""The reference networks for stimuli: the fundus' CNN and ViT, told whether a Gabor, a face, a scene or a scrambled one is shown.

By spec: ``py:…/mechinterp/reference/stimulus_networks.py:stimulus_cnn`` (or ``stimulus_vit``), untrained, for weights that are given.
"""

from __future__ import annotations

from torch import nn

from mechinterp.phantoms.stimuli.parameters import SHOWN
from mechinterp.reference.networks import ConvStem, ReferenceCNN

SIZE_PX = 96
# of all pixels of 200 phantoms
GREY_MEAN, GREY_STD = 0.50, 0.09


def stimulus_cnn() -> nn.Module:
    """Return the CNN for stimuli."""
    return _described(ReferenceCNN(classes=len(SHOWN)))


def stimulus_vit() -> nn.Module:
    """Return the ViT for stimuli: four blocks of width 96, three heads, a CLS token, 144 patches of 8 pixels."""
    from timm.models.vision_transformer import VisionTransformer

    vit = VisionTransformer(
        img_size=SIZE_PX, patch_size=8, embed_dim=96, depth=4, num_heads=3, mlp_ratio=2, num_classes=len(SHOWN),
        embed_layer=ConvStem,
    )  # fmt: skip
    return _described(vit)


def _described(network: nn.Module) -> nn.Module:
    """Say on the module what it wants to be fed, where ``py:`` looks for it."""
    about = {
        "input_size": (SIZE_PX, SIZE_PX), "mean": (GREY_MEAN,) * 3, "std": (GREY_STD,) * 3, "class_names": SHOWN,
    }  # fmt: skip
    for name, value in about.items():
        setattr(network, name, value)
    return network
