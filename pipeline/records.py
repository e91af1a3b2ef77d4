"""VideoRecord: what is known of one video before its bytes are fetched; and its Parquet form."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Comment:
    """One comment; its author only as a keyed hash."""

    author_hash: str
    text: str
    posted: int
    """Unix seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendition:
    """One size in which a source offers the video."""

    label: str
    url: str
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Where a record came from: which query, in which upload-date window, on which page, when."""

    query: str
    window: str
    page: int
    crawled: int
    """Unix seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoRecord:
    """One video with all its metadata (paper, section 3); absent is None or an empty tuple, never a guess."""

    video_id: str
    source: str = "flickr"
    """Where it is from: `flickr`, `folder`, `table`, `ucf101`, `hmdb51`."""
    renditions: tuple[Rendition, ...] = ()
    """Play URLs (resolved again at each download) or `file://` paths."""
    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    comments: tuple[Comment, ...] = ()
    posted: int | None = None
    """Unix seconds of the upload."""
    taken: str | None = None
    """ISO date and time that the camera gave, None where unknown."""
    latitude: float | None = None
    longitude: float | None = None
    country: str | None = None
    """Country name as the source wrote it."""
    duration_seconds: float | None = None
    license: int | None = None
    owner: str | None = None
    secret: str | None = None
    views: int | None = None
    num_comments: int | None = None
    """As the source counts them; `comments` holds those that were asked for."""
    safety_level: int | None = None
    """Flickr's: 0 safe, 1 moderate, 2 restricted."""
    concepts: tuple[str, ...] = ()
    """The query actions that found it: its noisy labels."""
    sentences: tuple[str, ...] = ()
    """The long-sentence queries that found it."""
    found: tuple[Found, ...] = ()
    split: str | None = None
    """`train` or `test` in an official downstream list, else None."""
    dropped: str | None = None
    """A reason (pipeline.errors.REASONS) why it need not be fetched."""


_COMMENT = pa.struct([("author_hash", pa.string()), ("text", pa.string()), ("posted", pa.int64())])
_RENDITION = pa.struct([("label", pa.string()), ("url", pa.string()), ("width", pa.int32()), ("height", pa.int32())])
_FOUND = pa.struct([("query", pa.string()), ("window", pa.string()), ("page", pa.int32()), ("crawled", pa.int64())])

SCHEMA = pa.schema([
    ("video_id", pa.string()), ("source", pa.string()), ("renditions", pa.list_(_RENDITION)),
    ("title", pa.string()), ("description", pa.string()), ("tags", pa.list_(pa.string())),
    ("comments", pa.list_(_COMMENT)), ("posted", pa.int64()), ("taken", pa.string()),
    ("latitude", pa.float64()), ("longitude", pa.float64()), ("country", pa.string()),
    ("duration_seconds", pa.float64()), ("license", pa.int32()), ("owner", pa.string()), ("secret", pa.string()),
    ("views", pa.int64()), ("num_comments", pa.int64()), ("safety_level", pa.int32()),
    ("concepts", pa.list_(pa.string())), ("sentences", pa.list_(pa.string())),
    ("found", pa.list_(_FOUND)), ("split", pa.string()), ("dropped", pa.string()),
])  # fmt: skip
"""Parquet columns, one per field of VideoRecord, in the same order."""

_MAX_ID_LENGTH = 80
"""With its hash an id still fits into a tar member's name."""

LOCAL_SOURCES = frozenset({"folder", "ucf101", "hmdb51"})
"""Sources whose renditions are `file://` addresses that we made ourselves."""

_NESTED = {"renditions": Rendition, "comments": Comment, "found": Found}


def safe_id(name: str) -> str:
    """A name as a video id: other characters than letters, digits, `_` and `-` become `_`; a hash keeps it unique."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if plain == name and len(name) <= _MAX_ID_LENGTH:
        return name
    return f"{plain[: _MAX_ID_LENGTH - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def to_row(record: VideoRecord) -> dict[str, Any]:
    """A record as a Parquet row (tuples as lists)."""
    row = {name: getattr(record, name) for name in SCHEMA.names}  # asdict copies deeply, which takes twice as long
    for name, value in row.items():
        if isinstance(value, tuple):
            row[name] = [asdict(item) for item in value] if name in _NESTED else list(value)
    return row


def from_row(row: dict[str, Any]) -> VideoRecord:
    """The record of a Parquet row; columns that are not a record's are passed over."""
    values: dict[str, Any] = {}
    for column in fields(VideoRecord):
        value = row.get(column.name)
        if column.name in _NESTED:
            values[column.name] = tuple(_NESTED[column.name](**item) for item in value or ())
        elif isinstance(value, list):
            values[column.name] = tuple(value)
        elif value is not None:
            values[column.name] = value
    return VideoRecord(**values)


def to_parquet(records: Iterable[VideoRecord]) -> bytes:
    """Records as the bytes of one Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([to_row(r) for r in records], schema=SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def from_parquet(data: bytes) -> Iterator[VideoRecord]:
    """Records of one Parquet file, in order.

    Raises:
        UserError: the bytes are not Parquet, or lack `video_id`.
    """
    try:
        table = pq.read_table(io.BytesIO(data))
    except pa.ArrowInvalid as error:
        raise UserError(f"not a Parquet file of records: {error}") from error
    if "video_id" not in table.column_names:
        raise UserError(f"no column video_id among {table.column_names}")
    for batch in table.to_batches(max_chunksize=1024):
        yield from map(from_row, batch.to_pylist())
