"""A made-up crawl of any size: the files that its stages would have committed, drawn as whole columns.

Sizes are those of the paper and of Flickr: a video is found by four queries on average and a query finds anything from
a few videos to a hundred times the median; titles have 5 words, descriptions 25, 6 tags, and 12 % have comments.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.records import SCHEMA
from pipeline.shards import SHARD_SCHEMA
from pipeline.store import FolderStore
from pipeline.units import Commit, output_of

Numbers = npt.NDArray[np.uint64]
"""Videos by number; all that is known of one follows from its number."""

_FINDINGS_PER_VIDEO = 4
_QUERIES = 7000
_VIDEOS_PER_QUERY = 250
_FEWEST_QUERIES = 100
_WINDOW_ROWS = 3000
_UNIT_VIDEOS = 50
_SHARD_VIDEOS = 1000
_CHUNK = 50_000
_PHRASES = 4096
_OWNERS = 400_000


@dataclass(frozen=True, slots=True)
class Harvest:
    """What a crawl of `videos` videos leaves in `folder`."""

    folder: Path
    videos: int

    def write(self) -> None:
        """Commit crawl, info, sizes and comments."""
        for name, concept, table in self._queries():
            self._commit("crawl", name, pa.Table.from_pydict(_finding(table, concept), schema=SCHEMA))
        by_id: Numbers = pc.sort_indices(_video_id(np.arange(self.videos, dtype=np.uint64))).to_numpy()
        for start in range(0, self.videos, _CHUNK):
            numbers = by_id[start : start + _CHUNK].astype(np.uint64)
            talked = numbers[_draw(numbers, 40) % 100 < 12]
            for job, columns in (("info", _info(numbers)), ("sizes", _sizes(numbers)), ("comments", _comments(talked))):
                table = pa.Table.from_pydict(columns, schema=SCHEMA)
                for row in range(0, len(table), _UNIT_VIDEOS):
                    self._commit(job, f"{start + row:08d}", table.slice(row, _UNIT_VIDEOS))

    def write_shards(self) -> None:
        """Commit the rows of a build of the merged records; there are no videos."""
        number = 0
        for path in sorted((self.folder / "records").glob("*.parquet")):
            for batch in pq.ParquetFile(path).iter_batches(_SHARD_VIDEOS):
                self._commit("build", f"{number:06d}", _built(pa.Table.from_batches([batch])), folder="shards")
                number += 1

    def _queries(self) -> Iterator[tuple[str, str, Numbers]]:
        """(unit, query, videos): every video is found once, and then by as many queries as chance will have it."""
        rng = np.random.Generator(np.random.Philox(key=self.videos))
        queries = min(_QUERIES, max(_FEWEST_QUERIES, self.videos // _VIDEOS_PER_QUERY))
        weights = rng.lognormal(sigma=1.5, size=queries)
        ends = np.round(np.cumsum(weights / weights.sum()) * self.videos).astype(np.int64)
        everyone = rng.permutation(self.videos).astype(np.uint64)
        for query, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            others = rng.integers(self.videos, size=(end - start) * (_FINDINGS_PER_VIDEO - 1), dtype=np.uint64)
            videos = np.unique(np.concatenate([everyone[start:end], others]))
            for first in range(0, len(videos), _WINDOW_ROWS):
                yield f"{query:05d}-{first}", f"action number {query}", videos[first : first + _WINDOW_ROWS]

    def _commit(self, job: str, unit: str, table: pa.Table, *, folder: str | None = None) -> None:
        """As pipeline.units does, but without waiting for the disk: it is the reading that is measured."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        key = f"{folder or f'{job}/records'}/{unit}.parquet"
        tar = (output_of(f"shards/{unit}.tar", b""),) if job == "build" else ()
        outputs = (*tar, output_of(key, buffer.getvalue()))
        commit = asdict(Commit(unit, "", {"ok": len(table)}, outputs))
        for name, data in ((key, buffer.getvalue()), (f"{job}/commits/{unit}.json", json.dumps(commit).encode())):
            path = FolderStore(self.folder).path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def _draw(numbers: Numbers, salt: int) -> Numbers:
    """A 64-bit draw for each video (SplitMix64); salts name the draws."""
    mixed = (numbers + np.uint64(salt * 1_000_003 + 1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _phrases(words: int) -> pa.Array:
    vocabulary = np.array([f"word{number}" for number in range(2000)])
    drawn = np.random.Generator(np.random.Philox(key=words)).integers(len(vocabulary), size=(_PHRASES, words))
    return pa.array([" ".join(vocabulary[row]) for row in drawn])


def _text(numbers: Numbers, *, words: int, salt: int) -> pa.Array:
    """Texts of two phrases; hardly any two are the same."""
    halves = [
        _phrases(count).take(pa.array(_draw(numbers, salt + part) % _PHRASES))
        for part, count in enumerate((words // 2, words - words // 2))
    ]
    return pc.binary_join_element_wise(*halves, " ")


def _video_id(numbers: Numbers) -> pa.Array:
    return pa.array(numbers * np.uint64(27_499) + np.uint64(500_000_000)).cast(pa.string())  # 9 to 11 digits


def _owner(numbers: Numbers) -> pa.Array:
    people = pa.array(_draw(numbers, 1) % _OWNERS).cast(pa.string())
    return pc.binary_join_element_wise(people, "N00", "@")


def _secret(numbers: Numbers) -> pa.Array:
    return pa.array(_draw(numbers, 2)).cast(pa.string())


def _lists(lengths: npt.NDArray[Any], values: pa.Array) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _where(mask: npt.NDArray[np.bool_], value: object) -> pa.Array:
    """The value there, null elsewhere."""
    return pc.if_else(pa.array(mask), value, pa.scalar(None, pa.scalar(value).type))


def _columns(numbers: Numbers, known: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    """All columns of a record: what a stage does not know is null, or an empty list."""
    columns = {"video_id": _video_id(numbers), "source": pa.array(["flickr"] * len(numbers))}
    columns |= {name: pa.array([""] * len(numbers)) for name in ("title", "description")} | dict(known)
    for field in SCHEMA:
        if field.name not in columns and pa.types.is_list(field.type):
            columns[field.name] = pa.array([[]] * len(numbers), field.type)
        elif field.name not in columns:
            columns[field.name] = pa.nulls(len(numbers), field.type)
    return {field.name: columns[field.name].cast(field.type) for field in SCHEMA}


def _told(numbers: Numbers) -> dict[str, pa.Array]:
    """What both search and info tell."""
    count, talked = len(numbers), _draw(numbers, 40) % 100 < 12
    phrases = _phrases(1).take(pa.array((_draw(np.repeat(numbers, 6) * np.uint64(6) + _sixth(count), 9)) % _PHRASES))
    return {
        "title": _text(numbers, words=5, salt=10),
        "description": _text(numbers, words=25, salt=20),
        "tags": _lists(np.full(count, 6), phrases),
        "posted": pa.array(_draw(numbers, 3) % 400_000_000 + 1_207_000_000),
        "license": pa.array(_draw(numbers, 4) % 6),
        "owner": _owner(numbers),
        "secret": _secret(numbers),
        "views": pa.array(_draw(numbers, 5) % 10_000),
        "num_comments": pa.array(np.where(talked, _draw(numbers, 41) % 9 + 1, 0)),
        "safety_level": pa.array(np.zeros(count, np.int32)),
    }


def _sixth(count: int) -> Numbers:
    return np.tile(np.arange(6, dtype=np.uint64), count)


def _finding(numbers: Numbers, query: str) -> dict[str, pa.Array]:
    count = len(numbers)
    found = pa.StructArray.from_arrays(
        [
            pa.array([query] * count),
            pa.array(["1207008000-1700000000"] * count),
            pa.array(np.arange(count, dtype=np.int32) // 500 + 1),
            pa.array(np.full(count, 1_700_000_000 + int(query.split()[-1]))),
        ],
        names=["query", "window", "page", "crawled"],
    )
    label = "sentences" if query.endswith("00") else "concepts"
    ones = np.ones(count)
    return _columns(
        numbers, _told(numbers) | {"found": _lists(ones, found), label: _lists(ones, pa.array([query] * count))}
    )


def _info(numbers: Numbers) -> dict[str, pa.Array]:
    placed = _draw(numbers, 6) % 10 == 0
    known = _told(numbers) | {
        "taken": pa.array(["2010-09-05 10:43:28"] * len(numbers)),
        "latitude": _where(placed, 28.5),
        "longitude": _where(placed, 77.25),
        "country": _where(placed, "India"),
        "duration_seconds": pa.array((_draw(numbers, 7) % 180).astype(np.float64)),
        "dropped": _where(_draw(numbers, 8) % 100 < 3, "gone"),
    }
    return _columns(numbers, known)


def _sizes(numbers: Numbers) -> dict[str, pa.Array]:
    labels = ("1080p", "720p", "appletv", "360p", "288p")
    each = np.repeat(numbers, len(labels))
    label = pa.array(np.tile(np.array(labels), len(numbers)))
    url = pc.binary_join_element_wise(
        "https://www.flickr.com/photos", _owner(each), _video_id(each), "play", label, _secret(each), "", "/"
    )
    size = pa.array(np.tile(np.array([1080, 720, 0, 360, 288], np.int32), len(numbers)))
    renditions = pa.StructArray.from_arrays([label, url, size, size], names=["label", "url", "width", "height"])
    return _columns(numbers, {"renditions": _lists(np.full(len(numbers), len(labels)), renditions)})


def _comments(numbers: Numbers) -> dict[str, pa.Array]:
    lengths = (_draw(numbers, 41) % 9 + 1).astype(np.int64)
    each = np.repeat(numbers, lengths) * np.uint64(16) + np.arange(lengths.sum()).astype(np.uint64) % np.uint64(16)
    comments = pa.StructArray.from_arrays(
        [_secret(each), _text(each, words=10, salt=50), pa.array(_draw(each, 52) % 400_000_000 + 1_207_000_000)],
        names=["author_hash", "text", "posted"],
    )
    return _columns(numbers, {"comments": _lists(lengths, comments)})


def _built(records: pa.Table) -> pa.Table:
    """Rows of a shard in which every video that was not dropped before is `ok`."""
    columns = {name: records[name] for name in SCHEMA.names}
    columns["outcome"] = pc.fill_null(records["dropped"], "ok")
    columns["mp4_size"] = pc.if_else(pc.is_null(records["dropped"]), 400_000, None)
    columns["num_frames"] = pc.if_else(pc.is_null(records["dropped"]), 300, None)
    columns["source_duration_seconds"] = records["duration_seconds"]
    for field in SHARD_SCHEMA:
        columns.setdefault(field.name, pa.nulls(len(records), field.type))
    return pa.Table.from_arrays([columns[f.name].cast(f.type) for f in SHARD_SCHEMA], schema=SHARD_SCHEMA)
