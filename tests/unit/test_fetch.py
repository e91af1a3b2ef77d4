import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answers import renditions_of_sizes
from pipeline.errors import Dropped, Transient
from pipeline.fetch import FetchSettings, fetch, ranked
from pipeline.limits import LocalPermits, Rate
from pipeline.records import Rendition, VideoRecord
from pipeline.sandbox import answers as sandbox
from pipeline.sandbox.faults import Fault, Kind
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World
from pipeline.transfer import Deadlines, Session

RawServer = Callable[..., str]
SETTINGS = FetchSettings(
    max_attempts=2, deadlines=Deadlines(connect_seconds=2.0, silence_seconds=0.4, total_seconds=0.8)
)


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[SandboxServer]:
    with serve(world) as server:
        yield server
        assert server.counters.errors == []


@pytest.fixture
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def record_of(server: SandboxServer, trouble: str | None = None) -> VideoRecord:
    video = next(v for v in server.world if v.trouble == trouble and v.media == "video")
    sizes = sandbox.sizes_answer(video, server.base_url)
    return VideoRecord(video_id=video.video_id, renditions=renditions_of_sizes(sizes))


def from_web(*urls: str) -> VideoRecord:
    return VideoRecord(video_id="1", renditions=tuple(Rendition(label="url", url=url) for url in urls))


@pytest.mark.parametrize(
    "kind",
    ["429", "429_seconds", "429_date", "403", "500", "502", "503", "504", "expired", "reset", "close", "hang", "drip",
     "short_body", "long_body", "wrong_type", "range_ignored"],
)  # fmt: skip
def test_a_media_hosts_fault_of_the_moment_is_ridden_out(
    server: SandboxServer, session: Session, permits: LocalPermits, tmp_path: Path, kind: Kind
) -> None:
    record = record_of(server)
    server.set_faults([Fault(kind=kind, host="live", times=1, seconds=1.5 if kind in ("hang", "drip") else 1)])
    began = time.monotonic()
    digest = fetch(record, tmp_path / "out", session=session, permits=permits, settings=SETTINGS)
    whole = server.world.media(record.video_id).read_bytes()
    assert (tmp_path / "out").read_bytes() == whole
    assert digest == hashlib.sha256(whole).hexdigest()
    if kind == "429_seconds":
        assert time.monotonic() - began >= 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(kind="503", host="live"), "http_5xx"),
        (Fault(kind="429", host="www"), "http_4xx"),
        (Fault(kind="reset", host="www"), "connection"),
        (Fault(kind="hang", host="live", seconds=1.5), "timeout"),
        (Fault(kind="drip", host="live", seconds=1.5), "timeout"),
        (Fault(kind="short_body", host="live"), "truncated"),
        (Fault(kind="expired", host="live"), "http_4xx"),
    ],
)
def test_a_fault_that_stays_ends_with_its_word(
    server: SandboxServer, session: Session, permits: LocalPermits, tmp_path: Path, fault: Fault, reason: str
) -> None:
    server.set_faults([fault])
    with pytest.raises(Transient) as caught:
        fetch(record_of(server), tmp_path / "out", session=session, permits=permits, settings=SETTINGS)
    assert caught.value.reason == reason
    assert "s=" not in caught.value.detail  # the signature


@pytest.mark.parametrize(
    ("fault", "trouble", "reason"),
    [
        (Fault(kind="html", host="live"), None, "not_a_video"),
        (Fault(kind="empty", host="live"), None, "not_a_video"),
        (Fault(kind="redirect_loop", host="www"), None, "http_4xx"),
        (Fault(kind="403", host="www"), None, "http_4xx"),
        (None, "deleted", "gone"),
        (None, "private", "gone"),
        (None, "html_file", "not_a_video"),
        (None, "zero_length", "not_a_video"),
        (None, "player_only", "no_video_url"),
    ],
)
def test_what_no_retry_mends_is_asked_for_once(
    server: SandboxServer, session: Session, permits: LocalPermits, tmp_path: Path,
    fault: Fault | None, trouble: str | None, reason: str,
) -> None:  # fmt: skip
    server.set_faults([fault] if fault else [])
    before = server.counters.count("live")
    with pytest.raises(Dropped) as caught:
        fetch(record_of(server, trouble), tmp_path / "out", session=session, permits=permits, settings=SETTINGS)
    assert caught.value.reason == reason
    assert server.counters.count("live") - before <= 1


