"""Write a store shard by shard: each whole or absent, the same bytes whoever writes it and however often it is interrupted.

Layout, for every shard ``00000`` and site ``S`` (percent-encoded)::

    plan.json                      what will be written; a folder with another plan is refused
    sites/S/00000.safetensors      one tensor ``activations`` [row, width], rows in order of image and token
    sites/S/00000.parquet          one row per tensor row: image, token, cell, id, label, group, split
    outputs/00000.safetensors      one tensor ``logits`` [image, class], when asked for
    shards/00000.json              receipt: images, checksums and statistics; written last, so its presence means "done"
    manifest.json                  the plan and all receipts; its presence means "the store is whole"

``docs/store.md`` specifies the format.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save
from torch import Tensor

from mechinterp.errors import ConfigError, DamagedFileError, DiskError, ModelError, SiteError
from mechinterp.files import (
    is_temporary,
    jsonable,
    read_sealed_json,
    remove_temporaries,
    sha256_bytes,
    sha256_json,
    write_bytes,
    write_sealed_json,
)
from mechinterp.images.image_set import ImageSet
from mechinterp.sites import Site
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
            there = {p.name for p in self.folder.iterdir() if not is_temporary(p)} - {_LOCK}
            if there and _PLAN not in there:
                raise ConfigError(
                    f"{self.folder} holds other files ({min(there)}, …): give --out an empty or new folder"
                )
            self._lock = os.open(self.folder / _LOCK, os.O_CREAT | os.O_RDWR)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_temporaries(self.folder)
            self._check_plan()
            self._check_space()
        except BlockingIOError:
            self._unlock()
            raise ConfigError(
                f"another process is writing to {self.folder}: wait for it, or give another --out"
            ) from None
        except OSError as error:
            self._unlock()
            raise DiskError(f"cannot use the folder {self.folder}: {error.strerror or error}") from error
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
        """Return the shards that are not whole on disk; receipts of the others are taken over.

        Where there are any, a manifest that calls the store whole is removed.
        """
        todo = []
        for shard in range(self.shards):
            content = self._receipt_on_disk(shard)
            if content is None:
                todo.append(shard)
            else:
                self.accept(ShardReceipt(shard, content))
        if todo:
            (self.folder / _MANIFEST).unlink(missing_ok=True)
        return todo

    def write(self, shard: int, batches: Iterable[CapturedBatch]) -> ShardReceipt:
        """Write one shard and return its receipt. Needs nothing but the plan, so any process may do it.

        Batches are taken one by one: what is held at once is one shard's activations in their storage type, no pixels.

        Raises
        ------
        ModelError
            If an activation or a logit is NaN or infinite, or beyond the storage type; the image is named.
        SiteError
            If an activation is not as the site describes it.
        DiskError
            If the disk is full.

        """
        images: list[list[str | None]] = []
        n, dtype = len(self.images_of(shard)), _DTYPES[self.plan.dtype]
        acts = {name: torch.empty(n, s.tokens, s.width, dtype=dtype) for name, s in self.plan.sites.items()}
        logits: list[Tensor] = []
        pixels = hashlib.sha256()
        for batch in batches:
            at = slice(len(images), len(images) + len(batch.images))
            for image in batch.images:
                images.append([image.id, image.label, image.group, image.split])
                pixels.update(f"{image.id} {image.pixels.shape}\n".encode())
                pixels.update(np.ascontiguousarray(image.pixels).tobytes())
            for name, site in self.plan.sites.items():
                _store(acts[name][at], batch, site, name, self.plan)
            if self.plan.outputs and batch.logits is not None:
                logits.append(batch.logits.float().cpu())
                _check_finite(batch, logits[-1], batch.logits, "the logits", self.plan)
        assert len(images) == n, "the batches are those of the shard"
        files: dict[str, dict[str, Any]] = {}
        sites: dict[str, dict[str, Any]] = {}
        for name, site in self.plan.sites.items():
            place = f"sites/{site_folder(name)}/{shard:05d}"
            rows = acts.pop(name).reshape(-1, site.width)
            self._put(files, f"{place}.safetensors", save({"activations": rows}))
            self._put(files, f"{place}.parquet", _parquet(_index(images, self.images_of(shard), site)))
            moments = SiteStatistics.of(rows)
            sites[name] = {"rows": moments.rows, "mean": moments.mean.tolist(), "scatter": moments.scatter.tolist()}
        if self.plan.outputs:
            self._put(files, f"outputs/{shard:05d}.safetensors", save({"logits": torch.cat(logits)}))
        content = {
            "shard": shard,
            "first_image": self.images_of(shard).start,
            "images": images,
            "pixels_sha256": pixels.hexdigest(),
            "files": files,
            "sites": sites,
        }
        write_sealed_json(self._receipt(shard), content)
        return ShardReceipt(shard, content)

    def accept(self, receipt: ShardReceipt) -> None:
        """Take a shard's receipt for the manifest."""
        self._receipts[receipt.shard] = receipt

    def finish(self) -> None:
        """Write the manifest: the store is whole."""
        shards = tuple(self._receipts[i].content for i in range(self.shards))
        replace(self.plan, shards=shards).write(self.folder / _MANIFEST)

    def _put(self, files: dict[str, dict[str, Any]], name: str, data: bytes) -> None:
        write_bytes(self.folder / name, data)
        files[name] = {"bytes": len(data), "sha256": sha256_bytes(data)}

    def _receipt(self, shard: int) -> Path:
        return self.folder / f"shards/{shard:05d}.json"

    def _receipt_on_disk(self, shard: int) -> Mapping[str, Any] | None:
        """Return the receipt of a shard whose files stand there in their full size; ``None`` has it made again."""
        try:
            content = read_sealed_json(self._receipt(shard))
            whole = all((self.folder / n).stat().st_size == f["bytes"] for n, f in content["files"].items())
        except (FileNotFoundError, DamagedFileError):
            return None
        return content if whole else None

    def _check_plan(self) -> None:
        """Write the plan, or go on with the one that is there: the bits of a store come from one number of threads."""
        path = self.folder / _PLAN
        if not path.exists():
            self.plan.write(path)
        # the plan on disk is gone on with even where it was just written: JSON knows no tuples and no type of number
        there = StoreManifest.read(path)
        differing = _differing(replace(self.plan, threads=there.threads).to_json(), there.to_json())
        if differing:
            raise ConfigError(
                f"{self.folder} holds a capture with another {', '.join(differing)}: give another --out, or remove it"
            )
        self.plan = there

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


