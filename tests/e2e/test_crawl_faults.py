"""A whole crawl under every fault of the sandbox, alone and all together: it ends with a calm crawl's records.

Crawls run in this process. Those under one kind of fault run side by side, for most of their time is waiting.
"""

import contextlib
import json
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from jobs.crawl import Config, run
from pipeline.catalogue import Keep, read_records
from pipeline.enrich import Plan
from pipeline.errors import UserError
from pipeline.flickr import FlickrSettings
from pipeline.journal import Line, read_lines
from pipeline.records import VideoRecord, from_parquet
from pipeline.sandbox.answers import labels_of
from pipeline.sandbox.counters import Counters
from pipeline.sandbox.faults import Fault, Kind
from pipeline.sandbox.search import Query as SandboxQuery
from pipeline.sandbox.search import SearchQuirks
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World, WorldConfig
from pipeline.store import FolderStore
from pipeline.transfer import Deadlines
from pipeline.units import Ledger
from pipeline.vocabulary import Concept, Query, write_vocabulary

ACTIONS = ("juggling balls", "push ups", "swing", "hula hoop")
UNTIL = "1750000000"
SEARCH, INFO, SIZES, COMMENTS = (
    f"flickr.photos.{name}" for name in ("search", "getInfo", "getSizes", "comments.getList")
)
JOBS = ("crawl", "recapture", "info", "sizes", "comments")

ASKED_AGAIN: tuple[Kind, ...] = (
    "429", "429_seconds", "429_date", "403", "404", "410", "500", "502", "503", "504", "code_0", "code_10", "code_105",
    "code_201", "trailing_comma", "truncated_json", "html", "empty", "bad_utf8", "bad_gzip", "reset", "close", "hang",
    "drip", "short_body", "no_length", "redirect_loop", "expired",
)  # fmt: skip
"""Each costs one more try."""
HARMLESS: tuple[Kind, ...] = ("long_body", "wrong_type", "range_ignored", "duplicate_page", "page_shift")
"""The answer can be used as it is: none of them asks for a range, and no page but the first is asked for here."""
SAID_OF_A_VIDEO: Mapping[Kind, str] = {
    "code_1": "gone", "code_2": "private", "code_99": "private", "code_20": "http_4xx",
}  # fmt: skip
"""Believed, for so Flickr speaks of one video; with the reason that the record then has."""
SLOW: tuple[Kind, ...] = ("hang", "drip")


@dataclass(frozen=True, slots=True)
class Crawled:
    """What a crawl left, and what the server saw of it."""

    code: int
    store: FolderStore
    base_url: str
    counters: Counters
    """The server's; of an answer that hangs they tell when the server has ended."""

    @property
    def tries(self) -> int:
        """Calls that the server saw, but for those that check the key before any work."""
        return self.counters.count("api") - self.counters.count("flickr.test.echo")

    @property
    def faults(self) -> dict[str, int]:
        """How often each fault befell one of them."""
        return dict(self.counters.snapshot()["faults"])

    def records(self) -> list[VideoRecord]:
        """The merged records but for when they were found and where the server was."""
        return [
            replace(
                record,
                found=tuple(replace(f, crawled=0) for f in record.found),
                renditions=tuple(replace(r, url=r.url.removeprefix(self.base_url)) for r in record.renditions),
            )
            for record in read_records(self.store)
        ]

    def lines(self, job: str) -> Iterator[Line]:
        """The raw answers that its commits name."""
        for commit in Ledger(self.store, job, {}).commits():
            for output in commit.outputs:
                if output.key.endswith(".zst"):
                    yield from read_lines(self.store.read(output.key))


@pytest.fixture(scope="module", autouse=True)
def _key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLICKR_API_KEY", "k3y0fth3s4ndb0x")
        patch.setenv("FLICKR_API_SECRET", "s3cr3t0fth3s4ndb0x")
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Every query is answered by one page; two videos in five are in trouble."""
    config = WorldConfig(num_videos=60, num_photos=2, actions=ACTIONS, trouble_rate=0.4)
    return World(config, cache=tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One query finds all of it, on three pages."""
    config = WorldConfig(
        num_videos=1050, num_photos=3, shared_tag="sharedtag", trouble_rate=0.25, comment_rate=0.005,
        batch_uploads=0.2, same_second=40,
    )  # fmt: skip
    return World(config, cache=tmp_path_factory.mktemp("large"))


