"""The Flickr client: flickrapi made safe with typed errors, deadlines, a session of its own and no redirects."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import flickrapi
import requests
from flickrapi.auth import OAuthFlickrInterface

from pipeline import limits
from pipeline.errors import Dropped, Transient, UserError
from pipeline.keys import KEY_VARIABLE, SECRET_VARIABLE, budget_name, is_loopback, keys_in_environment, short_name
from pipeline.limits import FLICKR_CALLS_PER_HOUR, LocalPermits, Permits, Rate
from pipeline.refusals import RefusedKey, refusal_of
from pipeline.transfer import Deadlines, Session, Throttled, check_status, receive, send

FLICKR_REST_URL = "https://api.flickr.com/services/rest/"
EXTRAS = (
    "description,license,date_upload,date_taken,last_update,geo,tags,machine_tags,views,media,count_comments,"
    "safety_level"
)
logger = logging.getLogger(__name__)

_MAX_ANSWER_BYTES = 64 << 20
_LONGEST_COMMON_PAUSE_SECONDS = 5.0
_LOGGERS_THAT_TELL_KEYS = ("oauthlib", "requests_oauthlib", "flickrapi")

Parameter = str | int | float | bool | Sequence[str | int] | None
"""A bool is sent as 1 or 0, a list joined by commas, None not at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlickrSettings:
    """How Flickr is asked. Holds no key: keys stay in the environment of each process."""

    rest_url: str = FLICKR_REST_URL
    contact: str = ""
    """Your mail address or page, sent in the User-Agent so that Flickr can reach you."""
    calls_per_hour: float = 3240.0
    """For one key; 90 % of Flickr's ceiling of 3,600, which only a server on loopback may exceed. What keeps every
    sliding hour under the ceiling, restarts included, allows 3,464 at most."""
    media_per_second: float = 1.0
    """Requests a second to each media host, to begin with; 429 and 503 lower it."""
    pause_seconds: float | None = None
    """A key's shortest pause after 429 or 503 without Retry-After, doubling up to 15 minutes; by default 30 s, and for
    a server on loopback 0.1 s."""
    max_attempts: int = 8
    """Tries of one call; with the pauses above, 429 is waited out for three quarters of an hour."""
    deadlines: Deadlines = field(default_factory=lambda: Deadlines(total_seconds=60.0))

    def __post_init__(self) -> None:
        if self.calls_per_hour <= 0 or self.media_per_second <= 0:
            raise ValueError("calls_per_hour and media_per_second must be positive")
        if (self.pause_seconds or 0) < 0 or self.max_attempts < 1:
            raise ValueError("pause_seconds must be 0 or more and max_attempts at least 1")
        if not (self.contact.isascii() and self.contact.isprintable()):
            raise ValueError(f"contact {self.contact!r} goes into an HTTP header: use plain ASCII characters")
        if self.calls_per_hour > FLICKR_CALLS_PER_HOUR and not is_loopback(self.rest_url):
            raise ValueError(
                f"calls_per_hour {self.calls_per_hour:g} is over Flickr's limit of {FLICKR_CALLS_PER_HOUR} for a key: "
                "a faster crawl gets the key switched off"
            )

    @property
    def user_agent(self) -> str:
        """Who we are, honestly."""
        return f"noisyactions/0.1 ({self.contact})"

    @property
    def key_rate(self) -> Rate:
        """What each key may do."""
        ceiling = max(FLICKR_CALLS_PER_HOUR, math.ceil(self.calls_per_hour))
        return Rate(per_second=self.calls_per_hour / 3600, burst=5, per_hour=ceiling)


def key_budgets(settings: FlickrSettings) -> tuple[str, ...]:
    """The budget names of the keys in the environment, none if there is no key; a name tells no key.

    Raises:
        UserError: FLICKR_API_KEYS is not `key:secret key:secret`.
    """
    return tuple(budget_name(settings.rest_url, key) for key in keys_in_environment())


def require_access(settings: FlickrSettings, permits: Permits | None = None) -> None:
    """Check before any work that a crawl can begin, with one call of Flickr's echo for each key.

    Without `permits` it takes them from the budgets that this machine's processes share.

    Raises:
        UserError: no key in the environment, no contact, no key that is accepted, or nobody at the address.
    """
    if permits is None:
        rates = dict.fromkeys(key_budgets(settings), settings.key_rate)
        permits = LocalPermits(rates, default=settings.key_rate, folder=limits.state_folder())
    flickr = Flickr(replace(settings, max_attempts=2), permits)
    if not settings.contact:
        raise UserError("no contact: give --flickr.contact you@example.org, it goes into the User-Agent")
    try:
        flickr.check_keys()
    except Transient as error:
        if isinstance(error, _NotTheApi):
            raise UserError(str(error)) from error
        if error.reason in ("connection", "timeout"):
            raise UserError(f"{settings.rest_url} cannot be reached ({error}): check the network") from error
        # Otherwise it is there, only busy: the crawl itself knows how to wait.


class _NotTheApi(Transient):
    """The address answers, but as Flickr's API would not: a redirect, not found, a password."""


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
                hint = f"{drop.detail}: check FLICKR_REST_URL, its default is {FLICKR_REST_URL}"
                raise _NotTheApi(hint, "http_4xx") from drop
            raise Transient(drop.detail, "http_4xx") from drop


