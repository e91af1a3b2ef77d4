"""The SQL of pipeline.catalogue: how the rows of all stages become one row per video, range by range.

`{within}` stands for a range of video ids. Every table is sorted by video id, so that a range touches little of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Stage = Literal["info", "sizes", "comments"]

_FACTS = "posted, license, owner, secret, num_comments, safety_level, duration_seconds"
"""What decides whether a video is asked about. First in every order of rows: what is chosen by these alone stays
chosen when the texts are read too."""

_TEXTS = "title, description, tags, taken, latitude, longitude, country, views"

_ANSWERED_AT = "found[1].crawled AS answered"
_BEST_INFO = f"dropped IS NOT NULL, answered DESC, dropped, {_FACTS}"

_LATEST = 'crawled DESC, query, "window", page'
_PLACE = f"hash(video_id, {_LATEST.replace(' DESC', '')})"

_ASKED_FOR = """coalesce((found[1].query, coalesce(concepts[1], sentences[1]),
           CASE WHEN len(concepts) > 0 THEN 'concept' ELSE 'sentence' END) IN (FROM queries), false)"""
"""Whether one of the queries of now gave a row, which has one concept or one sentence."""

SIGHTINGS = f"""
    SELECT video_id, found[1].crawled AS crawled, found[1].query AS query, found[1]."window" AS "window",
           found[1].page AS page, concepts, sentences, {_FACTS}, {{listed}} AS listed, {{counts}} AS counts
    FROM {{{{source}}}} ORDER BY video_id"""
"""What found a video: a search, or `listed`, by an id list."""

LEFT_OUT = """
    SELECT count(*) FROM (
        SELECT video_id FROM sightings WHERE video_id IN (SELECT video_id FROM sightings WHERE NOT counts)
        GROUP BY video_id HAVING NOT bool_or(counts))"""


def counts(*, listed: bool, any_query: bool) -> str:
    """The condition for a found row to count: all listed ones do, others if `queries` has what found them."""
    return "true" if listed or any_query else _ASKED_FOR


RANGES = """
    SELECT min(video_id), max(video_id) FROM (
        SELECT video_id, sum(weight) OVER (ORDER BY video_id ROWS UNBOUNDED PRECEDING) - 1 AS reached
        FROM (SELECT video_id, greatest(count(*), {rows} // {videos}) AS weight FROM sightings GROUP BY video_id))
    GROUP BY reached // {rows} ORDER BY 1"""
"""First and last id of ranges of at most `videos` videos and about `rows` sightings, whichever is reached first."""

COUNT_CLASSES = """
    INSERT INTO class_counts
    SELECT concept, count(*) FROM (
        SELECT DISTINCT video_id, unnest(concepts) AS concept FROM sightings WHERE {within})
    GROUP BY concept"""

CLASSES = """
    CREATE TABLE classes AS
    SELECT concept, sum(videos)::BIGINT AS videos, sum(videos) >= {min_videos} AS kept
    FROM class_counts GROUP BY concept"""

ANSWERED: Mapping[Stage, str] = {
    "info": f"""
    CREATE TABLE info AS SELECT video_id, dropped, {_ANSWERED_AT}, {_FACTS} FROM {{source}} ORDER BY video_id""",
    "sizes": "CREATE TABLE sizes AS SELECT video_id, dropped FROM {source} ORDER BY video_id",
    "comments": "CREATE TABLE comments AS SELECT video_id FROM {source} ORDER BY video_id",
}
"""What of each stage's answers decides what is still to be asked."""

VIDEOS = """
    CREATE TABLE videos (
        video_id VARCHAR, place UBIGINT, secret VARCHAR, owner VARCHAR, num_comments BIGINT, info BOOLEAN,
        sizes BOOLEAN, comments BOOLEAN, info_dropped VARCHAR, sizes_dropped VARCHAR, filtered VARCHAR,
        again BIGINT)"""
"""`again` is when info answered that is to be asked once more; then `info` is false."""

JUDGE = f"""
    INSERT INTO videos
    WITH seen AS (SELECT * FROM sightings WHERE {{within}}),
    base AS (
        SELECT video_id, {_PLACE} AS place, {_FACTS} FROM seen
        QUALIFY row_number() OVER (PARTITION BY video_id ORDER BY {_LATEST}, {_FACTS}) = 1),
    in_class AS (
        SELECT video_id, bool_or(kept) AS any_kept FROM (SELECT video_id, unnest(concepts) AS concept FROM seen)
        JOIN classes USING (concept) GROUP BY video_id),
    said AS (
        SELECT video_id, bool_or(listed OR len(sentences) > 0) AS needs_no_class FROM seen GROUP BY video_id),
    i AS (
        SELECT * FROM info WHERE {{within}}
        QUALIFY row_number() OVER (PARTITION BY video_id ORDER BY {_BEST_INFO}) = 1),
    s AS (
        SELECT video_id, CASE WHEN bool_or(dropped IS NULL) THEN NULL ELSE min(dropped) END AS dropped
        FROM sizes WHERE {{within}} GROUP BY video_id),
    c AS (SELECT DISTINCT video_id FROM comments WHERE {{within}}),
    known AS (
        SELECT video_id, base.place, coalesce(i.secret, base.secret) AS secret, coalesce(i.owner, base.owner) AS owner,
               coalesce(i.num_comments, base.num_comments) AS num_comments,
               coalesce(i.license, base.license) AS license, coalesce(i.posted, base.posted) AS posted,
               coalesce(i.safety_level, base.safety_level) AS safety_level,
               coalesce(i.duration_seconds, base.duration_seconds) AS duration_seconds,
               any_kept, needs_no_class, i.video_id IS NOT NULL AS info, s.video_id IS NOT NULL AS sizes,
               c.video_id IS NOT NULL AS comments, i.dropped AS info_dropped, s.dropped AS sizes_dropped,
               CASE WHEN i.dropped = 'still_processing' AND i.answered < {{old}} THEN i.answered END AS again
        FROM base JOIN said USING (video_id) LEFT JOIN in_class USING (video_id)
        LEFT JOIN i USING (video_id) LEFT JOIN s USING (video_id) LEFT JOIN c USING (video_id))
    SELECT video_id, place, secret, owner, num_comments, info AND again IS NULL, sizes, comments, info_dropped,
           sizes_dropped, CASE {{filters}} WHEN NOT any_kept AND NOT needs_no_class THEN 'class_too_small' END, again
    FROM known ORDER BY video_id"""

CANDIDATES = f"""
    SELECT video_id, found[1].crawled AS crawled, found[1].query AS query, found[1]."window" AS "window",
           found[1].page AS page, {_FACTS}, {_TEXTS}, source, split
    FROM {{{{source}}}}
    WHERE hash(video_id, found[1].crawled, found[1].query, found[1]."window", found[1].page)
          IN (SELECT place FROM videos) AND {{counts}}
    ORDER BY video_id"""
"""The rows that may be their video's base: one, unless the same page told of it twice."""

ANSWERS: Mapping[Stage, str] = {
    "info": f"""
    CREATE TABLE infos AS SELECT video_id, dropped, {_ANSWERED_AT}, {_FACTS}, {_TEXTS} FROM {{source}}
    ORDER BY video_id""",
    "sizes": "CREATE TABLE all_sizes AS SELECT video_id, dropped, renditions FROM {source} ORDER BY video_id",
    "comments": "CREATE TABLE all_comments AS SELECT video_id, comments FROM {source} ORDER BY video_id",
}

MERGE = f"""
    WITH seen AS (SELECT * FROM sightings WHERE {{within}}),
    labels AS (
        SELECT video_id, list_sort(list_distinct(list(concept))) AS concepts
        FROM (SELECT video_id, listed, unnest(concepts) AS concept FROM seen) JOIN classes USING (concept)
        WHERE kept OR listed GROUP BY video_id),
    said AS (
        SELECT video_id, list_sort(list_distinct(flatten(list(sentences)))) AS sentences,
               list_sort(list_distinct(
                   list({{{{'query': query, 'window': "window", 'page': page, 'crawled': crawled}}}})
                   FILTER (query IS NOT NULL))) AS found
        FROM seen GROUP BY video_id),
    b AS (
        SELECT * FROM candidates WHERE {{within}}
        QUALIFY row_number() OVER (
            PARTITION BY video_id ORDER BY {_LATEST}, {_FACTS}, {_TEXTS}, source, split) = 1),
    i AS (
        SELECT * FROM infos WHERE {{within}}
        QUALIFY row_number() OVER (PARTITION BY video_id ORDER BY {_BEST_INFO}, {_TEXTS}) = 1),
    s AS (
        SELECT * FROM all_sizes WHERE {{within}}
        QUALIFY row_number() OVER (
            PARTITION BY video_id ORDER BY dropped NULLS FIRST, len(renditions) DESC, renditions) = 1),
    c AS (
        SELECT * FROM all_comments WHERE {{within}}
        QUALIFY row_number() OVER (PARTITION BY video_id ORDER BY len(comments) DESC, comments) = 1)
    SELECT {{columns}}
    FROM (SELECT * FROM videos WHERE {{within}}) v JOIN b USING (video_id) JOIN said USING (video_id)
    LEFT JOIN labels USING (video_id) LEFT JOIN i USING (video_id)
    LEFT JOIN s USING (video_id) LEFT JOIN c USING (video_id)
    ORDER BY video_id"""

DROPPED = "coalesce(v.info_dropped, v.sizes_dropped, v.filtered)"

COLUMNS: Mapping[str, str] = {
    "video_id": "video_id",
    "source": "coalesce(b.source, 'flickr')",
    "renditions": "coalesce(s.renditions, [])",
    "title": "coalesce(nullif(i.title, ''), b.title, '')",
    "description": "coalesce(nullif(i.description, ''), b.description, '')",
    "tags": "coalesce(nullif(i.tags, []), b.tags, [])",
    "comments": "coalesce(c.comments, [])",
    "concepts": "coalesce(labels.concepts, [])",
    "sentences": "coalesce(said.sentences, [])",
    "found": "coalesce(said.found, [])",
    "split": "b.split",
    "dropped": DROPPED,
}
"""How a merged column is made, where it is not simply info's or else the search's."""


def merged_columns(names: list[str]) -> str:
    """The select list of MERGE for these columns of pipeline.records.SCHEMA."""
    return ", ".join(f"{COLUMNS.get(name, f'coalesce(i.{name}, b.{name})')} AS {name}" for name in names)
