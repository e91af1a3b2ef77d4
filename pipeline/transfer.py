"""One HTTP exchange with deadlines: typed errors, no redirect followed, no cookies, dripping headers and bodies cut."""

from __future__ import annotations

import email.utils
import http.client
import io
import socket
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.exceptions import RequestException

from pipeline.errors import Dropped, Transient

_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Deadlines:
    """How long an exchange may take."""

    connect_seconds: float = 10.0
    silence_seconds: float = 30.0
    """Between two reads of the body."""
    total_seconds: float = 600.0
    """From when the request is sent to the last byte of the answer, headers included."""
    min_bytes_per_second: float = 0.0
    """Averaged from 10 s on; a body that only drips is cut."""


class Throttled(Transient):
    """429 or 503: the other side asks for less, not only for another try."""


_ends: ContextVar[float] = ContextVar("_ends", default=float("inf"))
"""When the exchange that this thread has begun must be over, on the monotonic clock."""


class _Timed(io.RawIOBase):
    """What comes in on a socket, until the deadline: its own timeout is per read, and drips never meet it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._silence = sock.gettimeout()
        self._ends = _ends.get()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the exchange's deadline")
        if left < float("inf"):
            self._sock.settimeout(left if self._silence is None else min(left, self._silence))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        self.fp.close()
        self.fp = io.BufferedReader(_Timed(sock))


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _Response


class _TlsConnection(urllib3.connection.HTTPSConnection):
    response_class = _Response


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class Session(requests.Session):  # type: ignore[misc]  # requests has no types
    """A session that leaves redirects alone, keeps no cookie, and whose exchanges end at their deadline.

    Behind a proxy (`HTTPS_PROXY`) the deadline is per read while the headers come, the proxy's own holds beside it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def mount(self, prefix: str, adapter: requests.adapters.HTTPAdapter) -> None:
        """See requests; the adapter's connections get deadlines."""
        adapter.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        super().mount(prefix, adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: requests would read a redirect's whole body, even where it is not to follow it.

        `pipeline.fetch` looks at where a redirect leads, and Flickr's API has none.
        """


def retry_after(headers: requests.structures.CaseInsensitiveDict[str]) -> float | None:
    """Seconds that a Retry-After header asks for, given as seconds or as an HTTP date."""
    text = headers.get("Retry-After")
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)  # `-0000` says UTC too, but is parsed without a zone
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def check_status(response: requests.Response) -> None:
    """Turn an HTTP status that is no success into a typed error.

    Raises:
        Throttled: 429 and 503, with what Retry-After asks for.
        Transient: other 5xx, with the same.
        Dropped: `gone` for 404 and 410, `private` for 401, `http_4xx` for the rest and for redirects.
    """
    status = response.status_code
    told = f"HTTP {status} from {response.url.partition('?')[0]}"  # a query string may hold a signature
    if status == 429 or status >= 500:
        family = Throttled if status in (429, 503) else Transient
        raise family(told, "http_5xx" if status >= 500 else "http_4xx", retry_after(response.headers))
    if status in (404, 410):
        raise Dropped("gone", told)
    if status == 401:
        raise Dropped("private", told)
    if status >= 300:
        raise Dropped("http_4xx", told)


def send(session: Session, request: requests.Request, deadlines: Deadlines) -> requests.Response:
    """Send and return when the headers are there; the body is still to be read with `receive`.

    Raises:
        Transient: no connection, or no answer in time.
    """
    began = _ends.set(time.monotonic() + deadlines.total_seconds)
    try:
        return session.send(
            session.prepare_request(request),
            stream=True,
            timeout=(deadlines.connect_seconds, deadlines.silence_seconds),
        )
    except requests.Timeout as error:
        raise Transient(f"no answer in time: {type(error).__name__}", "timeout") from error
    except RequestException as error:
        raise Transient(f"no connection: {type(error).__name__}", "connection") from error
    finally:
        _ends.reset(began)


def receive(response: requests.Response, deadlines: Deadlines, *, max_bytes: int) -> Iterator[bytes]:
    """The body in pieces.

    Raises:
        Transient: `timeout`, `truncated` (shorter than its Content-Length), `connection`.
        Dropped: `too_large`, `too_slow`.
    """
    start, total = time.monotonic(), 0
    try:
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
            total += len(chunk)
            if total > max_bytes:
                raise Dropped("too_large", f"more than {max_bytes} bytes")
            _check_pace(time.monotonic() - start, total, deadlines)
            yield chunk
    except urllib3.exceptions.ReadTimeoutError as error:
        raise Transient("the body stopped coming", "timeout") from error
    except urllib3.exceptions.HTTPError as error:
        raise Transient(f"the body broke off after {total} bytes: {type(error).__name__}", "truncated") from error
    except OSError as error:
        raise Transient(f"the body broke off after {total} bytes: {error}", "connection") from error
    finally:
        response.close()
    expected = response.headers.get("Content-Length", "")
    if expected.isdecimal() and "Content-Encoding" not in response.headers and total != int(expected):
        raise Transient(f"{total} bytes of {expected}", "truncated")


def _check_pace(seconds: float, total: int, deadlines: Deadlines) -> None:
    if seconds > deadlines.total_seconds:
        raise Transient(f"{total} bytes in {seconds:.0f} s, the deadline", "timeout")
    if seconds > 10.0 and total / seconds < deadlines.min_bytes_per_second:
        raise Dropped("too_slow", f"{total / seconds:.0f} bytes a second")
