import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.crawl import committed_records
from pipeline.enrich import VIDEOS_PER_UNIT, EnrichWorker, enrich_units
from pipeline.errors import Transient
from pipeline.flickr import Flickr, FlickrSettings
from pipeline.limits import LocalPermits
from pipeline.records import VideoRecord, from_parquet
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


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(FolderStore(tmp_path), "enrich", {})


def worker(server: SandboxServer, ledger: Ledger, permits: LocalPermits) -> EnrichWorker:
    settings = FlickrSettings(rest_url=server.rest_url, contact="a@b.c", calls_per_hour=1e6, max_attempts=2)
    return EnrichWorker(ledger, Flickr(settings, permits), b"hash key of this root")


@pytest.mark.usefixtures("sandbox_key")
def test_each_video_is_detailed_or_has_its_reason_and_nothing_is_asked_in_vain(
    server: SandboxServer, world: World, ledger: Ledger, permits: LocalPermits
) -> None:
    ids = [v.video_id for v in world if v.media == "video"][:VIDEOS_PER_UNIT]
    (unit,) = enrich_units([VideoRecord(video_id=i, concepts=("swing",)) for i in ids])
    finished = worker(server, ledger, permits)(unit)
    detailed = {record.video_id: record for record in committed_records(ledger)}
    assert list(detailed) == ids
    videos = [v for v in world if v.video_id in detailed]
    for video in videos:
        record = detailed[video.video_id]
        assert record.concepts == ("swing",)
        assert bool(record.renditions) == (record.dropped is None)
        if video.trouble in ("deleted", "private"):
            assert (record.dropped, record.title) == ("gone", "")
        else:
            assert [(c.text, c.posted) for c in record.comments] == [(c.text, c.posted) for c in video.comments]
    told = [v for v in videos if v.trouble not in ("deleted", "private")]
    playing = [v for v in told if v.trouble not in ("processing", "failed")]
    assert server.counters.count("flickr.photos.getInfo") == len(videos)
    assert server.counters.count("flickr.photos.getSizes") == len(playing)
    assert server.counters.count("flickr.photos.comments.getList") == sum(bool(v.comments) for v in told)
    assert finished.counts["ok"] + sum(finished.counts[r] for r in _reasons(detailed.values())) == len(ids)


def _reasons(records: object) -> set[str]:
    return {r.dropped for r in records if r.dropped}  # type: ignore[attr-defined]


@pytest.mark.usefixtures("sandbox_key")
def test_trouble_that_stays_commits_nothing(
    server: SandboxServer, world: World, ledger: Ledger, permits: LocalPermits
) -> None:
    server.set_faults([Fault(kind="reset", method="*.getSizes")])
    ids = [v.video_id for v in world if v.trouble is None and v.media == "video"][:3]
    (unit,) = enrich_units([VideoRecord(video_id=i) for i in ids])
    with pytest.raises(Transient, match="no connection"):
        worker(server, ledger, permits)(unit)
    assert list(ledger.store.list()) == []
    server.set_faults([])
    worker(server, ledger, permits)(unit)
    assert len(list(ledger.store.list())) == 3


def test_chunks_are_named_by_what_is_in_them() -> None:
    records = [VideoRecord(video_id=f"{n:04d}") for n in range(VIDEOS_PER_UNIT * 2 + 1)]
    one, two, three = enrich_units(records)
    assert [len(list(from_parquet(unit.payload))) for unit in (one, two, three)] == [VIDEOS_PER_UNIT] * 2 + [1]
    assert enrich_units(records)[1].name == two.name
    assert enrich_units(records[1:])[1].name != two.name
    assert len({one.name, two.name, three.name}) == 3
    assert json.dumps(one.name).isascii()
