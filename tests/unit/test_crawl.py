import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.crawl import SearchWorker, search_unit
from pipeline.errors import Transient
from pipeline.flickr import Flickr, FlickrSettings
from pipeline.limits import LocalPermits
from pipeline.records import VideoRecord, from_parquet
from pipeline.sandbox.faults import Fault
from pipeline.sandbox.search import Query as SandboxQuery
from pipeline.sandbox.search import SearchQuirks
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World, WorldConfig
from pipeline.store import FolderStore
from pipeline.units import Finished, Ledger, Unit, work_here
from pipeline.vocabulary import Query
from pipeline.windows import FLICKR_VIDEO_LAUNCH, PER_PAGE, SAFE_RESULTS, SHOWN_RESULTS, Direction, Window

SEARCH = "flickr.photos.search"
EVERYTHING = Query(kind="concept", concept="everything", text="sharedtag")
ALWAYS = Window(start=FLICKR_VIDEO_LAUNCH, end=1_800_000_000)
NUM_VIDEOS = 20_000


@pytest.fixture(scope="module")
def large_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One query finds five times as many of it as Flickr shows."""
    return World(
        WorldConfig(num_videos=NUM_VIDEOS, shared_tag="sharedtag", num_photos=3), cache=tmp_path_factory.mktemp("w")
    )


@pytest.fixture(scope="module")
def middle_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One query finds more of it than Flickr shows."""
    return World(WorldConfig(num_videos=6_000, shared_tag="sharedtag"), cache=tmp_path_factory.mktemp("w"))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(FolderStore(tmp_path / "root"), "crawl", {})


def committed(ledger: Ledger) -> Iterator[VideoRecord]:
    for commit in ledger.commits():
        for output in commit.outputs:
            if output.key.endswith(".parquet"):
                yield from from_parquet(ledger.store.read(output.key))


def crawl(
    world: World, ledger: Ledger, permits: LocalPermits, *, quirks: SearchQuirks | None = None,
    faults: tuple[Fault, ...] = (), window: Window = ALWAYS, direction: Direction = "forward",
) -> tuple[Counter[str], set[str]]:  # fmt: skip
    """All counts of all units that one query gives rise to, and what they found."""
    with serve(world, quirks=quirks, faults=faults) as server:
        return crawl_from(server, ledger, permits, window=window, direction=direction)


def crawl_from(
    server: SandboxServer, ledger: Ledger, permits: LocalPermits, *, window: Window, direction: Direction
) -> tuple[Counter[str], set[str]]:
    settings = FlickrSettings(rest_url=server.rest_url, contact="a@b.c", calls_per_hour=1e7)
    worker = partial_worker(ledger, settings, direction)
    counts: Counter[str] = Counter()
    for result in work_here([search_unit(EVERYTHING, window)], worker, permits=permits):
        assert isinstance(result, Finished), result
        counts += result.counts
    assert server.counters.errors == []
    assert server.counters.count(SEARCH) == counts["calls"]
    return counts, {record.video_id for record in committed(ledger)}


def partial_worker(ledger: Ledger, settings: FlickrSettings, direction: Direction) -> Any:
    return lambda permits: SearchWorker(ledger, Flickr(settings, permits), direction)