@dataclass(frozen=True, slots=True)
class _Key:
    """One key, ready to ask."""

    short: str
    """What may be told of it: the first 8 digits of its SHA-256."""
    budget: str
    api: flickrapi.FlickrAPI = field(repr=False)

    def ask(self, method: str, parameters: dict[str, str], expect: str | None) -> dict[str, Any]:
        """One try; signed anew each time, for a nonce counts once."""
        body = self.api.do_flickr_call(method, format="json", nojsoncallback=1, **parameters)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Transient(f"{method}: an answer that is not JSON", "http_5xx") from error
        if not isinstance(answer, dict) or answer.get("stat") not in ("ok", "fail"):
            raise Transient(f"{method}: an answer without stat", "http_5xx")
        if answer["stat"] == "fail":
            raise refusal_of(method, answer, about_video="photo_id" in parameters)
        if expect is not None and not isinstance(answer.get(expect), dict):
            raise Transient(f"{method}: an answer without {expect!r}", "http_5xx")
        return answer


class Flickr:
    """Calls of Flickr's API within the budgets of the keys, tried again while the trouble is Flickr's.

    Several keys take turns, whatever they are answered: to go on with another key while one is told to slow down
    would be the evasion that the limit forbids. Build one in each process: it holds keys and is not to be pickled.
    """

    def __init__(self, settings: FlickrSettings, permits: Permits) -> None:
        for name in _LOGGERS_THAT_TELL_KEYS:
            logging.getLogger(name).setLevel(logging.WARNING)
        pause = settings.pause_seconds
        self._pause_seconds = pause if pause is not None else 0.1 if is_loopback(settings.rest_url) else 30.0
        self._max_attempts = settings.max_attempts
        self._permits = permits
        self._keys = deque(_key(settings, key, secret) for key, secret in keys_in_environment().items())
        if not self._keys:
            raise UserError(
                f"no Flickr API key: set {KEY_VARIABLE} (and {SECRET_VARIABLE}) in the environment; "
                "flickr.com/services/apps/create gives one"
            )

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Flickr client holds API keys: make it in the process that uses it")

    def call(self, method: str, *, expect: str | None = None, **parameters: Parameter) -> dict[str, Any]:
        """Flickr's answer to one method, parsed from JSON.

        `expect` names the part without which the answer is garbled: `photos`, `photo`, `sizes`, `comments`.

        Raises:
            Dropped: `gone` or `private`, as far as Flickr tells them apart; `http_4xx` for what Flickr does not do
                with these arguments, such as a page past a search's end.
            Transient: Flickr cannot answer now, even after `max_attempts` tries.
            UserError: no key is accepted, or no call of this kind can ever succeed.
        """
        sent = {name: _plain(value) for name, value in parameters.items() if value is not None}
        attempt = 1
        while True:
            key = self._next_key()
            limits.wait(self._permits, key.budget)
            try:
                return key.ask(method, sent, expect)
            except RefusedKey as refusal:
                self._set_aside(key, refusal)
            except Transient as error:
                alone = self._back_off(key, error, attempt)
                if attempt >= self._max_attempts:
                    error.add_note(f"{method} after {attempt} tries")
                    raise
                time.sleep(alone)
                attempt += 1

    def check_keys(self) -> None:
        """Ask for an echo with each key; one that is refused is set aside. Raises what `call` does."""
        for _ in range(len(self._keys)):
            self.call("flickr.test.echo")

    def _next_key(self) -> _Key:
        self._keys.rotate(-1)
        return self._keys[-1]

    def _set_aside(self, key: _Key, refusal: RefusedKey) -> None:
        if len(self._keys) == 1:
            raise UserError(f"the API key is refused ({refusal}): check {KEY_VARIABLE}, or ask Flickr about the key")
        self._keys.remove(key)
        logger.warning("API key %s is refused (%s): set aside, %d left", key.short, refusal, len(self._keys))

    def _back_off(self, key: _Key, error: Transient, attempt: int) -> float:
        """Pause the key for everybody as the trouble asks for; the seconds that this worker should add alone."""
        asked = error.retry_after_seconds
        if isinstance(error, Throttled):
            base = 2 * self._pause_seconds  # for jitter takes up to a half
            seconds = limits.backoff_seconds(attempt, asked=asked, base=base, ceiling=limits.MAX_PAUSE_SECONDS)
            logger.warning("%s: API key %s pauses for %.0f s", error, key.short, seconds)
            self._permits.throttled(key.budget, seconds)
            return 0.0
        seconds = limits.backoff_seconds(attempt, asked=asked)
        if error.reason in ("http_4xx", "http_5xx"):  # one bad answer must not hold up all others for long
            common = seconds if asked is not None else min(seconds, _LONGEST_COMMON_PAUSE_SECONDS)
            self._permits.throttled(key.budget, common, slower=False)
        return seconds


def _key(settings: FlickrSettings, key: str, secret: str) -> _Key:
    api = flickrapi.FlickrAPI(key, secret, format="json", store_token=False, cache=False)
    api.REST_URL = settings.rest_url
    api.flickr_oauth = _Signed(key, secret, api.token_cache, settings)
    return _Key(short_name(key), budget_name(settings.rest_url, key), api)


def _plain(value: Parameter) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, str | int | float):
        return str(value)
    return ",".join(str(item) for item in value or ())