_LOCK, _PLAN, _MANIFEST = ".lock", "plan.json", "manifest.json"


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return the settings that differ, in words such as ``model weights_hash``."""
    found = []
    for key in sorted({*ours, *theirs}):
        a, b = jsonable(ours.get(key)), jsonable(theirs.get(key))
        if a == b:
            continue
        inner = (
            sorted(k for k in {*a, *b} if a.get(k) != b.get(k)) if isinstance(a, dict) and isinstance(b, dict) else []
        )
        found += [f"{key} {k}" for k in inner] or [key]
    return found


def _plan(model: VisionModel, images: ImageSet, preparation: Preparation, config: CaptureConfig) -> StoreManifest:
    return StoreManifest(
        model={
            "spec": model.spec,
            "weights": model.weights,
            "weights_hash": model.weights_hash,
            "trained": model.trained,
            "class_names": list(model.class_names),
            "contract": jsonable(asdict(model.contract)),
        },
        preparation=preparation.to_json(),
        images={
            "name": images.name,
            "n": len(images),
            "ids_hash": sha256_json([images.ids, images.labels, images.groups, images.splits]),
            "scale_hash": sha256_json([images.intensity_range, images.spacing_mm]),
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
        device=model.device.type,
    )


_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def _store(target: Tensor, batch: CapturedBatch, site: Site, name: str, plan: StoreManifest) -> None:
    """Copy a batch's activations of one site to where they are stored, in the storage type."""
    acts = batch.acts[name]
    if tuple(acts.shape[1:]) != (site.tokens, site.width):
        raise SiteError(
            f"site '{name}' gave {acts.shape[1]} tokens {acts.shape[2]} wide instead of {site.tokens} tokens {site.width} "
            "wide: the model was loaded for images of another size"
        )
    target.copy_(acts)
    _check_finite(batch, target, acts, f"site '{name}'", plan)


def _check_finite(batch: CapturedBatch, stored: Tensor, before: Tensor, where: str, plan: StoreManifest) -> None:
    """Name the first image with a number that is not finite; one pass, since NaN and infinity both reach the extremes."""
    low, high = torch.aminmax(stored)
    if bool(low.isfinite() & high.isfinite()):
        return
    bad = int((~stored.flatten(1).isfinite().all(1)).nonzero()[0])
    image = batch.images[bad].id
    if bool(before[bad].isfinite().all()):
        wider = "bfloat16 or float32" if plan.dtype == "float16" else "float32"
        raise ModelError(f"{where} has values beyond {plan.dtype} for image '{image}': store it with --dtype {wider}")
    raise ModelError(
        f"'{plan.model_spec}' gives NaN or infinity at {where} for image '{image}': check that image and the weights"
    )


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", store_schema=False)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _index(images: list[list[str | None]], positions: range, site: Site) -> pa.Table:
    """One row per (image, token); ``cell`` counts the tokens that have a place, null for the others."""
    token = np.tile(np.arange(site.tokens, dtype=np.int32), len(images))
    repeated = np.repeat(np.arange(len(images)), site.tokens)
    ids, labels, groups, splits = zip(*images, strict=True)
    placeless = site.tokens if site.grid is None else site.prefix_tokens

    def words(values: tuple[str | None, ...]) -> pa.Array:
        return pa.array(values, pa.string()).dictionary_encode().take(pa.array(repeated))

    return pa.table(
        {
            "image": pa.array(np.asarray(positions, dtype=np.int32)[repeated]),
            "token": pa.array(token),
            "cell": pa.array(token - site.prefix_tokens, mask=token < placeless),
            "id": words(ids),
            "label": words(labels),
            "group": words(groups),
            "split": words(splits),
        }
    )
