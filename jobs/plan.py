"""What a crawl will cost before it starts: calls, hours per key, media requests, bytes, and what each plan lacks.

Reads vocabulary/queries.parquet; asks Flickr for the first page of every query (or of a sample) and for the details of
some videos; writes crawl/plan.json, against which `crawl` shows its progress. The pages are the crawl's own first
calls: they are kept, and not asked for again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jobs.asking import default_flickr, flickr_rates
from jobs.burndown import PLAN_KEY, Burndown
from jobs.launch import Where, request_permits
from jobs.progress import Bar, duration, say, show_table
from pipeline.answers import utc_now
from pipeline.budget import Estimate, FirstPage, Probe, Size, estimate, first_page, probe, size_of, together
from pipeline.catalogue import Keep
from pipeline.completeness import sample_queries
from pipeline.crawl import SearchWorker
from pipeline.enrich import PLANS
from pipeline.errors import Transient, UserError
from pipeline.flickr import Flickr, FlickrSettings, require_access
from pipeline.rounds import Round, new_rounds, rounds
from pipeline.store import Store, open_store
from pipeline.units import Ledger
from pipeline.vocabulary import Query, read_queries
from pipeline.windows import SHOWN_RESULTS, Window

logger = logging.getLogger(__name__)


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
    """Uploads up to here; the default is an hour ago. A crawl in the same words asks just what was planned."""
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
    queries, known = read_queries(store), rounds(store)
    added = new_rounds(known, since=config.since, until=config.until)
    asked = [one for one in known if not one.finished] + added
    if not asked:
        say("[]" if config.json else f"all that was asked for is crawled ({store.url}): --since last plans what is new")
        return 0
    flickr = Flickr(config.flickr, request_permits(Where(), flickr_rates(config.flickr)))
    search = SearchWorker(Ledger(store, "crawl", {"rest_url": config.flickr.rest_url}), flickr)
    search.ledger.open()
    sample = sample_queries(queries, len(queries) if config.sample is None else config.sample)
    pages = {one: _ask(config, search, sample, one.window) for one in asked}
    size = together([_size(config, pages[one], one.window, len(queries)) for one in asked])
    probed = probe(flickr, [page for one in asked for page in pages[one]], config.probe)
    estimates = estimate(size, probed, calls_per_hour=config.flickr.calls_per_hour)
    _write(store, config, added, size, probed, estimates)
    if config.json:
        say(json.dumps([dataclasses.asdict(e) for e in estimates], indent=1))
    else:
        say(", ".join(map(str, asked)))
        _tell(pages[asked[-1]], size, probed, estimates)
    return 0


def _ask(config: Config, search: SearchWorker, queries: list[Query], window: Window) -> list[FirstPage]:
    """First pages; a query that Flickr refuses is left out and told, as the crawl will set it aside."""
    pages, refused = [], []
    with contextlib.nullcontext() if config.json else Bar("plan", total=len(queries), noun="queries") as bar:
        for query in queries:
            try:
                pages.append(first_page(search, query, window, keep=config.keep))
            except Transient as error:
                if error.reason in ("connection", "timeout"):
                    raise  # nobody is there
                refused.append(f"{query.text!r} ({error})")
            if bar is not None:
                bar.advance()
    if refused:
        logger.warning("%d queries are refused and not reckoned, such as %s", len(refused), refused[0])
    if not pages:
        raise UserError(f"all {len(queries)} queries are refused, such as {refused[0]}")
    return pages


def _size(config: Config, pages: list[FirstPage], window: Window, num_queries: int) -> Size:
    return size_of(
        pages,
        window,
        num_queries=num_queries if config.sample is not None else len(pages),
        min_videos=config.min_videos,
        check_queries=config.check_queries,
    )


def _write(
    store: Store, config: Config, added: list[Round], size: Size, probed: Probe, estimates: list[Estimate]
) -> None:
    told = {
        "at": utc_now(),
        "asked": [config.since, config.until],
        "rounds": [[one.since, one.until] for one in added],
        "calls_before": Burndown(store, plan="B").calls,
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
