"""What a crawl will cost, before it starts: calls, hours, media requests, bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.crawl import PER_PAGE, Window, pieces_for
from pipeline.flickr import Flickr
from pipeline.vocabulary import Query

COMMENTED_SHARE = 0.115
"""Videos with at least one comment: 230,269 of about 2 million (paper, Table 2)."""

BYTES_PER_VIDEO_360P = 11_000_000
"""A mean of 123 s (paper, Table 2) at Flickr's usual 360p rate."""

PLANS = {
    "A": "getInfo + getSizes + comments for every video",
    "B": "getInfo + getSizes; comments only where there are any (what `crawl` does)",
    "C": "getSizes; comments only where there are any",
    "D": "comments only where there are any; play URLs built from the search answer",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What one plan costs."""

    plan: str
    videos: int
    calls: int
    hours: float
    """At the calls per hour that the crawl is set to, on one key."""
    media_requests: int
    media_bytes: int


def count_results(flickr: Flickr, queries: Sequence[Query], window: Window) -> list[int]:
    """How many videos each query says it has; one call per query."""
    counts = []
    for query in queries:
        answer = flickr.call(
            "flickr.photos.search",
            text=query.text,
            media="videos",
            per_page=1,
            min_upload_date=window.start,
            max_upload_date=window.end,
        )
        counts.append(int(answer["photos"]["total"]))
    return counts


def search_calls(total: int, window: Window) -> int:
    """Calls to walk one query: its pages, and one for each window that is cut; uploads taken as even over time."""
    pieces = pieces_for(total, window)
    if pieces == 1:
        return max(1, math.ceil(min(total, 4000) / PER_PAGE))
    return 1 + sum(search_calls(math.ceil(total / pieces), part) for part in window.cut(pieces))


def estimate(
    totals: Sequence[int], window: Window, *, labels_per_video: float, calls_per_hour: float
) -> list[Estimate]:
    """Plans A to D from the queries' totals; `labels_per_video` says how many queries find the same video."""
    searches = sum(search_calls(total, window) for total in totals)
    videos = round(sum(totals) / labels_per_video)
    commented = round(videos * COMMENTED_SHARE)
    per_plan = {"A": 3 * videos, "B": 2 * videos + commented, "C": videos + commented, "D": commented}
    return [
        Estimate(
            plan=plan,
            videos=videos,
            calls=searches + calls,
            hours=(searches + calls) / calls_per_hour,
            media_requests=2 * videos,  # the play URL's redirect, then the file
            media_bytes=videos * BYTES_PER_VIDEO_360P,
        )
        for plan, calls in per_plan.items()
    ]
