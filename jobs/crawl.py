"""Queries -> records of videos, from Flickr (or the sandbox that speaks its dialect).

Reads vocabulary/queries.parquet, or with --ids a released list of Flickr ids; writes crawl/, info/, sizes/, comments/
(commits, raw answers, records) and records/, one row per video. Costs about 2.1 calls per video (plan B) and the pages
of the searches, at Flickr's 3,600 calls an hour for a key: ask `noisyactions plan` first. Run again, it asks only for
what is missing. FLICKR_API_KEY and FLICKR_API_SECRET are read from the environment; FLICKR_REST_URL names another
server than Flickr's.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import tyro

from jobs.burndown import Burndown
from jobs.launch import Rates, Tally, Where, request_permits, session, work_through
from jobs.progress import Bar, say, show_outcomes
from pipeline.catalogue import Catalogue, Keep, open_catalogue
from pipeline.completeness import estimate, recapture_units, sample_queries, write_completeness
from pipeline.crawl import SearchWorker, search_unit, summarise
from pipeline.enrich import STAGES, Plan, PlayWorker, Stage, StageWorker, Wanted, stage_units
from pipeline.errors import UserError
from pipeline.flickr import FLICKR_REST_URL, Flickr, FlickrSettings, key_budgets, require_access
from pipeline.idlist import REJECTS_KEY, commit_idlist, read_idlist
from pipeline.journal import sweep
from pipeline.limits import Permits, Rate
from pipeline.reparse import by_unit_stem, reparse_search, reparse_stage
from pipeline.rounds import Round, begin_round, finish_round, moment
from pipeline.store import Store, open_store
from pipeline.units import Ledger, Unit, Worker
from pipeline.vocabulary import read_queries
from pipeline.windows import Direction

_HASH_KEY = "crawl/comment_hash_key"
SUMMARY_KEY = "crawl/summary.json"
ROT_KEY = "records/link_rot.json"


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
    plan: Plan = "B"
    """What is asked of each video, the dearest first (`noisyactions plan` tells what they cost and lack)."""
    since: str | None = None
    """Uploads from here on: a date, Unix seconds, or `last` for what is new since the last crawl of this root."""
    until: str | None = None
    """Uploads up to here; the default is when the crawl began."""
    keep: Keep = field(default_factory=Keep)
    """Filters: what they leave out stays a row with its reason, is not asked after and not downloaded."""
    min_videos: int = 11
    """Concepts that fewer videos were found for are dropped (the paper keeps those with more than 10)."""
    check_queries: int = 20
    """Queries that are searched once more in another way, to tell how complete the search was; 0 is none."""
    ids: Path | None = None
    """Look up a list of Flickr ids, a line `id label|label` each, instead of searching."""
    id_classes: Path | None = None
    """The class list of --ids, a line `number name` each."""
    reparse: bool = False
    """Make the records again from the raw answers; asks nobody."""
    flickr: FlickrSettings = field(default_factory=default_flickr)
    where: Where = field(default_factory=Where)

    def __post_init__(self) -> None:
        if self.ids is not None and (self.since or self.until):
            raise UserError("--ids names its videos: leave --since and --until out")
        if self.min_videos < 1 or self.check_queries < 0:
            raise UserError(
                f"min_videos {self.min_videos} must be 1 or more, check_queries {self.check_queries} 0 or more"
            )


def run(config: Config) -> int:
    """Search or look up, ask for details, merge."""
    store = open_store(config.root, create=config.ids is not None)
    if config.reparse:
        return _reparse(config, store)
    listed = None if config.ids is None else read_idlist(config.ids, classes=config.id_classes)
    burndown = Burndown(store, plan=config.plan)
    crawl = _Crawl(config, store, burndown)
    elsewhere = config.where.workers > 0 and config.where.ray_address is not None
    if not elsewhere:
        require_access(config.flickr)
    with session(config.where):
        if elsewhere:  # the cluster has a budget of its own
            require_access(config.flickr, request_permits(config.where, flickr_rates(config.flickr)))
        if listed is not None:
            commit_idlist(Ledger(store, "ids", {}), listed)
            say(f"{len(listed.records):,} ids; {len(listed.rejects):,} lines are none ({store.url}/{REJECTS_KEY})")
        else:
            crawl.search()
        for stage in STAGES[config.plan]:
            crawl.stage(stage)
    burndown.write()
    outcomes = crawl.write()
    if listed is not None:
        _tell_rot(store, len(listed.records), len(listed.rejects), outcomes)
    return crawl.exit_code


@dataclass(slots=True)
class _Crawl:
    """One run of the verb, stage by stage."""

    config: Config
    store: Store
    burndown: Burndown
    exit_code: int = 0

    def search(self) -> None:
        """Walk the windows of every query, then check a sample of them."""
        queries = read_queries(self.store)
        asked = begin(self.store, self.config.since, self.config.until)
        say(f"{len(queries):,} queries, {asked}")
        ledger = Ledger(self.store, "crawl", {"rest_url": self.config.flickr.rest_url})
        done = _opened(ledger)
        units = [search_unit(query, asked.window) for query in queries]
        tally = self._work(ledger.left(units), "search", self._searcher(ledger, "forward"), done=len(done))
        if not tally.set_aside:
            finish_round(self.store, asked)
        summary = summarise(ledger)
        self.store.write(SUMMARY_KEY, json.dumps(summary, indent=1).encode())
        if summary["truncated"]:
            few = ", ".join(summary["truncated"][:3])
            say(f"{len(summary['truncated']):,} windows hold more than Flickr shows, some videos stay unseen: {few}")
        sample = sample_queries(queries, self.config.check_queries)
        if sample and not tally.set_aside:
            again = Ledger(self.store, "recapture", {"rest_url": self.config.flickr.rest_url})
            done = _opened(again)
            units = again.left(recapture_units(sample, asked.window))
            if not self._work(units, "check", self._searcher(again, "backward"), done=len(done)).set_aside:
                told = write_completeness(self.store, estimate(self.store, sample, asked.window))
                say(
                    f"complete to {told['completeness']:.2%}: {told['found']:,} of about {told['there_are']:,.0f} "
                    f"(± {2 * told['deviation']:,.0f}) videos of {len(sample)} queries, by a second search"
                )

    def _searcher(self, ledger: Ledger, direction: Direction) -> Callable[[Permits], Worker]:
        return partial(make_searcher, ledger, self.config.flickr, direction)

    def stage(self, stage: Stage) -> None:
        """Ask one question about every video that is wanted and not known yet."""
        built = stage == "sizes" and self.config.plan == "D"
        ledger = Ledger(self.store, stage, {"rest_url": self.config.flickr.rest_url, "built": built})
        ledger.open()
        with self._catalogue() as catalogue:
            waiting = catalogue.waiting(stage, all_comments=self.config.plan == "A")
            units = list(stage_units(Wanted(*video) for video in waiting))
        left = {unit.name for unit in units}  # where more was found since, chunks are cut otherwise than before
        sweep(self.store, stage, stale=lambda unit: unit not in left)
        make: Callable[[Permits], Worker] = partial(make_player, ledger, photos_url(self.config.flickr))
        if not built:
            make = partial(make_asker, ledger, self.config.flickr, stage, _hash_key(self.store))
        self._work(units, stage, make)

    def _catalogue(self) -> AbstractContextManager[Catalogue]:
        return open_catalogue(self.store, keep=self.config.keep, min_videos=self.config.min_videos)

    def _work(self, units: list[Unit], label: str, make: Callable[[Permits], Worker], *, done: int = 0) -> Tally:
        tally = work_through(
            units,
            make,
            done=done,
            label=label,
            where=self.config.where,
            rates=flickr_rates(self.config.flickr),
            note=self.burndown.note,
        )
        self.exit_code = max(self.exit_code, tally.exit_code)
        return tally

    def write(self) -> Mapping[str, int]:
        """Merge all that is known into records/, and tell."""
        with self._catalogue() as catalogue:
            outcomes = catalogue.write()
        show_outcomes("videos by what Flickr says of them", outcomes)
        say(f"{sum(outcomes.values()):,} records in {self.store.url}/records; their concepts in classes.csv")
        return outcomes


def _opened(ledger: Ledger) -> set[str]:
    done = ledger.open()
    sweep(ledger.store, ledger.job, stale=done.__contains__)
    return done


def begin(store: Store, since: str | None, until: str | None) -> Round:
    """The round that the words of the command line mean."""
    end = None if until is None else moment(until)
    if since == "last":
        return begin_round(store, since="last", until=end)
    return begin_round(store, since=None if since is None else moment(since), until=end)


def make_searcher(ledger: Ledger, flickr: FlickrSettings, direction: Direction, permits: Permits) -> SearchWorker:
    """A worker for one process; the key is read from that process's environment."""
    return SearchWorker(ledger, Flickr(flickr, permits), direction)