SHIFTS = Fault(kind="page_shift", method=SEARCH, first=3, every=4, rows=25)
OLD_PAGES = Fault(kind="duplicate_page", method=SEARCH, first=3, every=4)


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize(
    ("quirks", "faults"),
    [
        pytest.param(SearchQuirks(cap=NUM_VIDEOS), (), id="no cap"),
        pytest.param(SearchQuirks(), (), id="pages repeat", marks=pytest.mark.slow),
        pytest.param(SearchQuirks(past_cap="error", past_end="empty"), (), id="error 20", marks=pytest.mark.slow),
        pytest.param(SearchQuirks(cap=2000), (), id="a lower cap", marks=pytest.mark.slow),
        pytest.param(SearchQuirks(unstable="always"), (), id="unstable order", marks=pytest.mark.slow),
        pytest.param(SearchQuirks(under_reported=0.3, total_type="str"), (), id="small totals", marks=pytest.mark.slow),
        pytest.param(
            SearchQuirks(fuzzy_seconds=300, fuzzy_inwards=True), (), id="blurred bounds", marks=pytest.mark.slow
        ),
        pytest.param(SearchQuirks(thinned=0.05), (), id="thin pages"),
        pytest.param(SearchQuirks(), (SHIFTS,), id="moving pages", marks=pytest.mark.slow),
        pytest.param(SearchQuirks(), (OLD_PAGES,), id="repeated pages", marks=pytest.mark.slow),
        pytest.param(
            SearchQuirks(unstable="always", under_reported=0.3, under_reporting="per_call", fuzzy_seconds=300),
            (SHIFTS, OLD_PAGES), id="all, pages repeat",
        ),
        pytest.param(
            SearchQuirks(past_cap="error", unstable="always", under_reported=0.3, fuzzy_seconds=300, thinned=0.05),
            (SHIFTS, OLD_PAGES), id="all, error 20",
        ),
    ],
)  # fmt: skip
def test_a_query_with_more_results_than_are_shown_finds_all_with_few_calls(
    large_world: World, ledger: Ledger, permits: LocalPermits, quirks: SearchQuirks, faults: tuple[Fault, ...]
) -> None:
    counts, found = crawl(large_world, ledger, permits, quirks=quirks, faults=faults)
    videos = {v.video_id for v in large_world if v.media == "video"}
    assert found <= videos
    if quirks.thinned:  # what search never shows cannot be found
        assert len(found) >= (1 - quirks.thinned) * len(videos) * 0.99
    else:
        assert len(found) >= 0.999 * len(videos)
    if quirks.cap == NUM_VIDEOS:
        assert found == videos
    assert counts["not_a_video"] >= 1
    assert counts["truncated_windows"] == 0
    assert counts["calls"] <= 1.5 * NUM_VIDEOS / PER_PAGE


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize("direction", ["forward", pytest.param("backward", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("hidden", "quirks"),
    [
        pytest.param((0, 600), SearchQuirks(), id="the first"),
        pytest.param((4_000, 6_000), SearchQuirks(past_end="empty"), id="the last"),
        pytest.param((700, 1_700), SearchQuirks(), id="a thousand"),
        pytest.param((400, 5_400), SearchQuirks(past_cap="error"), id="more than is ever shown"),
        pytest.param((0, 6_000), SearchQuirks(), id="all"),
        pytest.param((700, 2_200), SearchQuirks(unstable="always", fuzzy_seconds=300), id="unstable order"),
        pytest.param(
            (700, 5_000),
            SearchQuirks(past_cap="error", unstable="always", fuzzy_seconds=300, thinned=0.05, total_type="str"),
            id="much, all quirks",
        ),
    ],
)  # fmt: skip
def test_what_search_counts_and_never_shows_hides_nothing_behind_it_and_costs_few_calls(
    middle_world: World, ledger: Ledger, permits: LocalPermits, quirks: SearchQuirks, hidden: tuple[int, int],
    direction: Direction,
) -> None:  # fmt: skip
    posted = sorted(v.posted for v in middle_world)
    quirks = replace(quirks, hidden_from=posted[hidden[0]], hidden_until=posted[hidden[1] - 1])
    with serve(middle_world, quirks=quirks) as server:
        shown = server.index.findable(SandboxQuery(text="sharedtag", media="videos"))
        counts, found = crawl_from(server, ledger, permits, window=ALWAYS, direction=direction)
    assert found == shown
    assert len(posted) - len(shown) >= hidden[1] - hidden[0]
    assert counts["calls"] <= 3 * len(posted) / PER_PAGE + 4 * 19
    assert counts["truncated_windows"] == 0
    assert counts["short_of_total"] > 0


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_totals_that_follow_no_window_end_a_walk_all_the_same(
    ledger: Ledger, permits: LocalPermits, direction: Direction
) -> None:
    dates = [1_300_000_000 + 86_400 * day for day in range(1000)]
    flickr = _Stubborn(dates, total=5_987)
    results = work_here(
        [search_unit(EVERYTHING, ALWAYS)],
        lambda permits: SearchWorker(ledger, flickr, direction),  # type: ignore[arg-type]  # like one
        permits=permits,
    )
    counts = sum((result.counts for result in results if isinstance(result, Finished)), Counter[str]())
    assert {r.posted for r in committed(ledger)} == set(dates)
    assert counts["calls"] == flickr.calls <= 1000
    assert counts["truncated_windows"] > 0
    assert counts["short_of_total"] > 0


class _Stubborn:
    """A Flickr that tells the same total whatever window it is asked for."""

    def __init__(self, dates: list[int], *, total: int) -> None:
        self.dates, self.total, self.calls = dates, total, 0

    def call(self, method: str, *, expect: str | None = None, **parameters: Any) -> dict[str, Any]:
        self.calls += 1
        found = [d for d in self.dates if parameters["min_upload_date"] <= d <= parameters["max_upload_date"]]
        found = found[:: 1 if parameters["sort"] == "date-posted-asc" else -1]
        rows = found[(parameters["page"] - 1) * PER_PAGE : parameters["page"] * PER_PAGE]
        photos = [{"id": str(date), "dateupload": str(date)} for date in rows]
        return {"stat": "ok", "photos": {"total": self.total, "photo": photos}}


@pytest.mark.usefixtures("sandbox_key")
def test_an_empty_answer_is_asked_for_again_before_it_is_believed(
    permits: LocalPermits, ledger: Ledger, raw_server: Any
) -> None:
    answers = [{"total": 1, "photo": []}, {"total": 1, "photo": [{"id": "7", "dateupload": "1300000000"}]}]
    bodies = [json.dumps({"stat": "ok", "photos": photos}).encode() for photos in answers]
    url = raw_server(*(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies))
    worker = SearchWorker(ledger, Flickr(FlickrSettings(rest_url=url, contact="a@b.c"), permits))
    assert worker(search_unit(EVERYTHING, ALWAYS)).counts["videos"] == 1


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize("past_end", ["repeat", "empty"])
def test_a_licence_of_a_second_whose_last_page_is_almost_full_is_seen_whole(
    tmp_path: Path, permits: LocalPermits, past_end: Any
) -> None:
    config = WorldConfig(num_videos=480, num_photos=0, shared_tag="sharedtag", batch_uploads=0.9999)
    world = World(config, cache=tmp_path / "world")
    (second,) = {v.posted for v in world}
    ledger, licenses = Ledger(FolderStore(tmp_path / "root"), "crawl", {}), Counter(v.license for v in world)
    quirks = SearchQuirks(past_end=past_end)
    window = Window(start=second, end=second, license=licenses.most_common(1)[0][0])
    counts, found = crawl(world, ledger, permits, quirks=quirks, window=window)
    assert len(found) == licenses.most_common(1)[0][1]
    assert (counts["truncated_windows"], counts["short_of_total"]) == (0, 0)


@pytest.mark.usefixtures("sandbox_key")
def test_the_newest_first_is_cut_too_so_that_no_unit_holds_a_whole_query(
    middle_world: World, ledger: Ledger, permits: LocalPermits
) -> None:
    crawl(middle_world, ledger, permits, direction="backward")
    videos = [commit.counts["videos"] for commit in ledger.commits()]
    assert len(videos) == 3
    assert max(videos) <= 1.1 * SAFE_RESULTS


@pytest.mark.usefixtures("sandbox_key")
def test_the_other_direction_finds_the_same(large_world: World, ledger: Ledger, permits: LocalPermits) -> None:
    counts, found = crawl(large_world, ledger, permits, direction="backward")
    assert found == {v.video_id for v in large_world if v.media == "video"}
    assert counts["calls"] <= 1.3 * NUM_VIDEOS / PER_PAGE


@pytest.mark.usefixtures("sandbox_key")
def test_a_page_in_another_order_than_asked_is_trouble_and_nothing_is_committed(
    large_world: World, ledger: Ledger, permits: LocalPermits
) -> None:
    with serve(large_world) as server:
        flickr = _Backwards(
            Flickr(FlickrSettings(rest_url=server.rest_url, contact="a@b.c", calls_per_hour=1e7), permits)
        )
        with pytest.raises(Transient, match="not in the order of upload"):
            SearchWorker(ledger, flickr)(search_unit(EVERYTHING, ALWAYS))  # type: ignore[arg-type]  # like one
    assert list(ledger.commits()) == []


class _Backwards:
    """A Flickr that ignores how results are to be sorted."""

    def __init__(self, flickr: Flickr) -> None:
        self.flickr = flickr

    def call(self, method: str, *, expect: str | None = None, **parameters: str | int) -> dict[str, Any]:
        return self.flickr.call(method, expect=expect, **{**parameters, "sort": "date-posted-desc"})


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize("past_cap", ["repeat", "error"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_second_with_more_uploads_than_are_shown_is_searched_by_licence(
    tmp_path: Path, permits: LocalPermits, past_cap: Any, direction: Direction
) -> None:
    config = WorldConfig(num_videos=7000, shared_tag="sharedtag", batch_uploads=0.9999)
    world = World(config, cache=tmp_path / "world")
    seconds = Counter(v.posted for v in world)
    assert max(seconds.values()) > 1.2 * SHOWN_RESULTS
    ledger = Ledger(FolderStore(tmp_path / "root"), "crawl", {})
    counts, found = crawl(world, ledger, permits, quirks=SearchQuirks(past_cap=past_cap), direction=direction)
    crowds = {second for second, videos in seconds.items() if videos > SHOWN_RESULTS}
    licenses = Counter(v.license for v in world if v.posted in crowds)
    lost = sum(max(0, videos - SHOWN_RESULTS) for videos in licenses.values())
    videos = {v.video_id for v in world if v.media == "video"}
    assert len(videos - found) <= lost
    assert bool(counts["truncated_windows"]) == bool(lost)


@pytest.mark.usefixtures("sandbox_key")
def test_a_unit_that_was_interrupted_asks_only_for_what_was_in_flight(
    large_world: World, tmp_path: Path, permits: LocalPermits
) -> None:
    calm, shaken = (Ledger(FolderStore(tmp_path / name), "crawl", {}) for name in ("calm", "shaken"))
    window = Window(start=FLICKR_VIDEO_LAUNCH, end=1_270_000_000)  # under 3,000 of them
    expected, _ = crawl(large_world, calm, permits, window=window)
    assert expected["calls"] > 3
    unit = search_unit(EVERYTHING, window)
    with serve(large_world, faults=[Fault(kind="reset", method=SEARCH, first=4, times=1)]) as server:
        settings = FlickrSettings(rest_url=server.rest_url, contact="a@b.c", calls_per_hour=1e7, max_attempts=1)
        with pytest.raises(Transient):
            SearchWorker(shaken, Flickr(settings, permits))(unit)
        assert list(shaken.commits()) == []
        SearchWorker(shaken, Flickr(settings, permits))(unit)
        assert server.counters.count(SEARCH) == expected["calls"] + 1
    assert timeless(committed(shaken)) == timeless(committed(calm))
    assert list(shaken.store.list("crawl/journal/")) == []


def timeless(records: Iterator[VideoRecord]) -> list[VideoRecord]:
    return [replace(r, found=tuple(replace(f, crawled=0) for f in r.found)) for r in records]


@pytest.mark.usefixtures("sandbox_key")
def test_the_raw_answers_are_kept_and_tell_neither_key_nor_secret(
    world: World, ledger: Ledger, permits: LocalPermits, sandbox_key: str
) -> None:
    unit = search_unit(Query(kind="concept", concept="swing", text="swing"), ALWAYS)
    with serve(world) as server:
        settings = FlickrSettings(rest_url=server.rest_url, contact="a@b.c", calls_per_hour=1e6)
        SearchWorker(ledger, Flickr(settings, permits))(unit)
    (commit,) = ledger.commits()
    (raw,) = [output.key for output in commit.outputs if output.key.endswith(".zst")]
    lines = _lines(ledger, raw)
    assert [line["parameters"]["page"] for line in lines] == [1]
    rows = lines[0]["answer"]["photos"]["photo"]
    records = list(committed(ledger))
    assert {str(row["id"]) for row in rows if row["media"] == "video"} == {r.video_id for r in records}
    assert all(r.concepts == ("swing",) and r.found[0].query == "swing" for r in records)
    for key in ledger.store.list():
        assert sandbox_key.encode() not in ledger.store.read(key)
    assert sandbox_key not in json.dumps(lines)


def _lines(ledger: Ledger, key: str) -> list[dict[str, Any]]:
    with pa.CompressedInputStream(pa.py_buffer(ledger.store.read(key)), "zstd") as stream:
        return [json.loads(line) for line in io.BytesIO(stream.read()).readlines()]


def test_units_of_different_queries_have_different_readable_names() -> None:
    queries = [
        Query(kind="concept", concept="ride", text="ride a horse"),
        Query(kind="concept", concept="ride", text="ride-a-horse"),
        Query(kind="sentence", concept="ride", text="ride a horse"),
        Query(kind="concept", concept="\u9a91\u9a6c", text="\u9a91\u9a6c" * 40),
    ]
    names = [search_unit(query, ALWAYS).name for query in queries]
    assert len(set(names)) == 4
    assert names[0].startswith("ride-a-horse-")
    assert all(len(name) < 90 and name.isascii() for name in names)


@pytest.mark.usefixtures("sandbox_key")
def test_a_second_worker_on_one_unit_changes_nothing(world: World, ledger: Ledger, permits: LocalPermits) -> None:
    unit = search_unit(Query(kind="concept", concept="swing", text="swing"), ALWAYS)
    with serve(world) as server:
        settings = FlickrSettings(rest_url=server.rest_url, contact="a@b.c", calls_per_hour=1e6)
        first = SearchWorker(ledger, Flickr(settings, permits))(unit)
        kept = {key: ledger.store.read(key) for key in ledger.store.list("crawl/commits/")}
        (commit,) = ledger.commits()
        outputs = {output.key: ledger.store.read(output.key) for output in commit.outputs}
        second = SearchWorker(ledger, Flickr(settings, permits))(unit)
    assert second.counts == first.counts
    assert {key: ledger.store.read(key) for key in kept} == kept
    assert {key: ledger.store.read(key) for key in outputs} == outputs


@pytest.mark.usefixtures("sandbox_key")
def test_an_id_that_could_name_another_file_is_no_video(permits: LocalPermits, ledger: Ledger, raw_server: Any) -> None:
    photos = [{"id": "../../etc"}, {"id": "7"}, {"id": 8}, {"no": "id"}, "no row"]
    body = json.dumps({"stat": "ok", "photos": {"total": "3", "photo": photos}}).encode()
    url = raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    flickr = Flickr(FlickrSettings(rest_url=url, contact="a@b.c"), permits)
    finished = SearchWorker(ledger, flickr)(search_unit(EVERYTHING, ALWAYS))
    assert {r.video_id for r in committed(ledger)} == {"7", "8"}
    assert finished.counts["wrong_id"] == 1


@pytest.mark.usefixtures("sandbox_key")
def test_added_windows_are_left_to_do_after_a_restart(
    large_world: World, ledger: Ledger, permits: LocalPermits
) -> None:
    root = search_unit(EVERYTHING, ALWAYS)
    with serve(large_world) as server:
        settings = FlickrSettings(rest_url=server.rest_url, contact="a@b.c", calls_per_hour=1e7)
        worker = SearchWorker(ledger, Flickr(settings, permits))
        added = list(worker(root).added)
        assert len(added) > 4
        assert ledger.left([root]) == added
        worker(added[1])
        assert ledger.left([root]) == [added[0], *added[2:]]
    assert ledger.left([Unit("another"), root]) == [Unit("another"), added[0], *added[2:]]


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize(
    ("spoilt", "told"),
    [
        ({"total": "many", "photo": []}, "total 'many' is no number"),
        ({"total": 60, "photo": [{"id": str(n), "dateupload": str(99 - n)} for n in range(60)]}, "order of upload"),
    ],
)
def test_an_answer_that_is_of_no_use_is_not_kept_so_another_try_asks_anew(
    permits: LocalPermits, ledger: Ledger, raw_server: Any, spoilt: dict[str, Any], told: str
) -> None:
    good = {"total": 1, "photo": [{"id": "7", "dateupload": "1300000000"}]}
    bodies = [json.dumps({"stat": "ok", "photos": photos}).encode() for photos in (spoilt, good)]
    url = raw_server(*(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies))
    worker = SearchWorker(ledger, Flickr(FlickrSettings(rest_url=url, contact="a@b.c"), permits))
    with pytest.raises(Transient, match=told):
        worker(search_unit(EVERYTHING, ALWAYS))
    assert worker(search_unit(EVERYTHING, ALWAYS)).counts["videos"] == 1
    assert {r.video_id for r in committed(ledger)} == {"7"}
