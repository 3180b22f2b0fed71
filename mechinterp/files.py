"""Whole files or none: write to a temporary name, fsync, rename; checksums for what was written."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mechinterp.errors import DamagedFileError, DiskError

TEMPORARY = ".tmp"
# A file that grows is brought to the disk on the way, by its writer's thread, so that its end need not wait for all of it.
_SYNC_EVERY = 8 << 20


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    Parameters
    ----------
    path
        Where the file shall stand; its folder is created.
    write
        Called with the temporary path.

    Raises
    ------
    DiskError
        If the disk is full or the folder cannot be written; what stood at `path` is untouched.

    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        with _disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            _into_place(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


class WholeFile:
    """A file written bit by bit that stands at its place whole, after :meth:`commit`, or not at all.

    Parameters
    ----------
    path
        Where the file shall stand; its folder is created.

    Raises
    ------
    DiskError
        If the disk is full or the folder cannot be written; what stood at `path` is untouched.

    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._temporary = _temporary(self.path)
        with _disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb", buffering=0)
        self._unsynced = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append some bytes."""
        left = memoryview(data).cast("B")
        with _disk_errors(self.path):
            while left:  # the kernel writes less than it is given where the disk fills up or a signal comes
                written = self._file.write(left)
                left = left[written:]
                self._unsynced += written
            if self._unsynced >= _SYNC_EVERY:
                os.fsync(self._file.fileno())
                self._unsynced = 0

    def commit(self) -> None:
        """Bring the file to the disk and then to its place."""
        try:
            with _disk_errors(self.path):
                self._file.close()
                _into_place(self._temporary, self.path)
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Remove what was written, unless it was committed."""
        with suppress(OSError):
            self._file.close()
        _remove(self._temporary)


def _temporary(path: Path) -> Path:
    # random, since processes of several machines and threads of one process may write the same file at once
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")


def _into_place(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into an error that names the file that was to be written."""
    try:
        yield
    except OSError as error:
        raise _refused(path, error.errno, error.strerror or str(error)) from error
    except SafetensorError as error:
        # safetensors has no error of its own for a disk: it says the system's number in its text
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise _refused(path, int(number[1]), os.strerror(int(number[1]))) from error


def _refused(path: Path, number: int | None, what: str) -> DiskError:
    if number in {errno.ENOSPC, errno.EDQUOT}:
        return DiskError(f"no space left while writing {path}: free some and run the same command again")
    return DiskError(f"cannot write {path}: {what}")


def _remove(temporary: Path) -> None:
    with suppress(OSError):  # where the folder itself cannot be used, there is nothing to remove
        temporary.unlink()


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers left half-written in a folder and below. No writer may be at work there."""
    for path in Path(folder).rglob(f".*{TEMPORARY}"):
        if is_temporary(path):
            _remove(path)


def is_temporary(path: Path) -> bool:
    """Tell whether a file's name is one that :func:`write_atomically` gives to what is not whole yet."""
    return re.fullmatch(rf"\..+\.[0-9a-f]{{8}}{re.escape(TEMPORARY)}", path.name) is not None


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys; NaN and infinities become ``null``."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return the bytes that :func:`write_json` writes."""
    text = json.dumps(jsonable(value), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises
    ------
    DamagedFileError
        If the file is not JSON (cut short, or another format).
    FileNotFoundError
        If there is no such file: whoever asks for it knows what that means.

    """
    return parse_json(Path(path).read_bytes(), str(path))


def parse_json(data: bytes, path: str) -> Any:
    """Return what JSON says; `path` names it where it is damaged, as in :func:`read_json`."""
    try:
        return json.loads(data.decode("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedFileError(f"{path} is not readable JSON ({error}): it was cut short or altered") from error


def write_sealed_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as JSON with a key ``sha256`` over all its other keys (see :func:`sha256_json`)."""
    write_bytes(path, sealed_json_bytes(content))


def sealed_json_bytes(content: dict[str, Any]) -> bytes:
    """Return the bytes that :func:`write_sealed_json` writes."""
    return json_bytes({**content, "sha256": sha256_json(content)})


def read_sealed_json(path: Path) -> dict[str, Any]:
    """Read what :func:`write_sealed_json` wrote, without its key ``sha256``.

    Raises
    ------
    DamagedFileError
        If the file is not JSON, not an object, or does not match its checksum.
    FileNotFoundError
        If there is no such file.

    """
    return unsealed(read_json(path), str(path))


def unsealed(content: Any, path: str) -> dict[str, Any]:
    """Return the content of a sealed object without its key ``sha256``; `path` names it where it does not match."""
    if not isinstance(content, dict) or "sha256" not in content:
        raise DamagedFileError(f"{path} carries no checksum of its content: it was altered, or is of another format")
    rest = {key: value for key, value in content.items() if key != "sha256"}
    if content["sha256"] != sha256_json(rest):
        raise DamagedFileError(f"{path} does not match its checksum: it was altered")
    return rest


def jsonable(value: Any) -> Any:
    """Turn NumPy scalars and arrays, tuples, paths and non-finite floats into what JSON can hold."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.as_posix()
    return value


def sha256_bytes(data: bytes | memoryview) -> str:
    """Return the SHA-256 of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, in hex."""
    text = json.dumps(jsonable(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
