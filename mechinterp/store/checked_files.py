"""A store's files, each compared with its checksum when it is first read, and kept in memory if there is room."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mechinterp.errors import DamagedFileError
from mechinterp.store.storage import Storage


class CheckedFiles:
    """What a reader takes a store's bytes from.

    Parameters
    ----------
    storage
        Where they stand.
    expected
        Of each file, by its name: ``bytes`` and ``sha256``, as the manifest has them.
    cache_bytes
        Memory for whole files that were read.

    """

    def __init__(self, storage: Storage, expected: Mapping[str, Mapping[str, Any]], cache_bytes: int) -> None:
        self.expected = expected
        self._storage, self._cache = storage, _Cache(cache_bytes)
        self._checked: set[str] = set()

    def tensor(self, name: str, tensor: str) -> Tensor:
        """Return a tensor over a file's bytes, without copying them."""
        data = self.bytes_of(name)
        try:
            length = int.from_bytes(data[:8], "little")
            described = json.loads(bytes(data[8 : 8 + length]))[tensor]
            begin, end = described["data_offsets"]
            dtype, shape = _TYPES[described["dtype"]], described["shape"]
            raw = np.frombuffer(data, dtype=np.uint8)[8 + length + begin : 8 + length + end]
            return torch.from_numpy(raw).view(dtype).reshape(shape)
        except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
            raise DamagedFileError(f"{self._storage.path(name)} is not a shard of this format: {error}") from error

    def compare_again(self, name: str) -> None:
        """Compare a file with its checksum, even if that was done before.

        Raises
        ------
        DamagedFileError
            If it is missing, cut short or altered.

        """
        self._checked.discard(name)
        self._cache.forget(name)
        self.bytes_of(name)

    def bytes_of(self, name: str) -> memoryview:
        """Return a file's bytes, compared with its checksum once for every opened store."""
        kept = self._cache.get(name)
        if kept is not None:
            return kept
        expected = self.expected[name]
        data = self._read(name)
        if data.nbytes != expected["bytes"]:
            raise self._cut(name, data.nbytes)
        if name not in self._checked:
            if hashlib.sha256(data).hexdigest() != expected["sha256"]:
                raise self._altered(name)
            self._checked.add(name)
        self._cache.keep(name, data)
        return data

    def compare(self, name: str, checksum: str) -> None:
        """Compare a file with a checksum that stands elsewhere.

        Raises
        ------
        DamagedFileError
            If they differ, or there is no such file.

        """
        if hashlib.sha256(self._read(name)).hexdigest() != checksum:
            raise self._altered(name)

    def _read(self, name: str) -> memoryview:
        try:
            return self._storage.read(name)
        except FileNotFoundError:
            raise self._missing(name) from None

    def check_sizes(self) -> None:
        """Find every file in its full size."""
        sizes = self._storage.sizes(self.expected)
        for name, expected in self.expected.items():
            if sizes[name] is None:
                raise self._missing(name)
            if sizes[name] != expected["bytes"]:
                raise self._cut(name, sizes[name])

    def _missing(self, name: str) -> DamagedFileError:
        return DamagedFileError(f"{self._storage.path(name)} is missing: capture again into this folder to mend it")

    def _cut(self, name: str, size: int | None) -> DamagedFileError:
        return DamagedFileError(
            f"{self._storage.path(name)} has {size} bytes instead of {self.expected[name]['bytes']}: it was cut or altered; "
            f"{_REMEDY}"
        )

    def _altered(self, name: str) -> DamagedFileError:
        return DamagedFileError(f"{self._storage.path(name)} does not match its checksum: it was altered; {_REMEDY}")


class _Cache:
    """Whole files, up to so many bytes; what was used longest ago goes first."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._files: OrderedDict[str, memoryview] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> memoryview | None:
        with self._lock:
            if name in self._files:
                self._files.move_to_end(name)
            return self._files.get(name)

    def keep(self, name: str, data: memoryview) -> None:
        with self._lock:
            if name in self._files or data.nbytes > self._most:
                return
            self._files[name] = data
            self._held += data.nbytes
            while self._held > self._most:
                self._held -= self._files.popitem(last=False)[1].nbytes

    def forget(self, name: str) -> None:
        with self._lock:
            if name in self._files:
                self._held -= self._files.pop(name).nbytes


_TYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_REMEDY = "remove it and run the same capture again to mend it"
