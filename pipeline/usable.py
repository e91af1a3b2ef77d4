"""Rows of shards -> what splits are made from: numbers in place of texts, of which millions would fill the memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.shards import SHARD_SCHEMA

Ints = npt.NDArray[np.int64]

COLUMNS = ("video_id", "outcome", "title", "description", "tags", "comments", "concepts", "owner")
"""The columns of a shard's rows that splits are made from."""

ROWS_SCHEMA = pa.schema([SHARD_SCHEMA.field(name) for name in COLUMNS])

FIELDS = ("title", "description", "tags", "comments")
"""Where words are counted."""

_ROWS_AT_ONCE = 4096
_WORD = "[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
"""A run of characters that are not white space to Python's `str.split`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Usable:
    """The `ok` rows, in the order they were read; `pair_*` hold each distinct pair of a row and a concept of it."""

    video_ids: pa.ChunkedArray
    owners: pa.ChunkedArray
    words: Ints
    """(rows,) of all FIELDS together."""
    missing: npt.NDArray[np.bool_]
    """(rows, fields): there is no word in it."""
    concepts: tuple[str, ...]
    pair_rows: Ints
    """(pairs,), ascending."""
    pair_concepts: Ints
    """(pairs,), positions in `concepts`."""

    def __len__(self) -> int:
        return len(self.words)


def read_batches(files: Iterable[str]) -> Iterator[pa.RecordBatch]:
    """The rows of shards' Parquet files, COLUMNS only, some thousands at a time."""
    for file in files:
        yield from pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=list(COLUMNS))


def count_words(rows: pa.RecordBatch) -> Ints:
    """(rows, fields): words between white space, in the order of FIELDS; tags and comments each by each."""
    counts = {
        "title": _in_texts(rows["title"]),
        "description": _in_texts(rows["description"]),
        "tags": _in_lists(rows["tags"], rows["tags"].flatten()),
        "comments": _in_lists(rows["comments"], pc.struct_field(rows["comments"].flatten(), "text")),
    }
    return np.stack([counts[name] for name in FIELDS], axis=1)


def _in_texts(texts: pa.Array) -> Ints:
    counts: Ints = pc.fill_null(pc.count_substring_regex(texts, pattern=_WORD), 0).to_numpy().astype(np.int64)
    return counts


def _in_lists(lists: pa.ListArray, texts: pa.Array) -> Ints:
    reached = np.concatenate([[0], np.cumsum(_in_texts(texts))])
    lengths = _lengths(lists)
    ends = np.cumsum(lengths)
    sums: Ints = reached[ends] - reached[ends - lengths]
    return sums


def _lengths(lists: pa.ListArray) -> Ints:
    lengths: Ints = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
    return lengths


def read_usable(batches: Iterable[pa.RecordBatch]) -> Usable:
    """Count and forget batch after batch of rows with COLUMNS; about 100 bytes of a row are kept."""
    codes: dict[str, int] = {}
    ids, owners = [], []
    words, missing = [np.zeros(0, np.int64)], [np.zeros((0, len(FIELDS)), np.bool_)]
    pair_rows, pair_concepts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    rows_before = 0
    for batch in batches:
        rows = batch.filter(pc.equal(batch["outcome"], "ok"))
        counts = count_words(rows)
        words.append(counts.sum(axis=1))
        missing.append(counts == 0)
        found = rows["concepts"].flatten().dictionary_encode()
        numbers = np.array([codes.setdefault(name, len(codes)) for name in found.dictionary.to_pylist()], np.int64)
        row_of = np.repeat(np.arange(len(rows)), _lengths(rows["concepts"]))
        pairs = np.unique(row_of * max(1, len(codes)) + numbers[found.indices.to_numpy()])
        pair_rows.append(pairs // max(1, len(codes)) + rows_before)
        pair_concepts.append(pairs % max(1, len(codes)))
        ids.append(rows["video_id"])
        owners.append(rows["owner"])
        rows_before += len(rows)
    return Usable(
        video_ids=pa.chunked_array(ids, pa.string()),
        owners=pa.chunked_array(owners, pa.string()),
        words=np.concatenate(words),
        missing=np.concatenate(missing),
        concepts=tuple(codes),
        pair_rows=np.concatenate(pair_rows),
        pair_concepts=np.concatenate(pair_concepts),
    )
