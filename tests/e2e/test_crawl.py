"""`noisyactions vocabulary`, `plan` and `crawl` as a person runs them, against a sandbox; really killed."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.records import VideoRecord, from_parquet
from pipeline.sandbox.faults import Fault
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World, WorldConfig

TREE = Path(__file__).parents[2]
ACTIONS = ("juggling balls", "push ups", "swing", "hula hoop")
KEY, SECRET = "k3y0fth3s4ndb0x", "s3cr3t0fth3s4ndb0x"
UNTIL = ("--until", "1800000000")
NUM_VIDEOS = 130


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    config = WorldConfig(num_videos=NUM_VIDEOS, actions=ACTIONS, trouble_rate=0.2)
    with serve(World(config, cache=tmp_path_factory.mktemp("world"))) as server:
        yield server
        assert server.counters.errors == []


@pytest.fixture(autouse=True)
def _calm_weather(server: SandboxServer) -> Iterator[None]:
    yield
    server.set_faults([])


def command(verb: str, root: Path, *more: str) -> list[str]:
    rate = ["--flickr.calls-per-hour", "3000000"] if verb != "vocabulary" else []
    return [sys.executable, "-m", "jobs.cli", verb, str(root), *rate, *more]


def environment(url: str) -> dict[str, str]:
    return {
        **os.environ, "FLICKR_REST_URL": url, "FLICKR_CONTACT": "a@b.c", "FLICKR_API_KEY": KEY,
        "FLICKR_API_SECRET": SECRET,
    }  # fmt: skip


def noisyactions(verb: str, root: Path, *more: str, url: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(verb, root, *more), cwd=TREE, env=environment(url), capture_output=True, text=True, check=False
    )


def vocabulary(root: Path, *names: str) -> None:
    done = noisyactions("vocabulary", root, "--names", *(names or ACTIONS))
    assert done.returncode == 0, done.stderr


def asked(server: SandboxServer) -> Counter[str]:
    return Counter(call.method for call in server.counters.log if call.host == "api")


def records(root: Path) -> list[VideoRecord]:
    return list(from_parquet((root / "records" / "records.parquet").read_bytes()))


def timeless(found: list[VideoRecord]) -> list[VideoRecord]:
    """The records but for when they were crawled, and for the root's own hashes of comment authors."""
    return [
        replace(
            record,
            found=tuple(replace(f, crawled=0) for f in record.found),
            comments=tuple(replace(c, author_hash="") for c in record.comments),
        )
        for record in found
    ]


@dataclass(frozen=True, slots=True)
class Calm:
    """A crawl that nothing disturbed."""

    root: Path
    asked: Counter[str]
    told: str


