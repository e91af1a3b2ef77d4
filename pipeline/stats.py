"""The paper's Table 2 and the data of its Figures 1, 2 and 4, by SQL over the rows of our own shards.

The paper's numbers do not add up among themselves (more short videos than videos), so they are never inputs here.
Durations are those of the sources, probed where a video was built, else what the metadata says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

COLUMNS = (
    "video_id", "tags", "comments", "posted", "license", "concepts", "duration_seconds", "outcome", "detail",
    "source_duration_seconds", "source_codec", "mp4_size", "num_frames",
)  # fmt: skip
"""The columns of a shard's rows that are counted here."""

ANNOTATIONS = pa.schema([
    ("video_id", pa.string()), ("country_iso", pa.string()), ("entities", pa.list_(pa.string())),
])  # fmt: skip
"""Columns of annotations/annotations.parquet."""

_VIDEOS = """
    CREATE VIEW videos AS
    SELECT r.*, a.country_iso, a.entities, coalesce(r.source_duration_seconds, r.duration_seconds) AS duration
    FROM shard_rows r LEFT JOIN annotations a USING (video_id) WHERE r.outcome = 'ok'
"""


@dataclass(frozen=True, slots=True)
class Statistic:
    """A row of the table."""

    name: str
    value: float | None
    """None where nothing is known of it."""
    unit: str = ""


class Statistics:
    """Answers questions on the rows of a root; only `ok` videos count but in `outcomes`."""

    def __init__(self, rows: pa.Table, *, annotations: pa.Table | None = None) -> None:
        self._db = duckdb.connect(":memory:")
        self._db.register("shard_rows", rows.select([name for name in COLUMNS if name in rows.column_names]))
        self._db.register("annotations", ANNOTATIONS.empty_table() if annotations is None else annotations)
        self._db.execute(_VIDEOS)

    def _query(self, sql: str) -> list[Any]:
        found: list[Any] = self._db.execute(sql).fetchall()
        return found

    def _one(self, expression: str, source: str = "videos") -> Any:
        return self._query(f"SELECT {expression} FROM {source}")[0][0]

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
            Statistic("Videos with tags", self._one("count(*)", "videos WHERE len(tags) > 0")),
            Statistic("Tags per video with any", self._one("avg(len(tags))", "videos WHERE len(tags) > 0")),
            Statistic("Videos with comments", self._one("count(*)", "videos WHERE len(comments) > 0")),
            Statistic("Comments per video with any", self._one("avg(len(comments))", "videos WHERE len(comments) > 0")),
        ]

    def outcomes(self) -> list[tuple[str, int, str | None]]:
        """(outcome, videos, a detail as an example) of every record asked for, most frequent first."""
        return self._query(
            """SELECT outcome, count(*) AS n, min(nullif(detail, '')) FROM shard_rows
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
        return [row[0] for row in self._query("SELECT duration FROM videos WHERE duration IS NOT NULL ORDER BY 1")]

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