def begin(root: Path, *queries: str) -> FolderStore:
    """A root to crawl; authors of comments have the same hashes on all of them."""
    store = FolderStore(root)
    write_vocabulary(
        store,
        concepts=[Concept(concept=name, query_texts=(name,), sources=()) for name in queries or ACTIONS],
        queries=[Query(kind="concept", concept=name, text=name) for name in queries or ACTIONS],
    )
    store.create("crawl/comment_hash_key", bytes(32))
    return store


def crawl(
    store: FolderStore, server: SandboxServer, *, max_attempts: int = 8, deadlines: Deadlines | None = None,
    plan: Plan = "B", check_queries: int = 1, rest_url: str | None = None, **config: Any,
) -> Crawled:  # fmt: skip
    settings = FlickrSettings(
        rest_url=rest_url or server.rest_url, contact="a@b.c", calls_per_hour=1e7, max_attempts=max_attempts,
        deadlines=deadlines or Deadlines(total_seconds=60.0),
    )  # fmt: skip
    told = {"until": UNTIL, "min_videos": 1, **config}
    code = run(Config(root=store.url, flickr=settings, plan=plan, check_queries=check_queries, **told))
    assert server.counters.errors == []
    return Crawled(code, store, server.base_url, server.counters)


def shaken(root: Path, world: World, faults: Iterable[Fault], *queries: str, **config: Any) -> Crawled:
    with serve(world, faults=faults) as server:
        return crawl(begin(root, *queries), server, **config)


@pytest.fixture(scope="module")
def calm(small: World, tmp_path_factory: pytest.TempPathFactory) -> Crawled:
    """The small world in fine weather."""
    done = shaken(tmp_path_factory.mktemp("calm"), small, ())
    assert done.code == 0
    assert_accounts_balance(done)
    reasons = {"deleted": "gone", "private": "gone", "processing": "still_processing", "failed": "never_playable",
               "player_only": "no_video_url"}  # fmt: skip
    for record in done.records():
        video = small.find(record.video_id)
        assert video is not None
        assert record.dropped == reasons.get(video.trouble or "")
        assert bool(record.renditions) == (record.dropped is None)
    assert {"gone", "still_processing", "no_video_url", None} <= {r.dropped for r in done.records()}
    assert sum(bool(r.comments) for r in done.records()) > 5
    return done


@pytest.fixture(scope="module")
def calm_large(large: World, tmp_path_factory: pytest.TempPathFactory) -> Crawled:
    """The large world as a search shows it that has no oddities."""
    with serve(large, quirks=SearchQuirks(cap=len(large), total_type="int")) as server:
        done = crawl(begin(tmp_path_factory.mktemp("calm large"), "sharedtag"), server, plan="D", check_queries=0)
    assert done.code == 0
    assert_accounts_balance(done)
    assert [r.video_id for r in done.records()] == sorted(v.video_id for v in large if v.media == "video")
    return done


def assert_accounts_balance(done: Crawled) -> Counter[str]:
    """Each video is one row and each row has one outcome; commits agree with what they list. All calls by job."""
    found = read_records(done.store)
    told = json.loads(done.store.read("records/records.json"))
    assert [r.video_id for r in found] == sorted({r.video_id for r in found})
    assert told["videos"] == sum(told["outcomes"].values()) == sum(part["rows"] for part in told["parts"]) == len(found)
    assert Counter(r.dropped or "ok" for r in found) == told["outcomes"]
    calls: Counter[str] = Counter()
    searched: set[str] = set()
    for job in JOBS:
        counts: Counter[str] = Counter()
        rows: list[VideoRecord] = []
        for commit in Ledger(done.store, job, {}).commits():
            counts.update(commit.counts)
            for output in commit.outputs:
                data = done.store.read(output.key)
                assert len(data) == output.size
                rows += from_parquet(data) if output.key.endswith(".parquet") else []
        calls[job] = counts.pop("calls", 0)
        assert calls[job] == sum(1 for _ in done.lines(job))
        if job in ("crawl", "recapture"):
            assert counts["videos"] == len(rows)
            searched |= {row.video_id for row in rows if job == "crawl"}
        else:  # asked about once, whatever came of it
            assert len(rows) == len({row.video_id for row in rows})
            assert Counter(row.dropped or "ok" for row in rows) == counts
    assert searched == {r.video_id for r in found}
    return calls


