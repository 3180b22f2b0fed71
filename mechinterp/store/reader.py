"""Read a store: by image, or as an endless shuffled stream that can start anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mechinterp.errors import ConfigError, DamagedFileError, ImagesError, SiteError, nearest
from mechinterp.files import sha256_file
from mechinterp.sites import Site
from mechinterp.store.manifest import StoreManifest, site_folder
from mechinterp.store.statistics import SiteStatistics, merge

# What is read from a file in one go: small enough to stay in the processor's cache on its way to where it belongs.
_ROWS_AT_ONCE = 1024


class ActivationStore:
    """A whole store, opened for reading.

    Use :meth:`open`. Files are checked against their checksums when they are first read.

    Attributes
    ----------
    folder
        Where it stands.
    manifest
        What it says of itself.
    images : pandas.DataFrame
        One row per image, in order: id, label, group, split; ``None`` where unknown.

    """

    def __init__(self, folder: Path, manifest: StoreManifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._files: dict[str, Mapping[str, Any]] = {k: v for s in manifest.shards for k, v in s["files"].items()}
        self._checked: set[str] = set()
        rows = [row for shard in manifest.shards for row in shard["images"]]
        self.images = pd.DataFrame(rows, columns=["id", "label", "group", "split"], dtype=object)

    @classmethod
    def open(cls, folder: str | Path) -> ActivationStore:
        """Open a store.

        Raises
        ------
        ConfigError
            If the folder holds no store, or one whose capture was interrupted.
        DamagedFileError
            If its manifest is damaged, or a file is missing or of another size than the manifest says.

        """
        folder = Path(folder)
        if not (folder / "manifest.json").exists():
            if (folder / "plan.json").exists():
                raise ConfigError(
                    f"{folder} holds an interrupted capture: run the same `mechinterp capture` again to finish it"
                )
            raise ConfigError(f"{folder} holds no activation store: make one with `mechinterp capture --out {folder}`")
        manifest = StoreManifest.read(folder / "manifest.json")
        try:
            store = cls(folder, manifest)
            for name in store._files:
                store._check_size(name)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedFileError(f"{folder / 'manifest.json'} is not a manifest of this format: {error}") from error
        return store

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites that were captured."""
        return tuple(self.manifest.sites)

    @property
    def hash(self) -> str:
        """Hash of everything the store holds."""
        return self.manifest.hash

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def width(self, site: str) -> int:
        """Return the width of a site."""
        return self._site(site).width

    def tokens(self, site: str) -> int:
        """Return the number of tokens of one image at a site."""
        return self._site(site).tokens

    def where(self, split: str) -> NDArray[np.int64]:
        """Return the positions of the images of a split.

        Raises
        ------
        ImagesError
            If the store has no image of that split.

        """
        found = np.flatnonzero(self.images["split"].to_numpy() == split)
        if len(found) == 0:
            known = sorted(self.images["split"].dropna().unique())
            raise ImagesError(f"{self.folder} has no image of split '{split}': it has {known or 'no splits'}")
        return found

    def read(
        self, site: str, images: Sequence[int] | NDArray[np.int64] | None = None
    ) -> Float[Tensor, "image token width"]:
        """Return the activations of some images, in the given order, as float32.

        Parameters
        ----------
        site
            Name of the site.
        images
            Positions of the images, or a mask over all images; all by default.

        Raises
        ------
        SiteError, ImagesError, DamagedFileError
            If the store has no such site or image, or a file is not what was written.

        """
        tokens, width = self.tokens(site), self.width(site)
        chosen = self._chosen(images)
        out = torch.empty(len(chosen), tokens, width)
        for at, part in self._parts(site, chosen):
            out.numpy()[at] = part.numpy()
        return out

    def batches(
        self,
        site: str,
        batch_size: int,
        *,
        seed: int,
        epoch: int = 0,
        start: int = 0,
        images: Sequence[int] | NDArray[np.int64] | None = None,
        buffer_mib: int = 2048,
    ) -> Iterator[Float[Tensor, "row width"]]:
        """Yield one epoch of shuffled tokens in whole batches, the remainder dropped.

        The order depends on (seed, epoch), the images and the buffer's size alone. Images are shuffled and read in groups
        that fit the buffer; the tokens of a group are shuffled among each other. When everything fits, that is a permutation
        of all tokens.

        Parameters
        ----------
        site
            Name of the site.
        batch_size
            Rows per batch.
        seed, epoch
            Decide the order.
        start
            Number of batches to skip, so that an interrupted run goes on where it was; what is skipped is not read.
        images
            Positions of the images to draw from, or a mask over all images; all by default.
        buffer_mib
            Memory for one group [MiB].

        Raises
        ------
        ConfigError
            If the images hold fewer tokens than one batch, or a number is below what makes sense.
        SiteError, ImagesError, DamagedFileError
            If the store has no such site or image, or a file is not what was written.

        """
        tokens, width = self.tokens(site), self.width(site)
        chosen = self._chosen(images)
        for what, number, least in (
            ("batch size", batch_size, 1),
            ("start", start, 0),
            ("buffer", buffer_mib, 1),
            ("seed", seed, 0),
            ("epoch", epoch, 0),
        ):
            if number < least:
                raise ConfigError(f"{what} is {number}: it must be at least {least}")
        if len(chosen) * tokens < batch_size:
            raise ConfigError(
                f"batch size {batch_size} is above the {len(chosen) * tokens} tokens of {len(chosen)} images"
            )
        per_group = max(-(-batch_size // tokens), (buffer_mib << 20) // (tokens * width * 4))
        return self._shuffled(site, chosen, batch_size, per_group, (seed, epoch), start)

    def _shuffled(
        self,
        site: str,
        chosen: NDArray[np.int64],
        batch_size: int,
        per_group: int,
        seeds: tuple[int, int],
        start: int,
    ) -> Iterator[Float[Tensor, "row width"]]:
        tokens, width = self.tokens(site), self.width(site)
        chosen = np.random.default_rng(seeds).permutation(chosen)
        # a group holds at least one batch, so that a batch spans two groups at most; every group has a generator of its own,
        # so that those before the first batch that is wanted need not be touched
        first = start * batch_size // (per_group * tokens)
        skip = start * batch_size - first * per_group * tokens
        left = torch.empty(0, width)
        for group, at_image in enumerate(range(first * per_group, len(chosen), per_group), start=first):
            images = chosen[at_image : at_image + per_group]
            place = np.random.default_rng((*seeds, 1 + group)).permutation(len(images) * tokens).reshape(-1, tokens)
            rows = torch.empty(len(left) + place.size, width)
            rows[: len(left)] = left
            target = rows.numpy()[len(left) :]
            for at, part in self._parts(site, images):
                target[place[at].ravel()] = part.numpy().reshape(-1, width)
            rows = rows[skip:]
            whole = len(rows) // batch_size * batch_size
            left, skip = rows[whole:].clone(), 0
            for at_row in range(0, whole, batch_size):
                # the last is a copy: a caller still holds it, but not all its group, while the next group is read
                last = at_row + batch_size == whole
                yield rows[at_row:whole].clone() if last else rows[at_row : at_row + batch_size]
            del rows, target

    def _parts(
        self, site: str, chosen: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], Float[Tensor, "image token width"]]]:
        """Yield positions within `chosen` and those images' activations as float32, a few images at a time.

        Only the rows that are wanted are read, shard by shard and in the order of the file.
        """
        tokens, width = self.tokens(site), self.width(site)
        shard_of, within = np.divmod(chosen, self.manifest.shard_images)
        for shard in np.unique(shard_of):
            at = np.flatnonzero(shard_of == shard)
            at = at[np.argsort(within[at], kind="stable")]
            with self._opened(f"sites/{site_folder(site)}/{shard:05d}.safetensors") as file:
                rows = file.get_slice("activations")
                for run in np.split(at, np.flatnonzero(np.diff(within[at]) != 1) + 1):
                    for piece in np.split(
                        run, range(_ROWS_AT_ONCE // tokens + 1, len(run), _ROWS_AT_ONCE // tokens + 1)
                    ):
                        first = int(within[piece[0]]) * tokens
                        part = rows[first : first + len(piece) * tokens]
                        yield piece, part.float().reshape(-1, tokens, width)

    def _chosen(self, images: Sequence[int] | NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Return positions of images, checked; a mask over all images stands for the positions it is true at."""
        if images is None:
            return np.arange(len(self))
        given = np.asarray(images)
        if given.dtype == bool and given.shape == (len(self),):
            return np.flatnonzero(given)
        if given.size == 0:
            return np.empty(0, dtype=np.int64)
        if given.ndim != 1 or given.dtype.kind not in "iu":
            raise ImagesError(
                f"images of {self.folder} are chosen by a list of positions from 0 to {len(self) - 1}, or by a mask of "
                f"{len(self)}: not by {given.dtype} of shape {given.shape}"
            )
        outside = given[(given < 0) | (given >= len(self))]
        if outside.size:
            raise ImagesError(f"image {outside[0]} asked for, but {self.folder} holds {len(self)}, counted from 0")
        return given.astype(np.int64)

    def statistics(self, site: str, images: Sequence[int] | NDArray[np.int64] | None = None) -> SiteStatistics:
        """Return the moments of a site's tokens in float64: all images' from the manifest, or those of some images.

        Raises
        ------
        SiteError, ImagesError
            If the store has no such site or image, or no image is asked for.

        """
        width = self.width(site)
        if images is None:
            return merge([_statistics_of(shard["sites"][site]) for shard in self.manifest.shards])
        chosen = self._chosen(images)
        if len(chosen) == 0:
            raise ImagesError(f"statistics of no image of {self.folder} asked for: choose one at least")
        return merge([SiteStatistics.of(part.reshape(-1, width)) for _, part in self._parts(site, chosen)])

    def logits(self) -> Float[Tensor, "image class"]:
        """Return the logits of all images.

        Raises
        ------
        ConfigError
            If the store was captured without outputs.

        """
        if not self.manifest.outputs:
            raise ConfigError(f"{self.folder} holds no logits: capture with --outputs")
        parts = []
        for shard in range(len(self.manifest.shards)):
            with self._opened(f"outputs/{shard:05d}.safetensors") as file:
                parts.append(file.get_tensor("logits"))
        return torch.cat(parts)

    def index(self, site: str) -> pd.DataFrame:
        """Return one row per row of the site's activations: image, token, cell, id, label, group, split.

        ``cell`` counts the tokens that have a place in the image, row by row, and is NaN for the others.
        """
        self._site(site)
        parts = []
        for shard in range(len(self.manifest.shards)):
            name = f"sites/{site_folder(site)}/{shard:05d}.parquet"
            self._check(name)
            parts.append(pd.read_parquet(self.folder / name))
        return pd.concat(parts, ignore_index=True)

    def verify(self) -> list[str]:
        """Check every file against its checksum and return what is wrong, one line each; empty when all is well."""
        wrong = []
        for name in self._files:
            try:
                self._checked.discard(name)
                self._check(name)
            except DamagedFileError as error:
                wrong.append(str(error))
        return wrong

    def _site(self, name: str) -> Site:
        try:
            return self.manifest.sites[name]
        except KeyError:
            raise SiteError(f"{self.folder} holds no site '{name}': {nearest(name, self.sites)}") from None

    @contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        """Give a safetensors file, checked."""
        self._check(name)
        try:
            with safe_open(self.folder / name, "pt") as file:
                yield file
        except SafetensorError as error:
            raise DamagedFileError(f"{self.folder / name} is not a shard of this format: {error}") from error

    def _check(self, name: str) -> None:
        """Compare a file with its checksum, once for every opened store."""
        if name in self._checked:
            return
        self._check_size(name)
        path = self.folder / name
        if sha256_file(path) != self._files[name]["sha256"]:
            raise DamagedFileError(f"{path} does not match its checksum: it was altered; {_REMEDY}")
        self._checked.add(name)

    def _check_size(self, name: str) -> None:
        path, expected = self.folder / name, self._files[name]["bytes"]
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise DamagedFileError(f"{path} is missing: capture again into this folder to mend it") from None
        if size != expected:
            raise DamagedFileError(f"{path} has {size} bytes instead of {expected}: it was cut or altered; {_REMEDY}")


_REMEDY = "remove it and run the same capture again to mend it"


def _statistics_of(raw: Mapping[str, Any]) -> SiteStatistics:
    return SiteStatistics(
        int(raw["rows"]),
        torch.tensor(raw["mean"], dtype=torch.float64),
        torch.tensor(raw["scatter"], dtype=torch.float64),
    )
