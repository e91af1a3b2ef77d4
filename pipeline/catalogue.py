"""All that is known of each video, merged from what the crawl's stages committed; in bounded memory, by DuckDB.

    found (crawl, ids, recapture)  a video's latest row, and the union of its concepts, sentences and findings
    info                           wins over what search told; its texts and tags only where it has any
    sizes, comments                give the renditions and the comments

Of several answers of one stage the one that did not drop the video counts, and of info the latest. Rows are sorted by
video id on disk, then merged range by range, for DuckDB cannot spill the lists that are made here; a range is a part:

records/<nnnnn>-<sha8>.parquet   pipeline.records.SCHEMA, one row per video, sorted by video id over all parts
records/classes.csv              concept,videos,kept
records/records.json             written last: the parts, the videos by outcome, and the filters (pipeline.publication)
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipeline import merging, publication
from pipeline.answers import utc_now
from pipeline.errors import UserError
from pipeline.merging import Stage
from pipeline.publication import publish, published, read_part, write_part
from pipeline.records import SCHEMA, VideoRecord, from_parquet, to_row
from pipeline.scan import committed_tables, load, local_files, open_database, quoted, rows_of
from pipeline.store import Store
from pipeline.vocabulary import Query

RECORDS_KEY = publication.RECORDS_KEY
CLASSES_KEY = "records/classes.csv"

SEARCH_JOBS = ("crawl", "recapture")
STAGES: tuple[Stage, ...] = ("info", "sizes", "comments")

_QUERIES = pa.schema([("text", pa.string()), ("concept", pa.string()), ("kind", pa.string())])
_ROWS_PER_VIDEO = 10
"""Found rows that a range has room for, for each video it has room for."""
_PROCESSING_SECONDS = 86400
"""After this a video that Flickr was still processing is asked about once more."""


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
    queries: Iterable[Query] | None = None,
    cache: Path | None = None,
    memory_bytes: int = 2 << 30,
    videos_per_part: int = 100_000,
) -> Iterator[Catalogue]:
    """What the committed outputs of all stages say by now; a stage that has not run yet says nothing.

    `min_videos` is how many videos a concept must have found to be a class; videos of an id list need no class. With
    `queries` what others found, of a former vocabulary, does not count. The folder `cache` keeps what was read and
    fetched for the next call of the same run; no commit may be replaced between. DuckDB uses `memory_bytes`, and disk
    for the rest; the process a few hundred MiB more.

    Raises:
        UserError: a committed file is missing, or is not Parquet; or there is not enough memory or disk.
    """
    if min_videos < 1:
        raise UserError(f"min_videos {min_videos}: a class needs at least 1")
    with ExitStack() as stack:

        def files(*jobs: str) -> list[str]:
            outputs = [output for job in jobs for output in committed_tables(store, job, cache=cache)]
            return stack.enter_context(local_files(store, outputs, check=False, cache=cache))

        found = _Found(searched=files(*SEARCH_JOBS), listed=files("ids"), any_query=queries is None)
        answers = {stage: files(stage) for stage in STAGES}
        database = stack.enter_context(open_database(memory_bytes=memory_bytes))
        num_left_out = _load_found(database, found, queries or ())
        for stage in STAGES:
            load(database, merging.ANSWERED[stage], files=answers[stage], schema=SCHEMA)
        query = merging.RANGES.format(videos=videos_per_part, rows=videos_per_part * _ROWS_PER_VIDEO)
        ranges = tuple(f"video_id BETWEEN {quoted(a)} AND {quoted(b)}" for a, b in rows_of(database, query))
        _judge(database, ranges, keep=keep, min_videos=min_videos)
        made_with = {"keep": asdict(keep), "min_videos": min_videos}
        yield Catalogue(store, database, ranges, found, answers, made_with, num_left_out)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """The files of rows that tell which videos there are."""

    searched: Sequence[str]
    listed: Sequence[str]
    any_query: bool
    """Whether rows of searches count whichever query found them; else those of the table `queries` do."""

    def load(self, database: duckdb.DuckDBPyConnection, table: str, query: str) -> None:
        """Make a table by a query of pipeline.merging, with the rows of searches first."""
        for head, files, listed in (
            (f"CREATE TABLE {table} AS", self.searched, False),
            (f"INSERT INTO {table}", self.listed, True),
        ):
            counts = merging.counts(listed=listed, any_query=self.any_query)
            load(database, head + query.format(listed=listed, counts=counts), files=files, schema=SCHEMA)


def _load_found(database: duckdb.DuckDBPyConnection, found: _Found, queries: Iterable[Query]) -> int:
    """Make the table `sightings` of the rows that count; how many videos only the others tell of."""
    rows = pa.Table.from_pylist([asdict(query) for query in queries], schema=_QUERIES)
    database.register("asked", rows)
    database.execute("CREATE TABLE queries AS SELECT DISTINCT text, concept, kind FROM asked")
    database.unregister("asked")
    found.load(database, "sightings", merging.SIGHTINGS)
    if found.any_query:
        return 0
    num_left_out = int(rows_of(database, merging.LEFT_OUT)[0][0])
    database.execute("DELETE FROM sightings WHERE NOT counts")
    return num_left_out


def _judge(database: duckdb.DuckDBPyConnection, ranges: Sequence[str], *, keep: Keep, min_videos: int) -> None:
    """Make the tables `classes` and `videos`: what each video's answers so far amount to."""
    database.execute("CREATE TABLE class_counts (concept VARCHAR, videos BIGINT)")
    for within in ranges:
        database.execute(merging.COUNT_CLASSES.format(within=within))
    database.execute(merging.CLASSES.format(min_videos=min_videos))
    database.execute(merging.VIDEOS)
    old = utc_now() - _PROCESSING_SECONDS
    for within in ranges:
        database.execute(merging.JUDGE.format(within=within, filters=_filters(keep), old=old))


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every video found, with what its stages answered; made by `open_catalogue` and good while that is open."""

    _store: Store
    _database: duckdb.DuckDBPyConnection
    _ranges: tuple[str, ...]
    """Conditions on video_id, in order, that together take every video once."""
    _found: _Found
    _answers: Mapping[Stage, Sequence[str]]
    _made_with: Mapping[str, Any]
    num_left_out: int
    """Videos that stay out because only queries of a former vocabulary found them."""

    def num_found(self) -> int:
        """Distinct videos."""
        return int(rows_of(self._database, "SELECT count(*) FROM videos")[0][0])

    def waiting(self, stage: Stage, *, all_comments: bool = False) -> Iterator[tuple[str, ...]]:
        """(video_id, secret, owner; "" if unknown) of the videos yet to be asked about in a stage, sorted by video_id.

        One that was still being processed a day ago or earlier is asked about again, and has a fourth word: when info
        answered last, Unix seconds. Not those that what is known so far rules out. Comments are asked only where there
        are some, or with `all_comments` everywhere.
        """
        wanted = f"NOT {stage} AND filtered IS NULL"
        if stage != "info":
            wanted += " AND info_dropped IS NULL"
        if stage == "comments":
            wanted += " AND sizes_dropped IS NULL" + ("" if all_comments else " AND num_comments > 0")
        for within in self._ranges:
            known = "video_id, coalesce(secret, ''), coalesce(owner, ''), again::VARCHAR"
            query = f"SELECT {known} FROM videos WHERE {within} AND {wanted} ORDER BY video_id"
            yield from (row if row[-1] is not None else row[:-1] for row in rows_of(self._database, query))

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
            parts.append(write_part(self._store, table, number))
        self._write_classes()
        publish(self._store, parts, outcomes, self._made_with)
        return dict(sorted(outcomes.items()))

    def _read_texts(self) -> None:
        for table in ("candidates", "infos", "all_sizes", "all_comments"):
            self._database.execute(f"DROP TABLE IF EXISTS {table}")
        self._found.load(self._database, "candidates", merging.CANDIDATES)
        for stage in STAGES:
            load(self._database, merging.ANSWERS[stage], files=self._answers[stage], schema=SCHEMA)

    def _write_classes(self) -> None:
        query = "SELECT concept, videos, kept::INTEGER FROM classes ORDER BY videos DESC, concept"
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("concept", "videos", "kept"))
        writer.writerows(rows_of(self._database, query))
        self._store.write(CLASSES_KEY, text.getvalue().encode())


def write_records(store: Store, records: Iterable[VideoRecord]) -> None:
    """Make these records, which no crawl found, the root's; sorted by video id."""
    table = pa.Table.from_pylist([to_row(record) for record in records], schema=SCHEMA)
    outcomes = Counter(word or "ok" for word in table["dropped"].to_pylist())
    publish(store, [write_part(store, table, 0)], outcomes)


