"""Write a store so that it can be killed at any moment and finished to the same bytes, and appended to.

One rule carries all of it: a file is written under a temporary name and moved into place, and of the files of a shard the
receipt comes last, of those of the store the manifest. ``docs/store.md`` specifies the format.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from mechinterp.errors import ConfigError, DamagedFileError, DiskError, LeakageError
from mechinterp.files import parse_json, sealed_json_bytes, sha256_bytes, unsealed
from mechinterp.images.image_set import ImageSet
from mechinterp.store.image_list import list_bytes, read_list, table_of
from mechinterp.store.manifest import StoreManifest
from mechinterp.store.plan import differences, images_of, plan_name, plan_of, receipt_name, shards_of, together
from mechinterp.store.shard import DTYPES, CapturedBatch, ShardFiles
from mechinterp.store.statistics import SiteStatistics
from mechinterp.store.storage import storage_at

if TYPE_CHECKING:
    from mechinterp.capturing import CaptureConfig
    from mechinterp.images.preparation import Preparation
    from mechinterp.models.vision_model import VisionModel

MANIFEST = "manifest.json"
# Batches on their way to disk while the next is computed; each holds memory.
_WAITING = 2


@dataclass(frozen=True)
class ShardReceipt:
    """What a finished shard holds, as it stands in ``shards/00000.json``."""

    shard: int
    content: Mapping[str, Any]


class StoreWriter:
    """Writer of one store; use it as a context manager, so that the folder's lock is given back.

    Parameters
    ----------
    location
        Folder or URL where the store stands or shall stand.
    model, images, preparation, config
        What decides its bytes.
    append
        The images come to those that a finished store holds already.

    Raises
    ------
    ConfigError
        If the folder holds another capture, or another process writes to it; with `append`, if there is nothing to append
        to, or it holds an image already.
    LeakageError
        If a group of the new images stands in another split of the store.
    DiskError
        If the folder cannot be made, or the disk is smaller than what will be written.

    """

    def __init__(
        self,
        location: Path | str,
        model: VisionModel,
        images: ImageSet,
        preparation: Preparation,
        config: CaptureConfig,
        *,
        append: bool = False,
    ) -> None:
        self.storage = storage_at(location)
        self.sites = {name: model.site(name) for name in config.sites}
        self.plan = plan_of(model, images, preparation, config)
        self._images, self._append = images, append
        self._segments: list[StoreManifest] = []

    def __enter__(self) -> StoreWriter:
        try:
            there = self.storage.top()  # before anything is written into a folder that may be another's
            if there and plan_name(0) not in there:
                raise ConfigError(
                    f"{self.storage.location} holds other files ({min(there)}, …): give --out an empty or new folder"
                )
            self.storage.lock()
            self.storage.tidy()
            self._check_plan()
            self._check_space()
        except OSError as error:
            self.storage.unlock()
            raise DiskError(f"cannot use the folder {self.storage.location}: {error.strerror or error}") from error
        except BaseException:
            self.storage.unlock()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.storage.unlock()

    def __getstate__(self) -> dict[str, Any]:
        """Travel to another process without what only the holder of the lock needs."""
        return {**self.__dict__, "_images": None, "_segments": []}

    @property
    def shards(self) -> range:
        """Numbers of the shards of this capture."""
        return shards_of(self.plan)

    @property
    def tensor_bytes(self) -> int:
        """How many bytes of activations this capture makes; at most, where the number of tokens varies."""
        per_image = sum(s.tokens * s.width for s in self.plan.sites.values()) * DTYPES[self.plan.dtype].itemsize
        return int(self.plan.images["n"]) * per_image

    def images_of(self, shard: int) -> range:
        """Return the positions in the store of the images of one shard."""
        return images_of(self.plan, shard)

    def receipt(self, shard: int) -> Mapping[str, Any]:
        """Return what a whole shard of this capture holds.

        Raises
        ------
        ConfigError
            If it is not whole.

        """
        return self._receipt(shard, self.plan)

    def pending(self) -> list[int]:
        """Return the shards that are not whole on disk.

        Where there are any that a manifest calls whole, it is removed.
        """
        todo = [shard for shard in self.shards if self._receipt_on_disk(shard) is None]
        if todo and self._manifest_counts() > todo[0]:
            self.storage.remove(MANIFEST)
        return todo

    def write(self, shard: int, batches: Iterable[CapturedBatch]) -> ShardReceipt:
        """Write one shard and return its receipt. Needs nothing but the plan, so any process may do it.

        Batches are taken one by one, and hashed, measured and written by a thread of their own while the next is computed.

        Raises
        ------
        DiskError
            If the disk is full.

        """
        files = ShardFiles(self.storage, self.plan, self.sites, shard, self.images_of(shard))
        try:
            with _one_thread() as thread:
                waiting: deque[Future[None]] = deque()
                for batch in batches:
                    while len(waiting) >= _WAITING:
                        waiting.popleft().result()
                    waiting.append(thread.submit(files.add, batch))
                    del batch
                for added in waiting:
                    added.result()
            content = files.finish()
        except BaseException:
            files.abandon()
            raise
        self.storage.write(receipt_name(shard), sealed_json_bytes(content))
        return ShardReceipt(shard, content)

    def finish(self) -> None:
        """Write the manifest: the store is whole.

        Raises
        ------
        ConfigError
            If another segment of the store is not whole.

        """
        self.storage.tidy()  # an engine may have lost a worker in the middle of a file, and had its shard made again
        segments, shards = [], []
        found = {name: _Coverage(SiteStatistics.none(site.width)) for name, site in self.sites.items()}
        for number, plan in enumerate(self._segments):
            tables = []
            for shard in shards_of(plan):  # one receipt at a time: all of them together outgrow memory
                receipt = self._receipt(shard, plan)
                tables.append(table_of(receipt))
                shards.append(_in_short(receipt))
                for name in found:
                    found[name] = found[name].with_shard(receipt, name)
            data, listed = list_bytes(tables), f"images/{number:05d}.parquet"
            described = {"name": listed, "bytes": len(data), "sha256": sha256_bytes(data)}
            if self.storage.size(listed) != len(data) or sha256_bytes(self.storage.read(listed)) != described["sha256"]:
                self.storage.write(listed, data)
            segments.append(
                {
                    "images": dict(plan.images),
                    "first_image": plan.first_image,
                    "first_shard": plan.first_shard,
                    "file": described,
                }
            )
        manifest = replace(
            self._segments[0],
            images=together([plan.images for plan in self._segments]),
            segments=tuple(segments),
            shards=tuple(shards),
            statistics={name: found[name].to_json(site.tokens) for name, site in self.sites.items()},
        )
        data = manifest.to_bytes()
        # what is right already is left alone: readers may be at work, and a store's age says when it was made
        if self.storage.size(MANIFEST) != len(data) or bytes(self.storage.read(MANIFEST)) != data:
            self.storage.write(MANIFEST, data)

    def _receipt(self, shard: int, plan: StoreManifest) -> Mapping[str, Any]:
        content = self._receipt_on_disk(shard)
        if content is None:
            raise ConfigError(
                f"shard {shard} of {self.storage.location}, of the images '{plan.images['name']}', is not whole: "
                "run the capture of those images again"
            )
        return content

    def _receipt_on_disk(self, shard: int) -> Mapping[str, Any] | None:
        """Return the receipt of a shard whose files stand there in their full size; ``None`` has it made again."""
        path = receipt_name(shard)
        try:
            content = unsealed(parse_json(bytes(self.storage.read(path)), self.storage.path(path)), path)
            whole = all(self.storage.size(n) == f["bytes"] for n, f in content["files"].items())
        except (FileNotFoundError, DamagedFileError):
            return None
        return content if whole else None

    def _manifest_counts(self) -> int:
        """Return how many shards the manifest that is there calls whole; a damaged one is as good as one of all."""
        if self.storage.size(MANIFEST) is None:
            return 0
        try:
            return len(self._read_manifest(MANIFEST).shards)
        except DamagedFileError:
            return self.shards.stop

    def _read_manifest(self, name: str) -> StoreManifest:
        return StoreManifest.from_bytes(bytes(self.storage.read(name)), self.storage.path(name))

    def _check_plan(self) -> None:
        """Write the plan, or go on with the one that is there: the bits of a store come from one number of threads."""
        while self.storage.size(plan_name(len(self._segments))) is not None:
            self._segments.append(self._read_manifest(plan_name(len(self._segments))))
        if self._append and not self._segments:
            raise ConfigError(f"{self.storage.location} holds no store to append to: capture without --append first")
        differing = []
        for there in self._segments:
            ours = replace(
                self.plan, threads=there.threads, first_image=there.first_image, first_shard=there.first_shard
            )
            differing.append(differences(ours.to_json(), there.to_json()))
            if not differing[-1]:
                self.plan = there
                return
        if self._segments:
            first = self._segments[0]
            others = [d for d in differing[0] if not d.startswith("images ")]
            if not self._append or others:
                raise ConfigError(
                    f"{self.storage.location} holds a capture with another {', '.join(others or differing[0])}: "
                    "give another --out, or remove it"
                )
            self._check_appended()
            last = self._segments[-1]
            self.plan = replace(
                self.plan,
                threads=first.threads,
                first_image=last.first_image + int(last.images["n"]),
                first_shard=shards_of(last).stop,
            )
        name = plan_name(len(self._segments))
        self.storage.write(name, self.plan.to_bytes())
        # the plan on disk is gone on with even where it was just written: JSON knows no tuples and no type of number
        self.plan = self._read_manifest(name)
        self._segments.append(self.plan)

    def _check_appended(self) -> None:
        """Refuse new images that the store holds already, or that put a patient on both sides of a split."""
        if self.storage.size(MANIFEST) is None or len(self._read_manifest(MANIFEST).segments) != len(self._segments):
            raise ConfigError(
                f"{self.storage.location} holds an interrupted capture: finish it with the same images before others are appended"
            )
        there = read_list(self.storage, self._read_manifest(MANIFEST).segments)
        twice = sorted(set(there["id"]) & set(self._images.ids))
        if twice:
            raise ConfigError(f"{self.storage.location} holds image '{twice[0]}' already: append other images")
        if self._images.groups is None or self._images.splits is None:
            return
        split_of = {g: s for g, s in zip(there["group"], there["split"], strict=True) if g is not None}
        for group, split in zip(self._images.groups, self._images.splits, strict=True):
            other = split_of.get(group) if group is not None else None
            if other is not None and split is not None and other != split:
                raise LeakageError(
                    f"a group of '{self._images.name}' is in split '{split}' but in '{other}' in {self.storage.location}: "
                    "put all images of a patient into one split"
                )

    def _check_space(self) -> None:
        free = self.storage.free_bytes()
        others = 0
        for plan in self._segments:
            if plan.first_shard != self.plan.first_shard:
                others += int(plan.images["n"])
        before = self.tensor_bytes * others // max(1, int(self.plan.images["n"]))
        need = self.tensor_bytes - max(0, self.storage.tensor_bytes() - before)
        if free is not None and need > free:
            raise DiskError(
                f"{self.storage.location} will take {self.tensor_bytes / 2**20:,.0f} MiB but only {free / 2**20:,.0f} MiB "
                "are free: capture fewer sites or tokens, use --dtype float16, or another disk"
            )


@dataclass(frozen=True)
class _Coverage:
    """What the shards so far hold of one site."""

    moments: SiteStatistics
    of_images: int = 0
    with_rows: int = 0

    def with_shard(self, receipt: Mapping[str, Any], site: str) -> _Coverage:
        said, n = receipt["sites"][site], len(receipt["images"])
        with_rows = sum(rows > 0 for rows in said["rows_of_image"]) if "rows_of_image" in said else n
        moments = self.moments.merged(SiteStatistics.from_json(said))
        return _Coverage(moments, self.of_images + n, self.with_rows + with_rows)

    def to_json(self, tokens: int) -> dict[str, Any]:
        return {
            "rows": self.moments.rows,
            "of_rows": self.of_images * tokens,
            "images": self.with_rows,
            "mean": self.moments.mean.tolist(),
            "variance": self.moments.variance.tolist(),
            "norms": self.moments.norms.to_json(),
            "norm_quantiles": [[at, norm] for at, norm in self.moments.norms.quantiles().items()],
        }


@contextmanager
def _one_thread() -> Iterator[ThreadPoolExecutor]:
    """Give a thread on which torch computes alone, so that it does not fight over the processors with the forward pass."""
    pool = ThreadPoolExecutor(max_workers=1)
    here = torch.get_num_threads()
    pool.submit(torch.set_num_threads, 1).result()
    torch.set_num_threads(here)  # the number is each thread's own, but also what later threads begin with
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _in_short(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the manifest says of a shard: the receipt's checksum seals the rest."""
    return {
        "first_image": receipt["first_image"],
        "images": len(receipt["images"]),
        "receipt": hashlib.sha256(sealed_json_bytes(dict(receipt))).hexdigest(),
        "files": receipt["files"],
    }