def assert_nothing_is_left_over(done: Crawled) -> None:
    assert [key for key in done.store.list() if "/journal/" in key] == []
    named = {o.key for job in JOBS for commit in Ledger(done.store, job, {}).commits() for o in commit.outputs}
    kept = {key for key in done.store.list() if "/raw/" in key or key.partition("/")[2].startswith("records/")}
    assert kept == named


def test_every_kind_is_served_here() -> None:
    assert {*ASKED_AGAIN, *HARMLESS, *SAID_OF_A_VIDEO, "key_disabled"} == set(get_args(Kind))


def strikes(kind: Kind) -> list[Fault]:
    """The first search, two getInfo on end half way, the first getSizes, a later list of comments."""
    seconds = 30.0 if kind in SLOW else 1.0  # far more than the deadline, or what Retry-After asks for
    return [
        Fault(kind=kind, method=SEARCH, times=1, seconds=seconds),
        Fault(kind=kind, method=INFO, first=20, times=2, seconds=seconds),
        Fault(kind=kind, method=SIZES, times=1, seconds=seconds),
        Fault(kind=kind, method=COMMENTS, first=4, times=1, seconds=seconds),
    ]


@pytest.mark.parametrize("kind", [*ASKED_AGAIN, *HARMLESS])
def test_a_fault_of_the_moment_changes_no_record(
    calm: Crawled, crawls: Mapping[str, Future[Crawled]], kind: Kind
) -> None:
    done = crawls[kind].result()
    assert done.code == 0
    assert done.faults == {kind: 5}
    assert done.records() == calm.records()
    calls = assert_accounts_balance(done)
    assert calls == assert_accounts_balance(calm)
    lost = 5 if kind in ASKED_AGAIN else 0
    if kind in SLOW:  # with so short a deadline a busy machine loses another one now and then
        assert done.tries >= calls.total() + lost
    else:
        assert done.tries == calls.total() + lost
    assert_nothing_is_left_over(done)


@pytest.mark.parametrize("said", SAID_OF_A_VIDEO)
def test_what_is_said_of_one_video_is_its_reason_and_changes_no_other(
    calm: Crawled, small: World, tmp_path: Path, said: Kind
) -> None:
    faults = [
        Fault(kind=said, method=INFO, first=9, times=1),
        Fault(kind=said, method=SIZES, first=7, times=1),
        Fault(kind=said, method=COMMENTS, first=3, times=1),
    ]
    done = shaken(tmp_path, small, faults)
    assert done.code == 0
    assert done.faults == {said: 3}
    calls = assert_accounts_balance(done)
    assert done.tries == calls.total()
    expected = {record.video_id: record for record in calm.records()}
    reason = SAID_OF_A_VIDEO[said]
    found = {record.video_id: record for record in done.records()}

    (no_info,) = refused(done, "info").keys() - refused(calm, "info").keys()
    (no_sizes,) = refused(done, "sizes")
    (no_comments,) = refused(done, "comments")
    before = expected.pop(no_info)
    after = found.pop(no_info)
    assert after.dropped == reason
    assert (after.concepts, after.found, after.title, after.posted) == (
        before.concepts, before.found, before.title, before.posted,
    )  # fmt: skip
    assert (after.renditions, after.comments) == ((), ())
    expected[no_sizes] = replace(expected[no_sizes], renditions=(), comments=(), dropped=reason)
    assert expected[no_comments].comments
    expected[no_comments] = replace(expected[no_comments], comments=())
    assert found == expected


def refused(done: Crawled, stage: str) -> dict[str, tuple[str, str]]:
    """What Flickr did not tell in a stage, by video: the reason and its own words."""
    return {str(line.parameters["photo_id"]): line.refusal for line in done.lines(stage) if line.refusal is not None}


@pytest.mark.parametrize("said", ["code_1", "code_20"])
def test_a_first_page_that_is_refused_is_asked_for_again(
    calm: Crawled, small: World, tmp_path: Path, said: Kind
) -> None:
    done = shaken(tmp_path, small, [Fault(kind=said, method=SEARCH, first=2, every=3, times=2)])
    assert (done.code, done.faults) == (0, {said: 2})
    assert done.records() == calm.records()
    assert done.tries == assert_accounts_balance(done).total() + 2


