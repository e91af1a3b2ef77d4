from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.answers import renditions_of_sizes
from pipeline.build import JOB, BuildSettings, BuildWorker, _ahead, build_units, ledger_settings
from pipeline.errors import UserError
from pipeline.fetch import FetchSettings
from pipeline.fsck import check_shards
from pipeline.limits import LocalPermits
from pipeline.records import VideoRecord
from pipeline.sandbox import answers as sandbox
from pipeline.sandbox.faults import Fault
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World
from pipeline.shards import read_rows
from pipeline.sources import folder_records
from pipeline.store import FolderStore
from pipeline.transcode import Profile
from pipeline.units import Ledger

SETTINGS = BuildSettings(fetch=FetchSettings(max_attempts=2))
OUTCOMES = {
    None: "ok", "deleted": "gone", "private": "gone", "processing": "no_video_url", "failed": "no_video_url",
    "player_only": "no_video_url", "zero_length": "not_a_video", "html_file": "not_a_video",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[SandboxServer]:
    with serve(world) as server:
        yield server
        assert server.counters.errors == []


def records_of(server: SandboxServer) -> list[VideoRecord]:
    videos = sorted((v for v in server.world if v.media == "video"), key=lambda v: v.video_id)[:30]
    sizes = (sandbox.sizes_answer(v, server.base_url) for v in videos)
    return [
        VideoRecord(video_id=v.video_id, renditions=renditions_of_sizes(s)) for v, s in zip(videos, sizes, strict=True)
    ]


def build(records: list[VideoRecord], root: Path, permits: LocalPermits) -> dict[str, str]:
    ledger = Ledger(FolderStore(root), JOB, ledger_settings(records, SETTINGS))
    ledger.open()
    worker = BuildWorker(ledger, SETTINGS, permits)
    try:
        for unit in build_units(records, videos_per_shard=16):
            worker(unit)
    finally:
        worker.close()
    return {row["video_id"]: row["outcome"] for row in read_rows(ledger.store).to_pylist()}


def test_every_record_ends_as_one_row_whatever_the_weather(
    server: SandboxServer, permits: LocalPermits, tmp_path: Path
) -> None:
    records = records_of(server)
    calm = build(records, tmp_path / "calm", permits)
    server.set_faults(
        [
            Fault(kind="reset", host="live", first=3, times=1),
            Fault(kind="short_body", host="live", first=6, times=1),
            Fault(kind="expired", host="live", first=9, times=1),
        ]
    )
    stormy = build(records, tmp_path / "stormy", permits)
    server.set_faults([])
    trouble = {v.video_id: v.trouble for v in server.world}
    assert calm == {record.video_id: OUTCOMES[trouble[record.video_id]] for record in records}
    assert stormy == calm
    assert check_shards(FolderStore(tmp_path / "calm")).problems == ()
    for path in (tmp_path / "calm" / "shards").iterdir():
        assert path.read_bytes() == (tmp_path / "stormy" / "shards" / path.name).read_bytes()


def test_one_address_that_is_none_does_not_cost_the_shard(
    video_folder: Path, permits: LocalPermits, tmp_path: Path
) -> None:
    good = folder_records(video_folder)
    half = replace(good[0], renditions=(replace(good[0].renditions[0], url="http://[half/"),))
    gone = replace(good[1], renditions=(replace(good[1].renditions[0], url="file:///nowhere.mp4"),))
    found = build([half, gone, *good[2:]], tmp_path / "root", permits)
    assert found[half.video_id] == "no_video_url"
    assert found[gone.video_id] == "gone"
    assert [outcome for video_id, outcome in found.items() if video_id not in (half.video_id, gone.video_id)] == [
        "ok"
    ] * 3


def test_downloads_run_ahead_but_not_without_end() -> None:
    running: list[str] = []

    def submit(record: VideoRecord) -> Future[str]:
        running.append(record.video_id)
        done: Future[str] = Future()
        done.set_result(record.video_id)
        return done

    records = [VideoRecord(video_id=str(n)) for n in range(20)]
    for number, (record, download) in enumerate(_ahead(records, submit, count=4)):
        assert record.video_id == download.result() == str(number)
        assert len(running) == min(20, number + 5)


def test_settings_tell_what_decides_the_bytes(video_folder: Path) -> None:
    records = folder_records(video_folder)
    base = ledger_settings(records, SETTINGS)
    assert ledger_settings(records, replace(SETTINGS, fetches_per_worker=99)) == base
    assert ledger_settings(records[1:], SETTINGS) != base
    assert ledger_settings(records, replace(SETTINGS, profile=Profile(quantiser=5))) != base
    with pytest.raises(ValueError, match="must be at least 1"):
        BuildSettings(videos_per_shard=0)
    with pytest.raises(UserError, match=r"\.\./x"):
        build_units([VideoRecord(video_id="../x")], videos_per_shard=1)
