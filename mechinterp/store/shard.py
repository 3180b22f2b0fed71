"""Write one shard batch by batch: what is in memory is a batch, what is on disk is nothing until the shard is whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from mechinterp.images.image_set import MedicalImage
from mechinterp.sites import Site
from mechinterp.store.manifest import StoreManifest
from mechinterp.store.plan import tensor_name
from mechinterp.store.statistics import SiteStatistics
from mechinterp.store.storage import Sink, Storage

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
# Files of a shard that are brought to the disk at the same time.
_COMMITTING = 8
_CODES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}


@dataclass(frozen=True)
class CapturedBatch:
    """One batch on its way to disk.

    Parameters
    ----------
    images
        The images.
    rows
        Site → the tokens that are stored, in their storage type, image by image.
    chosen
        Site → which tokens those are, or ``None`` for all.
    logits
        float32.

    """

    images: tuple[MedicalImage, ...]
    rows: Mapping[str, Float[Tensor, "row width"]]
    chosen: Mapping[str, Bool[NDArray[np.bool_], "batch token"] | None]
    logits: Float[Tensor, "batch class"] | None = None


class ShardFiles:
    """The files of one shard in the making.

    Parameters
    ----------
    storage
        Where the store stands.
    plan
        The store's plan.
    sites
        The sites as the model describes them, with all their tokens.
    number
        The shard's number.
    positions
        Of its images in the store.

    """

    def __init__(
        self, storage: Storage, plan: StoreManifest, sites: Mapping[str, Site], number: int, positions: range
    ) -> None:
        self._storage, self._plan, self._sites, self._positions = storage, plan, sites, positions
        self.number = number
        self._images: list[list[str | None]] = []
        self._pixels = hashlib.sha256()
        self._tensors: dict[str, _TensorFile] = {}
        self._chosen: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in plan.sites}
        self._moments: dict[str, SiteStatistics] = {n: SiteStatistics.none(s.width) for n, s in plan.sites.items()}
        varies = plan.selection["tokens"] in {"foreground", "mask"}
        for name, site in plan.sites.items():
            rows = None if varies else len(positions) * site.tokens
            self._tensors[name] = _TensorFile(
                storage, self._place(name), "activations", DTYPES[plan.dtype], (rows, site.width)
            )
        self._logits: _TensorFile | None = None

    def add(self, batch: CapturedBatch) -> None:
        """Append one batch."""
        for image in batch.images:
            self._images.append([image.id, image.label, image.group, image.split])
            self._pixels.update(f"{image.id} {image.pixels.shape}\n".encode())
            self._pixels.update(np.ascontiguousarray(image.pixels).data)
        for name, rows in batch.rows.items():
            on_cpu = rows.cpu()
            self._tensors[name].add(on_cpu)
            self._moments[name] = self._moments[name].merged(SiteStatistics.of(on_cpu))
            chosen = batch.chosen[name]
            everything = np.ones((len(batch.images), self._sites[name].tokens), dtype=bool)
            self._chosen[name].append(everything if chosen is None else chosen)
        if batch.logits is not None:
            if self._logits is None:
                shape = (len(self._positions), batch.logits.shape[1])
                self._logits = _TensorFile(
                    self._storage, f"outputs/{self.number:05d}.safetensors", "logits", torch.float32, shape
                )
            self._logits.add(batch.logits)

    def finish(self) -> dict[str, Any]:
        """Bring every file to its place and return what the shard's receipt says."""
        assert len(self._images) == len(self._positions), "the batches are those of the shard"
        sites: dict[str, dict[str, Any]] = {}
        waiting: dict[str, Future[dict[str, Any]]] = {}
        # at once: each waits for the disk several times, and nothing is computed meanwhile
        with ThreadPoolExecutor(max_workers=_COMMITTING) as disk:
            for name in self._sites:
                waiting[self._place(name)] = disk.submit(self._tensors[name].finish)
            if self._logits is not None:
                waiting[self._logits.name] = disk.submit(self._logits.finish)
            for name, site in self._sites.items():
                chosen = np.concatenate(self._chosen[name])
                index = parquet_bytes(_index(self._images, self._positions, chosen, site))
                place = f"{self._place(name).removesuffix('safetensors')}parquet"
                waiting[place] = disk.submit(self._put, place, index)
                sites[name] = self._moments[name].to_json()
                if not self._plan.aligned:
                    sites[name]["rows_of_image"] = chosen.sum(1).tolist()
        files = {place: done.result() for place, done in waiting.items()}
        return {
            "shard": self.number,
            "first_image": self._positions.start,
            "images": self._images,
            "pixels_sha256": self._pixels.hexdigest(),
            "files": files,
            "sites": sites,
        }

    def abandon(self) -> None:
        """Remove what was written, unless it is at its place already."""
        for file in [*self._tensors.values(), *([self._logits] if self._logits else [])]:
            file.abandon()

    def _place(self, site: str) -> str:
        return tensor_name(site, self.number)

    def _put(self, place: str, data: bytes) -> dict[str, Any]:
        self._storage.write(place, data)
        return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


