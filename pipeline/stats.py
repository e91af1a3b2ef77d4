"""The paper's Table 2 and the data of its Figures 1, 2 and 4, by SQL over the rows of our own shards.

The paper's numbers do not add up among themselves (more short videos than videos), so they are never inputs here.
Durations are those of the sources, probed where a video was built, else what the metadata says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.scan import load, open_database, quoted, rows_of
from pipeline.shards import SHARD_SCHEMA

ANNOTATIONS = pa.schema([
    ("video_id", pa.string()), ("country_iso", pa.string()), ("entities", pa.list_(pa.string())),
])  # fmt: skip
"""Columns of annotations/annotations.parquet."""

_ASKED = """
    CREATE TABLE asked AS
    SELECT video_id, {outcome}, len(tags) AS tags, len(comments) AS comments, posted, license, concepts, filename,
           duration_seconds, {built}
    FROM {{source}}"""

_OF_A_SHARD = {
    "outcome": "outcome, detail",
    "built": "source_duration_seconds, mp4_size, num_frames",
}
_OF_RECORDS = {
    "outcome": "coalesce(dropped, 'ok') AS outcome, '' AS detail",
    "built": "NULL::DOUBLE AS source_duration_seconds, NULL::BIGINT AS mp4_size, NULL::INTEGER AS num_frames",
}

_VIDEOS = """
    CREATE TABLE videos AS
    SELECT a.*, country_iso, entities, coalesce(source_duration_seconds, duration_seconds) AS duration
    FROM asked a LEFT JOIN annotations USING (video_id) WHERE outcome = 'ok'
