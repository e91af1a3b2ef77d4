"""Crawl and build on Ray actors: the same records and the same bytes as in one process."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.catalogue import read_records
from pipeline.records import VideoRecord
from pipeline.sandbox.faults import Fault
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World, WorldConfig
from pipeline.store import FolderStore

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
TREE = Path(__file__).parents[2]
FAST = ("--flickr.calls-per-hour", "3000000", "--flickr.media-per-second", "1000")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    config = WorldConfig(
        num_videos=110, actions=("swing", "push ups", "hula hoop"), min_seconds=0.5, max_seconds=1.0, trouble_rate=0.2
    )
    with serve(World(config, cache=tmp_path_factory.mktemp("world"))) as server:
        yield server
        assert server.counters.errors == []


def noisyactions(server: SandboxServer, *arguments: str) -> str:
    contact = {"FLICKR_CONTACT": "a@b.c", "FLICKR_API_KEY": "sandbox", "FLICKR_REST_URL": server.rest_url}
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *arguments],
        cwd=TREE, env={**os.environ, **contact}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def timeless(root: Path) -> list[VideoRecord]:
    """The root's records but for when they were crawled, and for its own hashes of comment authors."""
    return [
        replace(
            record,
            found=tuple(replace(f, crawled=0) for f in record.found),
            comments=tuple(replace(c, author_hash="") for c in record.comments),
        )
        for record in read_records(FolderStore(root))
    ]


def test_two_actors_crawl_and_build_as_one_process_does(server: SandboxServer, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    workers = ("--where.workers", "2")
    for root, where in ((here, ()), (there, workers)):
        server.set_faults([Fault(kind="503", method="*.getSizes", first=20, times=1)])
        noisyactions(server, "vocabulary", str(root), "--names", "swing", "push ups", "hula hoop")
        noisyactions(server, "crawl", str(root), "--until", "1750000000", *FAST, *where)
    assert timeless(there) == timeless(here)
    assert len(timeless(here)) > 90

    shutil.copytree(here / "records", there / "records", dirs_exist_ok=True)
    before = server.counters.most_at_once("live")
    for root, where in ((here, ()), (there, workers)):
        server.set_faults([Fault(kind="reset", host="live", first=4, times=1)])
        noisyactions(server, "build", str(root), "--settings.videos-per-shard", "20", *FAST, *where)
    assert before == 0
    shards = {path.name: path.read_bytes() for path in (here / "shards").iterdir()}
    assert len(shards) >= 10
    assert {path.name: path.read_bytes() for path in (there / "shards").iterdir()} == shards
