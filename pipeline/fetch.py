"""A record -> source bytes in a file, or the word for why not."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import requests

from pipeline.errors import Dropped, Transient
from pipeline.limits import Permits, backoff_seconds, wait
from pipeline.records import LOCAL_SOURCES, Rendition, VideoRecord
from pipeline.transfer import Deadlines, Session, Throttled, check_status, receive, send

_LABELS = ("288p", "360p", "700", "site", "site mp4", "720p", "hd", "hd mp4", "appletv", "iphone_wifi", "mobile mp4")
"""Flickr's labels for which it gives no size, smallest that is good enough first."""

_MAX_REDIRECTS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchSettings:
    """What a download may cost."""

    user_agent: str = "noisyactions/0.1"
    max_bytes: int = 2 << 30
    max_attempts: int = 4
    deadlines: Deadlines = field(default_factory=lambda: Deadlines(min_bytes_per_second=1024.0))


def ranked(renditions: Sequence[Rendition], *, short_side: int) -> list[Rendition]:
    """The best rendition first: the smallest whose short side covers `short_side`, then the largest of the others.

    Raises:
        Dropped: `no_video_url`, there is none.
    """
    if not renditions:
        raise Dropped("no_video_url", "the source names no file")

    def cost(rendition: Rendition) -> tuple[int, int]:
        if rendition.width and rendition.height:
            side = min(rendition.width, rendition.height)
            return (0, side) if side >= short_side else (2, -side)
        label = rendition.label.lower()
        return (1, _LABELS.index(label) if label in _LABELS else len(_LABELS))

    return sorted(renditions, key=cost)


def fetch(record: VideoRecord, target: Path, *, session: Session, permits: Permits, settings: FetchSettings) -> str:
    """Put the video's bytes into `target` and return their SHA-256.

    Raises:
        Dropped: for good, with the reason.
        Transient: still failing after `max_attempts` tries; its reason says how.
    """
    if record.dropped:
        raise Dropped(record.dropped, "as the crawl found it")
    missing = None
    for rendition in ranked(record.renditions, short_side=256):
        try:
            return _fetch_one(record, rendition.url, target, session, permits, settings)
        except Dropped as drop:
            if drop.reason != "gone":
                raise
            missing = drop  # perhaps only this rendition: a crawl by plan D has not asked which there are
    assert missing is not None
    raise missing


def _fetch_one(
    record: VideoRecord, url: str, target: Path, session: Session, permits: Permits, settings: FetchSettings
) -> str:
    if _scheme(url) == "file":
        if record.source not in LOCAL_SOURCES:  # an answer from the web must never name a file of ours
            raise Dropped("no_video_url", f"{record.source} named a local file")
        return _copy(Path(unquote(urlsplit(url).path)), target, settings)
    for attempt in range(1, settings.max_attempts + 1):
        try:
            return _download(url, target, session, _Host(permits, attempt), settings)
        except Transient as error:
            if attempt == settings.max_attempts:
                raise
            if error.retry_after_seconds is None:  # else its host is told to pause, not this video
                time.sleep(backoff_seconds(attempt))
    raise AssertionError("unreachable")


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError as error:
        raise Dropped("no_video_url", f"{url[:80]!r} is no address") from error


def _copy(source: Path, target: Path, settings: FetchSettings) -> str:
    try:
        opened = source.open("rb")
    except OSError as error:
        raise Dropped("gone", error.strerror or "it cannot be read") from error
    with opened, target.open("wb") as file:  # a full disk is no fate of a video: it is raised
        size = os.fstat(opened.fileno()).st_size
        if size > settings.max_bytes:
            raise Dropped("too_large", f"{size} bytes")
        shutil.copyfileobj(opened, file)
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class _Host:
    """Manners towards whichever host a download has come to."""

    permits: Permits
    attempt: int

    def check_status(self, response: requests.Response, url: str) -> None:
        """Have 429 and 5xx pause the host that said so, for everybody."""
        try:
            check_status(response)
        except Transient as error:
            seconds = backoff_seconds(self.attempt, asked=error.retry_after_seconds)
            self.permits.throttled(urlsplit(url).netloc, seconds, slower=isinstance(error, Throttled))
            raise Transient(error.detail, error.reason, seconds) from error


def _download(url: str, target: Path, session: Session, host: _Host, settings: FetchSettings) -> str:
    """One try, from the play URL on: the signed address behind it lives for minutes only, so it is never kept."""
    for _ in range(_MAX_REDIRECTS):
        wait(host.permits, urlsplit(url).netloc)
        request = requests.Request(
            "GET", url, headers={"User-Agent": settings.user_agent, "Accept-Encoding": "identity"}
        )
        response = send(session, request, settings.deadlines)
        if response.is_redirect:
            url = _next(url, response.headers["Location"])
            response.close()
            continue
        with response:
            if response.status_code == 403 and "?" in url:
                raise Transient("HTTP 403 behind a signature: it may have expired", "http_4xx")
            host.check_status(response, url)
            return _save(response, target, settings)
    raise Dropped("http_4xx", f"more than {_MAX_REDIRECTS} redirects")


def _next(url: str, location: str) -> str:
    try:
        following = urljoin(url, location)
        scheme = urlsplit(following).scheme
    except ValueError as error:
        raise Dropped("http_4xx", f"redirected to {location[:80]!r}, which is no address") from error
    if scheme not in ("http", "https"):
        raise Dropped("http_4xx", f"redirected to {following[:80]!r}, which is not on the web")
    return following


def _save(response: requests.Response, target: Path, settings: FetchSettings) -> str:
    if "text/html" in response.headers.get("Content-Type", ""):
        raise Dropped("not_a_video", "an HTML page")
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        for chunk in receive(response, settings.deadlines, max_bytes=settings.max_bytes):
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    if not size:
        raise Dropped("not_a_video", "zero bytes")
    return digest.hexdigest()
