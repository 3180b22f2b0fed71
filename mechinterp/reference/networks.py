"""The two architectures: a plain CNN with stages, and timm's VisionTransformer behind a convolutional stem.

Every downsampling is a 4×4 convolution of stride 2 and padding 1, so a cell's centre lies in the middle of the pixels
that it stands for: cell ``i`` of stride 8 at pixel ``8 i + 4``, as a patch of a ViT has it.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

SIZE_PX = 96
CLASS_NAMES = ("not referable", "referable")
# of all pixels of 200 phantoms
MEAN, STD = (0.48, 0.185, 0.10), (0.30, 0.12, 0.07)


class ConvBlock(nn.Sequential):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )


class Stage(nn.Sequential):
    """Halve the resolution, then look once more."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            ConvBlock(channels_in, channels_out, kernel=4, stride=2),
            ConvBlock(channels_out, channels_out, kernel=3, stride=1),
        )


class ReferenceCNN(nn.Module):
    """Four stages, mean over the map, one linear layer.

    The mean makes evidence add up over the image, as the area of lesions does that the label depends on.

    Parameters
    ----------
    widths
        Channels of each stage.
    classes
        Number of outputs.

    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96), classes: int = 2) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            Stage(a, b) for a, b in zip((3, *widths[:-1]), widths, strict=True)
        )  # fmt: skip
        self.head = nn.Linear(widths[-1], classes)

    def forward_features(self, x: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Return every stage's map."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward_head(self, x: Float[Tensor, "batch channel row column"]) -> Float[Tensor, "batch class"]:
        """Return the logits of the last stage's map."""
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch class"]:
        """Return the logits."""
        return self.forward_head(self.forward_features(x)[-1])


class ConvStem(nn.Module):
    """Patches by four small convolutions instead of one large: early convolutions help a small ViT see [1]_.

    Takes the place of timm's ``PatchEmbed``.

    References
    ----------
    .. [1] Xiao et al. Early convolutions help transformers see better. NeurIPS 2021.

    """

    def __init__(
        self, img_size: int = SIZE_PX, patch_size: int = 8, in_chans: int = 3, embed_dim: int = 96, **_: Any
    ) -> None:
        super().__init__()
        self.img_size = (img_size, img_size)
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = nn.Sequential(
            ConvBlock(in_chans, embed_dim // 4, kernel=4, stride=2),
            ConvBlock(embed_dim // 4, embed_dim // 2, kernel=4, stride=2),
            ConvBlock(embed_dim // 2, embed_dim, kernel=4, stride=2),
            nn.Conv2d(embed_dim, embed_dim, 1),
        )

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch token width"]:
        """Return one token per patch, row-major."""
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


def reference_cnn() -> nn.Module:
    """Return the CNN, untrained."""
    return _described(ReferenceCNN())


def reference_vit() -> nn.Module:
    """Return the ViT, untrained: four blocks of width 96, three heads, a CLS token, 144 patches of 8 pixels."""
    from timm.models.vision_transformer import VisionTransformer

    vit = VisionTransformer(
        img_size=SIZE_PX,
        patch_size=8,
        embed_dim=96,
        depth=4,
        num_heads=3,
        mlp_ratio=2,
        num_classes=len(CLASS_NAMES),
        embed_layer=ConvStem,
    )
    return _described(vit)


def _described(module: nn.Module) -> nn.Module:
    """Say on the module what it wants to be fed, where ``py:`` looks for it."""
    for name, value in {"input_size": (SIZE_PX, SIZE_PX), "mean": MEAN, "std": STD, "class_names": CLASS_NAMES}.items():
        setattr(module, name, value)
    return module
