"""What a crawl will cost before it starts: calls, hours per key, media requests, bytes.

Reads vocabulary/queries.parquet and asks Flickr one counting call per query; writes nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jobs.crawl import default_flickr, flickr_rates
from jobs.progress import Bar, duration, say, show_table
from pipeline.answers import utc_now
from pipeline.budget import PLANS, count_results, estimate
from pipeline.crawl import FLICKR_VIDEO_LAUNCH, SHOWN_RESULTS, Window
from pipeline.flickr import Flickr, FlickrSettings, require_access
from pipeline.limits import LocalPermits
from pipeline.store import open_store
from pipeline.vocabulary import read_queries


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which crawl to reckon."""

    root: Annotated[str, tyro.conf.Positional]
    """Folder or s3://bucket/prefix with a vocabulary."""
    labels_per_video: float = 4.0
    """How many queries find the same video; the paper's mean is 4."""
    flickr: FlickrSettings = field(default_factory=default_flickr)
    json: bool = False
    """Print a JSON list of the plans, and nothing else."""


def run(config: Config) -> int:
    """Count, reckon, tell."""
    require_access(config.flickr)
    store = open_store(config.root)
    queries = read_queries(store)
    rates = flickr_rates(config.flickr)
    flickr = Flickr(config.flickr, LocalPermits(rates.named, default=rates.default))
    window = Window(start=FLICKR_VIDEO_LAUNCH, end=utc_now())
    totals: list[int] = []
    with contextlib.nullcontext() if config.json else Bar("count", total=len(queries), noun="queries") as bar:
        for query in queries:
            totals += count_results(flickr, [query], window)
            if bar is not None:
                bar.advance()
    estimates = estimate(
        totals, window, labels_per_video=config.labels_per_video, calls_per_hour=config.flickr.calls_per_hour
    )
    if config.json:
        say(json.dumps([dataclasses.asdict(e) for e in estimates], indent=1))
        return 0
    rows = [
        (e.plan, PLANS[e.plan], e.calls, duration(e.hours * 3600), e.media_requests, f"{e.media_bytes / 1e9:,.1f} GB")
        for e in estimates
    ]
    show_table(
        "cost of the crawl", ("plan", "what is asked", "calls", "time on one key", "media requests", "media"), rows
    )
    over = sum(total > SHOWN_RESULTS for total in totals)
    say(f"{sum(totals):,} hits of {len(queries):,} queries; {over} queries have more than {SHOWN_RESULTS} and are cut")
    return 0
