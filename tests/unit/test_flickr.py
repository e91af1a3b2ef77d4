import contextlib
import hashlib
import json
import logging
import pickle
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qs

import pytest
from flickrapi.auth import OAuthFlickrInterface

from jobs.asking import make_searcher
from pipeline.errors import Dropped, Transient, UserError
from pipeline.flickr import Flickr, FlickrSettings, key_budgets, require_access
from pipeline.limits import LocalPermits, Rate
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
    "trailing_comma", "truncated_json", "html", "empty", "bad_utf8", "bad_gzip", "reset", "close", "hang", "drip",
    "short_body", "no_length", "expired",
}  # fmt: skip
ELSEWHERE = {"redirect_loop": "HTTP 302", "404": "HTTP 404", "410": "HTTP 410"}
DROPPED = {"code_1": "gone", "code_2": "private", "code_99": "private", "code_20": "http_4xx"}
HARMLESS = {"long_body", "wrong_type", "range_ignored", "duplicate_page", "page_shift"}


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets are kept here and not with the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


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
    assert RETRIED | {"key_disabled"} | ELSEWHERE.keys() | DROPPED.keys() | HARMLESS == set(get_args(Kind))


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize("kind", sorted(RETRIED | ELSEWHERE.keys() | HARMLESS))
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
def test_the_only_key_being_refused_is_the_users_to_mend(
    server: SandboxServer, world: World, permits: LocalPermits
) -> None:
    server.set_faults([Fault(kind="key_disabled")])
    before = server.counters.count(INFO)
    flickr = Flickr(settings_for(server), permits)
    for calls in (1, 2):
        with pytest.raises(UserError, match=r"the API key is refused \(Invalid API Key .*: check FLICKR_API_KEY"):
            flickr.call(INFO, photo_id=playable(world))
        assert server.counters.count(INFO) - before == calls


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize("kind", sorted(ELSEWHERE))
def test_an_address_that_is_not_the_apis_is_told_before_any_work(server: SandboxServer, kind: Kind) -> None:
    """Within a crawl it is trouble like other trouble: what was right at the beginning need not be mended."""
    server.set_faults([Fault(kind=kind)])
    with pytest.raises(UserError, match=f"{ELSEWHERE[kind]} from .*: check FLICKR_REST_URL, its default is https"):
        require_access(settings_for(server))


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize("kind", sorted(DROPPED))
def test_what_flickr_says_of_one_video_is_data(
    server: SandboxServer, world: World, permits: LocalPermits, kind: Kind
) -> None:
    server.set_faults([Fault(kind=kind)])
    before = server.counters.count(INFO)
    with pytest.raises(Dropped) as caught:
        Flickr(settings_for(server), permits).call(INFO, photo_id=playable(world))
    assert caught.value.reason == DROPPED[kind]
    assert server.counters.count(INFO) - before == 1


@pytest.mark.usefixtures("sandbox_key")
def test_a_missing_video_is_gone_but_a_missing_parameter_is_our_mistake(
    server: SandboxServer, permits: LocalPermits
) -> None:
    server.set_faults([])
    with pytest.raises(Dropped, match=r"gone: .*error 1: Photo"):
        Flickr(settings_for(server), permits).call(INFO, photo_id="1")
    with pytest.raises(UserError, match="error 1: Required parameter missing"):
        Flickr(settings_for(server), permits).call(INFO)


@pytest.mark.usefixtures("sandbox_key")
def test_throttling_slows_every_later_call(server: SandboxServer, world: World, permits: LocalPermits) -> None:
    server.set_faults([Fault(kind="429_seconds", times=1, seconds=1)])
    Flickr(settings_for(server), permits).call(INFO, photo_id=playable(world))
    permits.throttled(key_budgets(settings_for(server))[0], 0.3)
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
        require_access(FlickrSettings(rest_url=url, contact="a@b.c", calls_per_hour=3600))
    assert time.monotonic() - began < 6


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


