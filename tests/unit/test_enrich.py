import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.crawl import commit_answers
from pipeline.enrich import VIDEOS_PER_UNIT, PlayWorker, Stage, StageWorker, Wanted, stage_units
from pipeline.errors import Transient, UserError
from pipeline.flickr import Flickr, FlickrSettings
from pipeline.journal import Line, read_lines
from pipeline.limits import LocalPermits
from pipeline.records import VideoRecord, from_parquet
from pipeline.reparse import reparse_stage
from pipeline.sandbox.faults import Fault
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World
from pipeline.store import FolderStore
from pipeline.units import Ledger


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[SandboxServer]:
    with serve(world) as server:
        yield server
        assert server.counters.errors == []


def worker(server: SandboxServer, store: FolderStore, permits: LocalPermits, stage: Stage) -> StageWorker:
    settings = FlickrSettings(rest_url=server.rest_url, contact="a@b.c", calls_per_hour=1e7, max_attempts=2)
    return StageWorker(Ledger(store, stage, {}), Flickr(settings, permits), stage, b"hash key of this root")


def committed(store: FolderStore, stage: Stage) -> dict[str, VideoRecord]:
    keys = [o.key for c in Ledger(store, stage, {}).commits() for o in c.outputs if o.key.endswith(".parquet")]
    return {record.video_id: record for key in keys for record in from_parquet(store.read(key))}


@pytest.mark.usefixtures("sandbox_key")
def test_each_stage_tells_its_part_of_every_video_or_why_not(
    server: SandboxServer, world: World, tmp_path: Path, permits: LocalPermits
) -> None:
    store, videos = FolderStore(tmp_path), [v for v in world if v.media == "video"][:VIDEOS_PER_UNIT]
    (unit,) = stage_units(Wanted(v.video_id, v.secret) for v in videos)
    stages: tuple[Stage, ...] = ("info", "sizes", "comments")
    finished = {stage: worker(server, store, permits, stage)(unit) for stage in stages}
    info, sizes, comments = (committed(store, stage) for stage in stages)
    assert all(finished[stage].counts["calls"] == len(videos) for stage in stages)
    for video in videos:
        name = video.video_id
        if video.trouble in ("deleted", "private"):
            assert {info[name].dropped, sizes[name].dropped, comments[name].dropped} == {"gone"}
            continue
        assert info[name].num_comments == len(video.comments)
        assert info[name].owner == video.owner.nsid
        assert [(c.text, c.posted) for c in comments[name].comments] == [(c.text, c.posted) for c in video.comments]
        assert bool(sizes[name].renditions) == (sizes[name].dropped is None)
        expected = {"processing": "still_processing", "failed": "never_playable"}.get(video.trouble or "")
        assert info[name].dropped == expected
    assert any(r.duration_seconds for r in info.values())


@pytest.mark.usefixtures("sandbox_key")
def test_trouble_that_stays_commits_nothing_and_what_was_answered_is_not_asked_again(
    server: SandboxServer, world: World, tmp_path: Path, permits: LocalPermits
) -> None:
    store, before = FolderStore(tmp_path), server.counters.count("flickr.photos.getSizes")
    server.set_faults([Fault(kind="reset", method="*.getSizes", first=26, times=2)])
    videos = [v for v in world if v.media == "video"][:40]
    (unit,) = stage_units(Wanted(v.video_id) for v in videos)
    with pytest.raises(Transient, match="no connection"):
        worker(server, store, permits, "sizes")(unit)
    assert committed(store, "sizes") == {}
    worker(server, store, permits, "sizes")(unit)
    assert len(committed(store, "sizes")) == 40
    asked = server.counters.count("flickr.photos.getSizes") - before
    assert asked == 40 + 2 + 5  # the tries that failed, and what was not kept yet
    assert list(store.list("sizes/journal/")) == []


@pytest.mark.usefixtures("sandbox_key")
def test_records_made_again_from_the_raw_answers_are_the_same(
    server: SandboxServer, world: World, tmp_path: Path, permits: LocalPermits
) -> None:
    store, videos = FolderStore(tmp_path), [v for v in world if v.media == "video"][:30]
    (unit,) = stage_units(Wanted(v.video_id, v.secret) for v in videos)
    for stage in ("info", "comments"):
        worker(server, store, permits, stage)(unit)
        before, asked = committed(store, stage), server.counters.count("api")
        assert list(reparse_stage(Ledger(store, stage, {}), stage)) == [True]
        assert committed(store, stage) == before
        assert server.counters.count("api") == asked
    assert any(c.author_hash for r in committed(store, "comments").values() for c in r.comments)


