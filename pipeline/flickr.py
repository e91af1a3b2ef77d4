"""The Flickr client: flickrapi made safe with typed errors, deadlines, a session of its own and no redirects."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import time
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import flickrapi
import requests
from flickrapi.auth import OAuthFlickrInterface

from pipeline.errors import Dropped, Transient, UserError
from pipeline.limits import FLICKR_CALLS_PER_HOUR, LocalPermits, Permits, Rate, backoff_seconds, wait
from pipeline.transfer import Deadlines, Session, check_status, receive, send

FLICKR_REST_URL = "https://api.flickr.com/services/rest/"
EXTRAS = (
    "description,license,date_upload,date_taken,owner_name,last_update,geo,tags,machine_tags,views,media,path_alias,"
    "count_comments"
)
_KEY_VARIABLE = "FLICKR_API_KEY"
_SECRET_VARIABLE = "FLICKR_API_SECRET"
_MAX_ANSWER_BYTES = 64 << 20
_TRANSIENT_CODES = frozenset({0, 10, 105, 201})
_REFUSED_KEY = 100
_PAST_THE_CAP = 20
_FIRST_CALL_ATTEMPTS = 2
_LOGGERS_THAT_TELL_KEYS = ("oauthlib", "requests_oauthlib", "flickrapi")


@dataclass(frozen=True, kw_only=True, slots=True)
class FlickrSettings:
    """How Flickr is asked. Holds no key: keys stay in the environment of each process."""

    rest_url: str = FLICKR_REST_URL
    contact: str = ""
    """Your mail address or page, sent in the User-Agent so that Flickr can reach you."""
    calls_per_hour: float = 3240.0
    """For one key; 90 % of Flickr's ceiling of 3,600, which only a server on loopback may exceed."""
    media_per_second: float = 1.0
    """Requests a second to each media host, to begin with; 429 and 503 lower it."""
    max_attempts: int = 5
    deadlines: Deadlines = field(default_factory=lambda: Deadlines(total_seconds=60.0))

    def __post_init__(self) -> None:
        if self.calls_per_hour <= 0 or self.media_per_second <= 0:
            raise ValueError("calls_per_hour and media_per_second must be positive")
        if self.calls_per_hour > FLICKR_CALLS_PER_HOUR and not is_loopback(self.rest_url):
            raise ValueError(
                f"calls_per_hour {self.calls_per_hour:g} is over Flickr's limit of {FLICKR_CALLS_PER_HOUR} for a key: "
                "a faster crawl gets the key switched off"
            )

    @property
    def user_agent(self) -> str:
        """Who we are, honestly."""
        return f"noisyactions/0.1 ({self.contact})"


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_access(settings: FlickrSettings) -> None:
    """Check before any work that a crawl can begin, with one call of Flickr's echo.

    Raises:
        UserError: no key in the environment, no contact, a key that is refused, or nobody at the address.
    """
    _key()
    if not settings.contact:
        raise UserError("no contact: give --flickr.contact you@example.org, it goes into the User-Agent")
    flickr = Flickr(replace(settings, max_attempts=_FIRST_CALL_ATTEMPTS), LocalPermits({}, default=Rate(per_second=1)))
    try:
        flickr.call("flickr.test.echo")
    except Transient as error:
        if error.reason in ("connection", "timeout"):
            raise UserError(f"{settings.rest_url} cannot be reached ({error}): check the network") from error
        # Otherwise it is there, only busy: the crawl itself knows how to wait.


def _key() -> tuple[str, str]:
    key = os.environ.get(_KEY_VARIABLE, "")
    if not key:
        raise UserError(
            f"no Flickr API key: set {_KEY_VARIABLE} (and {_SECRET_VARIABLE}) in the environment; "
            "flickr.com/services/apps/create gives one"
        )
    return key, os.environ.get(_SECRET_VARIABLE, "")


