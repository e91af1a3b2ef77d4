import io
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.crawl import (
    FLICKR_VIDEO_LAUNCH,
    SHOWN_RESULTS,
    SearchWorker,
    Window,
    committed_records,
    merge,
    pieces_for,
    query_unit,
    read_records,
    relabelled,
)
from pipeline.errors import UserError
from pipeline.flickr import Flickr, FlickrSettings
from pipeline.limits import LocalPermits
from pipeline.records import Found, VideoRecord
from pipeline.sandbox.faults import Fault
from pipeline.sandbox.search import SearchQuirks
from pipeline.sandbox.server import serve
from pipeline.sandbox.world import World, WorldConfig
from pipeline.store import FolderStore
from pipeline.units import Finished, Ledger
from pipeline.vocabulary import Query

SEARCH = "flickr.photos.search"
EVERYTHING = Query(kind="concept", concept="everything", text="sharedtag")
ALWAYS = Window(start=FLICKR_VIDEO_LAUNCH, end=1_800_000_000)
NUM_VIDEOS = 6000


@pytest.fixture(scope="module")
def large_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One query finds more of it than Flickr would show."""
    config = WorldConfig(num_videos=NUM_VIDEOS, shared_tag="sharedtag", num_photos=3)
    world = World(config, cache=tmp_path_factory.mktemp("large"))
    for _ in world:  # drawn once for all tests
        pass
    return world


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(FolderStore(tmp_path / "root"), "crawl", {})


def crawl(
    world: World, ledger: Ledger, permits: LocalPermits, *, quirks: SearchQuirks | None = None,
    faults: tuple[Fault, ...] = (), window: Window = ALWAYS,
) -> tuple[Finished, set[str]]:  # fmt: skip
    with serve(world, quirks=quirks, faults=faults) as server:
        settings = FlickrSettings(rest_url=server.rest_url, contact="a@b.c", calls_per_hour=1e6)
        finished = SearchWorker(ledger, Flickr(settings, permits))(query_unit(EVERYTHING, window))
        assert server.counters.errors == []
        assert server.counters.count(SEARCH) == finished.counts["calls"]
    return finished, {record.video_id for record in committed_records(ledger)}


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize(
    ("quirks", "faults"),
    [
        (SearchQuirks(), ()),
        (SearchQuirks(past_cap="error", past_end="empty", total_type="str", unstable=True), ()),
        (SearchQuirks(under_reported=0.3), ()),
        (SearchQuirks(cap=2000, past_cap="error"), ()),
        (SearchQuirks(), (Fault(kind="duplicate_page", method=SEARCH, first=3, every=4),)),
        (SearchQuirks(), (Fault(kind="page_shift", method=SEARCH, first=3, every=4, rows=7),)),
    ],
)
def test_a_query_with_more_results_than_are_shown_finds_all_the_same(
    large_world: World, ledger: Ledger, permits: LocalPermits, quirks: SearchQuirks, faults: tuple[Fault, ...]
) -> None:
    finished, found = crawl(large_world, ledger, permits, quirks=quirks, faults=faults)
    videos = {v.video_id for v in large_world if v.media == "video"}
    assert found <= videos
    assert len(found) >= 0.999 * len(videos)
    assert finished.counts["videos"] == len(found)
    assert finished.counts["not_a_video"] >= 3
    assert finished.counts["truncated_windows"] == 0
    assert finished.counts["calls"] < 3 * NUM_VIDEOS / 500 + 10


@pytest.mark.usefixtures("sandbox_key")
def test_a_window_that_cannot_be_cut_tells_that_it_is_not_whole(
    large_world: World, tmp_path: Path, permits: LocalPermits
) -> None:
    crowded = World(replace(large_world.config, num_videos=4600), cache=tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.crawl.MIN_WINDOW_SECONDS", ALWAYS.length)
        finished, found = crawl(crowded, Ledger(FolderStore(tmp_path), "crawl", {}), permits)
    assert finished.counts["truncated_windows"] == 1
    assert SHOWN_RESULTS - 10 < len(found) <= SHOWN_RESULTS


@pytest.mark.usefixtures("sandbox_key")
def test_only_the_window_asked_for_is_searched(large_world: World, ledger: Ledger, permits: LocalPermits) -> None:
    posted = sorted(v.posted for v in large_world)
    window = Window(start=posted[100], end=posted[200])
    _, found = crawl(large_world, ledger, permits, window=window)
    inside = {v.video_id for v in large_world if window.start <= v.posted <= window.end and v.media == "video"}
    assert found == inside


@pytest.mark.usefixtures("sandbox_key")
def test_raw_answers_are_kept_without_the_key(
    world: World, ledger: Ledger, permits: LocalPermits, sandbox_key: str
) -> None:
    query = Query(kind="concept", concept="swing", text="swing")
    unit = query_unit(query, ALWAYS)
    with serve(world) as server:
        settings = FlickrSettings(rest_url=server.rest_url, contact="a@b.c", calls_per_hour=1e6)
        SearchWorker(ledger, Flickr(settings, permits))(unit)
    lines = _lines(ledger, f"crawl/raw/{unit.name}.jsonl.zst")
    assert [line["parameters"]["page"] for line in lines] == [1]
    rows = lines[0]["answer"]["photos"]["photo"]
    records = list(committed_records(ledger))
    assert {str(row["id"]) for row in rows if row["media"] == "video"} == {r.video_id for r in records}
    assert all(r.concepts == ("swing",) and r.found[0].query == "swing" for r in records)
    for key in ledger.store.list():
        assert sandbox_key.encode() not in ledger.store.read(key)
    assert sandbox_key not in json.dumps(lines)


def _lines(ledger: Ledger, key: str) -> list[dict[str, Any]]:
    with pa.CompressedInputStream(pa.py_buffer(ledger.store.read(key)), "zstd") as stream:
        return [json.loads(line) for line in io.BytesIO(stream.read()).readlines()]


windows = st.builds(
    lambda start, length: Window(start=start, end=start + length - 1), st.integers(0, 2**31), st.integers(1, 2**30)
)


@given(window=windows, pieces=st.integers(1, 12))
def test_cutting_covers_the_window_and_never_overlaps(window: Window, pieces: int) -> None:
    parts = window.cut(pieces)
    assert (parts[0].start, parts[-1].end) == (window.start, window.end)
    assert all(one.end + 1 == other.start for one, other in pairwise(parts))
    assert all(part.length >= 1 for part in parts)


@given(window=windows, total=st.integers(0, 10**7))
def test_a_window_is_cut_only_where_it_is_too_full_and_long_enough(window: Window, total: int) -> None:
    pieces = pieces_for(total, window)
    assert 1 <= pieces <= 12
    if pieces == 1:
        assert total <= 3000 or window.length < 1200
    else:
        assert all(part.length >= 600 for part in window.cut(pieces))


def test_units_of_different_queries_have_different_readable_names() -> None:
    queries = [
        Query(kind="concept", concept="ride", text="ride a horse"),
        Query(kind="concept", concept="ride", text="ride-a-horse"),
        Query(kind="sentence", concept="ride", text="ride a horse"),
        Query(kind="concept", concept="\u9a91\u9a6c", text="\u9a91\u9a6c" * 40),
    ]
    names = [query_unit(query, ALWAYS).name for query in queries]
    assert len(set(names)) == 4
    assert names[0].startswith("ride-a-horse-")
    assert all(len(name) < 60 and name.isascii() for name in names)


def record(video_id: str, *, concept: str, page: int = 1, **more: Any) -> VideoRecord:
    found = (Found(query=concept, window="0-9", page=page, crawled=0),)
    return VideoRecord(video_id=video_id, concepts=(concept,), found=found, **more)


def test_one_video_that_many_queries_find_is_one_record_with_all_labels() -> None:
    one, other = merge([record("2", concept="b"), record("1", concept="a"), record("2", concept="a")])
    assert (one.video_id, other.video_id) == ("1", "2")
    assert other.concepts == ("a", "b")
    assert [f.query for f in other.found] == ["a", "b"]
    assert merge(merge([one, other])) == [one, other]


def test_details_take_the_labels_of_all_queries_that_found_the_video_by_now() -> None:
    detailed = [record("1", concept="a", duration_seconds=3.0), record("2", concept="a")]
    found = merge([record("1", concept="a"), record("1", concept="b"), record("3", concept="a")])
    (only,) = relabelled(detailed, found)
    assert (only.video_id, only.concepts, only.duration_seconds) == ("1", ("a", "b"), 3.0)


def test_a_root_without_records_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no records: run `noisyactions crawl` on it first"):
        read_records(FolderStore(tmp_path))


@pytest.mark.usefixtures("sandbox_key")
def test_an_id_that_could_name_another_file_is_no_video(permits: LocalPermits, ledger: Ledger, raw_server: Any) -> None:
    photos = [{"id": "../../etc"}, {"id": "7"}, {"id": 8}]
    body = json.dumps({"stat": "ok", "photos": {"total": "3", "photo": photos}}).encode()
    url = raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    flickr = Flickr(FlickrSettings(rest_url=url, contact="a@b.c"), permits)
    finished = SearchWorker(ledger, flickr)(query_unit(EVERYTHING, ALWAYS))
    assert {r.video_id for r in committed_records(ledger)} == {"7", "8"}
    assert finished.counts["wrong_id"] == 1
