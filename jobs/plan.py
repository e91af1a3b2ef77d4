"""What a crawl will cost before it starts: calls, hours per key, media requests, bytes, and what each plan lacks.

Reads vocabulary/queries.parquet; asks Flickr for the first page of every query (or of a sample) and for the details of
some videos; writes crawl/plan.json, against which `crawl` shows its progress. The pages are the crawl's own first
calls: they are kept, and not asked for again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jobs.burndown import PLAN_KEY
from jobs.crawl import begin, default_flickr, flickr_rates
from jobs.launch import Where, request_permits
from jobs.progress import Bar, duration, say, show_table
from pipeline.answers import utc_now
from pipeline.budget import Estimate, FirstPage, Probe, Size, estimate, first_page, probe, size_of
from pipeline.catalogue import Keep
from pipeline.completeness import sample_queries
from pipeline.crawl import SearchWorker
from pipeline.enrich import PLANS
from pipeline.errors import UserError
from pipeline.flickr import Flickr, FlickrSettings, require_access
from pipeline.store import Store, open_store
from pipeline.units import Ledger
from pipeline.vocabulary import Query, read_queries
from pipeline.windows import SHOWN_RESULTS, Window


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which crawl to reckon; give it what the crawl will be given."""

    root: Annotated[str, tyro.conf.Positional]
    """Folder or s3://bucket/prefix with a vocabulary."""
    sample: int | None = None
    """So many queries are asked, and the error of not asking all is told; None asks all, one call each."""
    probe: int = 100
    """Videos whose details are asked for: how many are still there, how long they are, how many have comments."""
    since: str | None = None
    """Uploads from here on: a date, Unix seconds, or `last` for what is new since the last crawl of this root."""
    until: str | None = None
    """Uploads up to here; the default is now, and the crawl keeps to it."""
    keep: Keep = field(default_factory=Keep)
    """The crawl's filters."""
    min_videos: int = 11
    """Concepts that fewer videos are found for are dropped."""
    check_queries: int = 20
    """Queries that the crawl searches once more, to tell how complete it was."""
    flickr: FlickrSettings = field(default_factory=default_flickr)
    json: bool = False
    """Print the plans as JSON, and nothing else."""

    def __post_init__(self) -> None:
        if (self.sample is not None and self.sample < 2) or self.probe < 0:
            raise UserError(f"sample {self.sample} must be 2 or more, probe {self.probe} 0 or more")


def run(config: Config) -> int:
    """Ask, reckon, tell."""
    require_access(config.flickr)
    store = open_store(config.root)
    queries = read_queries(store)
    window = begin(store, config.since, config.until).window
    asked = sample_queries(queries, len(queries) if config.sample is None else config.sample)
    flickr = Flickr(config.flickr, request_permits(Where(), flickr_rates(config.flickr)))
    search = SearchWorker(Ledger(store, "crawl", {"rest_url": config.flickr.rest_url}), flickr)
    pages = _ask(search, asked, window, quiet=config.json)
    probed = probe(flickr, pages, config.probe)
    size = size_of(
        pages,
        window,
        num_queries=len(queries),
        keep=config.keep,
        min_videos=config.min_videos,
        check_queries=config.check_queries,
    )
    estimates = estimate(size, probed, calls_per_hour=config.flickr.calls_per_hour)
    _write(store, size, probed, estimates)
    if config.json:
        say(json.dumps([dataclasses.asdict(e) for e in estimates], indent=1))
    else:
        _tell(pages, size, probed, estimates)
    return 0


def _ask(search: SearchWorker, queries: list[Query], window: Window, *, quiet: bool) -> list[FirstPage]:
    search.ledger.open()
    pages = []
    with contextlib.nullcontext() if quiet else Bar("plan", total=len(queries), noun="queries") as bar:
        for query in queries:
            pages.append(first_page(search, query, window))
            if bar is not None:
                bar.advance()
    return pages


def _write(store: Store, size: Size, probed: Probe, estimates: list[Estimate]) -> None:
    told = {
        "at": utc_now(),
        "size": dataclasses.asdict(size),
        "probe": dataclasses.asdict(probed),
        "plans": [dataclasses.asdict(e) for e in estimates],
    }
    store.write(PLAN_KEY, json.dumps(told, indent=1).encode())


def _tell(pages: list[FirstPage], size: Size, probed: Probe, estimates: list[Estimate]) -> None:
    rows = [
        (e.plan, PLANS[e.plan], e.calls, duration(e.hours * 3600), e.media_requests, _gigabytes(e.media_bytes),
         _gigabytes(e.stored_bytes))
        for e in estimates
    ]  # fmt: skip
    columns = ("plan", "what is asked", "calls", "time on one key", "media requests", "download", "stored")
    show_table("cost of the crawl", columns, rows)
    sampled = f" (± {size.error:.0%}, for only {len(pages):,} queries were asked)" if size.error else ""
    say(f"{size.hits:,.0f} hits of about {size.videos:,.0f} videos{sampled}, {size.searches:,.0f} calls to search them")
    if probed.asked:
        told = f"{probed.alive:.0%} of {probed.asked} videos asked after can be played"
        say(f"{told}, {probed.mean_seconds:.0f} s on average")
    over = sum(page.total > SHOWN_RESULTS for page in pages)
    say(
        f"{over:,} queries have more results than the {SHOWN_RESULTS:,} that Flickr shows at once: they are cut by date"
    )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
