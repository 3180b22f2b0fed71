"""Write a store shard by shard: each whole or absent, the same bytes whoever writes it and however often it is interrupted.

Layout, for every shard ``00000`` and site ``S`` (percent-encoded)::

    plan.json                      what will be written; a folder with another plan is refused
    sites/S/00000.safetensors      one tensor ``activations`` [row, width], rows in order of image and token
    sites/S/00000.parquet          one row per tensor row: image, token, cell, id, label, group, split
    outputs/00000.safetensors      one tensor ``logits`` [image, class], when asked for
    shards/00000.json              receipt: rows, checksums and statistics; written last, so its presence means "done"
    manifest.json                  the plan and all receipts; its presence means "the store is whole"
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from torch import Tensor

from mechinterp.errors import ConfigError, DiskError, ModelError
from mechinterp.files import read_json, sha256_file, sha256_json, write_atomically, write_json
from mechinterp.images.image_set import ImageSet, MedicalImage
from mechinterp.store.manifest import StoreManifest, site_folder
from mechinterp.store.statistics import SiteStatistics

if TYPE_CHECKING:
    from mechinterp.capturing import CaptureConfig, CapturedBatch
    from mechinterp.images.preparation import Preparation
    from mechinterp.models.vision_model import VisionModel


@dataclass(frozen=True)
class ShardReceipt:
    """What a finished shard holds, as it stands in ``shards/00000.json``."""

    shard: int
    content: Mapping[str, Any]


class StoreWriter:
    """Writer of one store; use it as a context manager, so that the folder's lock is given back.

    Parameters
    ----------
    folder
        Where the store stands or shall stand.
    model, images, preparation, config
        What decides its bytes.

    Raises
    ------
    ConfigError
        If the folder holds another capture, or another process writes to it.
    DiskError
        If the folder cannot be made, or the disk is smaller than what will be written.

    """

    def __init__(
        self, folder: Path, model: VisionModel, images: ImageSet, preparation: Preparation, config: CaptureConfig
    ) -> None:
        self.folder = folder
        self.n = len(images)
        self.plan = _plan(model, images, preparation, config)
        self._lock: int | None = None
        self._receipts: dict[int, ShardReceipt] = {}

    def __enter__(self) -> StoreWriter:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"cannot make the folder {self.folder}: {error.strerror}") from error
        foreign = [p.name for p in self.folder.iterdir() if p.name not in _OURS]
        if foreign and not (self.folder / "plan.json").exists():
            raise ConfigError(f"{self.folder} holds other files ({foreign[0]}, …): give --out an empty or new folder")
        self._lock = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check_plan()
            self._check_space()
        except BlockingIOError:
            self._unlock()
            raise ConfigError(
                f"another process is writing to {self.folder}: wait for it, or give another --out"
            ) from None
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unlock()

    @property
    def shards(self) -> int:
        """Number of shards of the whole store."""
        return -(-self.n // self.plan.shard_images)

    def images_of(self, shard: int) -> range:
        """Return the positions of the images of one shard."""
        first = shard * self.plan.shard_images
        return range(first, min(first + self.plan.shard_images, self.n))

    def pending(self) -> list[int]:
        """Return the shards that are not whole on disk; receipts of the others are taken over."""
        todo = []
        for shard in range(self.shards):
            content = self._receipt_on_disk(shard)
            if content is None:
                todo.append(shard)
            else:
                self.accept(ShardReceipt(shard, content))
        return todo

    def write(self, shard: int, batches: Iterable[CapturedBatch]) -> ShardReceipt:
        """Write one shard and return its receipt. Needs nothing but the plan, so any process may do it."""
        taken = list(batches)
        images = [image for batch in taken for image in batch.images]
        files: dict[str, dict[str, Any]] = {}
        sites: dict[str, dict[str, Any]] = {}
        for name, site in self.plan.sites.items():
            acts = torch.cat([batch.acts[name] for batch in taken])
            stored = _narrowed(acts, self.plan.dtype, name)
            folder = f"sites/{site_folder(name)}"
            rows = stored.reshape(-1, site.width).contiguous()
            self._put(files, f"{folder}/{shard:05d}.safetensors", _tensors({"activations": rows}))
            index = _index(images, self.images_of(shard), site.tokens, site.prefix_tokens)
            self._put(files, f"{folder}/{shard:05d}.parquet", _parquet(index))
            moments = SiteStatistics.of(rows.float())
            sites[name] = {
                "rows": moments.rows,
                "mean": moments.mean.tolist(),
                "scatter": moments.scatter.tolist(),
            }
        if self.plan.outputs:
            logits = torch.cat([batch.logits for batch in taken if batch.logits is not None])
            self._put(files, f"outputs/{shard:05d}.safetensors", _tensors({"logits": logits.contiguous()}))
        pixels = hashlib.sha256()
        for image in images:
            pixels.update(f"{image.id} {image.pixels.shape}\n".encode())
            pixels.update(np.ascontiguousarray(image.pixels).tobytes())
        content = {
            "shard": shard,
            "first_image": self.images_of(shard).start,
            "images": [[i.id, i.label, i.group, i.split] for i in images],
            "pixels_sha256": pixels.hexdigest(),
            "files": files,
            "sites": sites,
        }
        write_json(self.folder / f"shards/{shard:05d}.json", content)
        return ShardReceipt(shard, content)

    def accept(self, receipt: ShardReceipt) -> None:
        """Take a shard's receipt for the manifest."""
        self._receipts[receipt.shard] = receipt

    def finish(self) -> None:
        """Write the manifest: the store is whole."""
        shards = tuple(self._receipts[i].content for i in range(self.shards))
        whole = StoreManifest(
            **{**{f: getattr(self.plan, f) for f in self.plan.__dataclass_fields__}, "shards": shards}
        )
        write_json(self.folder / "manifest.json", whole.to_json())

    def _put(self, files: dict[str, dict[str, Any]], name: str, write: Callable[[Path], None]) -> None:
        path = self.folder / name
        write_atomically(path, write)
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}

    def _receipt_on_disk(self, shard: int) -> Mapping[str, Any] | None:
        path = self.folder / f"shards/{shard:05d}.json"
        if not path.exists():
            return None
        content: Mapping[str, Any] = read_json(path)
        whole = all(
            (self.folder / name).exists() and (self.folder / name).stat().st_size == file["bytes"]
            for name, file in content["files"].items()
        )
        return content if whole else None

    def _check_plan(self) -> None:
        path = self.folder / "plan.json"
        if not path.exists():
            write_json(path, self.plan.to_json())
            return
        there = StoreManifest.read(path)
        if there.plan_hash != self.plan.plan_hash:
            ours, theirs = self.plan.to_json(), there.to_json()
            differing = ", ".join(sorted(k for k in ours if ours[k] != theirs[k]))
            raise ConfigError(
                f"{self.folder} holds a capture with another {differing}: give another --out, or remove it"
            )

    def _check_space(self) -> None:
        value = 4 if self.plan.dtype == "float32" else 2
        need = self.n * sum(s.tokens * s.width for s in self.plan.sites.values()) * value
        there = sum(p.stat().st_size for p in self.folder.rglob("*.safetensors"))
        status = os.statvfs(self.folder)
        free = status.f_bavail * status.f_frsize
        if need - there > free:
            raise DiskError(
                f"{self.folder} will take {need / 2**20:,.0f} MiB but only {free / 2**20:,.0f} MiB are free: "
                "capture fewer sites, use --dtype float16, or another disk"
            )

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