def test_the_host_that_throttles_pauses_for_everybody_and_no_other(
    server: SandboxServer, session: Session, raw_server: RawServer, tmp_path: Path
) -> None:
    class Noted(LocalPermits):
        def __init__(self) -> None:
            super().__init__({}, default=Rate(per_second=1e6))
            self.paused: list[tuple[str, float, bool]] = []

        def throttled(self, name: str, seconds: float, *, slower: bool = True) -> None:
            self.paused.append((name, seconds, slower))

    media = server.base_url.replace("127.0.0.1", "localhost").removeprefix("http://")
    redirect = (
        f"HTTP/1.1 302 Found\r\nLocation: http://{media}/video/1/2/360p.mp4\r\nContent-Length: 0\r\n\r\n".encode()
    )
    once = replace(SETTINGS, max_attempts=1)
    for kind, seconds, slower in (("429_seconds", 7.0, True), ("503", None, True), ("500", None, False)):
        server.set_faults([Fault(kind=kind, host="live", seconds=7)])
        permits = Noted()
        with pytest.raises(Transient):
            fetch(from_web(raw_server(redirect)), tmp_path / "out", session=session, permits=permits, settings=once)
        [(host, paused, slowed)] = permits.paused
        assert (host, slowed) == (media, slower)
        assert paused == (seconds or pytest.approx(0.4, abs=0.2))


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://h/x", "http://[half/", "data:,x"])
def test_no_redirect_leads_off_the_web(
    raw_server: RawServer, session: Session, permits: LocalPermits, tmp_path: Path, location: str
) -> None:
    url = raw_server(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
    with pytest.raises(Dropped, match="http_4xx: redirected to"):
        fetch(from_web(url), tmp_path / "out", session=session, permits=permits, settings=SETTINGS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["flickr", "table"])
def test_no_answer_from_the_web_opens_a_file_of_ours(
    session: Session, permits: LocalPermits, tmp_path: Path, source: str
) -> None:
    (tmp_path / "ours").write_bytes(b"private")
    record = replace(from_web(f"file://{tmp_path}/ours"), source=source)
    with pytest.raises(Dropped, match=f"no_video_url: {source} named a local file"):
        fetch(record, tmp_path / "out", session=session, permits=permits, settings=SETTINGS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("url", ["http://[half/", "", "nonsense", "gopher://h/"])
def test_an_address_that_is_none_is_this_videos_fate_only(
    session: Session, permits: LocalPermits, tmp_path: Path, url: str
) -> None:
    with pytest.raises((Dropped, Transient)) as caught:
        fetch(from_web(url), tmp_path / "out", session=session, permits=permits, settings=SETTINGS)
    assert caught.value.reason in ("no_video_url", "connection")  # type: ignore[attr-defined]


def test_local_files_are_copied_within_the_limit(session: Session, permits: LocalPermits, tmp_path: Path) -> None:
    (tmp_path / "a b%.mp4").write_bytes(b"12345")
    record = replace(from_web(f"file://{tmp_path}/a%20b%25.mp4"), source="folder")
    digest = fetch(record, tmp_path / "out", session=session, permits=permits, settings=SETTINGS)
    assert digest == hashlib.sha256(b"12345").hexdigest()
    small = replace(SETTINGS, max_bytes=4)
    with pytest.raises(Dropped, match="too_large: 5 bytes"):
        fetch(record, tmp_path / "out", session=session, permits=permits, settings=small)
    (tmp_path / "a b%.mp4").unlink()
    with pytest.raises(Dropped, match="gone"):
        fetch(record, tmp_path / "out", session=session, permits=permits, settings=SETTINGS)
    (tmp_path / "a b%.mp4").write_bytes(b"12345")
    with pytest.raises(OSError, match="No space left"):  # trouble of this machine is no fate of the video
        fetch(record, Path("/dev/full"), session=session, permits=permits, settings=SETTINGS)


def test_a_rendition_that_is_not_there_gives_way_to_the_next(
    server: SandboxServer, session: Session, permits: LocalPermits, tmp_path: Path
) -> None:
    server.set_faults([])
    record = record_of(server)
    there = next(r for r in record.renditions if r.label == "360p" or r.label == "Site MP4" or r.label == "700")
    guessed = [Rendition(label="288p", url=f"{server.base_url}/photos/x/{record.video_id}/play/288x/0/"), there]
    digest = fetch(
        replace(record, renditions=tuple(guessed)), tmp_path / "v", session=session, permits=permits, settings=SETTINGS
    )
    assert hashlib.sha256((tmp_path / "v").read_bytes()).hexdigest() == digest
    with pytest.raises(Dropped, match="gone"):
        fetch(
            replace(record, renditions=(guessed[0],) * 2),
            tmp_path / "w", session=session, permits=permits, settings=SETTINGS,
        )  # fmt: skip


def sized(label: str, side: int | None) -> Rendition:
    return Rendition(label=label, url=label, width=None if side is None else side * 2, height=side)


def test_the_smallest_rendition_that_is_good_enough_is_taken() -> None:
    every = [sized("720p", 720), sized("288p", 288), sized("360p", 360), sized("tiny", 100), sized("700", None)]
    assert ranked(every, short_side=256)[0].label == "288p"
    assert ranked(every, short_side=300)[0].label == "360p"
    assert ranked([sized("tiny", 100), sized("small", 200)], short_side=256)[0].label == "small"
    assert (
        ranked([sized("orig", None), sized("iphone_wifi", None), sized("700", None)], short_side=256)[0].label == "700"
    )
    with pytest.raises(Dropped, match="no_video_url"):
        ranked([], short_side=256)


@given(sides=st.lists(st.integers(1, 4000), min_size=1), wanted=st.integers(1, 4000))
def test_no_rendition_that_covers_is_smaller_than_the_one_taken(sides: list[int], wanted: int) -> None:
    taken = ranked([sized(str(side), side) for side in sides], short_side=wanted)[0].height
    enough = [side for side in sides if side >= wanted]
    assert taken == (min(enough) if enough else max(sides))
