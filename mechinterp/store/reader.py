"""Read a store: by image, or as an endless shuffled stream that can start anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mechinterp.errors import ConfigError, DamagedFileError, ImagesError, SiteError, nearest
from mechinterp.files import sha256_file
from mechinterp.sites import Site
from mechinterp.store.manifest import StoreManifest, site_folder
from mechinterp.store.statistics import SiteStatistics, merge


class ActivationStore:
    """A whole store, opened for reading.

    Use :meth:`open`. Files are checked against their checksums when they are first read.
    """

    def __init__(self, folder: Path, manifest: StoreManifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._checked: set[str] = set()
        rows = [row for shard in manifest.shards for row in shard["images"]]
        self.images = pd.DataFrame(rows, columns=["id", "label", "group", "split"])
        self._load_cached = lru_cache(maxsize=64)(self._load_shard)

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
        store = cls(folder, manifest)
        for name, file in store._files():
            path = folder / name
            if not path.exists():
                raise DamagedFileError(f"{path} is missing: capture again into this folder to mend it")
            if path.stat().st_size != file["bytes"]:
                raise DamagedFileError(
                    f"{path} has {path.stat().st_size} bytes instead of {file['bytes']}: it was cut or altered"
                )
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
        """Return the activations of some images (all by default), in the given order, as float32."""
        tokens, width = self.tokens(site), self.width(site)
        chosen = np.arange(len(self)) if images is None else np.asarray(images, dtype=np.int64)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise ImagesError(f"image {chosen.max()} asked for, but {self.folder} holds {len(self)}")
        out = torch.empty(len(chosen), tokens, width)
        shard_of = chosen // self.manifest.shard_images
        for shard in np.unique(shard_of):
            at = np.flatnonzero(shard_of == shard)
            rows = self._load_cached(site, int(shard)).reshape(-1, tokens, width)
            out[torch.from_numpy(at)] = rows[torch.from_numpy(chosen[at] - shard * self.manifest.shard_images)].float()
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

        The order depends on (seed, epoch) alone. Images are shuffled and read in groups that fit the buffer; the tokens of a
        group are shuffled among each other. When everything fits, that is a permutation of all tokens.

        Parameters
        ----------
        site
            Name of the site.
        batch_size
            Rows per batch.
        seed, epoch
            Decide the order.
        start
            Number of batches to skip, so that an interrupted run goes on where it was.
        images
            Positions of the images to draw from; all by default.
        buffer_mib
            Memory for one group [MiB].

        Raises
        ------
        ConfigError
            If the images hold fewer tokens than one batch.

        """
        tokens, width = self.tokens(site), self.width(site)
        chosen = np.arange(len(self)) if images is None else np.asarray(images, dtype=np.int64)
        if len(chosen) * tokens < batch_size:
            raise ConfigError(
                f"batch size {batch_size} is above the {len(chosen) * tokens} tokens of {len(chosen)} images"
            )
        order = np.random.default_rng([seed, epoch])
        chosen = order.permutation(chosen)
        per_group = max(-(-batch_size // tokens), (buffer_mib << 20) // (tokens * width * 4))
        skip = start * batch_size
        left = torch.empty(0, width)
        for first in range(0, len(chosen), per_group):
            group = chosen[first : first + per_group]
            shuffled = order.permutation(len(group) * tokens)
            have = len(left) + len(shuffled)
            if skip >= have // batch_size * batch_size and first + per_group < len(chosen):
                # only the remainder of a group that is skipped whole is needed: it goes into the next group's first batch
                skip -= have // batch_size * batch_size
                keep = have % batch_size
                rows = self.read(site, group).reshape(-1, width)
                left = torch.cat([left, rows[torch.from_numpy(shuffled)]])[have - keep :]
                continue
            rows = torch.cat([left, self.read(site, group).reshape(-1, width)[torch.from_numpy(shuffled)]])
            whole = len(rows) // batch_size * batch_size
            for at in range(0, whole, batch_size):
                if at >= skip:
                    yield rows[at : at + batch_size]
            skip = max(0, skip - whole)
            left = rows[whole:].clone()

    def statistics(self, site: str, images: Sequence[int] | NDArray[np.int64] | None = None) -> SiteStatistics:
        """Return the moments of a site's tokens in float64: all images' from the manifest, or those of some images."""
        self._site(site)
        if images is None:
            return merge([_statistics_of(shard["sites"][site]) for shard in self.manifest.shards])
        chosen = np.asarray(images, dtype=np.int64)
        width = self.width(site)
        return merge(
            [
                SiteStatistics.of(self.read(site, part).reshape(-1, width))
                for part in np.array_split(chosen, -(-len(chosen) // 64))
            ]
        )

    def logits(self) -> Float[Tensor, "image class"]:
        """Return the logits of all images.

        Raises
        ------
        ConfigError
            If the store was captured without outputs.

        """
        if not self.manifest.outputs:
            raise ConfigError(f"{self.folder} holds no logits: capture with --outputs")
        return torch.cat(
            [self._tensor(f"outputs/{i:05d}.safetensors", "logits") for i in range(len(self.manifest.shards))]
        )

    def index(self, site: str) -> pd.DataFrame:
        """Return one row per row of the site's activations: image, token, cell, id, label, group, split."""
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
        for name, _ in self._files():
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

    def _files(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for shard in self.manifest.shards:
            yield from shard["files"].items()

    def _load_shard(self, site: str, shard: int) -> Tensor:
        return self._tensor(f"sites/{site_folder(site)}/{shard:05d}.safetensors", "activations")

    def _tensor(self, name: str, key: str) -> Tensor:
        self._check(name)
        try:
            return load_file(self.folder / name)[key]
        except (SafetensorError, KeyError) as error:
            raise DamagedFileError(f"{self.folder / name} is not a shard of this format: {error}") from error

    def _check(self, name: str) -> None:
        if name in self._checked:
            return
        expected = dict(self._files())[name]["sha256"]
        path = self.folder / name
        if not path.exists():
            raise DamagedFileError(f"{path} is missing: capture again into this folder to mend it")
        if sha256_file(path) != expected:
            raise DamagedFileError(
                f"{path} does not match its checksum: it was altered; remove it and its receipt in shards/, then capture again"
            )
        self._checked.add(name)


def _statistics_of(raw: Mapping[str, Any]) -> SiteStatistics:
    return SiteStatistics(
        int(raw["rows"]),
        torch.tensor(raw["mean"], dtype=torch.float64),
        torch.tensor(raw["scatter"], dtype=torch.float64),
    )