def test_a_new_reading_replaces_the_old_records(tmp_path: Path) -> None:
    """A commit whose table says something else than its raw answers is put right."""
    store = FolderStore(tmp_path)
    ledger = Ledger(store, "info", {})
    (unit,) = stage_units([Wanted("1")])
    line = Line("flickr.photos.getInfo", {"photo_id": "1"}, 5, answer={"photo": {"title": {"_content": "right"}}})
    commit_answers(ledger, unit, [VideoRecord(video_id="1", title="wrong")], [line], {"ok": 1})
    assert list(reparse_stage(ledger, "info")) == [True]
    assert committed(store, "info")["1"].title == "right"
    assert len(list(store.list("info/records/"))) == 1


@pytest.mark.parametrize("spoil", ["gone", "damaged"])
def test_raw_answers_that_are_gone_or_damaged_are_told_by_name(tmp_path: Path, spoil: str) -> None:
    store = FolderStore(tmp_path)
    ledger = Ledger(store, "info", {})
    (unit,) = stage_units([Wanted("1")])
    line = Line("flickr.photos.getInfo", {"photo_id": "1"}, 5, answer={"photo": {}})
    commit = commit_answers(ledger, unit, [VideoRecord(video_id="1")], [line], {"ok": 1})
    (raw,) = [output.key for output in commit.outputs if output.key.endswith(".zst")]
    if spoil == "gone":
        store.delete(raw)
    else:
        store.write(raw, store.read(raw)[:-3])
    with pytest.raises(UserError, match=rf"{raw} is {spoil}: bring it back, or delete info/commits/{unit.name}.json"):
        list(reparse_stage(ledger, "info"))


@pytest.mark.usefixtures("sandbox_key")
def test_raw_answers_tell_no_names_of_people(
    server: SandboxServer, world: World, tmp_path: Path, permits: LocalPermits
) -> None:
    store, videos = FolderStore(tmp_path), [v for v in world if v.media == "video"][:VIDEOS_PER_UNIT]
    (unit,) = stage_units(Wanted(v.video_id, v.secret) for v in videos)
    stages: tuple[Stage, ...] = ("info", "comments")
    for stage in stages:
        worker(server, store, permits, stage)(unit)
    raw = {key.partition("/")[0]: list(read_lines(store.read(key))) for key in store.list() if "/raw/" in key}
    assert raw.keys() == {*stages}
    told = json.dumps([[line.answer for line in lines] for lines in raw.values()], ensure_ascii=False)
    for video in videos:
        for person in (video.owner, *(comment.author for comment in video.comments)):
            for name in (person.username, person.realname, person.path_alias, person.location):
                assert not name or name not in told
        for comment in video.comments:
            assert comment.author.nsid not in json.dumps([line.answer for line in raw["comments"]])
    assert all(line.answer["photo"]["owner"].keys() == {"nsid"} for line in raw["info"] if line.answer)
    assert any(line.answer["photo"]["tags"]["tag"] for line in raw["info"] if line.answer)


def test_play_urls_are_built_without_asking(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    (unit,) = stage_units([Wanted("1", "abc", "7@N01"), Wanted("2", "", "7@N01")])
    finished = PlayWorker(Ledger(store, "sizes", {}), "https://www.flickr.com/photos/")(unit)
    found = committed(store, "sizes")
    assert found["1"].renditions[0].url == "https://www.flickr.com/photos/7@N01/1/play/360p/abc/"
    assert found["2"].dropped == "no_video_url"
    assert finished.counts == {"ok": 1, "no_video_url": 1}


def test_chunks_are_named_by_what_is_in_them() -> None:
    videos = [Wanted(f"{n:04d}", "s", "o") for n in range(VIDEOS_PER_UNIT * 2 + 1)]
    one, two, three = stage_units(videos)
    assert [len(unit.payload.split()) for unit in (one, two, three)] == [VIDEOS_PER_UNIT] * 2 + [1]
    assert list(stage_units(videos))[1].name == two.name
    assert list(stage_units(videos[1:]))[1].name != two.name
    assert len({one.name, two.name, three.name}) == 3
    (again,) = stage_units([Wanted("0100", "s", "o", asked="1700000000")])
    assert again.name not in (three.name, next(stage_units([Wanted("0100", "s", "o")])).name)
