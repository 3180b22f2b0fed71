"""Read a store: by image, by row, or as an endless shuffled stream that can start anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.errors import ConfigError, DamagedFileError, ImagesError, SiteError, nearest
from mechinterp.images.image_set import each_of_somebody
from mechinterp.sites import Site
from mechinterp.store.checked_files import CheckedFiles
from mechinterp.store.image_list import COLUMNS, read_list, rows_column
from mechinterp.store.manifest import StoreManifest, site_folder
from mechinterp.store.norms import NormCounts
from mechinterp.store.plan import tensor_name
from mechinterp.store.shuffling import EpochPlan, shuffled_rows
from mechinterp.store.statistics import SiteStatistics, merge
from mechinterp.store.storage import Storage, is_remote, storage_at

# What is converted in one go: small enough to stay in the processor's cache on its way to where it belongs.
_ROWS_AT_ONCE = 1024
# Whole files of a remote store that are kept; those of a folder stand in the system's own cache.
_REMOTE_CACHE_MIB = 1024


class ActivationStore:
    """A whole store, opened for reading; any number may be open at once, in any number of processes.

    Use :meth:`open`. Files are checked against their checksums when they are first read.

    Attributes
    ----------
    folder
        Where it stands: a path, or a URL.
    manifest
        What it says of itself.
    images : pandas.DataFrame
        One row per image, in order: id, label, group, split; ``None`` where unknown. As in an image set, where some images
        name a patient, one that does not is its own.

    """

    def __init__(self, storage: Storage, manifest: StoreManifest, cache_mib: int = 0) -> None:
        self.folder = storage.location
        self.manifest = manifest
        expected: dict[str, Mapping[str, Any]] = {k: v for s in manifest.shards for k, v in s["files"].items()}
        expected |= {s["file"]["name"]: s["file"] for s in manifest.segments}
        self._files = CheckedFiles(storage, expected, cache_mib << 20)
        listed = read_list(storage, manifest.segments)
        groups = each_of_somebody(listed["id"].tolist(), listed["group"].tolist()) or [None] * len(listed)
        self.images = listed[list(COLUMNS)].assign(group=np.array(groups, dtype=object))
        self._first_images = np.array([s["first_image"] for s in manifest.shards], dtype=np.int64)
        self._rows_of = {
            site: np.full(len(listed), described.tokens, dtype=np.int64)
            if rows_column(site) not in listed
            else listed[rows_column(site)].to_numpy(dtype=np.int64)
            for site, described in manifest.sites.items()
        }

    @classmethod
    def open(cls, folder: str | Path, *, cache_mib: int | None = None) -> ActivationStore:
        """Open a store.

        Parameters
        ----------
        folder
            Where it stands: a folder, or a URL that fsspec knows, such as ``s3://bucket/store``.
        cache_mib
            Memory for whole files that were read [MiB]; what fits is not read again. By default 1,024 for a URL, and none
            for a folder, whose files the system keeps in memory by itself.

        Raises
        ------
        ConfigError
            If the folder holds no store, or one whose capture was interrupted.
        DamagedFileError
            If its manifest is damaged, or a file is missing or of another size than the manifest says.

        """
        storage = storage_at(folder)
        name = "manifest.json"
        try:
            data = bytes(storage.read(name))
        except (FileNotFoundError, NotADirectoryError):
            if storage.size("plan.json") is not None:
                raise ConfigError(
                    f"{folder} holds an interrupted capture: run the same `mechinterp capture` again to finish it"
                ) from None
            raise ConfigError(
                f"{folder} holds no activation store: make one with `mechinterp capture --out {folder}`"
            ) from None
        manifest = StoreManifest.from_bytes(data, storage.path(name))
        if cache_mib is None:
            cache_mib = _REMOTE_CACHE_MIB if is_remote(str(folder)) else 0
        try:
            store = cls(storage, manifest, cache_mib)
            store._files.check_sizes()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedFileError(
                f"{storage.path('manifest.json')} is not a manifest of this format: {error}"
            ) from error
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
        """Return the number of tokens that are stored of one image at a site; at most, where that varies."""
        return self._site(site).tokens

    def rows_of(self, site: str, images: Sequence[int] | NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Return the number of rows that are stored of each of some images; all by default."""
        self._site(site)
        return self._rows_of[site][self._chosen(images)]

    def coverage(self, site: str) -> str:
        """Return in words how much of the images' tokens is stored."""
        self._site(site)
        said = self.manifest.statistics[site]
        return (
            f"{said['rows']:,} of {said['of_rows']:,} tokens ({said['rows'] / max(1, said['of_rows']):.1%}), "
            f"of {said['images']:,} of {len(self):,} images"
        )

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
            If the store has no such site or image, its images have different tokens, or a file is not what was written.

        """
        tokens, width = self.tokens(site), self.width(site)
        if not self.manifest.aligned:
            raise SiteError(
                f"{self.folder} holds other tokens of site '{site}' for each image: read them with rows(), and which they are "
                "with index()"
            )
        return self.rows(site, images).reshape(-1, tokens, width)

    def rows(self, site: str, images: Sequence[int] | NDArray[np.int64] | None = None) -> Float[Tensor, "row width"]:
        """Return the stored tokens of some images, image by image in the given order, as float32.

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
        width, chosen = self.width(site), self._chosen(images)
        ends = np.cumsum(self._rows_of[site][chosen])
        out = torch.empty(int(ends[-1]) if len(ends) else 0, width)
        for place, part in self._parts(site, chosen, ends):
            out.numpy()[place] = part.numpy()
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

        The order depends on (seed, epoch), the images and the buffer's size alone. Shards are read whole, in random order, in
        groups that fit the buffer; the tokens of a group are shuffled among each other. When everything fits, that is a
        permutation of all tokens. While one group is handed out the next is read.

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
            Memory for the groups [MiB]; one shard as float32 comes on top.

        Raises
        ------
        ConfigError
            If the images hold fewer tokens than one batch, or a number is below what makes sense.
        SiteError, ImagesError, DamagedFileError
            If the store has no such site or image, or a file is not what was written.

        """
        width, chosen = self.width(site), self._chosen(images)
        for what, number, least in (
            ("batch size", batch_size, 1),
            ("start", start, 0),
            ("buffer", buffer_mib, 1),
            ("seed", seed, 0),
            ("epoch", epoch, 0),
        ):
            if number < least:
                raise ConfigError(f"{what} is {number}: it must be at least {least}")
        rows_of = self._rows_of[site][chosen]
        if rows_of.sum() < batch_size:
            raise ConfigError(f"batch size {batch_size} is above the {rows_of.sum()} tokens of {len(chosen)} images")
        plan = EpochPlan.of(
            chosen, rows_of, self._shards_of(chosen), (seed, epoch), batch_size, (buffer_mib << 20) // (width * 4)
        )
        return shuffled_rows(plan, start, width, lambda images, ends: self._parts(site, images, ends))

    def _shards_of(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._first_images, images, side="right") - 1

    def _parts(
        self, site: str, chosen: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], Float[Tensor, "row width"]]]:
        """Yield places and what belongs there as float32, some rows at a time: image ``i`` of `chosen` ends at ``ends[i]``.

        Every shard is opened once, and gone through in the order of the file.
        """
        rows_of = self._rows_of[site]
        shard_of = self._shards_of(chosen)
        for shard in np.unique(shard_of):
            first = int(self._first_images[shard])
            starts = np.concatenate([[0], np.cumsum(rows_of[first : first + self.manifest.shards[shard]["images"]])])
            rows = self._files.tensor(tensor_name(site, shard), "activations")
            at = np.flatnonzero(shard_of == shard)
            at = at[np.argsort(chosen[at], kind="stable")]
            counts = rows_of[chosen[at]]
            place = np.repeat(ends[at] - np.cumsum(counts), counts) + np.arange(counts.sum())
            done = 0
            for run in np.split(at, np.flatnonzero(np.diff(chosen[at]) != 1) + 1):
                begin, end = int(starts[chosen[run[0]] - first]), int(starts[chosen[run[-1]] - first + 1])
                for piece in range(begin, end, _ROWS_AT_ONCE):
                    part = rows[piece : min(piece + _ROWS_AT_ONCE, end)]
                    yield place[done : done + len(part)], part.float()
                    done += len(part)

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
            said = self.manifest.statistics[site]
            mean, variance = (torch.tensor(said[name], dtype=torch.float64) for name in ("mean", "variance"))
            return SiteStatistics(said["rows"], mean, variance * said["rows"], NormCounts.from_json(said["norms"]))
        chosen = self._chosen(images)
        if len(chosen) == 0:
            raise ImagesError(f"statistics of no image of {self.folder} asked for: choose one at least")
        parts = self._parts(site, chosen, np.cumsum(self._rows_of[site][chosen]))
        return merge([SiteStatistics.none(width), *(SiteStatistics.of(part) for _, part in parts)])

    def norm_quantiles(self, site: str) -> dict[float, float]:
        """Return quantiles of the Euclidean norm of a site's tokens, of all images: fraction → norm."""
        self._site(site)
        return {float(at): float(norm) for at, norm in self.manifest.statistics[site]["norm_quantiles"]}

    def logits(self) -> Float[Tensor, "image class"]:
        """Return the logits of all images.

        Raises
        ------
        ConfigError
            If the store was captured without outputs.

        """
        if not self.manifest.outputs:
            raise ConfigError(f"{self.folder} holds no logits: capture with --outputs")
        shards = range(len(self.manifest.shards))
        return torch.cat([self._files.tensor(f"outputs/{shard:05d}.safetensors", "logits") for shard in shards])

    def index(self, site: str) -> pd.DataFrame:
        """Return one row per row of the site's activations: image, token, cell, id, label, group, split.

        ``cell`` counts the tokens that have a place in the image, row by row, and is NaN for the others.
        """
        self._site(site)
        parts = []
        for shard in range(len(self.manifest.shards)):
            data = self._files.bytes_of(f"sites/{site_folder(site)}/{shard:05d}.parquet")
            parts.append(pq.read_table(pa.BufferReader(pa.py_buffer(data))).to_pandas())
        index: pd.DataFrame = pd.concat(parts, ignore_index=True)
        return index

    def verify(self) -> list[str]:
        """Check every file against its checksum and return what is wrong, one line each; empty when all is well."""
        wrong = []
        receipts = {f"shards/{i:05d}.json": s["receipt"] for i, s in enumerate(self.manifest.shards)}
        for name in (*self._files.expected, *receipts):
            try:
                if name in receipts:
                    self._files.compare(name, receipts[name])
                else:
                    self._files.compare_again(name)
            except DamagedFileError as error:
                wrong.append(str(error))
        return wrong

    @property
    def files(self) -> int:
        """Number of files that :meth:`verify` compares: tensors, indices, lists of images and receipts."""
        return len(self._files.expected) + len(self.manifest.shards)

    def _site(self, name: str) -> Site:
        try:
            return self.manifest.sites[name]
        except KeyError:
            raise SiteError(f"{self.folder} holds no site '{name}': {nearest(name, self.sites)}") from None
