"""What a store says of itself: one plan, written before the first shard, and one manifest, written after the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mechinterp.errors import DamagedFileError
from mechinterp.files import parse_json, sealed_json_bytes, sha256_json, unsealed, write_bytes
from mechinterp.sites import Site

FORMAT_VERSION = 2
# What a store without a choice of tokens says of its selection.
EVERY_TOKEN: Mapping[str, Any] = {"tokens": "all", "threshold": 0.0, "per_image": 0, "seed": 0}


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
        ``licence``, ``units_are_patients``; in the manifest of a store that was appended to, of all segments together.
    sites
        Name → description, with the tokens that are stored of an image (at most, where that varies).
    dtype, batch_size, shard_images, outputs, threads, device
        How it was captured. Bits depend on batch boundaries, on the number of threads and on the kind of device.
    selection
        Which tokens are stored: ``tokens``, ``threshold``, ``per_image``, ``seed``.
    first_image, first_shard
        In the plan of a segment that was appended: where it begins.
    segments
        In a manifest: for each capture, ``images``, ``first_image``, ``first_shard``, and the ``file`` that lists its images.
    shards
        In a manifest: for each shard, in order, ``first_image``, ``images`` (their number), ``receipt`` (its checksum) and
        ``files``.
    statistics
        In a manifest: site → ``rows``, ``of_rows``, ``images``, ``mean``, ``variance``, ``norm_quantiles``.

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
    selection: Mapping[str, Any] = field(default_factory=lambda: dict(EVERY_TOKEN))
    first_image: int = 0
    first_shard: int = 0
    segments: tuple[Mapping[str, Any], ...] = ()
    shards: tuple[Mapping[str, Any], ...] = ()
    statistics: Mapping[str, Any] = field(default_factory=dict)
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
        """Hash of everything but what was captured: two captures with the same one make the same bytes."""
        return sha256_json({**self.to_json(), "segments": [], "shards": [], "statistics": {}})

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
            "selection": dict(self.selection),
            "first_image": self.first_image,
            "first_shard": self.first_shard,
            "segments": [dict(s) for s in self.segments],
            "shards": [dict(s) for s in self.shards],
            "statistics": dict(self.statistics),
        }

    @property
    def aligned(self) -> bool:
        """Whether every image has the same tokens, so that they can be read as (image, token, width)."""
        return self.selection["tokens"] in {"all", "cls", "patches"} and not self.selection["per_image"]

    def to_bytes(self) -> bytes:
        """Return the manifest as JSON with a checksum of its own content."""
        return sealed_json_bytes(self.to_json())

    def write(self, path: Path) -> None:
        """Write the manifest with a checksum of its own content."""
        write_bytes(path, self.to_bytes())

    @classmethod
    def read(cls, path: Path) -> StoreManifest:
        """Read a plan or a manifest; see :meth:`from_bytes`.

        Raises
        ------
        FileNotFoundError
            If there is no such file.

        """
        return cls.from_bytes(Path(path).read_bytes(), str(path))

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> StoreManifest:
        """Undo :meth:`to_bytes`; `path` names the file where it is damaged.

        Raises
        ------
        DamagedFileError
            If the file is not JSON, does not match its checksum, is of another version, or lacks a key.

        """
        raw = parse_json(data, path)
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if version != FORMAT_VERSION:
            raise DamagedFileError(f"{path} is of format {version}, this version reads {FORMAT_VERSION}: capture again")
        raw = unsealed(raw, path)
        try:
            sites = {name: site_from_json(s) for name, s in raw["sites"].items()}
            lists = {name: tuple(raw[name]) for name in ("segments", "shards")}
            return cls(**{**raw, "sites": sites, **lists})
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
