"""Each fault as a client without any cleverness sees it: bytes on a socket."""

import gzip
import json
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import get_args

import pytest
import requests

from pipeline.errors import UserError
from pipeline.sandbox.faults import CALL_FAULTS, REPLY_FAULTS, Fault, FaultPlan, Kind
from pipeline.sandbox.replies import Call
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World, WorldConfig

WORLD = WorldConfig(seed=5, num_videos=60, max_seconds=2.0, shared_tag="everyone", trouble_rate=0.0)
SEARCH = (
    "/services/rest/?method=flickr.photos.search&api_key=k&text=everyone&format=json&nojsoncallback=1"
    "&per_page=10&sort=date-posted-asc"
)


@dataclass
class Raw:
    """A response as it came, up to the end of the connection or to its declared length."""

    head: str
    body: bytes
    seconds: float

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    def header(self, name: str) -> str | None:
        for line in self.head.split("\r\n")[1:]:
            if line.lower().startswith(name.lower() + ":"):
                return line.partition(":")[2].strip()
        return None


def fetch(server: SandboxServer, path: str, *, headers: str = "") -> Raw:
    start = time.monotonic()
    host, port = server.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n".encode())
        data = b"".join(iter(lambda: raw.recv(65536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    return Raw(head=head.decode(), body=body, seconds=time.monotonic() - start)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@contextmanager
def served(cache: Path, *faults: Fault) -> Iterator[SandboxServer]:
    with serve(World(WORLD, cache=cache), faults=faults) as server:
        yield server
        assert server.counters.errors == []


def media_path(server: SandboxServer) -> str:
    video = server.world.video(0)
    label = next(iter(p for p in ("700", "site") if fetch(server, play_path(server, p)).status == 302))
    assert video.media == "video"
    location = fetch(server, play_path(server, label)).header("Location")
    assert location is not None
    return location.removeprefix(server.base_url)


def play_path(server: SandboxServer, label: str) -> str:
    video = server.world.video(0)
    return f"/photos/{video.owner.path}/{video.video_id}/play/{label}/{video.secret}/"


def test_every_kind_has_its_function() -> None:
    assert set(CALL_FAULTS) | set(REPLY_FAULTS) == set(get_args(Kind))
    assert not set(CALL_FAULTS) & set(REPLY_FAULTS)


@pytest.mark.parametrize("kind", ["403", "404", "410", "429", "500", "502", "503", "504"])
def test_statuses(cache: Path, kind: Kind) -> None:
    with served(cache, Fault(kind=kind, times=1)) as server:
        first, second = fetch(server, SEARCH), fetch(server, SEARCH)
        assert (first.status, second.status) == (int(kind), 200)
        assert first.header("Retry-After") is None
        assert server.counters.count(kind) == 1


def test_retry_after(cache: Path) -> None:
    with served(cache, Fault(kind="429_seconds", seconds=7, times=1), Fault(kind="429_date", seconds=60)) as server:
        assert fetch(server, SEARCH).header("Retry-After") == "7"
        told = fetch(server, SEARCH).header("Retry-After")
        assert told is not None
        assert 50 < parsedate_to_datetime(told).timestamp() - time.time() < 61


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        *((kind, int(kind.removeprefix("code_"))) for kind in get_args(Kind) if kind.startswith("code_")),
        ("key_disabled", 100),
    ],
)
def test_codes_within_http_200(cache: Path, kind: Kind, code: int) -> None:
    with served(cache, Fault(kind=kind)) as server:
        reply = fetch(server, SEARCH)
        assert reply.status == 200
        assert f'"code":{code},'.encode() in reply.body
        assert f'code="{code}"'.encode() in fetch(server, SEARCH.replace("format=json", "format=rest")).body


def test_key_disabled_stays_so_from_a_call_on(cache: Path) -> None:
    with served(cache, Fault(kind="key_disabled", first=3)) as server:
        assert [b"expired" in fetch(server, SEARCH).body for _ in range(5)] == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("kind", "sign"),
    [("trailing_comma", b'"code":201},'), ("html", b"<!DOCTYPE html>"), ("bad_utf8", b"\xff\xfe\xc3\x28")],
)
def test_bodies_that_cannot_be_read(cache: Path, kind: Kind, sign: bytes) -> None:
    with served(cache, Fault(kind=kind)) as server:
        reply = fetch(server, SEARCH)
        assert reply.status == 200
        assert sign in reply.body
        assert reply.header("Content-Length") == str(len(reply.body))