def make_asker(ledger: Ledger, flickr: FlickrSettings, stage: Stage, hash_key: bytes, permits: Permits) -> StageWorker:
    """A worker for one process; the key is read from that process's environment."""
    return StageWorker(ledger, Flickr(flickr, permits), stage, hash_key)


def make_player(ledger: Ledger, address: str, permits: Permits) -> PlayWorker:
    """A worker that asks nobody."""
    return PlayWorker(ledger, address)


def photos_url(flickr: FlickrSettings) -> str:
    """What play URLs begin with."""
    if flickr.rest_url == FLICKR_REST_URL:
        return "https://www.flickr.com/photos/"
    parts = urlsplit(flickr.rest_url)
    return f"{parts.scheme}://{parts.netloc}/photos/"


def flickr_rates(flickr: FlickrSettings) -> Rates:
    """One budget for each key, one for each media host."""
    media = Rate(per_second=flickr.media_per_second, burst=4)
    return Rates(named=dict.fromkeys(key_budgets(flickr), flickr.key_rate), default=media)


def _hash_key(store: Store) -> bytes:
    """The root's own secret for hashing comment authors: one person is one hash here, and nothing elsewhere."""
    store.create(_HASH_KEY, secrets.token_bytes(32))
    return store.read(_HASH_KEY)


