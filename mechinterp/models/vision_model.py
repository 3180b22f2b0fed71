"""A loaded model: the user's module, untouched, with what the toolkit has to know about it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechinterp.errors import ConfigError, SiteError, nearest

if TYPE_CHECKING:
    from mechinterp.images.image_set import MedicalImage
    from mechinterp.images.preparation import Preparation
    from mechinterp.sites import Site


@dataclass(frozen=True)
class InputContract:
    """What a model's module wants to be fed.

    Parameters
    ----------
    height, width
        Size of the input in pixels.
    channels
        Number of channels.
    value_range
        Range of a pixel before `mean` and `std` are applied, black to white.
    mean, std
        Per channel, applied after scaling to `value_range`.
    layout
        Order of the axes the module is called with. Everything else in the toolkit uses NCHW.
    depth
        Number of slices, for a model of volumes: its batches are (batch, channel, depth, height, width). ``None`` for a
        model of images.
    resize
        How the model's own processor brings an image to its input: ``stretch`` resizes both sides to it, ``crop`` the
        shorter one, ``pad`` the longer one.
    crop_fraction
        What the model's own processor shows of what it resized: it resizes to the input's size divided by this, and cuts
        out the centre.

    """

    height: int
    width: int
    channels: int = 3
    value_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    depth: int | None = None
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    crop_fraction: float = 1.0

    @property
    def size(self) -> tuple[int, ...]:
        """Size of the input: (height, width), or (depth, height, width)."""
        return (self.height, self.width) if self.depth is None else (self.depth, self.height, self.width)


@dataclass
class VisionModel:
    """A user's model as it is, weights untouched, in evaluation mode.

    Parameters
    ----------
    module
        The user's module.
    spec
        What :func:`mechinterp.load_model` was asked for.
    contract
        What the module wants to be fed.
    class_names
        One name per output.
    output
        Whether the module ends in logits or in probabilities.
    sites
        Every place that can be captured, by name.
    trained
        False when random weights were asked for: everything made from such a model is stamped UNTRAINED.
    weights
        Where the weights came from: ``random``, a file, or ``embedded``.
    logits_module
        Dotted path of the final softmax or sigmoid whose input are the logits; ``None`` when the module gives logits
        itself, or has no such module (then logits are log-probabilities, equal up to one constant per image).
    activation
        What turns logits into probabilities: ``softmax`` (one of the classes) or ``sigmoid`` (each on its own).
    licence
        Licence of the weights where it is known.
    notes
        What a reader should know about how it was loaded.

    """

    module: nn.Module
    spec: str
    contract: InputContract
    class_names: tuple[str, ...]
    output: Literal["logits", "probabilities"]
    sites: Mapping[str, Site] = field(default_factory=dict)
    trained: bool = True
    weights: str = "embedded"
    logits_module: str | None = None
    activation: Literal["softmax", "sigmoid"] = "softmax"
    licence: str | None = None
    notes: tuple[str, ...] = ()
    _hash: str | None = field(default=None, repr=False)

    @property
    def weights_hash(self) -> str:
        """SHA-256 over every parameter's and buffer's name, shape, type and bytes, in the order of their names."""
        if self._hash is None:
            digest = hashlib.sha256()
            for name, tensor in sorted(self.module.state_dict().items()):
                digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
            self._hash = digest.hexdigest()
        return self._hash

    @property
    def name(self) -> str:
        """The spec without the folders of this machine, for pages and reports."""
        kind, separator, rest = self.spec.partition(":")
        place, question, options = rest.partition("?")
        return f"{kind}{separator}{place.rstrip('/').rsplit('/', 1)[-1]}{question}{options}"

    @property
    def device(self) -> torch.device:
        """Where the module's weights lie."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    def site(self, name: str) -> Site:
        """Return a site by name; ``NAME[3]`` is head 3 of a site that is divided into heads.

        Raises
        ------
        SiteError
            If the model has none of that name; the nearest names are proposed.

        """
        one_head = re.fullmatch(r"(.+)\[(\d+)\]", name)
        if one_head and name not in self.sites and one_head[1] in self.sites:
            return self.sites[one_head[1]].head(int(one_head[2]))
        try:
            return self.sites[name]
        except KeyError:
            raise SiteError(
                f"'{self.spec}' has no site '{name}': {nearest(name, self.sites)} (mechinterp sites {self.spec})"
            ) from None

    def class_index(self, name: str) -> int:
        """Return the output that a class name stands for.

        Raises
        ------
        ConfigError
            If there is no such class.

        """
        if name in self.class_names:
            return self.class_names.index(name)
        raise ConfigError(f"'{self.spec}' has no class '{name}': {nearest(name, self.class_names)}")

    def prepare(
        self, images: Sequence[MedicalImage], preparation: Preparation | None = None
    ) -> Float[Tensor, "batch channel height width"]:
        """Turn images into the model's input (see :class:`mechinterp.images.preparation.Preparation`)."""
        from mechinterp.images.preparation import Preparation

        chosen = preparation or Preparation()
        return torch.stack([torch.from_numpy(chosen.apply(image, self.contract)[0]) for image in images])

    def run(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        """Call the module on an NCHW batch, in the layout it wants, and return what it returns."""
        x = x.to(self.device)
        if self.contract.layout == "NHWC":
            x = x.movedim(1, -1)
        out = self.module(x)
        return out if isinstance(out, Tensor) else _first_tensor(out)

    def logits(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch class"]:
        """Return the logits, from before a final softmax or sigmoid. Gradients flow if they are enabled."""
        with self.logits_of_next_run() as take:
            return take(self.run(x))

    @contextmanager
    def logits_of_next_run(self) -> Iterator[Callable[[Tensor], Float[Tensor, "batch class"]]]:
        """Give a function that turns the output of a run of the module inside this context into its logits."""
        if self.logits_module is None:
            yield self._logits_of_output
            return
        seen: list[Tensor] = []

        def keep(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen.append(args[0])

        handle = self.module.get_submodule(self.logits_module).register_forward_pre_hook(keep)
        try:
            yield lambda _output: seen[-1]
        finally:
            handle.remove()

    def probabilities(self, logits: Float[Tensor, "batch class"]) -> Float[Tensor, "batch class"]:
        """Return the probabilities that the model gives with these logits."""
        return logits.softmax(-1) if self.activation == "softmax" else logits.sigmoid()

    def _logits_of_output(self, output: Tensor) -> Tensor:
        if self.output == "logits":
            return output
        tiny = torch.finfo(output.dtype).tiny
        if self.activation == "softmax":
            return output.clamp_min(tiny).log()
        return torch.logit(output.clamp(1e-7, 1 - 1e-7))


def _first_tensor(output: object) -> Tensor:
    """Return ``.logits`` of a Hugging Face output, or the first tensor of a tuple or mapping."""
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    values = list(output.values()) if isinstance(output, Mapping) else list(output) if isinstance(output, tuple) else []
    for value in values:
        if isinstance(value, Tensor):
            return value
    raise SiteError(f"the model returned a {type(output).__name__} without a tensor: wrap it so that it returns logits")