def test_empty_and_truncated_bodies(cache: Path) -> None:
    with served(cache, Fault(kind="empty", times=1), Fault(kind="truncated_json", times=1)) as server:
        assert fetch(server, SEARCH).body == b""
        truncated, whole = fetch(server, SEARCH).body, fetch(server, SEARCH).body
        assert truncated == whole[: len(whole) // 2]


def test_reset_and_close_before_headers(cache: Path) -> None:
    with served(cache, Fault(kind="reset", times=1), Fault(kind="close", times=1)) as server:
        with pytest.raises(ConnectionResetError):
            fetch(server, SEARCH)
        assert fetch(server, SEARCH).head == ""
        assert fetch(server, SEARCH).status == 200


@pytest.mark.parametrize("kind", ["hang", "drip"])
def test_slowness(cache: Path, kind: Kind) -> None:
    with served(cache, Fault(kind=kind, seconds=0.4, times=1)) as server:
        slow, quick = fetch(server, SEARCH), fetch(server, SEARCH)
        assert slow.body == quick.body
        assert slow.seconds > 0.38
        assert quick.seconds < slow.seconds


def test_a_server_that_hangs_still_stops_at_once(cache: Path) -> None:
    with served(cache, Fault(kind="hang", seconds=600)) as server:
        host, port = server.base_url.removeprefix("http://").split(":")
        raw = socket.create_connection((host, int(port)))
        raw.sendall(f"GET {SEARCH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.1)
        start = time.monotonic()
    raw.close()
    assert time.monotonic() - start < 3


def test_lengths_that_lie(cache: Path) -> None:
    faults = [Fault(kind=kind, path="*.mp4", times=1) for kind in ("short_body", "long_body", "no_length")]
    with served(cache, *faults) as server:
        path = media_path(server)
        short, long, bare, whole = (fetch(server, path) for _ in range(4))
        assert int(short.header("Content-Length") or 0) == len(whole.body) == 2 * len(short.body) + len(whole.body) % 2
        assert int(long.header("Content-Length") or 0) == len(whole.body) == len(long.body) - 1000
        assert bare.header("Content-Length") is None
        assert len(bare.body) == len(whole.body) // 2


def test_wrong_type_ignored_range_and_expiry(cache: Path) -> None:
    kinds: tuple[Kind, ...] = ("wrong_type", "range_ignored", "expired")
    with served(cache, *(Fault(kind=kind, path="*.mp4", times=1) for kind in kinds)) as server:
        path = media_path(server)
        assert fetch(server, path).header("Content-Type") == "application/octet-stream"
        assert fetch(server, path, headers="Range: bytes=5-\r\n").status == 200
        assert fetch(server, path).status == 403
        assert fetch(server, path, headers="Range: bytes=5-\r\n").status == 206


def test_redirect_loop(cache: Path) -> None:
    with served(cache, Fault(kind="redirect_loop", host="www")) as server:
        path = play_path(server, "700")
        assert fetch(server, path).header("Location") == path


def test_duplicate_and_shifted_pages(cache: Path) -> None:
    second = SEARCH + "&page=2"
    faults = [Fault(kind="duplicate_page", first=2, times=1), Fault(kind="page_shift", first=3, times=1, rows=3)]
    with served(cache, *faults) as server:
        honest, duplicate, shifted = (ids(fetch(server, second).body) for _ in range(3))
        before = ids(fetch(server, SEARCH).body)
        assert duplicate == before
        assert shifted == before[-3:] + honest[:-3]


def test_rows_that_vanish_before_a_page_are_on_neither(cache: Path) -> None:
    with served(cache, Fault(kind="page_shift", first=2, times=1, rows=-3)) as server:
        first, shifted = (ids(fetch(server, SEARCH + f"&page={page}").body) for page in (1, 2))
        honest, third = (ids(fetch(server, SEARCH + f"&page={page}").body) for page in (2, 3))
        assert shifted == honest[3:] + third[:3]
        assert set(honest[:3]).isdisjoint(first + shifted)


def test_newest_first_pages_shift_too(cache: Path) -> None:
    newest = SEARCH.replace("date-posted-asc", "date-posted-desc")
    with served(cache, Fault(kind="page_shift", first=3, times=1, rows=4)) as server:
        first, honest, shifted = (ids(fetch(server, newest + f"&page={page}").body) for page in (1, 2, 2))
        assert shifted == first[-4:] + honest[:-4]


def ids(body: bytes) -> list[str]:
    return [row["id"] for row in json.loads(body)["photos"]["photo"]]


def test_faults_can_be_replaced_while_it_runs(cache: Path) -> None:
    with served(cache, Fault(kind="500")) as server:
        assert fetch(server, SEARCH).status == 500
        server.set_faults([])
        assert fetch(server, SEARCH).status == 200


def test_faults_can_be_replaced_by_another_process(cache: Path) -> None:
    with served(cache) as server:
        url = f"{server.base_url}/__admin__/faults"
        told = json.dumps([{"kind": "500", "times": 1}, {"kind": "503", "method": "*.search"}])
        assert requests.post(url, data={"faults": told}).json() == {"faults": 2}
        assert [fetch(server, SEARCH).status for _ in range(2)] == [500, 503]
        refused = requests.post(url, data={"faults": '[{"kind": "boredom"}]'})
        assert refused.status_code == 400
        assert "no fault of the kind 'boredom'" in refused.text
        assert requests.post(url).status_code == 400
        assert requests.post(url, data={"faults": "[]"}).json() == {"faults": 0}
        assert fetch(server, SEARCH).status == 200


def test_answers_are_compressed_for_those_who_accept_it(cache: Path) -> None:
    accept = "Accept-Encoding: gzip, deflate\r\n"
    with served(cache) as server:
        plain, small = fetch(server, SEARCH), fetch(server, SEARCH, headers=accept)
        assert plain.header("Content-Encoding") is None
        assert small.header("Content-Encoding") == "gzip"
        assert len(small.body) < len(plain.body)
        assert gzip.decompress(small.body) == plain.body
        path = media_path(server)
        assert fetch(server, path, headers=accept).header("Content-Encoding") is None


def test_what_befalls_compressed_answers(cache: Path) -> None:
    accept = "Accept-Encoding: gzip\r\n"
    kinds: tuple[Kind, ...] = ("truncated_json", "bad_gzip", "short_body")
    with served(cache, *(Fault(kind=kind, times=1) for kind in kinds)) as server:
        truncated, bad, short, whole = (fetch(server, SEARCH, headers=accept) for _ in range(4))
        text = gzip.decompress(whole.body)
        assert gzip.decompress(truncated.body) == text[: len(text) // 2]
        with pytest.raises((OSError, EOFError, zlib.error)):
            gzip.decompress(bad.body)
        assert len(bad.body) == len(whole.body)
        assert whole.body.startswith(short.body)
        assert int(short.header("Content-Length") or 0) == len(whole.body) > len(short.body)


def call(method: str = "flickr.photos.search", path: str = "/services/rest/") -> Call:
    return Call(host="api", verb="GET", path=path, params={"method": method})


def test_where_and_when() -> None:
    plan = FaultPlan([Fault(kind="500", method="*.getInfo", first=2, every=3, times=2)], seed=0)
    hits = [plan.due(call("flickr.photos.getInfo")) is not None for _ in range(12)]
    assert [place for place, hit in enumerate(hits, start=1) if hit] == [2, 5]
    assert plan.due(call()) is None
    assert FaultPlan([Fault(kind="500", host="live")], seed=0).due(call()) is None
    plan = FaultPlan([Fault(kind="key_disabled", key="second")], seed=0)
    assert plan.due(replace(call(), key="first")) is None
    assert plan.due(replace(call(), key="second")) is not None


def test_probability_is_seeded() -> None:
    def draws(seed: int) -> list[bool]:
        plan = FaultPlan([Fault(kind="500", probability=0.3)], seed=seed)
        return [plan.due(call()) is not None for _ in range(1000)]

    assert draws(1) == draws(1) != draws(2)
    assert 240 < sum(draws(1)) < 360


def test_faults_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="no fault of the kind 'boredom': choose among 429, "):
        Fault(kind="boredom")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="first, every >= 1"):
        Fault(kind="500", every=0)
