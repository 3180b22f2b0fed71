"""What an interrupted training goes on from: every learner's state, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp.errors import ConfigError, DamagedFileError
from mechinterp.files import read_sealed_json, sha256_file, write_atomically, write_sealed_json

FOLDER = "checkpoint"
_RECORD = "checkpoint.json"


def save_checkpoint(folder: Path, made_from: str, record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint; the one before it stays until this one is whole.

    Parameters
    ----------
    folder
        Of the checkpoints; holds the last one only.
    made_from
        Hash of what decides the training: settings, data.
    record
        Step, curves, what else is no tensor.
    tensors
        The states.

    Raises
    ------
    DiskError
        If the disk is full; the last checkpoint still stands.

    """
    name = f"step-{record['step']}.safetensors"
    write_atomically(folder / name, lambda path: save_file({n: t.contiguous() for n, t in tensors.items()}, path))
    sealed = {"made_from": made_from, "record": record, "file": name, "tensors": sha256_file(folder / name)}
    write_sealed_json(folder / _RECORD, sealed)
    for old in folder.glob("step-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_checkpoint(folder: Path, made_from: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return a checkpoint's record and tensors; none where there is none.

    Raises
    ------
    ConfigError
        If it is of a training with other settings or data.
    DamagedFileError
        If a file is not what was written.

    """
    if not (folder / _RECORD).is_file():
        return None
    sealed = read_sealed_json(folder / _RECORD)
    if sealed["made_from"] != made_from:
        raise ConfigError(
            f"{folder} holds an unfinished training with other settings or data: finish that one with its own, remove the "
            "folder, or train into another"
        )
    path = folder / sealed["file"]
    remedy = f"remove {folder} and train anew"
    if not path.is_file():
        raise DamagedFileError(f"{path} is missing: {remedy}")
    if sha256_file(path) != sealed["tensors"]:
        raise DamagedFileError(f"{path} does not match its checksum: {remedy}")
    try:
        return sealed["record"], load_file(path)
    except SafetensorError as error:
        raise DamagedFileError(f"{path} is not a safetensors file: {remedy}") from error


def remove_checkpoint(folder: Path) -> None:
    """Remove what a finished training does not need any more; the record first, so that no half of it is taken for whole."""
    (folder / _RECORD).unlink(missing_ok=True)
    for path in folder.glob("step-*.safetensors"):
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