"""


@dataclass(frozen=True, slots=True)
class Statistic:
    """A row of the table."""

    name: str
    value: float | None
    """None where nothing is known of it."""
    unit: str = ""


@contextmanager
def open_statistics(
    files: Sequence[str], *, annotations: Sequence[str] = (), memory_bytes: int = 1 << 30
) -> Iterator[Statistics]:
    """Statistics of the rows of Parquet files, all of shards or all of records, and of annotations.

    What is counted is kept on disk in a temporary folder; DuckDB uses up to `memory_bytes`.

    Raises:
        UserError: a file is not Parquet, or lacks a column.
    """
    of_records = bool(files) and "outcome" not in pq.read_schema(files[0]).names
    asked = _ASKED.format(**_OF_RECORDS if of_records else _OF_A_SHARD)
    with open_database(memory_bytes=memory_bytes) as database:
        load(database, asked, files=files, schema=SHARD_SCHEMA)
        columns = ", ".join(ANNOTATIONS.names)
        load(
            database,
            f"CREATE TABLE annotations AS SELECT {columns} FROM {{source}}",
            files=annotations,
            schema=ANNOTATIONS,
        )
        database.execute(_VIDEOS)
        yield Statistics(database)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Answers questions on the rows of a root; only `ok` videos count but in `outcomes` and `num_asked`."""

    _database: duckdb.DuckDBPyConnection

    def _query(self, sql: str) -> list[Any]:
        return rows_of(self._database, sql)

    def _one(self, expression: str, source: str = "videos") -> Any:
        return self._query(f"SELECT {expression} FROM {source}")[0][0]

    def num_asked(self) -> int:
        """Records asked for, whatever became of them."""
        return int(self._one("count(*)", "asked"))

    def num_videos(self) -> int:
        """Videos that were built."""
        return int(self._one("count(*)"))

    def table2(self) -> list[Statistic]:
        """The rows of the paper's Table 2, in its order; averages are over the videos that have the thing."""
        located = "videos WHERE country_iso IS NOT NULL"
        return [
            Statistic("Countries", self._one("count(DISTINCT country_iso)", located)),
            Statistic("Videos per country", self._one("count(*) / nullif(count(DISTINCT country_iso), 0)", located)),
            Statistic("Labels per video", self._one("avg(len(concepts))")),
            Statistic("Mean duration", self._one("avg(duration)"), "s"),
            Statistic("Videos shorter than 60 s", self._one("count(*)", "videos WHERE duration < 60")),
            Statistic("Videos of 60 to 120 s", self._one("count(*)", "videos WHERE duration BETWEEN 60 AND 120")),
            Statistic("Entities per video", self._one("avg(len(entities))", "videos WHERE len(entities) > 0")),
            Statistic("Videos with tags", self._one("count(*)", "videos WHERE tags > 0")),
            Statistic("Tags per video with any", self._one("avg(tags)", "videos WHERE tags > 0")),
            Statistic("Videos with comments", self._one("count(*)", "videos WHERE comments > 0")),
            Statistic("Comments per video with any", self._one("avg(comments)", "videos WHERE comments > 0")),
        ]

    def outcomes(self) -> list[tuple[str, int, str | None]]:
        """(outcome, videos, a detail as an example) of every record asked for, most frequent first."""
        return self._query(
            """SELECT outcome, count(*) AS n, min(nullif(detail, '')) FROM asked
               GROUP BY outcome ORDER BY outcome <> 'ok', n DESC, outcome"""
        )

    def class_sizes(self) -> list[tuple[str, int]]:
        """Figure 1: (concept, videos), most frequent first."""
        return self._query(
            "SELECT concept, count(*) n FROM (SELECT unnest(concepts) concept FROM videos) GROUP BY 1 "
            "ORDER BY n DESC, 1"
        )

    def entity_sizes(self) -> list[tuple[str, int]]:
        """Figure 2: (entity, videos), most frequent first."""
        return self._query(
            "SELECT entity, count(*) n FROM (SELECT unnest(entities) entity FROM videos) GROUP BY 1 ORDER BY n DESC, 1"
        )

    def country_sizes(self) -> list[tuple[str, int]]:
        """Figure 4: (ISO 3166 alpha-2 code, videos), most frequent first."""
        return self._query(
            "SELECT country_iso, count(*) n FROM videos WHERE country_iso IS NOT NULL GROUP BY 1 ORDER BY n DESC, 1"
        )

    def labels_per_video(self) -> list[tuple[int, int]]:
        """(number of labels, videos)."""
        return self._query("SELECT len(concepts) k, count(*) FROM videos GROUP BY 1 ORDER BY 1")

    def years(self) -> list[tuple[int, int]]:
        """(year of the upload in UTC, videos)."""
        return self._query(
            """SELECT year(make_timestamp(posted * 1000000)) y, count(*) FROM videos WHERE posted IS NOT NULL
               GROUP BY 1 ORDER BY 1"""
        )

    def licenses(self) -> list[tuple[int | None, int]]:
        """(Flickr's licence number or None, videos), most frequent first."""
        return self._query("SELECT license, count(*) n FROM videos GROUP BY 1 ORDER BY n DESC, 1")

    def durations(self) -> list[float]:
        """Seconds of every video whose duration is known, sorted."""
        relation = self._database.sql("SELECT duration FROM videos WHERE duration IS NOT NULL ORDER BY 1")
        seconds: list[float] = relation.fetchnumpy()["duration"].tolist()
        return seconds

    def stored(self) -> tuple[int, int]:
        """(bytes of all stored videos, frames in them)."""
        return tuple(self._query("SELECT coalesce(sum(mp4_size), 0), coalesce(sum(num_frames), 0) FROM videos")[0])

    def sample_ids(self, count: int) -> Sequence[str]:
        """Video ids spread over concepts: always the same ones of the same rows."""
        return [
            row[0]
            for row in self._query(
                f"""SELECT video_id FROM (
                      SELECT video_id, row_number() OVER (PARTITION BY concepts[1] ORDER BY md5(video_id)) turn
                      FROM videos) ORDER BY turn, md5(video_id) LIMIT {int(count)}"""
            )
        ]

    def files_of(self, video_ids: Sequence[str]) -> dict[str, str]:
        """In which of the files each of these videos is."""
        if not video_ids:
            return {}
        listed = ", ".join(map(quoted, video_ids))
        return dict(self._query(f"SELECT video_id, filename FROM videos WHERE video_id IN ({listed})"))