@dataclass
class Heard:
    """A request as it came in."""

    verb: str
    headers: dict[str, str]
    form: dict[str, list[str]]

    @property
    def oauth(self) -> dict[str, str]:
        return dict(re.findall(r'(\w+)="([^"]*)"', self.headers["authorization"]))


@dataclass
class Script:
    """A server that answers with what it is told, one after another, the last again and again."""

    url: str = ""
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)

    def say(self, *answers: Any) -> None:
        """Each a body, or a status with headers and body; anything but bytes goes as JSON."""
        self.heard.clear()
        self.answers = []
        for answer in answers:
            status, headers, body = answer if isinstance(answer, tuple) else (200, {}, answer)
            self.answers.append((status, headers, body if isinstance(body, bytes) else json.dumps(body).encode()))

    def settings(self, **named: Any) -> FlickrSettings:
        return FlickrSettings(
            rest_url=self.url, contact="a@b.c", calls_per_hour=1e6, deadlines=SHORT, **{"max_attempts": 2, **named}
        )


@pytest.fixture
def script(sandbox_key: str) -> Iterator[Script]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            script.heard.append(Heard(self.command, headers, parse_qs(body.decode(), keep_blank_values=True)))
            status, more, answer = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
            self.send_response(status)
            for name, value in {"Content-Length": str(len(answer)), **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, *words: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        script.url = f"http://127.0.0.1:{httpd.server_address[1]}/services/rest/"
        yield script
        httpd.shutdown()
        thread.join()


OK = {"stat": "ok"}


def failed(code: object, message: str = "told") -> dict[str, object]:
    return {"stat": "fail", "code": code, "message": message}


def test_a_call_is_a_signed_post_with_our_name_and_plain_values(
    script: Script, permits: LocalPermits, sandbox_key: str
) -> None:
    script.say(OK)
    Flickr(script.settings(), permits).call(
        "flickr.photos.search", has_geo=True, in_gallery=False, license=[4, "5", 9], text="a b", per_page=500, lat=1.5,
        tags=None, extras=(),
    )  # fmt: skip
    [heard] = script.heard
    assert heard.verb == "POST"
    assert heard.headers["user-agent"] == "noisyactions/0.1 (a@b.c)"
    assert heard.oauth["oauth_consumer_key"] == sandbox_key
    assert heard.oauth["oauth_signature_method"] == "HMAC-SHA1"
    assert heard.form == {
        "method": ["flickr.photos.search"], "format": ["json"], "nojsoncallback": ["1"],
        "has_geo": ["1"], "in_gallery": ["0"], "license": ["4,5,9"], "text": ["a b"], "per_page": ["500"],
        "lat": ["1.5"], "extras": [""],
    }  # fmt: skip


def test_no_try_repeats_a_nonce(script: Script, permits: LocalPermits) -> None:
    script.say((500, {}, b""), failed(105), (503, {}, b""), OK)
    Flickr(script.settings(max_attempts=8), permits).call(INFO, photo_id="1")
    assert len({heard.oauth["oauth_nonce"] for heard in script.heard}) == len(script.heard) == 4


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_so_a_post_stays_a_post(script: Script, permits: LocalPermits, status: int) -> None:
    script.say((status, {"Location": script.url}, b"elsewhere"), OK)
    Flickr(script.settings(), permits).call(INFO, photo_id="1")
    assert [heard.verb for heard in script.heard] == ["POST", "POST"]
    assert all(heard.form["photo_id"] == ["1"] for heard in script.heard)


@pytest.mark.parametrize(
    "garbled",
    [b"", b"<html>Hold your clicks</html>", b'jsonFlickrApi({"stat":"ok"})', b'{"stat":"ok"},', b'{"stat":"ok"',
     b'{"stat":"ok","title":"\xff\xfe"}', b'<?xml version="1.0"?><rsp stat="ok"/>', b"[]", b"null", b'"ok"', b"{}",
     b'{"stat":"perhaps"}', b'{"stat":"fail"}', b'{"stat":"fail","code":"?"}', b'{"stat":"fail","code":null}',
     b"[" * 100_000, b'{"stat":"ok","photo":null}', b'{"stat":"ok","photo":[]}', b'{"stat":"ok","photos":{}}'],
)  # fmt: skip
def test_a_garbled_answer_is_asked_for_again_and_never_a_bug_of_ours(
    script: Script, permits: LocalPermits, garbled: bytes
) -> None:
    good = {"stat": "ok", "photo": {"id": "1"}}
    script.say(garbled, good)
    assert Flickr(script.settings(), permits).call(INFO, expect="photo", photo_id="1") == good
    script.say(garbled)
    with pytest.raises(
        Transient, match=r"flickr.photos.getInfo: (an answer|refused) without|that is not JSON"
    ) as caught:
        Flickr(script.settings(max_attempts=1), permits).call(INFO, expect="photo", photo_id="1")
    assert caught.value.reason == "http_5xx"


@pytest.mark.parametrize(
    ("body", "headers"),
    [(b'{"stat":"ok"}', {"Content-Length": "40"}), (b"?" * 20, {"Content-Encoding": "gzip"})],
    ids=["short", "not gzip"],
)
def test_a_body_that_breaks_off_is_asked_for_again(
    script: Script, permits: LocalPermits, body: bytes, headers: dict[str, str]
) -> None:
    script.say((200, {"Connection": "close", **headers}, body), OK)
    assert Flickr(script.settings(), permits).call(INFO) == OK


def test_a_long_body_is_read_to_its_length(script: Script, permits: LocalPermits) -> None:
    script.say((200, {"Content-Length": "13", "Connection": "close"}, b'{"stat":"ok"}{"stat":"fail"}'))
    assert Flickr(script.settings(), permits).call(INFO) == OK
    assert len(script.heard) == 1


SEARCH = "flickr.photos.search"


@pytest.mark.parametrize(
    ("method", "code", "message", "error", "told"),
    [
        (INFO, 1, "Photo not found", Dropped, "gone: .*error 1"),
        (INFO, "1", 'Photo "1" not found (invalid ID)', Dropped, "gone"),
        (INFO, 1, "Required parameter missing", UserError, "error 1: Required parameter missing"),
        (SEARCH, 1, "Too many tags in ALL query", Dropped, "http_4xx: .*error 1: Too many"),
        ("flickr.photos.getSizes", 2, "Permission denied", Dropped, "private: .*error 2"),
        (SEARCH, 2, "Unknown user", Dropped, "http_4xx: .*error 2"),
        (INFO, 5, "User deleted", Dropped, "gone: .*error 5"),
        (INFO, 99, "Insufficient permissions. Method requires read privileges", Dropped, "private: .*error 99"),
        (SEARCH, 99, "Insufficient permissions", UserError, "error 99"),
        (SEARCH, 3, "Parameterless searches have been disabled", Dropped, "http_4xx: .*error 3"),
        (SEARCH, 18, "Illogical arguments", Dropped, "http_4xx: .*error 18"),
        (SEARCH, 20, "Excessive photo offset in search", Dropped, "http_4xx: .*error 20"),
        (INFO, 77, "nobody has seen this", Dropped, "http_4xx: .*error 77: nobody has seen this"),
        (INFO, -3, "nor this", Dropped, "http_4xx: .*error -3"),
        (INFO, 10, "Sorry, the Flickr search API is not currently available.", Transient, "error 10"),
        (INFO, 0, "Sorry", Transient, "error 0"),
        (INFO, 105, "Service currently unavailable", Transient, "error 105"),
        (INFO, 201, "Sorry", Transient, "error 201"),
        (INFO, 106, "Write operation failed", Transient, "error 106"),
        (INFO, 12345, "nobody has seen this", Transient, "error 12345"),
        (INFO, 95, "SSL is required", UserError, "error 95"),
        (INFO, 111, "Format not found", UserError, "error 111"),
        (INFO, 112, "Method not found", UserError, "error 112"),
        (INFO, 116, "Bad URL found", UserError, "error 116"),
        (INFO, 96, "Invalid signature", UserError, "the API key is refused .Invalid signature"),
        (INFO, 97, "Missing signature", UserError, "the API key is refused"),
        (INFO, 98, "Login failed", UserError, "the API key is refused"),
        (INFO, 100, "Invalid API Key (Key has expired)", UserError, "the API key is refused .*Key has expired"),
    ],
)
def test_what_each_code_means(
    script: Script, permits: LocalPermits, method: str, code: object, message: str, error: type[Exception], told: str
) -> None:
    script.say(failed(code, message))
    parameters = {} if method == SEARCH else {"photo_id": "1"}
    with pytest.raises((Dropped, Transient, UserError), match=told) as caught:
        Flickr(script.settings(), permits).call(method, **parameters)
    assert type(caught.value) is error
    assert len(script.heard) == (2 if error is Transient else 1)


class Noted(LocalPermits):
    """Permits that are there at once, and notes of who was to pause."""

    def __init__(self) -> None:
        super().__init__({}, default=Rate(per_second=1e6))
        self.paused: list[tuple[str, float, bool]] = []

    def throttled(self, name: str, seconds: float, *, slower: bool = True) -> None:
        self.paused.append((name, seconds, slower))


@pytest.mark.parametrize(
    ("status", "headers", "least", "most", "slower"),
    [
        (429, {"Retry-After": "17"}, 17, 17, True),
        (429, {"Retry-After": "999999"}, 900, 900, True),
        (429, {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(hours=9), usegmt=True)}, 900, 900, True),
        (503, {"Retry-After": "17"}, 17, 17, True),
        (429, {}, 30, 60, True),
        (503, {}, 30, 60, True),
        (429, {"Retry-After": "0"}, 0.5, 1, True),
        (500, {}, 0.2, 0.5, False),
        (502, {}, 0.2, 0.5, False),
        (504, {"Retry-After": "17"}, 17, 17, False),
        (403, {}, 0.2, 0.5, False),
    ],
)
def test_how_long_a_key_pauses(
    script: Script, status: int, headers: dict[str, str], least: float, most: float, slower: bool
) -> None:
    script.say((status, headers, b"<h1>429 Too Many Requests</h1>"))
    permits, settings = Noted(), script.settings(max_attempts=1, pause_seconds=30.0)
    with pytest.raises(Transient, match=f"HTTP {status} from"):
        Flickr(settings, permits).call(INFO)
    [(name, seconds, slowed)] = permits.paused  # told even where the last try fails: others are about to ask
    assert least <= seconds <= most
    assert (name, slowed) == (key_budgets(settings)[0], slower)


