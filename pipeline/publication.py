"""The parts of the merged records, and records.json, which names those that count.

Somebody may still read the parts that were named before, and another merge may be about to name its own. So a part
that nobody names is deleted by the second publication that finds it so, not by the first.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.records import SCHEMA
from pipeline.store import Store
from pipeline.units import Output

RECORDS_KEY = "records/records.json"

_ROW_GROUP = 10_000


def write_part(store: Store, table: pa.Table, number: int) -> dict[str, Any]:
    """Upload a part; what records.json says of it."""
    with tempfile.TemporaryDirectory(prefix="noisyactions-") as folder:
        path = Path(folder) / "part.parquet"
        with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
            for start in range(0, len(table), _ROW_GROUP):
                # Where DuckDB's threads cut their chunks would show in the file's pages.
                writer.write_table(table.slice(start, _ROW_GROUP).combine_chunks().cast(SCHEMA))
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        output = Output(f"records/{number:05d}-{sha256[:8]}.parquet", path.stat().st_size, sha256)
        store.upload(output.key, path)
    return {**asdict(output), "rows": len(table)}


def publish(
    store: Store, parts: Sequence[Mapping[str, Any]], outcomes: Counter[str], made_with: Mapping[str, Any] | None = None
) -> None:
    """Name the parts; delete what neither this publication nor the one before names, nor anything younger.

    Raises:
        UserError: other merges that ended meanwhile have deleted a part.
    """
    before = published(store) or {}
    named, named_before = ({part["key"] for part in each} for each in (parts, before.get("parts", ())))
    there = {key for key in store.list("records/") if key.endswith(".parquet")}
    if named - there:
        raise UserError(f"{store.url}/{min(named - there)} is gone, by other crawls of this root: run this one again")
    unnamed = there - named
    stale = unnamed & set(before.get("unnamed", ())) - named_before
    document = {
        "parts": parts,
        "outcomes": dict(sorted(outcomes.items())),
        "videos": outcomes.total(),
        **(made_with or {}),
        "unnamed": sorted(unnamed - stale),
    }
    store.write(RECORDS_KEY, json.dumps(document, indent=1).encode())
    for key in stale:
        store.delete(key)


def published(store: Store) -> dict[str, Any] | None:
    """What records.json says; None if there is none."""
    try:
        document: dict[str, Any] = json.loads(store.read(RECORDS_KEY))
    except FileNotFoundError:
        return None
    return document


def read_part(store: Store, part: Mapping[str, Any]) -> bytes | None:
    """A part's bytes; None if it is gone.

    Raises:
        UserError: it is not what records.json says.
    """
    try:
        data = store.read(part["key"])
    except FileNotFoundError:
        return None
    if hashlib.sha256(data).hexdigest() != part["sha256"]:
        raise UserError(f"{part['key']} in {store.url} is damaged: run `noisyactions crawl` on it again")
    return data