def test_a_query_that_is_always_refused_is_set_aside_with_few_calls_and_the_others_go_on(
    calm: Crawled, small: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(small, faults=[Fault(kind="code_1", method=SEARCH, times=3)]) as server:
        done = crawl(begin(tmp_path), server)
        assert done.code == 3
        assert server.counters.count(SEARCH) == 3 + len(ACTIONS) - 1
        told = capsys.readouterr().out
        assert "set aside: run the same command again" in told
        assert "error 1: Photo not found" in told
        assert 0 < len(done.records()) < len(calm.records())
        assert crawl(done.store, server).code == 0
    assert done.records() == calm.records()
    assert_accounts_balance(done)
    assert_nothing_is_left_over(done)


def test_chunks_that_are_cut_otherwise_after_more_was_found_leave_nothing_behind(
    calm: Crawled, small: World, tmp_path: Path
) -> None:
    faults = [Fault(kind="code_1", method=SEARCH, times=3), Fault(kind="500", method=INFO, first=25)]
    with serve(small, faults=faults) as server:
        done = crawl(begin(tmp_path), server, max_attempts=1)
        assert done.code == 3
        assert any(key.startswith("info/journal/") for key in done.store.list())
        server.set_faults([])
        done = crawl(done.store, server)
    assert done.code == 0
    assert wanted(done) == wanted(calm)
    assert_nothing_is_left_over(done)


@pytest.mark.parametrize(
    ("refusal", "method", "first"),
    [("key_disabled", SEARCH, 3), ("key_disabled", INFO, 34), ("key_disabled", COMMENTS, 1), ("code_99", SEARCH, 2)],
)
def test_a_key_that_is_switched_off_ends_the_crawl_which_goes_on_with_another(
    calm: Crawled, small: World, tmp_path: Path, refusal: Kind, method: str, first: int
) -> None:
    with serve(small, faults=[Fault(kind=refusal, method=method, first=first)]) as server:
        store = begin(tmp_path)
        with pytest.raises(UserError, match=r"the API key is refused|Insufficient permissions"):
            crawl(store, server)
        assert store.size("records/records.json") is None
        for job in JOBS:
            for commit in Ledger(store, job, {}).commits():
                assert all(store.size(output.key) == output.size for output in commit.outputs)
        server.set_faults([])
        done = crawl(store, server)
    assert done.code == 0
    assert done.records() == calm.records()
    assert done.faults == {refusal: 1}  # it is not asked again and again
    asked_twice = (first - 1) % 50 % 10 if method == INFO else 0  # of what was answered, less than a part of a journal
    assert done.tries == assert_accounts_balance(done).total() + 1 + asked_twice
    assert_nothing_is_left_over(done)


NO_LOSS = {
    "no oddity": SearchQuirks(),
    "lower cap": SearchQuirks(cap=1000),
    "error 20": SearchQuirks(cap=500, past_cap="error", past_end="empty"),
    "unstable order": SearchQuirks(unstable="always"),
    "small totals": SearchQuirks(under_reported=0.4, total_type="str"),
    "totals that change": SearchQuirks(under_reported=0.4, under_reporting="per_call", past_end="empty"),
    "blurred bounds": SearchQuirks(fuzzy_seconds=300, fuzzy_inwards=True),
    "all": SearchQuirks(
        cap=500, past_cap="error", unstable="always", under_reported=0.3, under_reporting="per_call",
        fuzzy_seconds=300, fuzzy_inwards=True, stale_safety=0.5,
    ),
}  # fmt: skip
SHIFTS = tuple(Fault(kind="page_shift", method=SEARCH, first=first, every=3, rows=25) for first in (2, 3))
VANISHED = Fault(kind="page_shift", method=SEARCH, first=2, every=2, rows=-25)
MOVING = ("no oddity", "all")
OLD_PAGES = Fault(kind="duplicate_page", method=SEARCH)


@pytest.mark.parametrize(
    ("quirks", "faults"),
    [
        *(
            pytest.param(quirks, (), id=name, marks=() if name == "all" else pytest.mark.slow)
            for name, quirks in NO_LOSS.items()
        ),
        *(
            pytest.param(
                NO_LOSS[name], (*SHIFTS, OLD_PAGES), id=f"{name}, pages move",
                marks=() if name == "all" else pytest.mark.slow,
            )
            for name in MOVING
        ),
        *(
            pytest.param(NO_LOSS[name], (VANISHED,), id=f"{name}, rows vanish", marks=pytest.mark.slow)
            for name in MOVING
        ),
    ],
)  # fmt: skip
def test_an_odd_search_loses_no_record(
    calm_large: Crawled, large: World, tmp_path: Path, quirks: SearchQuirks, faults: tuple[Fault, ...]
) -> None:
    with serve(large, quirks=quirks, faults=faults) as server:
        done = crawl(begin(tmp_path, "sharedtag"), server, plan="D", check_queries=0)
    assert done.code == 0
    assert wherever(done) == wherever(calm_large)
    assert sum(done.faults.values()) >= len(faults)
    assert done.tries == assert_accounts_balance(done).total()


def wherever(done: Crawled) -> list[VideoRecord]:
    """The records but for windows and pages: an odd search cuts otherwise."""
    return [replace(r, found=tuple({replace(f, window="", page=0) for f in r.found})) for r in wanted(done)]


def wanted(done: Crawled) -> list[VideoRecord]:
    """The records, without comments where there is no video: these are asked for if its getInfo was set aside."""
    return [r if r.dropped is None else replace(r, comments=()) for r in done.records()]


@pytest.mark.parametrize(
    "quirks",
    [pytest.param(SearchQuirks(), marks=pytest.mark.slow, id="no oddity"), pytest.param(NO_LOSS["all"], id="all")],
)
def test_a_search_that_is_cut_loses_no_record(tmp_path: Path, quirks: SearchQuirks) -> None:
    config = WorldConfig(num_videos=3400, shared_tag="sharedtag", comment_rate=0.0, dates="burst", same_second=700)
    with serve(World(config, cache=tmp_path), quirks=quirks) as server:
        done = crawl(begin(tmp_path / "root", "sharedtag"), server, plan="D", check_queries=0)
        videos = {v.video_id for v in server.world if v.media == "video"}
    assert done.code == 0
    assert {r.video_id for r in done.records()} == videos
    assert len(list(Ledger(done.store, "crawl", {}).commits())) > 1
    assert done.tries == assert_accounts_balance(done).total()


@pytest.mark.parametrize("quirks", [SearchQuirks(thinned=0.1), SearchQuirks(thinned_per_call=0.1)])
def test_only_what_search_leaves_out_is_missing(
    calm_large: Crawled, large: World, tmp_path: Path, quirks: SearchQuirks
) -> None:
    with serve(large, quirks=quirks) as server:
        done = crawl(begin(tmp_path, "sharedtag"), server, plan="D", check_queries=0)
        shown = server.index.findable(SandboxQuery(text="sharedtag", media="videos"))
    found = {r.video_id for r in done.records()}
    if quirks.thinned:
        assert found == shown
        assert 0.85 < len(found) / len(calm_large.records()) < 0.95
    else:
        assert 0.85 < len(found) / len(shown) <= 1
    assert [r for r in wherever(calm_large) if r.video_id in found] == wherever(done)
    counts = sum((Counter(c.counts) for c in Ledger(done.store, "crawl", {}).commits()), Counter())
    assert counts["short_of_total"] >= 0.8 * (len(large) - len(found))
    assert_accounts_balance(done)


def test_what_arrives_meanwhile_shifts_no_record_out_of_the_search(
    calm_large: Crawled, large: World, tmp_path: Path
) -> None:
    with serve(large, quirks=SearchQuirks(growing=40, arriving=0.3, unstable="always")) as server:
        until = server.index.present_until
        done = crawl(begin(tmp_path, "sharedtag"), server, plan="D", check_queries=1, until=str(until))
    present = [r for r in wherever(calm_large) if (r.posted or 0) <= until]
    assert 0.6 < len(present) / len(calm_large.records()) < 0.8
    assert [r for r in wherever(done) if (r.posted or 0) <= until] == present
    assert_accounts_balance(done)


def everything(*, probability: float) -> list[Fault]:
    """Every fault that loses nothing, and now and then what Flickr says of one video."""
    moments = [
        Fault(kind=kind, method="flickr.photos.*", probability=probability, seconds=20.0 if kind in SLOW else 1.0)
        for kind in (*ASKED_AGAIN, *HARMLESS)
    ]
    refusals = [
        Fault(kind=kind, method=method, probability=probability)
        for kind in SAID_OF_A_VIDEO for method in (INFO, SIZES, COMMENTS)
    ]  # fmt: skip
    searches = [Fault(kind=kind, method=SEARCH, probability=probability) for kind in ("code_1", "code_2", "code_20")]
    return [*refusals, *searches, *moments]


def each_once() -> list[Fault]:
    """Every fault that does not end a crawl, one after another."""
    moments = [
        Fault(kind=kind, method="flickr.photos.*", first=1 + 3 * n, times=1, seconds=20.0 if kind in SLOW else 1.0)
        for n, kind in enumerate((*ASKED_AGAIN, *HARMLESS))
    ]
    refusals = [Fault(kind=kind, method=INFO, first=3 + 5 * n, times=1) for n, kind in enumerate(SAID_OF_A_VIDEO)]
    return [*refusals, *moments]


def crawl_to_the_end(
    world: World, store: FolderStore, quirks: SearchQuirks, faults: list[Fault], *, seed: int, **config: Any
) -> Crawled:
    """Run it again as long as units are set aside."""
    short = Deadlines(connect_seconds=5.0, silence_seconds=0.7, total_seconds=1.0)
    with serve(world, quirks=quirks, faults=faults, seed=seed) as server:
        for _ in range(20):
            done = crawl(store, server, deadlines=short, max_attempts=2, **config)
            if done.code == 0:
                return done
            assert done.code == 3
            assert_accounts_balance(done)
    raise AssertionError("it does not end")


STORMS = ("each once", "small 1", "small 2", "large 1", "large 2")
MORE_STORMS = tuple(f"{world} {seed}" for world in ("small", "large") for seed in range(3, 9))


@pytest.fixture(scope="module")
def crawls(
    request: pytest.FixtureRequest, small: World, large: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[Crawled]]]:
    """Crawls under one kind of fault each, and under all together; begun for the tests that were chosen."""
    short = Deadlines(connect_seconds=5.0, silence_seconds=1.0, total_seconds=1.5)

    def under(kind: Kind) -> Crawled:
        root = tmp_path_factory.mktemp(kind)
        return shaken(root, small, strikes(kind), deadlines=short if kind in SLOW else None)

    def amid(storm: str) -> Crawled:
        word, _, seed = storm.partition(" ")
        root, odd = tmp_path_factory.mktemp("storm"), NO_LOSS["all"]
        if word == "each":
            return crawl_to_the_end(small, begin(root), odd, each_once(), seed=0)
        if word == "small":
            return crawl_to_the_end(small, begin(root), odd, everything(probability=0.006), seed=int(seed))
        store, faults = begin(root, "sharedtag"), everything(probability=0.03)
        return crawl_to_the_end(large, store, odd, faults, seed=int(seed), plan="D", check_queries=0)

    with ThreadPoolExecutor(8) as pool:
        kinds = chosen(request, "kind")
        storms = {storm: pool.submit(amid, storm) for storm in chosen(request, "storm")}
        yield {**storms, **{kind: pool.submit(under, kind) for kind in (*ASKED_AGAIN, *HARMLESS) if kind in kinds}}