@pytest.fixture(scope="module")
def calm(server: SandboxServer, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    root = tmp_path_factory.mktemp("calm")
    vocabulary(root)
    before = asked(server)
    done = noisyactions("crawl", root, *UNTIL, url=server.rest_url)
    assert done.returncode == 0, done.stderr
    return Calm(root, asked(server) - before, done.stdout + done.stderr)


def test_killed_half_way_and_run_again_gives_the_same_records(
    server: SandboxServer, calm: Calm, tmp_path: Path
) -> None:
    vocabulary(tmp_path)
    begin = asked(server)
    process = subprocess.Popen(
        command("crawl", tmp_path, *UNTIL), cwd=TREE, env=environment(server.rest_url), stdout=subprocess.DEVNULL
    )
    commits = tmp_path / "enrich" / "commits"
    while not (commits.is_dir() and any(commits.glob("*.json"))):
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done_before = len(list(commits.glob("*.json")))
    assert done_before < 3, "killed too late for this test to mean anything"
    again = noisyactions("crawl", tmp_path, *UNTIL, url=server.rest_url)
    assert again.returncode == 0, again.stderr
    assert f"details of {50 * done_before} videos were asked for before" in again.stdout

    assert timeless(records(tmp_path)) == timeless(records(calm.root))
    spent = asked(server) - begin
    assert spent["flickr.photos.search"] == calm.asked["flickr.photos.search"]
    infos = calm.asked["flickr.photos.getInfo"]  # the chunk in flight is asked for again, no other
    assert infos <= spent["flickr.photos.getInfo"] <= infos + 50

    before = asked(server)
    assert noisyactions("crawl", tmp_path, *UNTIL, url=server.rest_url).returncode == 0
    assert asked(server) - before == Counter({"flickr.test.echo": 1})


def test_every_video_is_a_record_with_all_its_labels_or_a_reason(
    server: SandboxServer, calm: Calm, tmp_path: Path
) -> None:
    vocabulary(tmp_path)
    server.set_faults(
        [
            Fault(kind="503", method="*.getInfo", first=20, times=1),
            Fault(kind="truncated_json", method="*.search", times=1),
            Fault(kind="429_seconds", method="*.getSizes", first=10, times=1),
            Fault(kind="reset", method="*.getList", times=1),
        ]
    )
    done = noisyactions("crawl", tmp_path, *UNTIL, url=server.rest_url)
    assert done.returncode == 0, done.stderr
    assert all(server.counters.count(kind) for kind in ("503", "truncated_json", "429_seconds", "reset"))
    assert timeless(records(tmp_path)) == timeless(records(calm.root))

    found = {record.video_id: record for record in records(tmp_path)}
    assert list(found) == sorted(found)
    reasons = {"deleted": "gone", "private": "gone", "processing": "still_processing", "failed": "never_playable",
               "player_only": "no_video_url"}  # fmt: skip
    for video in server.world:
        record = found.get(video.video_id)
        if video.media == "photo":
            assert record is None
        elif record is not None:
            assert record.dropped == reasons.get(video.trouble or "")
            assert bool(record.renditions) == (record.dropped is None)
            if record.dropped is None:
                assert [c.text for c in record.comments] == [c.text for c in video.comments]
    assert len(found) > 0.9 * NUM_VIDEOS
    assert sum(len(record.concepts) for record in found.values()) > len(found)


def test_nothing_on_the_root_tells_the_key_or_who_commented(server: SandboxServer, calm: Calm) -> None:
    for path in filter(Path.is_file, calm.root.rglob("*")):
        data = path.read_bytes() if path.suffix != ".zst" else b"".join(_lines(path))
        assert KEY.encode() not in data, path
        assert SECRET.encode() not in data, path
    assert KEY not in calm.told
    answers: list[dict[str, Any]] = [
        json.loads(line) for path in (calm.root / "enrich" / "raw").iterdir() for line in _lines(path)
    ]
    lists = [answer for answer in answers if answer["method"] == "flickr.photos.comments.getList"]
    people = {comment.author.nsid for video in server.world for comment in video.comments}
    assert lists
    assert not any(person in json.dumps(lists) for person in people)
    table = (calm.root / "records" / "records.parquet").read_bytes()
    hashes: dict[str, str] = {}
    for record in from_parquet(table):
        video = server.world.find(record.video_id)
        assert video is not None
        for comment, shown in zip(record.comments, video.comments, strict=False):
            assert hashes.setdefault(shown.author.nsid, comment.author_hash) == comment.author_hash
    assert len(set(hashes.values())) == len(hashes) > 3


def _lines(path: Path) -> list[bytes]:
    with pa.CompressedInputStream(pa.py_buffer(path.read_bytes()), "zstd") as stream:
        return io.BytesIO(stream.read()).readlines()


@pytest.mark.slow
def test_a_label_that_is_found_later_reaches_a_video_that_is_known(
    server: SandboxServer, calm: Calm, tmp_path: Path
) -> None:
    vocabulary(tmp_path, "swing", "push ups")
    before = asked(server)
    assert noisyactions("crawl", tmp_path, *UNTIL, url=server.rest_url).returncode == 0
    first = {record.video_id for record in records(tmp_path)}
    vocabulary(tmp_path)
    assert noisyactions("crawl", tmp_path, *UNTIL, url=server.rest_url).returncode == 0
    assert timeless(records(tmp_path)) == timeless(records(calm.root))
    assert any("hula hoop" in record.concepts for record in records(tmp_path) if record.video_id in first)
    assert (asked(server) - before)["flickr.photos.getInfo"] == calm.asked["flickr.photos.getInfo"]


def test_the_plan_counts_what_the_crawl_asks(server: SandboxServer, calm: Calm) -> None:
    found = records(calm.root)
    labels = sum(len(record.concepts) for record in found) / len(found)
    told = noisyactions("plan", calm.root, "--json", "--labels-per-video", f"{labels:.3f}", url=server.rest_url)
    plans = {plan["plan"]: plan for plan in json.loads(told.stdout)}
    assert sorted(plans) == ["A", "B", "C", "D"]
    assert plans["B"]["videos"] == pytest.approx(len(found), rel=0.05)
    # In this world four of ten videos have comments, in the paper's one of ten.
    assert plans["B"]["calls"] <= calm.asked.total() <= plans["A"]["calls"]
    assert plans["D"]["calls"] < plans["C"]["calls"] < plans["B"]["calls"] < plans["A"]["calls"]


@pytest.mark.parametrize("verb", ["crawl", "plan"])
def test_a_server_that_is_not_there_is_one_clear_line_at_once(calm: Calm, verb: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/services/rest/"
    began = time.monotonic()
    done = noisyactions(verb, calm.root, url=url)
    assert time.monotonic() - began < 10  # most of it starting Python
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"{url} cannot be reached" in done.stderr
    assert KEY not in done.stderr


def test_a_refused_key_is_one_clear_line(server: SandboxServer, calm: Calm) -> None:
    server.set_faults([Fault(kind="key_disabled")])
    done = noisyactions("crawl", calm.root, url=server.rest_url)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "the API key is refused" in done.stderr