class _TensorFile:
    """A safetensors file of one tensor, written and hashed as its rows come.

    Where their number is not known beforehand they are held until it is, since it stands in the file's first bytes.
    """

    def __init__(
        self, storage: Storage, name: str, tensor: str, dtype: torch.dtype, shape: tuple[int | None, int]
    ) -> None:
        self.name = name
        self._storage, self._tensor, self._dtype, self._shape = storage, tensor, dtype, shape
        self._held: list[Tensor] = []
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._sink: Sink | None = None
        if shape[0] is not None:
            self._begin(shape[0])

    def add(self, rows: Tensor) -> None:
        if self._sink is None:
            self._held.append(rows)
        elif len(rows):
            self._write(rows.contiguous().view(torch.uint8).numpy().data)

    def finish(self) -> dict[str, Any]:
        if self._sink is None:
            held, self._held = self._held, []
            self._begin(sum(len(rows) for rows in held))
            for rows in held:
                self.add(rows)
        assert self._sink is not None
        self._sink.commit()
        return {"bytes": self._bytes, "sha256": self._hash.hexdigest()}

    def abandon(self) -> None:
        if self._sink is not None:
            self._sink.abandon()

    def _begin(self, rows: int) -> None:
        self._sink = self._storage.create(self.name)
        self._write(safetensors_header(self._tensor, self._dtype, (rows, self._shape[1])))

    def _write(self, data: bytes | memoryview) -> None:
        assert self._sink is not None
        self._sink.write(data)
        self._hash.update(data)
        self._bytes += memoryview(data).nbytes


def safetensors_header(name: str, dtype: torch.dtype, shape: tuple[int, int]) -> bytes:
    """Return the first bytes of a safetensors file of one tensor, those that ``safetensors.torch.save`` writes."""
    size = shape[0] * shape[1] * dtype.itemsize
    described = {name: {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [0, size]}}
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as a Parquet file's bytes, the same for the same table and library."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", store_schema=False)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _index(
    images: Sequence[Sequence[str | None]], positions: range, chosen: Bool[NDArray[np.bool_], "image token"], site: Site
) -> pa.Table:
    """One row per stored token; ``cell`` counts the tokens that have a place, null for the others."""
    image, token = np.nonzero(chosen)
    ids, labels, groups, splits = zip(*images, strict=True)
    placeless = site.tokens if site.grid is None else site.prefix_tokens

    def words(values: tuple[str | None, ...]) -> pa.Array:
        return pa.array(values, pa.string()).dictionary_encode().take(pa.array(image))

    return pa.table(
        {
            "image": pa.array(np.asarray(positions, dtype=np.int32)[image]),
            "token": pa.array(token.astype(np.int32)),
            "cell": pa.array((token - site.prefix_tokens).astype(np.int32), mask=token < placeless),
            "id": words(ids),
            "label": words(labels),
            "group": words(groups),
            "split": words(splits),
        }
    )
