"""What is put in place of features: an ablation is part of every claim about an effect.

Setting a feature to zero can move an activation to where no image ever lies; an effect that only zero shows is then an
artefact of zeroing. So every effect is measured under several replacements [1]_, and each says in a sentence what it does.

References
----------
.. [1] Wang et al. Interpretability in the wild: a circuit for indirect object identification in GPT-2 small. 2023
   (arXiv 2211.00593), section 2.1, on zero and mean ablation; Chan et al. Causal scrubbing. 2022, on resampling.

"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ConfigError, ImagesError, ShapeError
from mechinterp.feature_encoder import FeatureEncoder


@dataclass(frozen=True)
class Ablation:
    """What takes the place of features' codes.

    Parameters
    ----------
    name
        How tables call it.
    puts
        ``nothing`` (codes of zero), the ``mean`` code map over the source images (per token, so images must be in
        register), or the whole code map of one source ``image`` at a time.
    draws
        With ``image``: how many source images are tried for every changed image; results are averaged over them, which
        is not the same as averaging their codes.
    opposite
        False: images of the target class are changed, values come from reference images. True: the other way round.
    paired
        With ``image``: each image has a partner of its own, the source image of the same number.

    """

    name: str
    puts: Literal["nothing", "mean", "image"]
    draws: int = 1
    opposite: bool = False
    paired: bool = False

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ConfigError(f"ablation '{self.name}' draws {self.draws} images: it must be at least 1")
        if self.draws > 1 and self.puts != "image":
            raise ConfigError(
                f"ablation '{self.name}' draws {self.draws} images but puts {self.puts}: 1 is all there is"
            )

    @property
    def sentence(self) -> str:
        """What it does, for the reader of a page."""
        match (self.puts, self.opposite):
            case ("nothing", _):
                return "The features are switched off: their codes are set to zero, whether or not any real image has that."
            case ("mean", False):
                return "The features get, at every place, their mean value over reference images."
            case (_, False) if self.paired:
                return "The features get the values they have in the image's own counterfactual."
            case ("mean", True):
                return "Reference images get, at every place, the features' mean value over target images."
            case (_, False):
                return (
                    f"The features get the values they have in a randomly drawn reference image ({self.draws} draws)."
                )
            case _:
                return (
                    f"Reference images get the values the features have in a random target image ({self.draws} draws)."
                )


def zero() -> Ablation:
    """Return the ablation that sets codes to zero."""
    return Ablation("zero", "nothing")


def mean() -> Ablation:
    """Return the ablation that puts the mean code map of reference images."""
    return Ablation("mean", "mean")


def resample(draws: int = 4) -> Ablation:
    """Return the ablation that puts the whole code maps of randomly drawn reference images."""
    return Ablation("resample", "image", draws)


def towards(draws: int = 4) -> Ablation:
    """Return the opposite direction: reference images get the code maps of randomly drawn target images."""
    return Ablation("towards", "image", draws, opposite=True)


def counterfactual() -> Ablation:
    """Return the ablation that puts the code map of each image's own counterfactual."""
    return Ablation("counterfactual", "image", paired=True)


@dataclass(frozen=True, eq=False)
class Source:
    """The images whose codes are put in place.

    Parameters
    ----------
    encoder
        What reads the features.
    acts_bnd
        The images' activations at the encoder's site. Codes are computed when they are asked for, one image at a time.

    """

    encoder: FeatureEncoder
    acts_bnd: Float[Tensor, "image token width"]

    def __post_init__(self) -> None:
        if self.acts_bnd.dim() != 3:
            raise ShapeError(f"activations have shape {tuple(self.acts_bnd.shape)}: give (image, token, width)")
        if len(self.acts_bnd) == 0:
            raise ImagesError("there is no image to take values from: give at least one reference image")

    def __len__(self) -> int:
        return len(self.acts_bnd)

    def codes(self, image: int) -> Float[Tensor, "token feature"]:
        """Return the codes of one image."""
        return self.encoder.encode(self.acts_bnd[image]).detach()

    @cached_property
    def mean_codes(self) -> Float[Tensor, "token feature"]:
        """Mean code map over the images, summed in float64."""
        total = torch.zeros(1, dtype=torch.float64, device=self.acts_bnd.device)
        for i in range(len(self)):
            total = total + self.codes(i).double()
        return (total / len(self)).to(self.acts_bnd)

    def replacements(
        self, ablation: Ablation, picks: Sequence[int] | NDArray[np.int64], like: Float[Tensor, "token feature"]
    ) -> Iterator[Float[Tensor, "token feature"]]:
        """Yield what is put in place of one image's codes, once per draw.

        Parameters
        ----------
        ablation
            What to put.
        picks
            The source images drawn for this image, see :func:`draw`; not used unless whole images are put.
        like
            The codes that are replaced.

        """
        match ablation.puts:
            case "nothing":
                yield torch.zeros_like(like)
            case "mean":
                yield self.mean_codes
            case "image":
                for j in picks:
                    yield self.codes(int(j))


def draw(ablation: Ablation, images: int, sources: int, seed: int) -> Int[NDArray[np.int64], "image draw"]:
    """Draw source images for every changed image, without repeats until all have been used.

    Parameters
    ----------
    ablation
        How many draws it wants.
    images, sources
        Number of changed images, and of images to draw from.
    seed
        The same seed gives the same draws.

    Raises
    ------
    ShapeError
        If each image should have a partner of its own, but there are not as many.

    """
    if ablation.paired:
        if images != sources:
            raise ShapeError(f"{images} images and {sources} counterfactuals: give each image one of its own")
        return np.arange(images, dtype=np.int64)[:, None]
    rng = np.random.default_rng([seed, images, sources])
    rounds = -(-ablation.draws // max(sources, 1))
    rows = [np.concatenate([rng.permutation(sources) for _ in range(rounds)])[: ablation.draws] for _ in range(images)]
    return np.asarray(rows, dtype=np.int64).reshape(images, ablation.draws)
