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

import pyarrow as pa
import pytest

from pipeline.catalogue import read_records
from pipeline.records import VideoRecord
from pipeline.sandbox.faults import Fault
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World, WorldConfig
from pipeline.store import FolderStore

TREE = Path(__file__).parents[2]
ACTIONS = ("juggling balls", "push ups", "swing", "hula hoop")
KEY, SECRET = "k3y0fth3s4ndb0x", "s3cr3t0fth3s4ndb0x"
UNTIL = ("--until", "1750000000")
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
    return read_records(FolderStore(root))


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


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "half_way",
    [
        pytest.param("crawl/commits/*.json", marks=SLOW),
        pytest.param("info/commits/*.json", marks=SLOW),
        "info/journal/*",
        pytest.param("sizes/commits/*", marks=SLOW),
    ],
)
def test_killed_half_way_and_run_again_asks_only_for_what_was_in_flight(
    server: SandboxServer, calm: Calm, tmp_path: Path, half_way: str
) -> None:
    vocabulary(tmp_path)
    begin = asked(server)
    server.set_faults([Fault(kind="hang", host="api", seconds=0.01)])  # there shall be a half way
    process = subprocess.Popen(
        command("crawl", tmp_path, *UNTIL), cwd=TREE, env=environment(server.rest_url), stdout=subprocess.DEVNULL
    )
    while not any(tmp_path.glob(half_way)):
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "records").exists()
    server.set_faults([])
    again = noisyactions("crawl", tmp_path, *UNTIL, url=server.rest_url)
    assert again.returncode == 0, again.stderr

    assert timeless(records(tmp_path)) == timeless(records(calm.root))
    spent = asked(server) - begin
    twice = spent - calm.asked
    assert twice.pop("flickr.test.echo") == 1
    assert twice.total() <= 10, twice  # less than a part of a journal
    assert not calm.asked - spent
    assert not list(tmp_path.glob("*/journal/[!.]*"))  # a kill may leave a hidden part of a file

    before = asked(server)
    assert noisyactions("crawl", tmp_path, *UNTIL, url=server.rest_url).returncode == 0
    assert asked(server) - before == Counter({"flickr.test.echo": 1})
    assert timeless(records(tmp_path)) == timeless(records(calm.root))


@pytest.mark.slow
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
    lists = [json.loads(line) for path in (calm.root / "comments" / "raw").iterdir() for line in _lines(path)]
    assert {answer["method"] for answer in lists} == {"flickr.photos.comments.getList"}
    people = {comment.author.nsid for video in server.world for comment in video.comments}
    assert lists
    assert not any(person in json.dumps(lists) for person in people)
    hashes: dict[str, str] = {}
    for record in records(calm.root):
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


def test_the_pages_that_a_plan_asks_for_are_not_asked_again(server: SandboxServer, calm: Calm, tmp_path: Path) -> None:
    vocabulary(tmp_path)
    before = asked(server)
    told = noisyactions("plan", tmp_path, "--json", *UNTIL, "--probe", "130", url=server.rest_url)
    plans = {plan["plan"]: plan for plan in json.loads(told.stdout)}
    assert sorted(plans) == ["A", "B", "C", "D"]
    assert plans["B"]["videos"] == pytest.approx(len(records(calm.root)), rel=0.05)
    assert plans["B"]["calls"] == pytest.approx(calm.asked.total(), rel=0.1)
    assert plans["D"]["calls"] < plans["C"]["calls"] < plans["B"]["calls"] < plans["A"]["calls"]
    planning = asked(server) - before
    assert planning["flickr.photos.search"] == len(ACTIONS)

    done = noisyactions("crawl", tmp_path, *UNTIL, url=server.rest_url)
    assert done.returncode == 0, done.stderr
    assert timeless(records(tmp_path)) == timeless(records(calm.root))
    spent = asked(server) - before
    assert spent["flickr.photos.search"] == calm.asked["flickr.photos.search"]
    nothing = noisyactions("plan", tmp_path, url=server.rest_url)
    assert nothing.returncode == 0
    assert "all that was asked for is crawled" in nothing.stdout
    burndown = json.loads((tmp_path / "crawl" / "burndown.json").read_text())
    assert burndown["planned_calls"] == plans["B"]["calls"]
    assert burndown["curve"][-1][1] == calm.asked.total() - 1  # the echo


