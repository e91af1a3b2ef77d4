"""Queries -> records of videos, from Flickr (or the sandbox that speaks its dialect).

Reads vocabulary/queries.parquet, or with --ids a released list of Flickr ids; writes crawl/, info/, sizes/, comments/
(commits, raw answers, records) and records/, one row per video. Costs about 2.1 calls per video (plan B) and the pages
of the searches, at Flickr's 3,600 calls an hour for a key: ask `noisyactions plan` first. Run again, it asks only for
what is missing. FLICKR_API_KEY and FLICKR_API_SECRET are read from the environment; FLICKR_REST_URL names another
server than Flickr's.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import tyro

from jobs.asking import default_flickr, flickr_rates, make_asker, make_player, make_searcher, photos_url
from jobs.burndown import Burndown, planned_rounds
from jobs.launch import Tally, Where, request_permits, session, work_through
from jobs.progress import Bar, say, show_outcomes
from pipeline.catalogue import Catalogue, Keep, iter_records, last_filters, open_catalogue
from pipeline.completeness import (
    combined,
    estimate,
    read_completeness,
    recapture_units,
    sample_queries,
    write_completeness,
)
from pipeline.crawl import search_unit, summarise
from pipeline.enrich import STAGES, Plan, Stage, Wanted, stage_units
from pipeline.errors import UserError
from pipeline.flickr import FlickrSettings, require_access
from pipeline.idlist import REJECTS_KEY, IdList, commit_idlist, read_idlist
from pipeline.journal import sweep
from pipeline.limits import Permits
from pipeline.reparse import by_unit_stem, reparse_search, reparse_stage
from pipeline.rounds import Round, begin_rounds, finish_round, new_rounds, rounds
from pipeline.store import Store, open_store
from pipeline.units import Ledger, Unit, Worker
from pipeline.vocabulary import Query, read_queries
from pipeline.windows import Direction

_HASH_KEY = "crawl/comment_hash_key"
SUMMARY_KEY = "crawl/summary.json"
ROT_KEY = "records/link_rot.json"


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
    """Uploads up to here; the default is an hour before the first crawl of them began."""
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
    memory_gib: float = 2.0
    """What merging may take; the process takes up to half as much again."""
    reparse: bool = False
    """Make the records again from the raw answers, with the filters they were made with; asks nobody."""
    flickr: FlickrSettings = field(default_factory=default_flickr)
    where: Where = field(default_factory=Where)

    def __post_init__(self) -> None:
        _check_words(self)
        if self.min_videos < 1 or self.check_queries < 0:
            raise UserError(
                f"min_videos {self.min_videos} must be 1 or more, check_queries {self.check_queries} 0 or more"
            )


def _check_words(config: Config) -> None:
    """Refuse what would be passed over in silence."""
    if config.ids is not None and (config.since or config.until or config.reparse):
        raise UserError("--ids names its videos: leave --since, --until and --reparse out")
    if config.ids is None and config.id_classes is not None:
        raise UserError("--id-classes is the class list of --ids: give both")
    if config.ids is not None and config.plan == "D":
        raise UserError("--ids with plan D asks nobody whether the videos are still there: use plan A, B or C")
    if config.plan in ("C", "D") and (config.keep.min_seconds, config.keep.max_seconds) != (None, None):
        raise UserError(f"--keep.min-seconds and max-seconds need durations, which plan {config.plan} does not ask for")


def run(config: Config) -> int:
    """Search or look up, ask for details, merge."""
    store = open_store(config.root, create=config.ids is not None)
    if config.reparse:
        return _reparse(config, store)
    listed = None if config.ids is None else read_idlist(config.ids, classes=config.id_classes)
    elsewhere = config.where.workers > 0 and config.where.ray_address is not None
    if not elsewhere:
        require_access(config.flickr)
    _tell_other_filters(config, store)
    with TemporaryDirectory(prefix="noisyactions-") as cache, session(config.where):
        if elsewhere:  # the cluster has a budget of its own
            require_access(config.flickr, request_permits(config.where, flickr_rates(config.flickr)))
        crawl = _Crawl(config, store, Burndown(store, plan=config.plan), Path(cache))
        if listed is not None:
            commit_idlist(Ledger(store, "ids", {}), listed)
            say(f"{len(listed.records):,} ids; {len(listed.rejects):,} lines are none ({store.url}/{REJECTS_KEY})")
        else:
            crawl.search()
        for stage in STAGES[config.plan]:
            crawl.stage(stage)
        crawl.burndown.write()
        crawl.write()
    if listed is not None:
        _tell_rot(store, listed)
    return crawl.exit_code


def _tell_other_filters(config: Config, store: Store) -> None:
    """Say it where the records were made with other filters: they will be made anew."""
    before = last_filters(store)
    if before is not None and before != (config.keep, config.min_videos):
        words = f"{_filter_words(*before)} before, now {_filter_words(config.keep, config.min_videos)}"
        say(f"the records were made with other filters: {words}")


def _filter_words(keep: Keep, min_videos: int) -> str:
    given = {name: value for name, value in asdict(keep).items() if value is not None} | {"min_videos": min_videos}
    return ", ".join(f"{name}={value}" for name, value in given.items())


@dataclass(slots=True)
class _Crawl:
    """One run of the verb, stage by stage."""

    config: Config
    store: Store
    burndown: Burndown
    cache: Path
    """What the stages have read and fetched, for the next one."""
    exit_code: int = 0

    def search(self) -> None:
        """Walk the windows of every query, then check a sample of them."""
        queries, every = read_queries(self.store), self._rounds()
        say(f"{len(queries):,} queries, {', '.join(map(str, every))}")
        ledger = Ledger(self.store, "crawl", {"rest_url": self.config.flickr.rest_url})
        done = _opened(ledger)
        left = ledger.left(search_unit(query, one.window) for one in every for query in queries)
        tally = self._work(left, "search", self._searcher(ledger, "forward"), done=len(done))
        if not tally.set_aside:
            for one in every:
                finish_round(self.store, one)
        summary = summarise(ledger)
        self.store.write(SUMMARY_KEY, json.dumps(summary, indent=1).encode())
        if summary["truncated"]:
            few = ", ".join(summary["truncated"][:3])
            say(f"{len(summary['truncated']):,} windows hold more than Flickr shows, some videos stay unseen: {few}")
        sample = sample_queries(queries, self.config.check_queries)
        if sample and not tally.set_aside:
            self._check(sample, every)

    def _rounds(self) -> list[Round]:
        """All rounds of the root, with those that the words of the command line add."""
        since, until = self.config.since, self.config.until
        known = rounds(self.store)
        planned = (
            [] if known and since is None and until is None else planned_rounds(self.store, since=since, until=until)
        )
        clash = any(p.since <= k.until and k.since <= p.until for p in planned for k in known)
        begin_rounds(self.store, planned if planned and not clash else new_rounds(known, since=since, until=until))
        return rounds(self.store)

    def _check(self, sample: list[Query], every: list[Round]) -> None:
        """Search a sample of the queries once more in another way, to tell how complete the search was."""
        ledger = Ledger(self.store, "recapture", {"rest_url": self.config.flickr.rest_url})
        done = _opened(ledger)
        left = ledger.left(unit for one in every for unit in recapture_units(sample, one.window))
        if not self._work(left, "check", self._searcher(ledger, "backward"), done=len(done)).set_aside:
            for one in every:
                write_completeness(self.store, one.window, estimate(self.store, sample, one.window))
            say(_completeness_words(self.store))

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
        return open_catalogue(
            self.store,
            keep=self.config.keep,
            min_videos=self.config.min_videos,
            queries=_queries(self.store),
            cache=self.cache,
            memory_bytes=int(self.config.memory_gib * 2**30),
        )

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
            left_out = catalogue.num_left_out
        show_outcomes("videos by what Flickr says of them", outcomes)
        if left_out:
            say(f"{left_out:,} videos that only queries of a former vocabulary found are left out")
        say(f"{sum(outcomes.values()):,} records in {self.store.url}/records; their concepts in classes.csv")
        return outcomes


def _queries(store: Store) -> list[Query]:
    """The vocabulary's, none where there is no vocabulary: a root may be of a list of ids alone."""
    return read_queries(store) if store.size("vocabulary/queries.parquet") is not None else []