def chosen(request: pytest.FixtureRequest, parameter: str) -> list[str]:
    """The parameter's values among the tests of this file that are to run."""
    calls = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    return list(dict.fromkeys(call.params[parameter] for call in calls if call and parameter in call.params))


@pytest.mark.parametrize("storm", [*STORMS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_STORMS)])
def test_all_faults_together_lose_and_double_no_record(
    calm: Crawled, calm_large: Crawled, crawls: Mapping[str, Future[Crawled]], storm: str
) -> None:
    done, fair = crawls[storm].result(), calm_large if storm.startswith("large") else calm
    if storm == "each once":
        assert done.faults == dict.fromkeys((*ASKED_AGAIN, *HARMLESS, *SAID_OF_A_VIDEO), 1)
    else:
        assert len(done.faults) > 3
    assert done.tries >= assert_accounts_balance(done).total()
    assert_nothing_is_left_over(done)
    struck = {
        stage: {i: told for i, told in refused(done, stage).items() if told != refused(fair, stage).get(i)}
        for stage in ("info", "sizes", "comments")
    }
    assert sum(map(len, struck.values())) <= sum(done.counters.count(kind) for kind in SAID_OF_A_VIDEO)
    expected = {r.video_id: r for r in wherever(fair)}
    found = {r.video_id: r for r in wherever(done)}
    assert found.keys() == expected.keys()
    for video_id, record in found.items():
        before = expected[video_id]
        if video_id in struck["info"]:
            before = replace(before, dropped=struck["info"][video_id][0], **unknown(record))
        elif video_id in struck["sizes"]:
            before = replace(before, dropped=struck["sizes"][video_id][0], renditions=(), comments=())
        if video_id in struck["comments"]:
            before = replace(before, comments=())
        assert record == before


