import logging
import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from jobs.crawl import make_searcher
from pipeline.errors import Dropped, Transient, UserError
from pipeline.flickr import Flickr, FlickrSettings, require_access
from pipeline.limits import LocalPermits
from pipeline.sandbox.faults import Fault, Kind
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World
from pipeline.store import FolderStore
from pipeline.transfer import Deadlines
from pipeline.units import Ledger

INFO = "flickr.photos.getInfo"
SHORT = Deadlines(connect_seconds=2.0, silence_seconds=0.4, total_seconds=0.8)

RETRIED = {
    "429", "429_seconds", "429_date", "403", "500", "502", "503", "504", "code_0", "code_10", "code_105", "code_201",
    "trailing_comma", "truncated_json", "html", "empty", "bad_utf8", "reset", "close", "hang", "drip",
    "short_body", "no_length", "expired",
}  # fmt: skip
REFUSED = {"key_disabled": "the API key is refused", "redirect_loop": "HTTP 302 from .*: check FLICKR_REST_URL"}
HARMLESS = {"long_body", "wrong_type", "range_ignored", "duplicate_page", "page_shift"}


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[SandboxServer]:
    with serve(world) as server:
        yield server
        assert server.counters.errors == []


def settings_for(server: SandboxServer, *, max_attempts: int = 2) -> FlickrSettings:
    return FlickrSettings(
        rest_url=server.rest_url, contact="a@b.c", calls_per_hour=1e6, max_attempts=max_attempts, deadlines=SHORT
    )


def playable(world: World) -> str:
    return next(v.video_id for v in world if v.trouble is None and v.media == "video")


def test_every_fault_of_the_sandbox_is_expected_here() -> None:
    assert RETRIED | REFUSED.keys() | HARMLESS == set(get_args(Kind))


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize("kind", sorted(RETRIED | HARMLESS))
def test_a_fault_of_the_moment_is_ridden_out(
    server: SandboxServer, world: World, permits: LocalPermits, kind: Kind
) -> None:
    server.set_faults([Fault(kind=kind, times=1, seconds=1.5 if kind in ("hang", "drip") else 1)])
    before = server.counters.count(INFO)
    began = time.monotonic()
    answer = Flickr(settings_for(server), permits).call(INFO, photo_id=playable(world))
    assert answer["photo"]["id"] == playable(world)
    assert server.counters.count(INFO) - before == (1 if kind in HARMLESS else 2)
    if kind == "429_seconds":
        assert time.monotonic() - began >= 1


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize(("kind", "reason"), [("503", "http_5xx"), ("reset", "connection"), ("hang", "timeout")])
def test_a_fault_that_stays_is_told_after_the_last_try(
    server: SandboxServer, world: World, permits: LocalPermits, kind: Kind, reason: str
) -> None:
    server.set_faults([Fault(kind=kind)])
    before = server.counters.count(INFO)
    with pytest.raises(Transient) as caught:
        Flickr(settings_for(server, max_attempts=3), permits).call(INFO, photo_id=playable(world))
    assert caught.value.reason == reason
    assert server.counters.count(INFO) - before == 3


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_what_no_retry_mends_is_the_users_to_mend(
    server: SandboxServer, world: World, permits: LocalPermits, kind: Kind
) -> None:
    server.set_faults([Fault(kind=kind)])
    before = server.counters.count(INFO)
    with pytest.raises(UserError, match=REFUSED[kind]):
        Flickr(settings_for(server), permits).call(INFO, photo_id=playable(world))
    assert server.counters.count(INFO) - before == 1


@pytest.mark.usefixtures("sandbox_key")
def test_a_missing_video_is_gone_but_a_missing_page_is_the_servers_trouble(
    server: SandboxServer, permits: LocalPermits
) -> None:
    server.set_faults([])
    with pytest.raises(Dropped, match=r"gone: .*error 1: Photo"):
        Flickr(settings_for(server), permits).call(INFO, photo_id="1")
    with pytest.raises(UserError, match="error 1: Required parameter missing"):
        Flickr(settings_for(server), permits).call(INFO)
    elsewhere = replace(settings_for(server), rest_url=f"{server.base_url}/nothing/")
    with pytest.raises(UserError, match=r"HTTP 404 from .*/nothing/: check FLICKR_REST_URL"):
        Flickr(elsewhere, permits).call(INFO, photo_id="1")


@pytest.mark.usefixtures("sandbox_key")
def test_throttling_slows_every_later_call(server: SandboxServer, world: World, permits: LocalPermits) -> None:
    server.set_faults([Fault(kind="429_seconds", times=1, seconds=1)])
    Flickr(settings_for(server), permits).call(INFO, photo_id=playable(world))
    permits.throttled("flickr", 0.3)
    began = time.monotonic()
    Flickr(settings_for(server), permits).call(INFO, photo_id=playable(world))
    assert time.monotonic() - began >= 0.29


@pytest.mark.usefixtures("sandbox_key")
def test_access_is_checked_before_any_work(server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.set_faults([])
    require_access(settings_for(server))
    with pytest.raises(UserError, match=r"no contact: give --flickr.contact"):
        require_access(FlickrSettings(rest_url=server.rest_url))
    server.set_faults([Fault(kind="503")])
    require_access(settings_for(server))  # busy is no reason not to begin
    server.set_faults([Fault(kind="key_disabled")])
    with pytest.raises(UserError, match=r"the API key is refused \(Invalid API Key .*: check FLICKR_API_KEY"):
        require_access(settings_for(server))
    monkeypatch.delenv("FLICKR_API_KEY")
    with pytest.raises(UserError, match="no Flickr API key: set FLICKR_API_KEY"):
        require_access(settings_for(server))


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize("url", ["http://127.0.0.1:9/services/rest/", "nonsense", "http://[half"])
def test_nobody_at_the_address_is_told_at_once(url: str) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be reached .*: check the network"):
        require_access(FlickrSettings(rest_url=url, contact="a@b.c", calls_per_hour=60))
    assert time.monotonic() - began < 3


def test_keys_are_never_logged_pickled_or_told(
    server: SandboxServer, world: World, permits: LocalPermits, sandbox_key: str,
    caplog: pytest.LogCaptureFixture, tmp_path: Path,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    server.set_faults([Fault(kind="reset", first=2)])
    flickr = Flickr(settings_for(server), permits)
    flickr.call(INFO, photo_id=playable(world))
    with pytest.raises(Transient) as caught:
        flickr.call(INFO, photo_id=playable(world))
    ledger = Ledger(FolderStore(tmp_path), "crawl", {})
    sent = pickle.dumps([partial(make_searcher, ledger, settings_for(server)), caught.value])
    for secret in (sandbox_key, "s3cr3t0fth3s4ndb0x"):
        assert secret not in caplog.text
        assert secret not in str(caught.value)
        assert secret.encode() not in sent
    assert server.counters.count(sandbox_key) > 0


def test_more_than_flickrs_ceiling_is_refused_but_not_on_loopback() -> None:
    with pytest.raises(ValueError, match="calls_per_hour 7200 is over Flickr's limit of 3600"):
        FlickrSettings(calls_per_hour=7200)
    for host in ("localhost", "127.0.0.1:80", "[::1]:80"):
        assert FlickrSettings(calls_per_hour=7200, rest_url=f"http://{host}/").calls_per_hour == 7200
    with pytest.raises(ValueError, match="is over Flickr's limit"):
        FlickrSettings(calls_per_hour=7200, rest_url="http://127.0.0.1.example.org/")
