"""All that is known of each video, merged from what the crawl's stages committed; in bounded memory, by DuckDB.

    found (crawl, ids, recapture)  a video's latest row, and the union of its concepts, sentences and findings
    info                           wins over what search told; its texts and tags only where it has any
    sizes, comments                give the renditions and the comments

Of several answers of one stage the one that did not drop the video counts. Rows are sorted by video id on disk, then
merged range by range, for DuckDB cannot spill the lists that are made here; a range is a part:

records/<nnnnn>-<sha8>.parquet   pipeline.records.SCHEMA, one row per video, sorted by video id over all parts
records/classes.csv              concept,videos,kept
records/records.json             written last: the parts, and the videos by outcome; other parts are then deleted
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import merging
from pipeline.errors import UserError
from pipeline.merging import Stage
from pipeline.records import SCHEMA, VideoRecord, from_parquet, to_row
from pipeline.scan import load, local_files, open_database, quoted, rows_of
from pipeline.store import Store
from pipeline.units import Ledger, Output

RECORDS_KEY = "records/records.json"
CLASSES_KEY = "records/classes.csv"

FOUND_JOBS = ("crawl", "ids", "recapture")
STAGES: tuple[Stage, ...] = ("info", "sizes", "comments")

_ROWS_PER_VIDEO = 10
"""Found rows that a range has room for, for each video it has room for."""
_ROW_GROUP = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep:
    """Which videos are wanted; what is not known of a video is not held against it."""

    licenses: tuple[int, ...] | None = None
    """Flickr's numbers of the licences wanted (4 is CC BY, 9 is CC0); all if not given."""
    min_seconds: float | None = None
    """Shortest duration wanted, in seconds."""
    max_seconds: float | None = None
    """Longest duration wanted, in seconds."""
    max_safety_level: int | None = None
    """0 takes safe videos only, 1 moderate ones too, 2 restricted ones too, as does leaving it out."""
    posted_since: int | None = None
    """Uploads from here on, Unix seconds."""
    posted_until: int | None = None
    """Uploads up to here, Unix seconds."""

    def __post_init__(self) -> None:
        if self.licenses is not None and (not self.licenses or min(self.licenses) < 0):
            raise UserError(f"licenses {self.licenses}: name Flickr's numbers from 0 on, or leave it out for all")
        if self.max_safety_level not in (None, 0, 1, 2):
            raise UserError(f"max_safety_level {self.max_safety_level}: use 0 (safe), 1 (moderate) or 2 (restricted)")
        shortest = 0.0 if self.min_seconds is None else self.min_seconds
        longest = float("inf") if self.max_seconds is None else self.max_seconds
        if not 0 <= shortest <= longest:
            raise UserError(f"min_seconds {shortest}, max_seconds {longest}: no duration is from the one to the other")
        if self.posted_since is not None and self.posted_until is not None and self.posted_since > self.posted_until:
            raise UserError(f"posted_since {self.posted_since} is after posted_until {self.posted_until}")


def _filters(keep: Keep) -> str:
    """WHEN clauses for a CASE, in the order in which they are told; a comparison with NULL is not true."""
    words = {
        "filtered_license": f"license NOT IN ({', '.join(map(str, keep.licenses))})" if keep.licenses else None,
        "filtered_date": _outside("posted", keep.posted_since, keep.posted_until),
        "filtered_safety": _outside("safety_level", None, keep.max_safety_level),
        "filtered_duration": _outside("duration_seconds", keep.min_seconds, keep.max_seconds),
    }
    return " ".join(f"WHEN {condition} THEN '{word}'" for word, condition in words.items() if condition)


def _outside(column: str, low: float | None, high: float | None) -> str:
    below = [] if low is None else [f"{column} < {low!r}"]
    above = [] if high is None or high == float("inf") else [f"{column} > {high!r}"]
    return " OR ".join(below + above)


@contextmanager
def open_catalogue(
    store: Store,
    *,
    keep: Keep = Keep(),
    min_videos: int = 1,
    memory_bytes: int = 2 << 30,
    videos_per_part: int = 100_000,
) -> Iterator[Catalogue]:
    """What the committed outputs of all stages say by now; a stage that has not run yet says nothing.

    `min_videos` is how many videos a concept must have found to be a class. DuckDB uses `memory_bytes`, and disk for
    the rest; the process a few hundred MiB more.

    Raises:
        UserError: a committed file is missing, or is not Parquet.
    """
    if min_videos < 1:
        raise UserError(f"min_videos {min_videos}: a class needs at least 1")
    with ExitStack() as stack:

        def files(*jobs: str) -> list[str]:
            commits = (commit for job in jobs for commit in Ledger(store, job, {}).commits())
            outputs = [output for commit in commits for output in commit.outputs if output.key.endswith(".parquet")]
            return stack.enter_context(local_files(store, outputs, check=False))

        found = files(*FOUND_JOBS)
        answers = {stage: files(stage) for stage in STAGES}
        database = stack.enter_context(open_database(memory_bytes=memory_bytes))
        load(database, merging.SIGHTINGS, files=found, schema=SCHEMA)
        for stage in STAGES:
            load(database, merging.ANSWERED[stage], files=answers[stage], schema=SCHEMA)
        query = merging.RANGES.format(videos=videos_per_part, rows=videos_per_part * _ROWS_PER_VIDEO)
        ranges = tuple(f"video_id BETWEEN {quoted(a)} AND {quoted(b)}" for a, b in rows_of(database, query))
        _judge(database, ranges, keep=keep, min_videos=min_videos)
        yield Catalogue(store, database, ranges, found, answers)