class _Signed(OAuthFlickrInterface):  # type: ignore[misc]  # flickrapi has no types
    """flickrapi's OAuth signing over a session of our own, keeping what flickrapi throws away: status and headers."""

    def __init__(self, key: str, secret: str, token_cache: Any, settings: FlickrSettings) -> None:
        super().__init__(key, secret, token_cache)
        self.session = Session()
        self.session.headers["User-Agent"] = settings.user_agent
        self._deadlines = settings.deadlines

    def do_request(self, url: str, params: dict[str, Any] | None = None, timeout: float | None = None) -> bytes:
        request = requests.Request("POST", url, data=params, auth=self.oauth)
        response = send(self.session, request, self._deadlines)
        try:
            with response:
                check_status(response)
                return b"".join(receive(response, self._deadlines, max_bytes=_MAX_ANSWER_BYTES))
        except Dropped as drop:  # of the server, not of a video: Flickr says `not found` with HTTP 200
            if response.status_code in (401, 404, 410) or response.is_redirect:
                raise UserError(f"{drop.detail}: check FLICKR_REST_URL, its default is {FLICKR_REST_URL}") from drop
            raise Transient(drop.detail, "http_4xx") from drop


class Flickr:
    """Calls of Flickr's API within the budget of the key, tried again while the trouble is Flickr's."""

    def __init__(self, settings: FlickrSettings, permits: Permits) -> None:
        key, secret = _key()
        for name in _LOGGERS_THAT_TELL_KEYS:
            logging.getLogger(name).setLevel(logging.WARNING)
        self._settings = settings
        self._permits = permits
        self._api = flickrapi.FlickrAPI(key, secret, format="json", store_token=False, cache=False)
        self._api.REST_URL = settings.rest_url
        self._api.flickr_oauth = _Signed(key, secret, self._api.token_cache, settings)

    def call(self, method: str, **parameters: str | int) -> dict[str, Any]:
        """Flickr's answer to one method, parsed from JSON.

        Raises:
            Dropped: `gone` or `private`, as far as Flickr tells them apart; `http_4xx` for a page past a search's end.
            Transient: Flickr cannot answer now, even after `max_attempts` tries.
            UserError: the key is refused, or the method's arguments are wrong.
        """
        for attempt in range(1, self._settings.max_attempts + 1):
            wait(self._permits, "flickr")
            try:
                return self._once(method, parameters)
            except Transient as error:
                if attempt == self._settings.max_attempts:
                    error.add_note(f"{method} after {attempt} tries")
                    raise
                seconds = backoff_seconds(attempt, asked=error.retry_after_seconds)
                if error.reason in ("http_4xx", "http_5xx"):
                    self._permits.throttled("flickr", seconds)
                else:
                    time.sleep(seconds)
        raise AssertionError("unreachable")

    def _once(self, method: str, parameters: dict[str, str | int]) -> dict[str, Any]:
        body = self._api.do_flickr_call(method, format="json", nojsoncallback=1, **parameters)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Transient(f"{method}: an answer that is not JSON", "http_5xx") from error
        if not isinstance(answer, dict) or answer.get("stat") not in ("ok", "fail"):
            raise Transient(f"{method}: an answer without stat", "http_5xx")
        if answer["stat"] == "fail":
            raise _refusal(method, int(answer.get("code", 0)), str(answer.get("message", "")))
        return answer


def _refusal(method: str, code: int, message: str) -> Exception:
    told = f"{method}: error {code}: {message}"
    if code in _TRANSIENT_CODES:
        return Transient(told, "http_5xx")
    if code == _REFUSED_KEY:
        return UserError(f"the API key is refused ({message}): check {_KEY_VARIABLE}, or ask Flickr about the key")
    if code == _PAST_THE_CAP:
        return Dropped("http_4xx", told)
    if code == 1 and "not found" in message.lower():
        return Dropped("gone", told)
    if code in (2, 99):
        return Dropped("private", told)
    return UserError(told)
