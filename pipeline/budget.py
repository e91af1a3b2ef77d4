"""What a crawl will cost, before it starts: calls, hours, media requests, bytes.

Each query's first page is asked for, or a sample's, and some of the videos on these pages. The first pages are the
crawl's own first calls and are kept for it, so planning costs next to nothing.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
    """The begin of one query: only what is reckoned with, for thousands of them are held at once."""

    query: Query
    total: int
    ids: Sequence[str]
    posted: Sequence[int]
    """Of each video, Unix seconds, 0 if unknown."""
    wanted: int
    """How many the filters let pass, as far as search tells."""
    commented: int | None
    """How many have comments; None if search does not tell."""
    whole: bool
    """Whether it is the query's only page."""


def first_page(search: SearchWorker, query: Query, window: Window, *, keep: Keep) -> FirstPage:
    """Ask for the first page of a query, as its crawl will or did; it is not asked for twice."""
    unit = search_unit(query, window)
    line = _known(search.ledger, unit.name)
    if line is None:
        journal = Journal(search.ledger.store, f"{search.ledger.job}/journal/{unit.name}", search.ask)
        line = journal.ask(SEARCH, **search_parameters(query, window, 1, "forward"))
    records = search_records([line], query, counts=Counter())
    total = total_of(line)
    return page_of(query, total, records, keep=keep, whole=is_last(len(photos_of(line)), total, 1))


def page_of(query: Query, total: int, records: Sequence[VideoRecord], *, keep: Keep, whole: bool) -> FirstPage:
    """What is kept of a page."""
    told = all(record.num_comments is not None for record in records)
    return FirstPage(
        query=query,
        total=total,
        ids=tuple(record.video_id for record in records),
        posted=array("q", [record.posted or 0 for record in records]),
        wanted=sum(is_wanted(record, keep) for record in records),
        commented=sum(bool(record.num_comments) for record in records) if told else None,
        whole=whole,
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
    ids = {video_id for page in pages for video_id in heapq.nsmallest(count, page.ids, key=_lot)}
    infos = [_info(flickr, video_id) for video_id in heapq.nsmallest(count, ids, key=_lot)]
    alive = [info for info in infos if info.dropped is None]
    seconds = [info.duration_seconds for info in alive if info.duration_seconds]
    return Probe(
        asked=len(infos),
        alive=len(alive) / len(infos) if infos else 1.0,
        commented=_mean([float(bool(info.num_comments)) for info in alive], COMMENTED_SHARE),
        mean_seconds=_mean(seconds, MEAN_SECONDS),
    )


def _lot(video_id: str) -> bytes:
    return hashlib.sha256(video_id.encode()).digest()


def _info(flickr: Flickr, video_id: str) -> VideoRecord:
    method = "flickr.photos.getInfo"
    try:
        line = Line(method, {"photo_id": video_id}, 0, answer=flickr.call(method, expect="photo", photo_id=video_id))
    except Dropped as drop:
        line = Line(method, {"photo_id": video_id}, 0, refusal=(drop.reason, drop.detail))
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
    pages: Sequence[FirstPage], window: Window, *, num_queries: int, min_videos: int, check_queries: int
) -> Size:
    """Reckon from the first pages of all queries, or of a random sample of them."""
    scale = num_queries / len(pages)
    totals = [page.total for page in pages]
    calls = [search_calls(total, window) for total in totals]
    videos = _num_videos(pages, num_queries)
    large = [page for page in pages if page.total >= min_videos or page.query.kind == "sentence"]
    told = [(page, page.commented) for page in large if page.commented is not None]
    again = min(check_queries, num_queries) * (sum(calls) / len(calls) + 1)  # in two windows
    wanted = sum(_hits_of(page, page.wanted) for page in large) / (sum(totals) or 1)
    return Size(
        hits=sum(totals) * scale,
        videos=videos,
        wanted=videos * wanted,
        searches=sum(calls) * scale + again,
        error=_relative_error(pages, num_queries),
        commented=sum(_hits_of(*page) for page in told) / (sum(p.total for p, _ in told) or 1) if told else None,
    )


def _hits_of(page: FirstPage, rows: int) -> float:
    """For how many hits so many rows of a page stand."""
    return page.total * rows / len(page.ids) if page.ids else 0.0


def together(sizes: Sequence[Size]) -> Size:
    """The crawl of several rounds, which share no video."""
    hits, videos = sum(size.hits for size in sizes), sum(size.videos for size in sizes)
    told = [size for size in sizes if size.commented is not None]
    return Size(
        hits=hits,
        videos=videos,
        wanted=sum(size.wanted for size in sizes),
        searches=sum(size.searches for size in sizes),
        error=math.hypot(*(size.error * size.videos for size in sizes)) / (videos or 1),
        commented=sum((s.commented or 0) * s.hits for s in told) / (sum(s.hits for s in told) or 1) if told else None,
    )


def is_wanted(record: VideoRecord, keep: Keep) -> bool:
    """Whether the filters let a video pass, as far as search tells; the catalogue says the same in SQL."""
    licensed = keep.licenses is None or record.license is None or record.license in keep.licenses
    safe = keep.max_safety_level is None or (record.safety_level or 0) <= keep.max_safety_level
    posted = record.posted
    since, until = keep.posted_since or 0, math.inf if keep.posted_until is None else keep.posted_until
    return licensed and safe and (posted is None or since <= posted <= until)


def different_share(pages: Sequence[FirstPage], num_queries: int) -> float:
    """How many different videos there are for each hit: 1 if no video is found by two queries.

    A video is compared with those queries only whose first page goes as far as its upload date: its exposure is their
    part of all hits. How the number of labels varies is taken from the videos that nearly all queries would have shown;
    where there are too few of them, or the pages are a sample of the queries, the labels beyond the first are taken as
    Poisson distributed.
    """
    exposed = others = sure = sure_weight = sure_others = sure_share = 0.0
    for weight, more, exposure in _rows(pages, num_queries):
        exposed += weight * exposure
        others += weight * more
        if exposure >= _SURE_EXPOSURE and len(pages) == num_queries:
            sure += 1
            sure_weight += weight
            sure_others += weight * more / exposure
            sure_share += weight / (1 + more / exposure)
    if not exposed:
        return 1.0
    share = _poisson_share(others / exposed)
    if sure < _SURE_HITS:
        return share
    return sure_share / sure_weight * share / _poisson_share(sure_others / sure_weight)


_SURE_EXPOSURE = 0.8
_SURE_HITS = 100


def _rows(pages: Sequence[FirstPage], num_queries: int) -> Iterator[tuple[float, int, float]]:
    """Of each row: for how many hits it stands, how many further pages have its video, and its exposure."""
    everything = sum(page.total for page in pages) * num_queries / len(pages)
    by_reach = sorted((_reach(page), page.total) for page in pages)
    reaches = [reach for reach, _ in by_reach]
    beyond = [*reversed(list(accumulate(total for _, total in reversed(by_reach)))), 0]
    finds = Counter(video_id for page in pages for video_id in page.ids)
    for page in pages:
        for video_id, posted in zip(page.ids, page.posted, strict=True):
            comparable = beyond[bisect_left(reaches, posted)] - page.total
            exposure = comparable / (everything - page.total) if everything > page.total else 1.0
            yield page.total / len(page.ids), finds[video_id] - 1, exposure


def _reach(page: FirstPage) -> float:
    """Up to which upload date the page shows all that its query has."""
    return math.inf if page.whole else max(page.posted, default=0)


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
