import contextlib
import gzip
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import requests
from requests.structures import CaseInsensitiveDict

from pipeline.errors import Dropped, Transient
from pipeline.transfer import Deadlines, Session, Throttled, check_status, receive, retry_after, send

RawServer = Callable[..., str]
SHORT = Deadlines(connect_seconds=2.0, silence_seconds=0.5, total_seconds=1.0)


@pytest.fixture
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def get(session: Session, url: str, *, max_bytes: int = 1 << 20) -> bytes:
    with send(session, requests.Request("GET", url), SHORT) as response:
        check_status(response)
        return b"".join(receive(response, SHORT, max_bytes=max_bytes))


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1") + body


ZIPPED = gzip.compress(b"word " * 5000)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (http(b"hello", "Content-Length: 5"), b"hello"),
        (http(b"hello surplus", "Content-Length: 5"), b"hello"),
        (http(b"hello"), b"hello"),
        (http(b"hello", "Content-Length: five"), b"hello"),
        (http(b"", "Content-Length: 0"), b""),
        (http(b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), b"hello"),
        (http(ZIPPED, "Content-Encoding: gzip", f"Content-Length: {len(ZIPPED)}"), b"word " * 5000),
    ],
)
def test_whole_bodies_of_every_framing(session: Session, raw_server: RawServer, answer: bytes, body: bytes) -> None:
    assert get(session, raw_server(answer)) == body


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http(b"hel", "Content-Length: 5"), "truncated"),
        (http(b"3\r\nhel\r\n", "Transfer-Encoding: chunked"), "truncated"),
        (http(b"?" * 40, "Content-Encoding: gzip", "Content-Length: 40"), "truncated"),
        (b"", "connection"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "connection"),
        (http(b"", status="429 Too Many Requests"), "http_4xx"),
        (http(b"", status="503 Service Unavailable"), "http_5xx"),
    ],
)
def test_failures_of_the_moment(session: Session, raw_server: RawServer, answer: bytes, reason: str) -> None:
    with pytest.raises(Transient) as caught:
        get(session, raw_server(answer))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, "gone"), (410, "gone"), (401, "private"), (403, "http_4xx"), (451, "http_4xx"), (304, "http_4xx")],
)
def test_failures_for_good(session: Session, raw_server: RawServer, status: int, reason: str) -> None:
    with pytest.raises(Dropped) as caught:
        get(session, raw_server(http(b"", status=f"{status} Some Words")) + "/a?signature=secret")
    assert caught.value.reason == reason
    assert f"HTTP {status} from http://127.0.0.1" in caught.value.detail
    assert "secret" not in caught.value.detail


def test_the_body_of_a_redirect_is_not_read(session: Session, raw_server: RawServer) -> None:
    endless = http(b"?" * 1000, "Location: http://[half/", "Content-Length: 999999999", status="302 Found")
    with send(session, requests.Request("GET", raw_server(endless)), SHORT) as response:
        assert response.is_redirect
        with pytest.raises(Dropped, match="http_4xx: HTTP 302"):
            check_status(response)


def test_a_body_is_cut_at_its_limit(session: Session, raw_server: RawServer) -> None:
    with pytest.raises(Dropped, match="too_large: more than 4 bytes"):
        get(session, raw_server(http(b"hello", "Content-Length: 5")), max_bytes=4)


def test_a_host_that_never_answers_and_one_that_is_not_there(session: Session) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(Transient, match="no answer in time") as caught:
            get(session, url)
        assert caught.value.reason == "timeout"
        assert time.monotonic() - began < 2
    with pytest.raises(Transient, match="no connection"):
        get(session, url)
    with pytest.raises(Transient, match="no connection"):
        get(session, "http://[not-an-address/")


@contextlib.contextmanager
def dripping(at_once: bytes, drop: bytes) -> Iterator[str]:
    """A server that answers with the first bytes, and then with the others again and again, never silent for long."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        stopped = threading.Event()

        def work() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(at_once)
                while not stopped.wait(0.05):
                    connection.sendall(drop)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stopped.set()
            thread.join()


@pytest.mark.parametrize(
    ("at_once", "drop"),
    [
        (b"", b"H"),  # a status line without end
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),  # a header without end
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),  # headers without end
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", b"b"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nb\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),  # a chunk's size without end
    ],
    ids=["status", "header", "headers", "body", "chunks", "size"],
)
def test_what_drips_is_cut_at_the_deadline_headers_too(session: Session, at_once: bytes, drop: bytes) -> None:
    began = time.monotonic()
    with dripping(at_once, drop) as url, pytest.raises(Transient) as caught:
        get(session, url)
    assert caught.value.reason == "timeout"
    assert 0.9 < time.monotonic() - began < 1.8


def test_a_connection_is_used_again_after_a_deadline_nearly_met(session: Session) -> None:
    answer = http(b"hello", "Content-Length: 5")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = []

        def work() -> None:
            connection, _ = listener.accept()
            with connection:
                for delay in (0.45, 0.45, 0.45):
                    served.append(connection.recv(65536))
                    time.sleep(delay)
                    connection.sendall(answer)

        thread = threading.Thread(target=work)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert [get(session, url) for _ in range(3)] == [b"hello"] * 3  # each exchange has a deadline of its own
        thread.join()
    assert len(served) == 3


def test_no_cookie_is_kept(session: Session, raw_server: RawServer) -> None:
    with send(session, requests.Request("GET", raw_server(http(b"", "Set-Cookie: visit=1; path=/"))), SHORT):
        assert len(session.cookies) == 0


@pytest.mark.parametrize(
    ("status", "family"), [(429, Throttled), (503, Throttled), (500, Transient), (502, Transient), (504, Transient)]
)
def test_who_asks_for_less_is_told_from_who_stumbles(
    session: Session, raw_server: RawServer, status: int, family: type[Transient]
) -> None:
    with pytest.raises(Transient, match=f"HTTP {status} from") as caught:
        get(session, raw_server(http(b"", "Retry-After: 7", status=f"{status} Some Words")))
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is family
    assert again.retry_after_seconds == 7
    assert again.reason == ("http_4xx" if status == 429 else "http_5xx")


def test_retry_after_is_read_in_seconds_and_as_a_date() -> None:
    def asked(text: str) -> float | None:
        return retry_after(CaseInsensitiveDict({"retry-after": text}))

    soon = datetime.now(UTC) + timedelta(seconds=30)
    assert asked(" 120 ") == 120
    assert asked(format_datetime(soon, usegmt=True)) == pytest.approx(30, abs=2)
    assert asked(format_datetime(soon.replace(tzinfo=None))) == pytest.approx(30, abs=2)  # `-0000`
    assert asked("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert [asked(text) for text in ("soon", "", "\u00b2", "-5")] == [None] * 4
    assert retry_after(CaseInsensitiveDict()) is None
