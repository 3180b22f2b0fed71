"""From an image as it was recorded to what a model is fed, and back: every input pixel knows where it came from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, ImagesError, nearest
from mechinterp.files import sha256_json
from mechinterp.images.fitting import Fit as Fit
from mechinterp.images.fitting import fitted
from mechinterp.images.image_set import MedicalImage
from mechinterp.images.resampling import resized
from mechinterp.token_grid import Placement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mechinterp.models.vision_model import InputContract

_FITS = ("pad", "stretch", "crop", "model")
# ITU-R BT.601, the weights of Pillow's and OpenCV's conversion to grey.
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Preparation:
    """How an image is turned into a model's input.

    In this order: scale to black 0 and white 1, multiply by `gain` and clip, adapt the channels, resize, surround with
    black, scale to the contract's value range, subtract its mean and divide by its std.

    Parameters
    ----------
    fit
        ``pad`` shows the whole image in its physical proportions and fills up with black; ``crop`` fills the input in
        the physical proportions and cuts off what is beyond, equally on both sides; ``stretch`` shows the whole image
        and gives up its proportions. Proportions are those of `spacing_mm` where it is known, so that a slice of
        3 mm × 1 mm pixels is not squashed; otherwise pixels are taken as square. ``model`` does what the model's own
        processor does (the contract's `resize` and `crop_fraction`), which knows no spacing.
    margin
        Width of a black border on every side, as a fraction of the input's size, below 0.5.
    gain
        Factor on the scaled intensities, clipped at white.

    Raises
    ------
    ConfigError
        If a setting cannot be meant.

    """

    fit: Fit = "pad"
    margin: float = 0.0
    gain: float = 1.0

    def __post_init__(self) -> None:
        if self.fit not in _FITS:
            raise ConfigError(f"fit is '{self.fit}': {nearest(str(self.fit), _FITS)}")
        if not 0 <= self.margin < 0.5:
            raise ConfigError(f"margin is {self.margin}: it must be at least 0 and below 0.5 (of the input's size)")
        if not (np.isfinite(self.gain) and self.gain > 0):
            raise ConfigError(f"gain is {self.gain}: it must be a positive number")

    def apply(
        self, image: MedicalImage, contract: InputContract
    ) -> tuple[Float[NDArray[np.float32], "channel ..."], Placement]:
        """Turn one image, or one volume for a model of volumes, into a model's input.

        Parameters
        ----------
        image
            The image as it was recorded.
        contract
            What the model wants to be fed.

        Returns
        -------
        input
            Channel × height × width, or channel × depth × height × width, as the model wants it but for the contract's
            `layout`.
        placement
            The exact map between this input's and the image's pixels.

        Raises
        ------
        ImagesError
            If the image has values that are no numbers, or axes or channels that the model cannot be given.
        ConfigError
            If the contract's mean or std does not have one value per channel.

        """
        pixels = np.clip(image.scaled() * np.float32(self.gain), 0, 1)
        if not np.isfinite(pixels).all():
            raise ImagesError(f"image '{image.id}' has pixels that are no numbers: replace them before it is prepared")
        pixels = _with_channels(pixels, contract.channels, image.id, image.axes)
        placed = fitted(self.fit, self.margin, pixels.shape[1:], image.spacing_mm, contract, f"image '{image.id}'")
        shown = np.zeros((contract.channels, *contract.size), dtype=np.float32)
        where = tuple(slice(start, start + n) for start, n in zip(placed.corner, placed.size, strict=True))
        for channel, plane in enumerate(pixels):
            shown[channel][where] = resized(plane, placed.start, placed.stop, placed.size)
        return _normalised(shown, contract), placed.placement

    def placement(self, shape: Sequence[int], spacing_mm: Sequence[float] | None, contract: InputContract) -> Placement:
        """Return the map between input and image alone, without any pixel.

        Parameters
        ----------
        shape
            Height and width of the image in pixels, or depth, height and width.
        spacing_mm
            Its millimetres per pixel along the same axes, or ``None``.
        contract
            What the model wants to be fed.

        """
        return fitted(self.fit, self.margin, shape, spacing_mm, contract).placement

    @property
    def hash(self) -> str:
        """SHA-256 of the settings: equal for preparations that give equal inputs from equal images."""
        return sha256_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON."""
        return {"fit": self.fit, "margin": float(self.margin), "gain": float(self.gain)}

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> Preparation:
        """Undo :meth:`to_json`.

        Raises
        ------
        ConfigError
            If there is a setting that a preparation does not have, or one that cannot be meant.

        """
        known = tuple(asdict(cls()))
        for name in settings:
            if name not in known:
                raise ConfigError(f"a preparation has no setting '{name}': {nearest(name, known)}")
        return cls(**settings)


def _with_channels(
    pixels: Float[NDArray[np.float32], "*space_and_channel"], channels: int, name: str, axes: int
) -> Float[NDArray[np.float32], "channel ..."]:
    """Bring the channels to the front, repeating grey or mixing colours to grey as the model needs."""
    planes = pixels[None] if pixels.ndim == axes else np.moveaxis(pixels, -1, 0)
    if planes.ndim == axes + 1 and len(planes) == channels:
        return planes
    if planes.ndim == axes + 1 and len(planes) == 1:
        return np.repeat(planes, channels, axis=0)
    if planes.ndim == axes + 1 and len(planes) == 3 and channels == 1:
        return np.tensordot(_LUMINANCE, planes, axes=1)[None]
    raise ImagesError(
        f"image '{name}' of shape {pixels.shape} cannot be given to a model of {channels} channels: "
        "save it as grey, or with the model's number of channels"
    )


def _normalised(
    shown: Float[NDArray[np.float32], "channel ..."], contract: InputContract
) -> Float[NDArray[np.float32], "channel ..."]:
    """Scale from 0..1 to the contract's range, then subtract its mean and divide by its std."""
    low, high = contract.value_range
    space = (1,) * (shown.ndim - 1)
    mean, std = (
        _per_channel(what, values, contract.channels).reshape(-1, *space)
        for what, values in (("mean", contract.mean), ("std", contract.std))
    )
    result: NDArray[np.float32] = ((shown * np.float32(high - low) + np.float32(low)) - mean) / std
    return result.astype(np.float32, copy=False)


def _per_channel(what: str, values: tuple[float, ...], channels: int) -> Float[NDArray[np.float32], " channel"]:
    if len(values) != channels:
        if len(set(values)) != 1:  # one value for all channels is no mistake, whatever its count
            raise ConfigError(
                f"the model's {what} has {len(values)} values for {channels} channels: give one per channel"
            )
        values = (values[0],) * channels
    return np.asarray(values, dtype=np.float32)