def _completeness_words(store: Store) -> str:
    told = combined(read_completeness(store))
    if told["completeness"] is None:
        return "how complete the search was cannot be told: neither pass found anything"
    return (
        f"complete to {told['completeness']:.2%}: {told['found']:,} of about {told['there_are']:,.0f} "
        f"(± {2 * told['deviation']:,.0f}) videos of the checked queries, by a second search"
    )


def _opened(ledger: Ledger) -> set[str]:
    done = ledger.open()
    sweep(ledger.store, ledger.job, stale=done.__contains__)
    return done


def _hash_key(store: Store) -> bytes:
    """The root's own secret for hashing comment authors: one person is one hash here, and nothing elsewhere."""
    store.create(_HASH_KEY, secrets.token_bytes(32), private=True)
    return store.read(_HASH_KEY)


def _reparse(config: Config, store: Store) -> int:
    """Every unit's records from its raw answers, then the merge."""
    queries = by_unit_stem(_queries(store))
    if not any(True for job in ("crawl", "ids", "info") for _ in store.list(f"{job}/commits/")):
        raise UserError(f"{store.url} holds no raw answers to read again: run `noisyactions crawl` on it first")
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
    keep, min_videos = last_filters(store) or (config.keep, config.min_videos)
    same = replace(config, keep=keep, min_videos=min_videos)
    with TemporaryDirectory(prefix="noisyactions-") as cache:
        _Crawl(same, store, Burndown(store, plan=config.plan), Path(cache)).write()
    return 0


_ROTTED = frozenset({"gone", "private", "never_playable", "no_video_url"})


def _tell_rot(store: Store, listed: IdList) -> None:
    """What is left of a released list; filters are no rot."""
    wanted = {record.video_id for record in listed.records}
    outcomes = Counter(record.dropped or "ok" for record in iter_records(store) if record.video_id in wanted)
    alive = sum(count for word, count in outcomes.items() if word not in _ROTTED)
    told = {"ids": len(wanted), "lines_rejected": len(listed.rejects), "alive": alive, "outcomes": dict(outcomes)}
    store.write(ROT_KEY, json.dumps(told, indent=1).encode())
    say(
        f"{alive:,} of {len(wanted):,} listed videos are still there ({alive / len(wanted):.1%}); {store.url}/{ROT_KEY}"
    )
