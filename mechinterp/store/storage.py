"""Where a store's files stand: a folder of this machine, or anything that fsspec reaches (``s3://``, ``memory://``).

Everything above asks for whole files by their path within the store, and never learns which of the two it is.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from mechinterp.errors import ConfigError, DiskError, MissingDependencyError
from mechinterp.files import WholeFile, is_temporary, remove_temporaries, write_bytes

LOCK = ".lock"


class Sink(Protocol):
    """A file on its way: it stands at its place after ``commit``, whole, or not at all."""

    def write(self, data: bytes | memoryview) -> None:
        """Append some bytes."""
        ...

    def commit(self) -> None:
        """Put the file in its place."""
        ...

    def abandon(self) -> None:
        """Forget what was written, unless it was committed."""
        ...


class Storage(Protocol):
    """The files of one store, by their path within it (``/`` between folders)."""

    @property
    def location(self) -> Path | str:
        """Where it is: a folder, or a URL."""
        ...

    def path(self, name: str) -> str:
        """Return how a file is called in messages."""
        ...

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or ``None`` where there is none."""
        ...

    def sizes(self, names: Iterable[str]) -> dict[str, int | None]:
        """Return the sizes of many files."""
        ...

    def read(self, name: str) -> memoryview:
        """Return a file's bytes; raises ``FileNotFoundError`` where there is none."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all; raises :class:`DiskError`."""
        ...

    def create(self, name: str) -> Sink:
        """Begin a file that is written bit by bit."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        ...

    def top(self) -> set[str]:
        """Return the names of files and folders directly in the store, without the lock and what is half-written."""
        ...

    def tensor_bytes(self) -> int:
        """Return how many bytes of tensors are there already."""
        ...

    def free_bytes(self) -> int | None:
        """Return the room that is left, or ``None`` where there is no such limit."""
        ...

    def tidy(self) -> None:
        """Remove what killed writers left half-written; no writer may be at work."""
        ...

    def lock(self) -> None:
        """Make the folder if need be and keep other writers out, where the storage can; raises :class:`ConfigError`."""
        ...

    def unlock(self) -> None:
        """Let other writers in."""
        ...


def storage_at(location: str | Path) -> Storage:
    """Return the storage of a folder, or of a URL such as ``s3://bucket/store``."""
    if is_remote(str(location)):
        return RemoteStorage(str(location))
    return LocalStorage(Path(str(location)))


def is_remote(location: str) -> bool:
    """Tell whether a location is a URL rather than a folder of this machine."""
    return "://" in location


class LocalStorage:
    """A folder of this machine, or of a disk that it shares; a writer holds ``flock`` on ``.lock``."""

    def __init__(self, folder: Path) -> None:
        self.location: Path = Path(folder)
        self._lock: int | None = None

    def path(self, name: str) -> str:
        """Return how a file is called in messages."""
        return str(self.location / name)

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or ``None`` where there is none."""
        try:
            return (self.location / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, names: Iterable[str]) -> dict[str, int | None]:
        """Return the sizes of many files."""
        return {name: self.size(name) for name in names}

    def read(self, name: str) -> memoryview:
        """Map a file into memory: nothing is copied until it is used."""
        with (self.location / name).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")
            # copy-on-write, so that a tensor over these bytes counts as writable; the file is never changed through it
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        write_bytes(self.location / name, data)

    def create(self, name: str) -> Sink:
        """Begin a file that is written bit by bit."""
        return WholeFile(self.location / name)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        (self.location / name).unlink(missing_ok=True)

    def top(self) -> set[str]:
        """Return the names of files and folders directly in the store, without the lock and what is half-written."""
        try:
            return {p.name for p in self.location.iterdir() if not is_temporary(p)} - {LOCK}
        except FileNotFoundError:
            return set()

    def tensor_bytes(self) -> int:
        """Return how many bytes of tensors are there already."""
        return sum(p.stat().st_size for p in self.location.rglob("*.safetensors"))

    def free_bytes(self) -> int | None:
        """Return the room that is left on the disk."""
        status = os.statvfs(self.location)
        return status.f_bavail * status.f_frsize

    def tidy(self) -> None:
        """Remove what killed writers left half-written; no writer may be at work."""
        remove_temporaries(self.location)

    def lock(self) -> None:
        """Make the folder if need be and keep other writers out."""
        self.location.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.location / LOCK, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise ConfigError(
                f"another process is writing to {self.location}: wait for it, or give another --out"
            ) from None
        except OSError:
            self.unlock()
            raise

    def unlock(self) -> None:
        """Let other writers in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __getstate__(self) -> dict[str, Any]:
        """Travel to another process without the lock, which belongs to this one."""
        return {"location": self.location, "_lock": None}


