"""What a crawl will cost, before it starts: calls, hours, media requests, bytes.

Each query's first page is asked for, or a sample's, and some of the videos on these pages. The first pages are the
crawl's own first calls and are kept for it, so planning costs next to nothing.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from pipeline.catalogue import Keep
from pipeline.crawl import SEARCH, SearchWorker, photos_of, search_parameters, search_records, search_unit, total_of
from pipeline.enrich import Plan, stage_records
from pipeline.errors import Dropped
from pipeline.flickr import Flickr
from pipeline.journal import Journal, Line, read_lines
from pipeline.records import VideoRecord
from pipeline.units import Ledger
from pipeline.vocabulary import Query
from pipeline.windows import Window, is_last, pieces_for

COMMENTED_SHARE = 0.115
"""Videos with at least one comment where nothing else is known: 230,269 of about 2 million (paper, Table 2)."""

MEAN_SECONDS = 123.0
"""Duration where nothing else is known (paper, Table 2)."""

BYTES_PER_SECOND_360P = 11_000_000 / 123
"""Flickr's usual 360p rate."""

STORED_BYTES_PER_SECOND = 1_700 * 28
"""Of the clips that `build` stores: bytes a frame (BENCHMARKS.md) times a usual rate."""

METADATA_BYTES_PER_VIDEO = 6_000
"""Raw answers and records, compressed."""

_ROWS_PER_CALL = 449
"""Rows that a full page gets a walk ahead by (pipeline.windows)."""


@dataclass(frozen=True, slots=True)
class FirstPage:
    """The begin of one query."""

    query: Query
    total: int
    records: Sequence[VideoRecord]
    whole: bool
    """Whether it is the query's only page."""


def first_page(search: SearchWorker, query: Query, window: Window) -> FirstPage:
    """Ask for the first page of a query, as its crawl will or did; it is not asked for twice."""
    unit = search_unit(query, window)
    line = _known(search.ledger, unit.name)
    if line is None:
        journal = Journal(search.ledger.store, f"{search.ledger.job}/journal/{unit.name}", search.ask)
        line = journal.ask(SEARCH, **search_parameters(query, window, 1, "forward"))
    total = total_of(line)
    return FirstPage(
        query=query,
        total=total,
        records=search_records([line], query, counts=Counter()),
        whole=is_last(len(photos_of(line)), total, 1),
    )