def _judge(database: duckdb.DuckDBPyConnection, ranges: Sequence[str], *, keep: Keep, min_videos: int) -> None:
    """Make the tables `classes` and `videos`: what each video's answers so far amount to."""
    database.execute("CREATE TABLE class_counts (concept VARCHAR, videos BIGINT)")
    for within in ranges:
        database.execute(merging.COUNT_CLASSES.format(within=within))
    database.execute(merging.CLASSES.format(min_videos=min_videos))
    database.execute(merging.VIDEOS)
    for within in ranges:
        database.execute(merging.JUDGE.format(within=within, filters=_filters(keep)))


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every video found, with what its stages answered; made by `open_catalogue` and good while that is open."""

    _store: Store
    _database: duckdb.DuckDBPyConnection
    _ranges: tuple[str, ...]
    """Conditions on video_id, in order, that together take every video once."""
    _found: Sequence[str]
    _answers: Mapping[Stage, Sequence[str]]

    def num_found(self) -> int:
        """Distinct videos."""
        return int(rows_of(self._database, "SELECT count(*) FROM videos")[0][0])

    def waiting(self, stage: Stage, *, all_comments: bool = False) -> Iterator[tuple[str, str, str]]:
        """(video_id, secret, owner; "" if unknown) of the videos yet to be asked about in a stage, sorted by video_id.

        Not those that what is known so far rules out. Comments are asked only where there are some, or with
        `all_comments` everywhere.
        """
        wanted = f"NOT {stage} AND filtered IS NULL"
        if stage != "info":
            wanted += " AND info_dropped IS NULL"
        if stage == "comments":
            wanted += " AND sizes_dropped IS NULL" + ("" if all_comments else " AND num_comments > 0")
        for within in self._ranges:
            known = "video_id, coalesce(secret, ''), coalesce(owner, '')"
            query = f"SELECT {known} FROM videos WHERE {within} AND {wanted} ORDER BY video_id"
            yield from rows_of(self._database, query)

    def write(self) -> dict[str, int]:
        """Write the merged records; the number of videos by outcome, `ok` or the reason why not."""
        self._read_texts()
        outcomes: Counter[str] = Counter()
        parts = []
        columns = merging.merged_columns(SCHEMA.names)
        for number, within in enumerate(self._ranges):
            query = merging.MERGE.format(within=within, columns=columns)
            table = self._database.sql(query).to_arrow_table()
            outcomes.update("ok" if word is None else word for word in table["dropped"].to_pylist())
            parts.append(_write_part(self._store, table, number))
        self._write_classes()
        _publish(self._store, parts, outcomes)
        return dict(sorted(outcomes.items()))

    def _read_texts(self) -> None:
        for table in ("candidates", "infos", "all_sizes", "all_comments"):
            self._database.execute(f"DROP TABLE IF EXISTS {table}")
        load(self._database, merging.CANDIDATES, files=self._found, schema=SCHEMA)
        for stage in STAGES:
            load(self._database, merging.ANSWERS[stage], files=self._answers[stage], schema=SCHEMA)

    def _write_classes(self) -> None:
        query = "SELECT concept, videos, kept::INTEGER FROM classes ORDER BY videos DESC, concept"
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("concept", "videos", "kept"))
        writer.writerows(rows_of(self._database, query))
        self._store.write(CLASSES_KEY, text.getvalue().encode())


def _write_part(store: Store, table: pa.Table, number: int) -> dict[str, Any]:
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


def _publish(store: Store, parts: Sequence[Mapping[str, Any]], outcomes: Counter[str]) -> None:
    """Name the parts, then delete those of before."""
    document = {"parts": parts, "outcomes": dict(sorted(outcomes.items())), "videos": outcomes.total()}
    store.write(RECORDS_KEY, json.dumps(document, indent=1).encode())
    named = {part["key"] for part in parts}
    for key in [key for key in store.list("records/") if key.endswith(".parquet") and key not in named]:
        store.delete(key)


def write_records(store: Store, records: Iterable[VideoRecord]) -> None:
    """Make these records, which no crawl found, the root's; sorted by video id."""
    table = pa.Table.from_pylist([to_row(record) for record in records], schema=SCHEMA)
    _publish(store, [_write_part(store, table, 0)], Counter(word or "ok" for word in table["dropped"].to_pylist()))


def record_keys(store: Store) -> list[str]:
    """The parts of the merged records, in the order of their videos.

    Raises:
        UserError: the root has none.
    """
    return [part["key"] for part in _parts(store)]


def _parts(store: Store) -> list[dict[str, Any]]:
    try:
        parts: list[dict[str, Any]] = json.loads(store.read(RECORDS_KEY))["parts"]
    except FileNotFoundError as error:
        raise UserError(f"{store.url} holds no records: run `noisyactions crawl` on it first") from error
    return parts


def iter_records(store: Store) -> Iterator[VideoRecord]:
    """The merged records, sorted by video id, with a part at a time in memory.

    Raises:
        UserError: the root has none, or a part is missing or not what records.json says.
    """
    for part in _parts(store):
        try:
            data = store.read(part["key"])
        except FileNotFoundError as error:
            raise UserError(f"{part['key']} is missing in {store.url}: run `noisyactions crawl` on it again") from error
        if hashlib.sha256(data).hexdigest() != part["sha256"]:
            raise UserError(f"{part['key']} in {store.url} is damaged: run `noisyactions crawl` on it again")
        yield from from_parquet(data)


def read_records(store: Store) -> list[VideoRecord]:
    """All merged records at once, sorted by video id: for roots that fit in memory.

    Raises:
        UserError: see `iter_records`.
    """
    return list(iter_records(store))
