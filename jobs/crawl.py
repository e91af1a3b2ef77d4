"""Queries -> records of videos, from Flickr (or the sandbox that speaks its dialect).

Reads vocabulary/queries.parquet; writes crawl/ and enrich/ (commits, raw answers, records) and
records/records.parquet, one row per video. Costs about 2.1 calls per video and the pages of the searches, at
Flickr's 3,600 calls an hour for a key (`noisyactions plan` says how long that is). FLICKR_API_KEY and
FLICKR_API_SECRET are read from the environment; FLICKR_REST_URL names another server than Flickr's.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import tyro

from jobs.launch import Rates, Tally, Where, session, work_through
from jobs.progress import say, show_outcomes
from pipeline.answers import utc_now
from pipeline.crawl import (
    FLICKR_VIDEO_LAUNCH,
    RECORDS_KEY,
    SearchWorker,
    Window,
    committed_records,
    merge,
    query_unit,
    relabelled,
)
from pipeline.enrich import EnrichWorker, enrich_units
from pipeline.flickr import FLICKR_REST_URL, Flickr, FlickrSettings, require_access
from pipeline.limits import Permits, Rate
from pipeline.records import VideoRecord, to_parquet
from pipeline.store import Store, open_store
from pipeline.units import Ledger
from pipeline.vocabulary import read_queries

_HASH_KEY = "crawl/comment_hash_key"


def default_flickr() -> FlickrSettings:
    """Flickr, or the server that the environment names."""
    return FlickrSettings(
        rest_url=os.environ.get("FLICKR_REST_URL", FLICKR_REST_URL), contact=os.environ.get("FLICKR_CONTACT", "")
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to ask for, and how often."""

    root: Annotated[str, tyro.conf.Positional]
    """Folder or s3://bucket/prefix with a vocabulary."""
    since: int = FLICKR_VIDEO_LAUNCH
    """Uploads from here on, Unix seconds; the default is when Flickr took its first videos."""
    until: int | None = None
    """Uploads up to here, Unix seconds; the default is when the crawl of this root first began."""
    flickr: FlickrSettings = field(default_factory=default_flickr)
    where: Where = field(default_factory=Where)


def run(config: Config) -> int:
    """Search, enrich, merge; run again, it asks only for what is missing."""
    require_access(config.flickr)
    store = open_store(config.root)
    with session(config.where):
        search = _search(config, store)
        found = merge(committed_records(search.ledger))
        say(f"{search.queries:,} queries found {len(found):,} videos")
        truncated = search.tally.counts["truncated_windows"]
        if truncated:
            say(f"{truncated:,} windows hold more than Flickr shows: some videos stay unseen")
        records, details = enrich(store, found, flickr=config.flickr, where=config.where)
    _write_records(store, records)
    return max(search.tally.exit_code, details.exit_code)


@dataclass(frozen=True, slots=True)
class _Search:
    ledger: Ledger
    queries: int
    tally: Tally


def _search(config: Config, store: Store) -> _Search:
    queries = read_queries(store)
    window = Window(start=config.since, end=_until(store, config.until))
    ledger = Ledger(store, "crawl", {"since": window.start, "until": window.end, "rest_url": config.flickr.rest_url})
    tally = work_through(
        [query_unit(query, window) for query in queries],
        partial(make_searcher, ledger, config.flickr),
        done=ledger.open(),
        label="search",
        where=config.where,
        rates=flickr_rates(config.flickr),
    )
    return _Search(ledger, len(queries), tally)


def make_searcher(ledger: Ledger, flickr: FlickrSettings, permits: Permits) -> SearchWorker:
    """A worker for one process; the key is read from that process's environment."""
    return SearchWorker(ledger, Flickr(flickr, permits))


def make_enricher(ledger: Ledger, flickr: FlickrSettings, hash_key: bytes, permits: Permits) -> EnrichWorker:
    """A worker for one process; the key is read from that process's environment."""
    return EnrichWorker(ledger, Flickr(flickr, permits), hash_key)


def flickr_rates(flickr: FlickrSettings) -> Rates:
    """One budget for the key, one for each media host."""
    key = Rate(per_second=flickr.calls_per_hour / 3600, burst=5)
    return Rates(named={"flickr": key}, default=Rate(per_second=flickr.media_per_second, burst=4))


def enrich(
    store: Store, records: Sequence[VideoRecord], *, flickr: FlickrSettings, where: Where
) -> tuple[list[VideoRecord], Tally]:
    """Ask Flickr what search does not tell; the enriched records, sorted by id."""
    ledger = Ledger(store, "enrich", {"rest_url": flickr.rest_url})
    done = ledger.open()
    known = {record.video_id for record in committed_records(ledger)}
    if known:
        say(f"details of {len(known):,} videos were asked for before")
    units = enrich_units([record for record in records if record.video_id not in known])
    make_worker = partial(make_enricher, ledger, flickr, _hash_key(store))
    tally = work_through(units, make_worker, done=done, label="details", where=where, rates=flickr_rates(flickr))
    return relabelled(committed_records(ledger), records), tally


def _hash_key(store: Store) -> bytes:
    """The root's own secret for hashing comment authors: one person is one hash here, and nothing elsewhere."""
    store.create(_HASH_KEY, secrets.token_bytes(32))
    return store.read(_HASH_KEY)


def _until(store: Store, asked: int | None) -> int:
    if asked is not None:
        return asked
    store.create("crawl/began", str(utc_now()).encode())
    return int(store.read("crawl/began"))


def _write_records(store: Store, records: list[VideoRecord]) -> None:
    store.write(RECORDS_KEY, to_parquet(records))
    show_outcomes("videos by what Flickr says of them", Counter[Any](r.dropped or "ok" for r in records))
    labels = sum(len(r.concepts) + len(r.sentences) for r in records)
    say(f"{len(records):,} records, {labels / max(1, len(records)):.1f} labels each, in {store.url}/{RECORDS_KEY}")