class RemoteStorage:
    """A store behind fsspec. Putting an object is atomic there, so nothing half-written is ever seen; nothing can be locked.

    Two writers of the same plan write the same bytes, so that they do no harm; a writer of another plan is refused by the
    plan that is there, unless both begin in the same moment.

    Raises
    ------
    MissingDependencyError
        If fsspec, or its package for this kind of URL, is not installed.

    """

    def __init__(self, url: str) -> None:
        self.location: str = url.rstrip("/")
        try:
            import fsspec

            self._files, self._root = fsspec.url_to_fs(self.location)
        except ImportError as error:
            raise MissingDependencyError(error.name or "s3fs", "s3") from error
        except ValueError as error:
            raise ConfigError(f"'{url}' is no place for a store: {error}") from error

    def path(self, name: str) -> str:
        """Return how a file is called in messages."""
        return f"{self.location}/{name}"

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or ``None`` where there is none."""
        try:
            return int(self._files.info(f"{self._root}/{name}")["size"])
        except FileNotFoundError:
            return None

    def sizes(self, names: Iterable[str]) -> dict[str, int | None]:
        """Return the sizes of many files, by one listing instead of a request for each."""
        self._files.invalidate_cache()
        there = self._files.find(self._root, detail=True)
        sizes = {path[len(self._root) :].lstrip("/"): int(info["size"]) for path, info in there.items()}
        return {name: sizes.get(name) for name in names}

    def read(self, name: str) -> memoryview:
        """Fetch a file."""
        # writable, since a tensor is made over these bytes
        return memoryview(bytearray(self._files.cat_file(f"{self._root}/{name}")))

    def write(self, name: str, data: bytes) -> None:
        """Put a file."""
        try:
            self._files.pipe_file(f"{self._root}/{name}", data)
        except OSError as error:
            raise DiskError(f"cannot write {self.path(name)}: {error}") from error

    def create(self, name: str) -> Sink:
        """Begin a file that is put when it is whole; until then it is held in memory."""
        return _Held(self, name)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        if self.size(name) is not None:
            self._files.rm_file(f"{self._root}/{name}")

    def top(self) -> set[str]:
        """Return the names of files and folders directly in the store."""
        self._files.invalidate_cache()
        try:
            return {str(p).rstrip("/").rsplit("/", 1)[-1] for p in self._files.ls(self._root, detail=False)}
        except FileNotFoundError:
            return set()

    def tensor_bytes(self) -> int:
        """Return 0: there is no limit that it could count towards."""
        return 0

    def free_bytes(self) -> int | None:
        """Return ``None``: there is no such limit."""
        return None

    def tidy(self) -> None:
        """Do nothing: nothing half-written is ever seen."""

    def lock(self) -> None:
        """Do nothing but drop what fsspec remembers: objects cannot be locked."""
        self._files.invalidate_cache()

    def unlock(self) -> None:
        """Do nothing."""


class _Held:
    """A remote file in the making."""

    def __init__(self, storage: RemoteStorage, name: str) -> None:
        self._storage, self._name = storage, name
        self._parts = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self._parts += data

    def commit(self) -> None:
        self._storage.write(self._name, bytes(self._parts))
        self._parts = bytearray()

    def abandon(self) -> None:
        self._parts = bytearray()
