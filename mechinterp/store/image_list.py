"""The list of a segment's images, ``images/00000.parquet``: what a reader must know of all images before it reads any."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mechinterp.errors import DamagedFileError
from mechinterp.store.shard import parquet_bytes
from mechinterp.store.storage import Storage

COLUMNS = ("id", "label", "group", "split")
_ROWS = "rows: "


def table_of(receipt: Mapping[str, Any]) -> pa.Table:
    """Return the images of one shard, with the number of rows of each where it varies."""
    columns = dict(zip(COLUMNS, zip(*receipt["images"], strict=True), strict=True))
    arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    for site, described in receipt["sites"].items():
        if "rows_of_image" in described:
            arrays[_ROWS + site] = pa.array(described["rows_of_image"], pa.int32())
    return pa.table(arrays)


def list_bytes(tables: Sequence[pa.Table]) -> bytes:
    """Return the list of the images of some shards, in order, as Parquet."""
    return parquet_bytes(pa.concat_tables(tables).combine_chunks())


def read_list(storage: Storage, segments: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the images of all segments: id, label, group, split, and ``rows: SITE`` where that varies.

    Raises
    ------
    DamagedFileError
        If a list is missing or not what was written.

    """
    parts = []
    for segment in segments:
        name, expected = segment["file"]["name"], segment["file"]
        try:
            data = storage.read(name)
        except FileNotFoundError:
            raise DamagedFileError(
                f"{storage.path(name)} is missing: capture again into this folder to mend it"
            ) from None
        if hashlib.sha256(data).hexdigest() != expected["sha256"]:
            raise DamagedFileError(
                f"{storage.path(name)} does not match its checksum: it was cut or altered; "
                "remove it and run the same capture again to mend it"
            )
        table = pq.read_table(pa.BufferReader(pa.py_buffer(data)))
        parts.append(table.to_pandas().astype(dict.fromkeys(COLUMNS, object)))
    images: pd.DataFrame = pd.concat(parts, ignore_index=True)
    for name in COLUMNS:
        images[name] = images[name].where(images[name].notna(), None)
    return images


def rows_column(site: str) -> str:
    """Return the column that says how many rows of a site an image has."""
    return _ROWS + site