def unknown(record: VideoRecord) -> dict[str, Any]:
    """What a video's search did not tell, as it stands in a record without answers to other questions."""
    asked = ("tags", "country", "duration_seconds", "safety_level", "renditions", "comments", "views", "taken")
    return {name: getattr(record, name) for name in asked}


def test_a_key_over_its_hour_is_set_aside_and_goes_on_an_hour_later(
    calm: Crawled, small: World, tmp_path: Path
) -> None:
    store, hours = begin(tmp_path), 0
    codes: list[int] = []
    with serve(small, hourly_limit=70) as server:
        while not codes or codes[-1]:
            done = crawl(store, server, max_attempts=1)
            codes.append(done.code)
            assert_accounts_balance(done)
            server.clock.advance(3601)
            hours += 1
    assert codes == [3] * (hours - 1) + [0]
    assert hours > 1
    assert wanted(done) == wanted(calm)
    assert_nothing_is_left_over(done)


def test_a_server_that_is_away_for_a_moment_is_waited_for(calm: Crawled, small: World, tmp_path: Path) -> None:
    store = begin(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        with serve(small) as first:
            running = pool.submit(crawl, store, first)
            while first.counters.count(INFO) < 20:
                time.sleep(0.002)
            port = int(first.base_url.rpartition(":")[2])
        time.sleep(1.0)
        with serve(small, port=port) as second:
            done = running.result()
    assert done.code == 0
    assert done.records() == calm.records()
    calls = assert_accounts_balance(done).total()
    assert calls <= first.counters.count("api") + second.counters.count("api") - 1 <= calls + 1  # the one in flight
    assert_nothing_is_left_over(done)


def test_a_server_that_stays_away_is_told_and_the_crawl_goes_on_another_day(
    calm: Crawled, small: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = begin(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        with serve(small) as first:
            running = pool.submit(crawl, store, first, max_attempts=1)
            while first.counters.count(INFO) < 20:
                time.sleep(0.002)
            port = int(first.base_url.rpartition(":")[2])
        assert running.result().code == 3
    assert "no connection" in capsys.readouterr().out
    away = Crawled(3, store, first.base_url, first.counters)
    assert_accounts_balance(away)
    assert [r.video_id for r in away.records()] == [r.video_id for r in calm.records()]
    with pytest.raises(UserError, match="cannot be reached"):
        crawl(store, first)
    with serve(small, port=port) as second:
        done = crawl(store, second)
    assert done.code == 0
    assert done.records() == calm.records()
    assert second.counters.count("api") < first.counters.count("api") + 150
    assert_nothing_is_left_over(done)


@dataclass(slots=True)
class Relay:
    """Passes on what a server says, at times byte by byte: not even the headers come whole."""

    target: tuple[str, int]
    dripping: Sequence[int]
    """Which connections drip, from 0 on."""
    connections: int = 0

    def serve(self, listener: socket.socket) -> None:
        """Until the listener is shut down."""
        with contextlib.ExitStack() as ends, contextlib.suppress(OSError), ThreadPoolExecutor(16) as pool:
            while True:
                client = ends.enter_context(listener.accept()[0])
                server = ends.enter_context(socket.create_connection(self.target))
                pool.submit(_pass_on, client, server)
                pool.submit(_pass_on, server, client, slow=self.connections in self.dripping)
                self.connections += 1


def _pass_on(source: socket.socket, sink: socket.socket, *, slow: bool = False) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 if slow else 1 << 16):
            sink.sendall(data)
            time.sleep(0.05 if slow else 0)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def test_headers_that_drip_are_cut_and_asked_for_again(calm: Crawled, small: World, tmp_path: Path) -> None:
    store = begin(tmp_path)
    short = Deadlines(connect_seconds=5.0, silence_seconds=1.0, total_seconds=1.5)
    with serve(small) as server, socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        host, port = server.base_url.removeprefix("http://").split(":")
        relay = Relay((host, int(port)), dripping=(1, 3))  # 0 checks the key
        pool.submit(relay.serve, listener)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/services/rest/"
        done = crawl(store, server, rest_url=url, deadlines=short)
        listener.shutdown(socket.SHUT_RDWR)
    assert done.code == 0
    assert relay.connections > 3
    assert done.records() == calm.records()
    assert done.tries >= assert_accounts_balance(done).total() + 2


def test_nothing_unsafe_is_kept_though_search_calls_it_safe(tmp_path: Path) -> None:
    config = WorldConfig(num_videos=150, shared_tag="sharedtag", unsafe_rate=0.3, comment_rate=1.0, trouble_rate=0.0)
    world = World(config, cache=tmp_path)
    with serve(world, quirks=SearchQuirks(stale_safety=0.5)) as server:
        done = crawl(
            begin(tmp_path / "root", "sharedtag"), server, keep=Keep(max_safety_level=0), check_queries=0
        )  # fmt: skip
    found = {r.video_id: r for r in done.records()}
    levels = {v.video_id: v.safety_level for v in world if v.media == "video"}
    assert {i for i, level in levels.items() if not level} <= found.keys()
    unsafe = {i for i in found if levels[i]}
    assert len(unsafe) > 10
    assert {i for i, r in found.items() if r.dropped == "filtered_safety"} == unsafe
    assert all((found[i].renditions, found[i].comments) == ((), ()) for i in unsafe)
    assert {i for i, r in found.items() if r.dropped is None} == found.keys() - unsafe
    assert server.counters.count(SIZES) == len(found) - len(unsafe)
    assert_accounts_balance(done)


def test_odd_texts_and_places_arrive_whole(tmp_path: Path) -> None:
    config = WorldConfig(
        num_videos=150, shared_tag="sharedtag", odd_title_rate=0.6, comment_rate=0.8, trouble_rate=0.0,
        located_rate=1.0, num_photos=0,
    )  # fmt: skip
    world = World(config, cache=tmp_path)
    with serve(world) as server:
        done = crawl(begin(tmp_path / "root", "sharedtag"), server, check_queries=0)
    found = {r.video_id: r for r in done.records()}
    assert len(found) == len(world)
    for video in world:
        record, place = found[video.video_id], video.place
        assert place is not None
        assert record.title == video.texts.title.encode("utf-8", "replace").decode()
        assert record.description == video.texts.description
        assert record.tags == video.texts.tags
        assert [(c.text, c.posted) for c in record.comments] == [(c.text, c.posted) for c in video.comments]
        known = place.accuracy > 0 and (place.latitude, place.longitude) != (0, 0)
        assert (record.latitude, record.longitude) == ((place.latitude, place.longitude) if known else (None, None))
        assert record.country == place.country
        assert record.taken == (None if video.taken is None else video.taken.replace(" ", "T"))
        assert (record.posted, record.license, record.views, record.safety_level, record.num_comments) == (
            video.posted, video.license, video.views, video.safety_level, len(video.comments),
        )  # fmt: skip
        assert (record.owner, record.secret) == (video.owner.nsid, video.secret)
        assert record.duration_seconds == max(round(video.form.seconds), 1)
        assert {r.label for r in record.renditions} == set(labels_of(video))
    titles = {r.title for r in found.values()}
    assert {"NA", "null", "007", "7e5", "true", "nul \x00 and bell \x07", "half an emoji ?"} <= titles
    assert any(title.isdecimal() for title in titles - {"007"})
    assert {"Namibia", None} < {r.country for r in found.values()}
    assert {0, 99} < {r.license for r in found.values()}
    assert_accounts_balance(done)