def _known(ledger: Ledger, unit: str) -> Line | None:
    """The first answer of a unit that is committed."""
    try:
        commit = ledger.commit_of(unit)
    except FileNotFoundError:
        return None
    raw = next(output.key for output in commit.outputs if output.key.endswith(".jsonl.zst"))
    return next(read_lines(ledger.store.read(raw)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What some of the videos say when asked."""

    asked: int
    alive: float
    """Share that is there and can be played."""
    commented: float
    """Share of these with comments."""
    mean_seconds: float


def probe(flickr: Flickr, pages: Sequence[FirstPage], count: int) -> Probe:
    """Ask getInfo of so many videos of the pages, always the same ones."""
    ids = {record.video_id: record.secret or "" for page in pages for record in page.records}
    chosen = sorted(ids, key=lambda i: hashlib.sha256(i.encode()).digest())[:count]
    infos = [_info(flickr, video_id, ids[video_id]) for video_id in chosen]
    alive = [info for info in infos if info.dropped is None]
    seconds = [info.duration_seconds for info in alive if info.duration_seconds]
    return Probe(
        asked=len(infos),
        alive=len(alive) / len(infos) if infos else 1.0,
        commented=_mean([float(bool(info.num_comments)) for info in alive], COMMENTED_SHARE),
        mean_seconds=_mean(seconds, MEAN_SECONDS),
    )


def _info(flickr: Flickr, video_id: str, secret: str) -> VideoRecord:
    method, parameters = "flickr.photos.getInfo", {"photo_id": video_id} | ({"secret": secret} if secret else {})
    try:
        line = Line(method, dict(parameters), 0, answer=flickr.call(method, expect="photo", **parameters))
    except Dropped as drop:
        line = Line(method, dict(parameters), 0, refusal=(drop.reason, drop.detail))
    return stage_records("info", [line])[0]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def search_calls(total: int, window: Window) -> int:
    """Calls to walk one query; uploads taken as even over time."""
    pieces = pieces_for(total, window)
    if pieces == 1:
        return 1 if total <= _ROWS_PER_CALL else 1 + math.ceil((total - _ROWS_PER_CALL) / _ROWS_PER_CALL)
    rest = math.ceil((total - _ROWS_PER_CALL) / pieces)
    return 1 + sum(search_calls(rest, part) for part in window.cut(pieces))


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much there is to crawl."""

    hits: float
    """Results of all queries, a video counted for each query that finds it."""
    videos: float
    """Different ones."""
    wanted: float
    """Of these, what the filters do not leave out by what search tells."""
    searches: float
    """Calls to find them."""
    error: float
    """Relative error of `videos` at 95 %, from looking at a sample of the queries; 0 if all were asked."""
    commented: float | None
    """Share of videos with comments by what search tells; None if it does not tell."""


def size_of(
    pages: Sequence[FirstPage], window: Window, *, num_queries: int, keep: Keep, min_videos: int, check_queries: int
) -> Size:
    """Reckon from the first pages of all queries, or of a random sample of them."""
    scale = num_queries / len(pages)
    totals = [page.total for page in pages]
    calls = [search_calls(total, window) for total in totals]
    videos = _num_videos(pages, num_queries)
    large = [page for page in pages if page.total >= min_videos or page.query.kind == "sentence"]
    told = [(row, weight) for row, weight in _rows(large) if row.num_comments is not None]
    again = min(check_queries, num_queries) * (sum(calls) / len(calls) + 1)  # in two windows
    return Size(
        hits=sum(totals) * scale,
        videos=videos,
        wanted=videos * _share((is_wanted(row, keep), weight) for row, weight in _rows(large)) * _large(large, totals),
        searches=sum(calls) * scale + again,
        error=_relative_error(pages, num_queries),
        commented=_share((bool(row.num_comments), weight) for row, weight in told) if told else None,
    )


def _rows(pages: Sequence[FirstPage]) -> Iterator[tuple[VideoRecord, float]]:
    """Each row of each page, and for how many hits it stands."""
    for page in pages:
        for row in page.records:
            yield row, page.total / len(page.records)


def _share(rows: Iterable[tuple[bool, float]]) -> float:
    passed = total = 0.0
    for passes, weight in rows:
        passed, total = passed + weight * passes, total + weight
    return passed / total if total else 0.0


def _large(large: Sequence[FirstPage], totals: Sequence[int]) -> float:
    return sum(page.total for page in large) / (sum(totals) or 1)


def is_wanted(record: VideoRecord, keep: Keep) -> bool:
    """Whether the filters let a video pass, as far as search tells; the catalogue says the same in SQL."""
    licensed = keep.licenses is None or record.license is None or record.license in keep.licenses
    safe = keep.max_safety_level is None or (record.safety_level or 0) <= keep.max_safety_level
    posted = record.posted
    since, until = keep.posted_since or 0, math.inf if keep.posted_until is None else keep.posted_until
    return licensed and safe and (posted is None or since <= posted <= until)


@dataclass(frozen=True, slots=True)
class _Hit:
    """A row of a first page."""

    weight: float
    """Hits for which it stands."""
    others: int
    """Further queries whose first page has the video, too."""
    exposure: float
    """The part of all other queries, by their hits, that would have shown it if they had it."""


def different_share(pages: Sequence[FirstPage], num_queries: int) -> float:
    """How many different videos there are for each hit: 1 if no video is found by two queries.

    A video is compared with those queries only whose first page goes as far as its upload date. How the number of
    labels varies is taken from the videos that all queries would have shown; where there are too few of them, or the
    pages are a sample of the queries, the labels beyond the first are taken as Poisson distributed.
    """
    hits = list(_hits(pages, num_queries))
    exposed = sum(hit.weight * hit.exposure for hit in hits)
    if not exposed:
        return 1.0
    mean = sum(hit.weight * hit.others for hit in hits) / exposed
    sure = [hit for hit in hits if hit.exposure >= _SURE_EXPOSURE] if len(pages) == num_queries else []
    if len(sure) < _SURE_HITS:
        return _poisson_share(mean)
    weight = sum(hit.weight for hit in sure)
    share = sum(hit.weight / (1 + hit.others / hit.exposure) for hit in sure) / weight
    sure_mean = sum(hit.weight * hit.others / hit.exposure for hit in sure) / weight
    return share * _poisson_share(mean) / _poisson_share(sure_mean)


_SURE_EXPOSURE = 0.8
_SURE_HITS = 100


def _hits(pages: Sequence[FirstPage], num_queries: int) -> Iterator[_Hit]:
    everything = sum(page.total for page in pages) * num_queries / len(pages)
    by_reach = sorted((_reach(page), page.total) for page in pages)
    reaches = [reach for reach, _ in by_reach]
    beyond = [*reversed(list(accumulate(total for _, total in reversed(by_reach)))), 0]
    finds = Counter(row.video_id for page in pages for row in page.records)
    for page in pages:
        for row in page.records:
            comparable = beyond[bisect_left(reaches, row.posted or 0)] - page.total
            exposure = comparable / (everything - page.total) if everything > page.total else 1.0
            yield _Hit(page.total / len(page.records), finds[row.video_id] - 1, exposure)


def _reach(page: FirstPage) -> float:
    """Up to which upload date the page shows all that its query has."""
    return math.inf if page.whole else max((row.posted or 0 for row in page.records), default=0)


def _poisson_share(others: float) -> float:
    """Videos per hit if a hit's video has so many other labels on average.

    With 1 + Poisson(x) labels a video, a video with k of them is met k times, and then has x + x / (1 + x) others.
    """
    return 2 / (others + math.sqrt(others**2 + 4))


def _relative_error(pages: Sequence[FirstPage], num_queries: int) -> float:
    """Of the number of different videos, at 95 %, by leaving out a twentieth of the sampled queries at a time."""
    if len(pages) == num_queries:
        return 0.0
    groups = min(_JACKKNIFE_GROUPS, len(pages))
    parts = [[page for n, page in enumerate(pages) if n % groups != group] for group in range(groups)]
    videos = [_num_videos(part, num_queries) for part in parts if part]
    mean = sum(videos) / len(videos)
    variance = (groups - 1) / groups * sum((v - mean) ** 2 for v in videos) * (1 - len(pages) / num_queries)
    return 1.96 * math.sqrt(variance) / mean if mean else 0.0


_JACKKNIFE_GROUPS = 20


def _num_videos(pages: Sequence[FirstPage], num_queries: int) -> float:
    return sum(page.total for page in pages) * num_queries / len(pages) * different_share(pages, num_queries)


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What one plan costs."""

    plan: Plan
    videos: int
    """Different ones that search finds."""
    calls: int
    hours: float
    """At the calls per hour that the crawl is set to, on one key."""
    media_requests: int
    media_bytes: int
    stored_bytes: int
    """What the crawl and the build keep."""


def estimate(size: Size, probed: Probe, *, calls_per_hour: float) -> list[Estimate]:
    """Plans A to D."""
    commented = probed.commented if size.commented is None else size.commented
    alive = size.wanted * probed.alive
    asked: Mapping[Plan, float] = {
        "A": size.wanted + 2 * alive,
        "B": size.wanted + alive * (1 + commented),
        "C": size.wanted * (1 + commented),
        "D": size.wanted * commented,
    }
    return [
        Estimate(
            plan=plan,
            videos=round(size.videos),
            calls=round(size.searches + calls),
            hours=(size.searches + calls) / calls_per_hour,
            media_requests=round(2 * alive),  # the play URL's redirect, then the file
            media_bytes=round(alive * probed.mean_seconds * BYTES_PER_SECOND_360P),
            stored_bytes=round(
                alive * probed.mean_seconds * STORED_BYTES_PER_SECOND + size.videos * METADATA_BYTES_PER_VIDEO
            ),
        )
        for plan, calls in asked.items()
    ]
