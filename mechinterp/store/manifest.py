"""What a store says of itself: one plan, written before the first shard, and one manifest, written after the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mechinterp.errors import DamagedFileError
from mechinterp.files import read_json, read_sealed_json, sha256_json, write_sealed_json
from mechinterp.sites import Site

FORMAT_VERSION = 1


@dataclass(frozen=True)
class StoreManifest:
    """Everything that decides a store's bytes, and nothing that does not (no host, time or version).

    Parameters
    ----------
    model
        ``spec``, ``weights_hash``, ``trained``, ``weights``, ``class_names``, ``contract``.
    preparation
        Settings of the image preparation.
    images
        ``name``, ``n``, ``ids_hash`` (ids, labels, groups, splits), ``scale_hash`` (intensity range, spacing), ``source``,
        ``licence``, ``units_are_patients``.
    sites
        Name → description.
    dtype, batch_size, shard_images, outputs, threads, device
        How it was captured. Bits depend on batch boundaries, on the number of threads and on the kind of device.
    shards
        Receipts of the shards, in order: images, rows, checksums, statistics. Empty in a plan.

    """

    model: Mapping[str, Any]
    preparation: Mapping[str, Any]
    images: Mapping[str, Any]
    sites: Mapping[str, Site]
    dtype: str
    batch_size: int
    shard_images: int
    outputs: bool
    threads: int
    device: str = "cpu"
    shards: tuple[Mapping[str, Any], ...] = ()
    format_version: int = FORMAT_VERSION

    @property
    def model_spec(self) -> str:
        """What the model was loaded from."""
        return str(self.model["spec"])

    @property
    def weights_hash(self) -> str:
        """Hash of the model's weights."""
        return str(self.model["weights_hash"])

    @property
    def trained(self) -> bool:
        """False when the model had random weights."""
        return bool(self.model["trained"])

    @property
    def preparation_hash(self) -> str:
        """Hash of the preparation's settings."""
        return sha256_json(self.preparation)

    @property
    def plan_hash(self) -> str:
        """Hash of everything but the shards: two captures with the same one make the same bytes."""
        return sha256_json({**self.to_json(), "shards": []})

    @property
    def hash(self) -> str:
        """Hash of everything, the shards' checksums included: two stores with the same one hold the same numbers."""
        return sha256_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as plain JSON."""
        return {
            "format_version": self.format_version,
            "model": dict(self.model),
            "preparation": dict(self.preparation),
            "images": dict(self.images),
            "sites": {name: site_to_json(site) for name, site in self.sites.items()},
            "dtype": self.dtype,
            "batch_size": self.batch_size,
            "shard_images": self.shard_images,
            "outputs": self.outputs,
            "threads": self.threads,
            "device": self.device,
            "shards": [dict(s) for s in self.shards],
        }

    def write(self, path: Path) -> None:
        """Write the manifest with a checksum of its own content."""
        write_sealed_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> StoreManifest:
        """Read a plan or a manifest.

        Raises
        ------
        DamagedFileError
            If the file is not JSON, does not match its checksum, is of another version, or lacks a key.
        FileNotFoundError
            If there is no such file.

        """
        raw = read_json(path)
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if version != FORMAT_VERSION:
            raise DamagedFileError(f"{path} is of format {version}, this version reads {FORMAT_VERSION}: capture again")
        raw = read_sealed_json(path)
        try:
            sites = {name: site_from_json(s) for name, s in raw["sites"].items()}
            return cls(**{**raw, "sites": sites, "shards": tuple(raw["shards"])})
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise DamagedFileError(f"{path} is not a manifest of this format: {error}") from error


def site_folder(name: str) -> str:
    """Return the folder of a site: its name with everything but ASCII letters, digits and ``_.-~`` percent-encoded.

    The names that mean a folder itself or its parent are encoded whole, and the empty name becomes ``%``.
    """
    if name.strip(".") == "":
        return name.replace(".", "%2E") or "%"
    return quote(name, safe="")


def site_to_json(site: Site) -> dict[str, Any]:
    """Return a site as plain JSON."""
    return site.to_json()


def site_from_json(raw: Mapping[str, Any]) -> Site:
    """Undo :func:`site_to_json`."""
    return Site.from_json(raw)