def test_pauses_grow_to_a_quarter_of_an_hour_and_one_bad_answer_holds_up_nobody_for_long(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("pipeline.flickr.time.sleep", slept.append)
    script.say((429, {}, b""))
    permits = Noted()
    with pytest.raises(Transient):
        Flickr(script.settings(max_attempts=8, pause_seconds=30.0), permits).call(INFO)
    pauses = [seconds for _, seconds, _ in permits.paused]
    assert [30 * 2**n <= pause <= 60 * 2**n for n, pause in enumerate(pauses[:4])] == [True] * 4
    assert all(450 <= pause <= 900 for pause in pauses[5:])
    assert sum(pauses) > 1800
    assert sum(slept) < 0.1  # the pause is the key's, not this call's
    script.say(b"garbled")
    permits = Noted()
    with pytest.raises(Transient):
        Flickr(script.settings(max_attempts=8), permits).call(INFO)
    assert max(seconds for _, seconds, _ in permits.paused) <= 5
    assert sum(slept) > 30  # this call alone is patient


@pytest.mark.usefixtures("sandbox_key")
def test_headers_that_drip_are_cut(permits: LocalPermits) -> None:
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not stopped.wait(0.05):
                    connection.sendall(b"a")

        thread = threading.Thread(target=work)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        began = time.monotonic()
        with pytest.raises(Transient) as caught:
            Flickr(FlickrSettings(rest_url=url, max_attempts=1, deadlines=SHORT), permits).call(INFO)
        stopped.set()
        thread.join()
    assert caught.value.reason == "timeout"
    assert time.monotonic() - began < 1.6


@pytest.mark.usefixtures("sandbox_key")
def test_tls_to_a_port_without_it_is_no_connection(script: Script, permits: LocalPermits) -> None:
    url = script.url.replace("http:", "https:")
    with pytest.raises(UserError, match=r"cannot be reached .*SSLError.*: check the network"):
        require_access(FlickrSettings(rest_url=url, contact="a@b.c", deadlines=SHORT), permits)


def test_nothing_is_cached_and_no_answer_is_taken_for_another(script: Script, permits: LocalPermits) -> None:
    flickr = Flickr(script.settings(max_attempts=1), permits)
    script.say(failed(105), b"garbled", failed(1, "Photo not found"), OK)
    for error in (Transient, Transient, Dropped):
        with pytest.raises(error):
            flickr.call(INFO, photo_id="1")
    assert flickr.call(INFO, photo_id="1") == OK
    assert len(script.heard) == 4


def test_nothing_is_written_to_the_home_folder(
    script: Script, permits: LocalPermits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    script.say(OK)
    Flickr(script.settings(), permits).call(INFO)
    assert list(home.iterdir()) == []
    home.rmdir()  # nor is one needed
    Flickr(script.settings(), permits).call(INFO)


def test_workers_share_no_session_no_cookie_and_no_header(script: Script, permits: LocalPermits) -> None:
    one, other = (Flickr(script.settings(), permits) for _ in range(2))
    script.say((200, {"Set-Cookie": "ccc=1; path=/"}, OK), OK)
    sessions = [flickr._keys[0].api.flickr_oauth.session for flickr in (one, other)]
    assert len({id(session) for session in [*sessions, OAuthFlickrInterface.session]}) == 3
    sessions[0].headers["X-Only"] = "one"
    sessions[0].proxies["http"] = "http://127.0.0.1:9"
    for flickr in (other, other):
        assert flickr.call(INFO) == OK
    assert all("cookie" not in heard.headers and "x-only" not in heard.headers for heard in script.heard)
    assert OAuthFlickrInterface.session.headers["User-Agent"].startswith("python-requests/")


@pytest.mark.usefixtures("sandbox_key")
def test_a_client_is_not_pickled_for_it_holds_keys(permits: LocalPermits) -> None:
    with pytest.raises(TypeError, match="holds API keys: make it in the process that uses it"):
        pickle.dumps(Flickr(FlickrSettings(), permits))
    settings = pickle.loads(pickle.dumps(FlickrSettings(contact="a@b.c")))
    assert settings == FlickrSettings(contact="a@b.c")


def test_budgets_are_by_server_and_key_and_tell_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_budgets(FlickrSettings()) == ()
    monkeypatch.setenv("FLICKR_API_KEY", "mine")
    monkeypatch.setenv("FLICKR_API_KEYS", "yours:s3cret theirs: mine:again")
    digests = tuple(hashlib.sha256(key.encode()).hexdigest()[:8] for key in ("mine", "yours", "theirs"))
    assert key_budgets(FlickrSettings()) == tuple(f"key:flickr.com:{digest}" for digest in digests)
    www = FlickrSettings(rest_url="https://www.flickr.com:443/services/rest")
    assert key_budgets(www) == key_budgets(FlickrSettings())
    sandbox = FlickrSettings(rest_url="http://me:password@127.0.0.1:80/services/rest/")
    assert key_budgets(sandbox)[0] == f"sandbox:127.0.0.1:80:{digests[0]}"
    assert key_budgets(FlickrSettings(rest_url="http://[half"))[0] == f"key::{digests[0]}"
    assert key_budgets(FlickrSettings(rest_url="http://notflickr.com/"))[0] == f"key:notflickr.com:{digests[0]}"
    for wrong in ("yours", ":s3cret", "a:b s3cret"):
        monkeypatch.setenv("FLICKR_API_KEYS", wrong)
        with pytest.raises(UserError, match=r"entry [12] of FLICKR_API_KEYS is not `key:secret`") as caught:
            key_budgets(FlickrSettings())
        assert "s3cret" not in str(caught.value)


def test_a_keys_rate_has_flickrs_ceiling_and_a_sandboxs_its_own() -> None:
    assert FlickrSettings().key_rate == Rate(per_second=0.9, burst=5, per_hour=3600)
    assert FlickrSettings(calls_per_hour=3600).key_rate.per_hour == 3600
    assert FlickrSettings(calls_per_hour=36000, rest_url="http://localhost/").key_rate.per_hour == 36000


def test_keys_take_turns_and_one_that_is_refused_is_set_aside(
    world: World, permits: LocalPermits, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FLICKR_API_KEYS", "good1:a expired:b good2:c")
    with serve(world, keys=("good1", "good2")) as server:
        flickr = Flickr(settings_for(server), permits)
        for _ in range(6):
            flickr.call(INFO, photo_id=playable(world))
        assert [server.counters.count(key) for key in ("good1", "expired", "good2")] == [3, 1, 3]
    digest = hashlib.sha256(b"expired").hexdigest()[:8]
    assert [r.getMessage() for r in caplog.records if r.name == "pipeline.flickr"] == [
        f"API key {digest} is refused (Invalid API Key (Key has invalid format)): set aside, 2 left"
    ]
    assert "expired" not in caplog.text.replace("has expired", "")


def test_every_key_is_checked_before_any_work(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FLICKR_API_KEYS", "bad1:a good:b bad2:c")
    with serve(world, keys=("good",)) as server:
        require_access(settings_for(server))
        assert sum("set aside" in r.getMessage() for r in caplog.records) == 2
        monkeypatch.setenv("FLICKR_API_KEYS", "bad1:a bad2:c")
        with pytest.raises(UserError, match="the API key is refused"):
            require_access(settings_for(server))
        assert server.counters.count("bad2") == 2


def test_a_throttled_key_is_waited_for_in_its_turn(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLICKR_API_KEYS", "another:s")
    permits = LocalPermits({}, default=Rate(per_second=1e6))
    flickr = Flickr(script.settings(max_attempts=3), permits)
    script.say((429, {"Retry-After": "1"}, b""), OK)
    began = time.monotonic()
    for _ in range(2):
        flickr.call(INFO)
    assert time.monotonic() - began >= 1


def test_the_check_is_within_the_budget_that_other_processes_see(script: Script, tmp_path: Path) -> None:
    script.say(OK)
    settings = script.settings()
    require_access(settings)
    [kept] = (tmp_path / "state" / "noisyactions").iterdir()
    assert kept.name.startswith(key_budgets(settings)[0].replace(":", "_"))
    given = Noted()
    before = kept.read_text()
    require_access(settings, given)
    assert kept.read_text() == before


@pytest.mark.parametrize("contact", ["a@b.c\r\nX: y", "grüße@b.c"])
def test_a_contact_that_fits_no_header_is_refused(contact: str) -> None:
    with pytest.raises(ValueError, match="goes into an HTTP header: use plain ASCII"):
        FlickrSettings(contact=contact)


@pytest.mark.parametrize("wrong", [{"pause_seconds": -1.0}, {"max_attempts": 0}])
def test_pauses_and_attempts_have_limits(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="pause_seconds must be 0 or more and max_attempts at least 1"):
        FlickrSettings(**wrong)