def last_filters(store: Store) -> tuple[Keep, int] | None:
    """What the merged records were made with, `keep` and `min_videos`; None if the root has none of a crawl."""
    document = published(store) or {}
    if "keep" not in document:
        return None
    licenses = document["keep"]["licenses"]
    keep = Keep(**document["keep"] | {"licenses": None if licenses is None else tuple(licenses)})
    return keep, int(document["min_videos"])


def record_keys(store: Store) -> list[str]:
    """The parts of the merged records, in the order of their videos.

    Raises:
        UserError: the root has none.
    """
    return [part["key"] for part in _parts(store)]


def _parts(store: Store) -> list[dict[str, Any]]:
    document = published(store)
    if document is None:
        raise UserError(f"{store.url} holds no records: run `noisyactions crawl` on it first")
    parts: list[dict[str, Any]] = document["parts"]
    return parts


def iter_records(store: Store) -> Iterator[VideoRecord]:
    """The merged records, sorted by video id, with a part at a time in memory.

    Where they are merged anew meanwhile, and a part is gone, the videos that follow are the new ones.

    Raises:
        UserError: the root has none, or a part is missing or not what records.json says.
    """
    left, last, anew = _parts(store), "", False
    while left:
        part, *rest = left
        data = read_part(store, part)
        if data is None:
            left = _parts(store)
            if anew or part in left:
                raise UserError(f"{part['key']} is missing in {store.url}: run `noisyactions crawl` on it again")
            anew = True
            continue
        for record in from_parquet(data):
            if not anew or record.video_id > last:
                last = record.video_id
                yield record
        left = rest


def read_records(store: Store) -> list[VideoRecord]:
    """All merged records at once, sorted by video id: for roots that fit in memory.

    Raises:
        UserError: see `iter_records`.
    """
    return list(iter_records(store))