_OURS = {"plan.json", "manifest.json", "shards", "sites", "outputs", ".lock"}


def _plan(model: VisionModel, images: ImageSet, preparation: Preparation, config: CaptureConfig) -> StoreManifest:
    return StoreManifest(
        model={
            "spec": model.spec,
            "weights": model.weights,
            "weights_hash": model.weights_hash,
            "trained": model.trained,
            "class_names": list(model.class_names),
        },
        preparation=preparation.to_json(),
        images={
            "name": images.name,
            "n": len(images),
            "ids_hash": sha256_json([images.ids, images.labels, images.groups, images.splits]),
            "source": dict(images.source),
            "licence": images.licence,
            "units_are_patients": images.units_are_patients,
        },
        sites={name: model.site(name) for name in config.sites},
        dtype=config.dtype,
        batch_size=config.batch_size,
        shard_images=config.shard_images(model),
        outputs=config.outputs,
        threads=torch.get_num_threads(),
    )


def _narrowed(acts: Tensor, dtype: str, site: str) -> Tensor:
    stored = acts.to({"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}[dtype])
    if not bool(stored.isfinite().all()):
        raise ModelError(f"site '{site}' has values beyond {dtype}: store it with --dtype bfloat16 or float32")
    return stored


def _tensors(tensors: dict[str, Tensor]) -> Callable[[Path], None]:
    return lambda path: save_file(tensors, path)


def _parquet(table: pa.Table) -> Callable[[Path], None]:
    return lambda path: pq.write_table(table, path, compression="zstd", store_schema=False)


def _index(images: list[MedicalImage], positions: range, tokens: int, prefix: int) -> pa.Table:
    """One row per (image, token); ``cell`` counts the tokens that have a place, null for prefix tokens."""
    n = len(images)
    token = np.tile(np.arange(tokens, dtype=np.int32), n)
    repeated = np.repeat(np.arange(n), tokens)

    def words(values: list[str | None]) -> pa.Array:
        return pa.array(values, pa.string()).dictionary_encode().take(pa.array(repeated))

    return pa.table(
        {
            "image": pa.array(np.asarray(positions, dtype=np.int32)[repeated]),
            "token": pa.array(token),
            "cell": pa.array(token - prefix, mask=token < prefix),
            "id": words([i.id for i in images]),
            "label": words([i.label for i in images]),
            "group": words([i.group for i in images]),
            "split": words([i.split for i in images]),
        }
    )