def test_the_next_round_asks_for_what_is_new(server: SandboxServer, calm: Calm, tmp_path: Path) -> None:
    vocabulary(tmp_path)
    middle = sorted(video.posted for video in server.world)[NUM_VIDEOS // 2]
    assert noisyactions("crawl", tmp_path, "--until", str(middle), url=server.rest_url).returncode == 0
    first = {record.video_id for record in records(tmp_path)}
    before = asked(server)
    done = noisyactions("crawl", tmp_path, "--since", "last", *UNTIL, url=server.rest_url)
    assert done.returncode == 0, done.stderr
    spent = asked(server) - before

    everything = {r.video_id: (r.concepts, r.dropped, r.num_comments) for r in records(calm.root)}
    assert {r.video_id: (r.concepts, r.dropped, r.num_comments) for r in records(tmp_path)} == everything
    assert 0.3 < len(first) / len(everything) < 0.7
    assert spent["flickr.photos.getInfo"] == len(everything) - len(first)
    wrong = noisyactions("crawl", tmp_path, "--since", "someday", url=server.rest_url)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "'someday' is no time: write 2026-01-31" in wrong.stderr


@pytest.mark.slow
def test_a_query_that_comes_later_is_searched_in_all_rounds_and_one_that_goes_takes_its_labels(
    server: SandboxServer, calm: Calm, tmp_path: Path
) -> None:
    middle = str(sorted(video.posted for video in server.world)[NUM_VIDEOS // 2])
    vocabulary(tmp_path, *ACTIONS[:2])
    assert noisyactions("crawl", tmp_path, "--until", middle, url=server.rest_url).returncode == 0
    assert noisyactions("crawl", tmp_path, "--since", "last", *UNTIL, url=server.rest_url).returncode == 0
    vocabulary(tmp_path)
    assert noisyactions("crawl", tmp_path, url=server.rest_url).returncode == 0
    everything = {r.video_id: (r.concepts, r.dropped) for r in records(calm.root)}
    assert {r.video_id: (r.concepts, r.dropped) for r in records(tmp_path)} == everything
    vocabulary(tmp_path, *ACTIONS[1:])
    done = noisyactions("crawl", tmp_path, url=server.rest_url)
    assert "videos that only queries of a former vocabulary found are left out" in done.stdout
    assert {label for r in records(tmp_path) for label in r.concepts} < {
        c for r in records(calm.root) for c in r.concepts
    }


def test_records_are_made_again_from_the_raw_answers_without_asking(
    server: SandboxServer, calm: Calm, tmp_path: Path
) -> None:
    vocabulary(tmp_path)
    assert noisyactions("crawl", tmp_path, *UNTIL, url=server.rest_url).returncode == 0
    expected, before = records(tmp_path), asked(server)
    for path in (*tmp_path.glob("*/records/*.parquet"), tmp_path / "records" / "records.json"):
        path.unlink()
    done = noisyactions("crawl", tmp_path, "--reparse", url=server.rest_url)
    assert done.returncode == 0, done.stderr
    assert records(tmp_path) == expected
    assert asked(server) == before


@pytest.mark.slow
def test_filters_leave_rows_with_their_reason_and_save_calls(server: SandboxServer, calm: Calm, tmp_path: Path) -> None:
    vocabulary(tmp_path)
    before = asked(server)
    keep = ("--keep.licenses", "0", "--keep.max-seconds", "8")
    done = noisyactions("crawl", tmp_path, *UNTIL, *keep, url=server.rest_url)
    assert done.returncode == 0, done.stderr
    spent = asked(server) - before
    found = {record.video_id: record for record in records(tmp_path)}
    assert found.keys() == {record.video_id for record in records(calm.root)}
    licensed = {v.video_id for v in server.world if v.license == 0} & found.keys()
    assert {i for i, record in found.items() if record.dropped == "filtered_license"} == found.keys() - licensed
    assert spent["flickr.photos.getInfo"] == len(licensed) < 0.8 * len(found)
    long = [r for r in found.values() if r.dropped == "filtered_duration"]
    assert long
    assert all(r.duration_seconds > 8 for r in long if r.duration_seconds)
    told = noisyactions("crawl", tmp_path, "--reparse", url=server.rest_url)  # with the filters of before
    assert told.returncode == 0, told.stderr
    assert {r.video_id: r.dropped for r in records(tmp_path)} == {i: r.dropped for i, r in found.items()}
    again = noisyactions("crawl", tmp_path, *UNTIL, url=server.rest_url)  # without filters, only what is missing
    assert again.returncode == 0, again.stderr
    assert "the records were made with other filters: licenses=(0,), max_seconds=8.0" in again.stdout
    assert timeless(records(tmp_path)) == timeless(records(calm.root))


@pytest.mark.parametrize("plan", [pytest.param("A", marks=SLOW), pytest.param("C", marks=SLOW), "D"])
def test_other_plans_ask_what_they_say(server: SandboxServer, calm: Calm, tmp_path: Path, plan: str) -> None:
    vocabulary(tmp_path)
    before = asked(server)
    done = noisyactions("crawl", tmp_path, "--plan", plan, *UNTIL, url=server.rest_url)
    assert done.returncode == 0, done.stderr
    spent, found = asked(server) - before, records(tmp_path)
    assert bool(spent["flickr.photos.getInfo"]) == (plan == "A")
    assert bool(spent["flickr.photos.getSizes"]) == (plan != "D")
    commented = [r for r in found if r.comments]
    assert [r.video_id for r in commented] == [r.video_id for r in records(calm.root) if r.comments] or plan != "A"
    assert commented
    assert any(r.renditions for r in found)
    if plan == "A":
        alive = [r for r in found if r.dropped not in ("gone", "still_processing", "never_playable", "no_video_url")]
        assert spent["flickr.photos.comments.getList"] == len(alive)


def test_a_released_list_is_looked_up_and_its_rot_is_told(server: SandboxServer, tmp_path: Path) -> None:
    videos = [v for v in server.world if v.media == "video"][:60]
    lines = [f"{video.video_id} {1 + number % 2}" for number, video in enumerate(videos)]
    (tmp_path / "list.txt").write_text("\n".join([*lines, "what is this", "99 7"]) + "\n")
    (tmp_path / "classes.txt").write_text("1 swing\n2 push ups\n")
    root = tmp_path / "root"
    ids = ("--ids", str(tmp_path / "list.txt"), "--id-classes", str(tmp_path / "classes.txt"))
    done = noisyactions("crawl", root, *ids, url=server.rest_url)
    assert done.returncode == 0, done.stderr
    found = {record.video_id: record for record in records(root)}
    gone = [v.video_id for v in videos if v.trouble in ("deleted", "private")]
    assert {i for i, record in found.items() if record.dropped == "gone"} == set(gone)
    assert found[videos[0].video_id].concepts == ("swing",)
    rot = json.loads((root / "records" / "link_rot.json").read_text())
    assert (rot["ids"], rot["lines_rejected"], rot["outcomes"]["gone"]) == (60, 2, len(gone))
    assert f"{rot['alive']} of 60 listed videos are still there" in done.stdout
    rejects = (root / "ids" / "rejects.csv").read_text().splitlines()
    assert rejects == [
        "line,text,why",
        "61,what is this,no Flickr id",
        "62,99 7,label '7' is not one of the classes 1 to 2",
    ]
    before = asked(server)
    assert noisyactions("crawl", root, *ids, url=server.rest_url).returncode == 0
    assert asked(server) - before == Counter({"flickr.test.echo": 1})
    junk = tmp_path / "junk.txt"
    junk.write_text("nothing\n")
    wrong = noisyactions("crawl", tmp_path / "other", "--ids", str(junk), url=server.rest_url)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "holds no ids: line 1 is 'nothing'" in wrong.stderr


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
