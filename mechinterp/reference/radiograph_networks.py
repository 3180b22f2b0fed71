"""The reference networks for mammograms and chest radiographs: those of the fundus, with other sizes and classes.

By spec: ``py:…/mechinterp/reference/radiograph_networks.py:chest_cnn``, untrained, for weights that are given.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, cat, nn

from mechinterp.phantoms.datasets import phantom_kind
from mechinterp.reference.networks import ConvStem, ReferenceCNN

# height and width; a mammogram's own, at which spicules and calcifications are a pixel wide
SIZES_PX = {"chest": (96, 96), "mammogram": (192, 152)}
# of all pixels of 200 phantoms
GREY_MEAN, GREY_STD = 0.18, 0.22
PATCH_PX = 8


class RadiographCNN(ReferenceCNN):
    """The fundus' stages under a head that sees the mean of the last map beside its highest values.

    What is spread out (a heart's width) shows in the mean, what one place decides (a nodule, a mass) in the maximum.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96), classes: int = 2) -> None:
        super().__init__(widths, classes)
        self.head = nn.Linear(2 * widths[-1], classes)

    def forward_head(self, x: Float[Tensor, "batch channel row column"]) -> Float[Tensor, "batch class"]:
        """Return the logits of the last stage's map."""
        logits: Tensor = self.head(cat([x.amax((2, 3)), x.mean((2, 3))], 1))
        return logits


class RectangularStem(ConvStem):
    """The ViT's stem for images that are higher than wide."""

    def __init__(
        self, img_size: tuple[int, int], patch_size: int = PATCH_PX, in_chans: int = 3, embed_dim: int = 96, **_: object
    ) -> None:
        super().__init__(img_size[0], patch_size, in_chans, embed_dim)
        self.img_size = img_size
        self.grid_size = (img_size[0] // patch_size, img_size[1] // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]


def chest_cnn() -> nn.Module:
    """Return the CNN for chest radiographs."""
    return _described(RadiographCNN(), "chest")


def chest_vit() -> nn.Module:
    """Return the ViT for chest radiographs."""
    return _described(_vit("chest"), "chest")


def mammogram_cnn() -> nn.Module:
    """Return the CNN for mammograms."""
    return _described(RadiographCNN(), "mammogram")


def mammogram_vit() -> nn.Module:
    """Return the ViT for mammograms."""
    return _described(_vit("mammogram"), "mammogram")


def _vit(phantom: str) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    vit: nn.Module = VisionTransformer(
        img_size=SIZES_PX[phantom], patch_size=PATCH_PX, embed_dim=96, depth=4, num_heads=3, mlp_ratio=2, num_classes=2,
        embed_layer=RectangularStem,
    )  # fmt: skip
    return vit


def _described(module: nn.Module, phantom: str) -> nn.Module:
    """Say on the module what it wants to be fed, where ``py:`` looks for it."""
    about = {
        "input_size": SIZES_PX[phantom], "mean": (GREY_MEAN,) * 3, "std": (GREY_STD,) * 3,
        "class_names": phantom_kind(phantom).class_names,
    }  # fmt: skip
    for name, value in about.items():
        setattr(module, name, value)
    return module
