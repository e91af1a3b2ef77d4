"""Where records come from when no crawl made them: a folder of videos, a table of URLs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.records import Rendition, VideoRecord, safe_id

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".ts", ".mts",
})  # fmt: skip

_TEXT_COLUMNS = ("url", "video_id", "title", "description", "tags", "labels")
_SNIFFED_BYTES = 4096


def folder_records(folder: Path, *, keep_bad_files: bool = False) -> list[VideoRecord]:
    """A record per video file below `folder`, labelled with the folders it lies in, sorted by id.

    Raises:
        UserError: no such folder, no video files in it, or a file that is text (unless `keep_bad_files`, then it
            becomes a row `not_a_video`).
    """
    if not folder.is_dir():
        raise UserError(f"source folder {folder} does not exist")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    if not files:
        raise UserError(f"source folder {folder} holds no video files ({', '.join(sorted(VIDEO_SUFFIXES))})")
    texts = [] if keep_bad_files else [p for p in files if _is_text(p)]
    if texts:
        more = f" (and {len(texts) - 1} more)" if len(texts) > 1 else ""
        raise UserError(
            f"{texts[0]} is text, not a video{more}: remove it, or pass --keep-bad-files to record it as such"
        )
    plain = Counter(_id_of(path.relative_to(folder).with_suffix("")) for path in files)
    records = [_file_record(folder, path, plain=plain) for path in files]
    return sorted(records, key=lambda record: record.video_id)


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
    if not head or b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return len(head) == _SNIFFED_BYTES and error.start > len(head) - 4  # a character cut in two at the end
    return True


def _id_of(relative: Path) -> str:
    return safe_id(relative.as_posix().replace("/", "__"))


def _file_record(folder: Path, path: Path, *, plain: Mapping[str, int]) -> VideoRecord:
    relative = path.relative_to(folder)
    short = _id_of(relative.with_suffix(""))
    return VideoRecord(
        video_id=short if plain[short] == 1 else safe_id(relative.as_posix()),  # a dot in it brings a hash
        source="folder",
        renditions=(Rendition(label="file", url=f"file://{quote(str(path.absolute()))}"),),
        title=path.stem,
        concepts=tuple(relative.parts[:-1]),
    )


def table_records(path: Path) -> list[VideoRecord]:
    """A record per row of a CSV or Parquet file with a column `url`; sorted by id.

    Other columns it knows: video_id (else made from the URL), title, description, tags (separated by `,` in CSV),
    labels (separated by `|` in CSV), license, duration_seconds. A row without an http(s) URL becomes `no_video_url`.

    Raises:
        UserError: not such a file, no column `url`, no rows, or two rows with one video_id.
    """
    table = _read_table(path)
    if "url" not in table.column_names:
        raise UserError(f"{path} has no column 'url'; its columns are {', '.join(table.column_names)}")
    try:
        records = sorted((_row_record(row) for row in _rows(table)), key=lambda record: record.video_id)
    except ValueError as error:
        raise UserError(f"{path}: license and duration_seconds must be numbers: {error}") from error
    if not records:
        raise UserError(f"{path} has no rows")
    for one, other in pairwise(records):
        if one.video_id == other.video_id:
            raise UserError(f"{path}: video_id {one.video_id!r} stands in two rows")
    return records


def _read_table(path: Path) -> pa.Table:
    if not path.is_file():
        raise UserError(f"table {path} does not exist")
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        as_text = {name: pa.string() for name in _TEXT_COLUMNS}  # else 007 would be 7, and 2019-01-01 a date
        return pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=as_text))
    except pa.ArrowInvalid as error:
        raise UserError(
            f"{path} cannot be read as {'Parquet' if path.suffix == '.parquet' else 'CSV'}: {error}"
        ) from error


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1024):
        yield from batch.to_pylist()


def _row_record(row: Mapping[str, Any]) -> VideoRecord:
    url = str(row["url"] or "")
    on_web = url.startswith(("http://", "https://"))
    license_id, duration = row.get("license"), row.get("duration_seconds")
    return VideoRecord(
        video_id=safe_id(str(row.get("video_id") or url)),
        source="table",
        renditions=(Rendition(label="url", url=url),) if on_web else (),
        title=str(row.get("title") or ""),
        description=str(row.get("description") or ""),
        tags=_words(row.get("tags"), ","),
        concepts=_words(row.get("labels"), "|"),
        license=None if license_id is None else int(license_id),
        duration_seconds=None if duration is None else float(duration),
        dropped=None if on_web else "no_video_url",
    )


def _words(value: Any, separator: str) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else str(value or "").split(separator)
    return tuple(text for part in parts if (text := str(part).strip()))
