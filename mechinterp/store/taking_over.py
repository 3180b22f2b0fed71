"""What is on disk is taken over only where the same images, run again, would give it.

The plan says which images and weights a store comes from by their names and hashes. Pixels that were replaced under the same
names, and code that was changed under the same weights, it cannot see.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from mechinterp.errors import ConfigError
from mechinterp.progress import SILENT, Progress
from mechinterp.store.plan import tensor_name

if TYPE_CHECKING:
    from mechinterp.images.image_set import ImageSet
    from mechinterp.store.writer import StoreWriter

MOST_IMAGES = 1024
"""So many images at most are read again, in shards spread over those that are whole; one shard always is."""
FURTHEST = 0.01
"""Relative difference of activations that another machine's rounding may make; a change of code makes more."""


def require_same_pixels(
    writer: StoreWriter, images: ImageSet, whole: Sequence[int], progress: Progress = SILENT
) -> None:
    """Compare the pixels of images with those that whole shards were made of.

    Parameters
    ----------
    writer
        Of the store.
    images
        The images that are captured now.
    whole
        Shards that are not made again. All are read where they hold 1,024 images together, otherwise as many of them.

    Raises
    ------
    ConfigError
        If a shard was made of other pixels.

    """
    for shard in progress.track(_spread(writer, whole), "comparing images with those captured"):
        digest = hashlib.sha256()
        for position in writer.images_of(shard):
            image = images[position - writer.plan.first_image]
            digest.update(f"{image.id} {image.pixels.shape}\n".encode())
            digest.update(np.ascontiguousarray(image.pixels).data)
        receipt = writer.receipt(shard)
        if digest.hexdigest() != receipt["pixels_sha256"]:
            first, last = (receipt["images"][at][0] for at in (0, -1))
            raise ConfigError(
                f"{writer.storage.location} was captured from other pixels under the same names (images '{first}' to '{last}'): "
                "give another --out, or remove it"
            )


def require_same_activations(
    writer: StoreWriter, shard: int, run: Callable[[range], Mapping[str, Tensor]], model: str
) -> None:
    """Compare the activations of a whole shard's first batch with what the model gives now.

    Parameters
    ----------
    writer
        Of the store.
    shard
        Its number.
    run
        Runs the images at some positions of the store and returns, by site, the rows that are stored, (row, width).
    model
        What the message calls it.

    Raises
    ------
    ConfigError
        If they differ by more than rounding.

    """
    positions = writer.images_of(shard)[: writer.plan.batch_size]
    files: Mapping[str, Any] = writer.receipt(shard)["files"]
    for site, rows in run(positions).items():
        place = tensor_name(site, shard)
        data = bytes(writer.storage.read(place))
        if hashlib.sha256(data).hexdigest() != files[place]["sha256"]:
            continue  # damaged, which a reader says
        stored = load_tensors(data)["activations"][: len(rows)].double()
        there = rows.cpu().double()
        apart = float("inf")
        if stored.shape == there.shape:
            apart = float((stored - there).norm() / torch.clamp(stored.norm(), min=1e-12)) if len(there) else 0.0
        if not apart <= FURTHEST:
            raise ConfigError(
                f"{writer.storage.location} holds other activations at '{site}' than '{model}' gives now ({apart:.0%} apart), with "
                "the same weights: its code or a package of its has changed; give another --out, or remove it"
            )


def _spread(writer: StoreWriter, whole: Sequence[int]) -> list[int]:
    held = sum(len(writer.images_of(shard)) for shard in whole)
    if held <= MOST_IMAGES:
        return list(whole)
    most = max(1, len(whole) * MOST_IMAGES // held)
    return [whole[i] for i in np.linspace(0, len(whole) - 1, most).astype(int)]