def _reparse(config: Config, store: Store) -> int:
    """Every unit's records from its raw answers, then the merge."""
    queries = by_unit_stem(read_queries(store)) if store.size("vocabulary/queries.parquet") is not None else {}
    kept = 0
    ledgers = {job: Ledger(store, job, {}) for job in ("crawl", "recapture", *STAGES["B"])}
    again = {job: reparse_search(ledgers[job], queries) for job in ("crawl", "recapture")}
    again |= {stage: reparse_stage(ledgers[stage], stage) for stage in STAGES["B"]}
    for job, units in again.items():
        total = sum(1 for _ in store.list(f"{job}/commits/"))
        if total:
            with Bar(f"reparse {job}", total=total, noun="units") as bar:
                for known in units:
                    kept += not known
                    bar.advance()
    if kept:
        say(f"{kept:,} units of queries that are no longer in the vocabulary stay as they are")
    _Crawl(config, store, Burndown(store, plan=config.plan)).write()
    return 0


def _tell_rot(store: Store, listed: int, rejected: int, outcomes: Mapping[str, int]) -> None:
    """What is left of a released list."""
    alive = outcomes.get("ok", 0)
    told = {"ids": listed, "lines_rejected": rejected, "alive": alive, "outcomes": dict(outcomes)}
    store.write(ROT_KEY, json.dumps(told, indent=1).encode())
    say(f"{alive:,} of {listed:,} listed videos are still there ({alive / listed:.1%}); {store.url}/{ROT_KEY}")
