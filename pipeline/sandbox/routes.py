"""Routes: every path that the sandbox answers, from a Call to a Reply."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from pipeline.errors import UserError
from pipeline.sandbox import answers
from pipeline.sandbox.api import Api
from pipeline.sandbox.counters import Clock, Counters
from pipeline.sandbox.formats import failure, rendered
from pipeline.sandbox.media import poster
from pipeline.sandbox.replies import Call, Reply
from pipeline.sandbox.search import ApiError
from pipeline.sandbox.videos import SandboxVideo, scene_of

_PLAY = re.compile(r"/photos/[^/]+/(?P<id>\d+)/play/(?P<label>\w+)/(?P<secret>\w+)/?")
_MEDIA = re.compile(r"/video/(?P<id>\d+)/(?P<secret>\w+)/(?P<label>\w+)\.mp4")
_POSTER = re.compile(r"/\d+/(?P<id>\d+)_(?P<secret>[0-9a-f]+)(?:_[a-z])?\.jpg")
_TYPES = {"mp4": "video/mp4", "mov": "video/quicktime", "avi": "video/x-msvideo", "webm": "video/webm"}
_SIGNING_KEY = b"sandbox"

_NOT_FOUND = Reply(status=404, content_type="text/html")


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """The answering side of the server, without its sockets."""

    api: Api
    clock: Clock
    counters: Counters
    signature_seconds: float
    """How long a signed media URL lives."""
    keys: frozenset[str] | None
    """API keys that are valid; None is any."""
    hourly_limit: int | None
    """Calls that a key may make within an hour of the clock."""
    _nonces: set[str] = field(default_factory=set)
    _calls: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, call: Call) -> Reply:
        """What the path answers."""
        if call.host == "api":
            return self._rest(call)
        for pattern, answer in _ROUTES.items():
            found = pattern.fullmatch(call.path)
            if found:
                return answer(self, call, found)
        return _NOT_FOUND

    def _rest(self, call: Call) -> Reply:
        if self._over_limit(call.key):
            return Reply(status=429, body=b"<h1>429 Too Many Requests</h1>", content_type="text/html")
        if self._was_signed_before(call):
            return Reply(status=401, body=b"oauth_problem=nonce_used", content_type="text/plain")
        try:
            if not call.key or (self.keys is not None and call.key not in self.keys):
                raise ApiError(100, "Invalid API Key (Key has invalid format)")
            answer = self.api.answer(call.method, call.params, shift=call.shift)
        except ApiError as error:
            answer = failure(error.code, error.message)
        body, content_type = rendered(answer, call.params)
        return Reply(
            body=body,
            content_type=content_type,
            headers=(("X-Robots-Tag", "noindex"), ("Set-Cookie", "ccc=%7B%7D; path=/")),
        )

    def _was_signed_before(self, call: Call) -> bool:
        """Whether a request is one that was sent before, signature and all. Signatures themselves are not checked."""
        nonce = re.search(r'oauth_nonce="([^"]*)"', call.headers.get("authorization", ""))
        if nonce is None:
            return False
        with self._lock:
            known = len(self._nonces)
            self._nonces.add(f"{call.key} {nonce[1]}")
            return len(self._nonces) == known

    def _over_limit(self, key: str) -> bool:
        if self.hourly_limit is None:
            return False
        with self._lock:
            calls, now = self._calls[key], self.clock.now()
            while calls and calls[0] <= now - 3600:
                calls.popleft()
            calls.append(now)
            return len(calls) > self.hourly_limit

    def _video(self, found: re.Match[str]) -> SandboxVideo | None:
        """The playable video that the URL names with its right secret and one of its labels."""
        video = self.api.world.find(found["id"])
        if video is None or video.secret != found["secret"] or video.trouble in ("deleted", "private"):
            return None
        return video

    def _play(self, call: Call, found: re.Match[str]) -> Reply:
        if found["label"] == "orig":
            return Reply(status=401, content_type="text/html")
        video = self._video(found)
        if video is None or found["label"] not in map(answers.play_word, answers.labels_of(video)):
            return _NOT_FOUND
        path = f"/video/{video.video_id}/{video.secret}/{found['label']}.mp4"
        signature = self._signature(video.video_id, path, int(self.clock.now() + self.signature_seconds))
        url = f"{self.api.base_url}{path}?s={signature}"
        cookies = tuple(("Set-Cookie", f"visit{number}=1; path=/") for number in range(3))
        return Reply(status=302, headers=(("Location", url), *cookies))

    def _signature(self, identifier: str, path: str, expires: int) -> str:
        digest = hmac.new(_SIGNING_KEY, f"{path} {expires}".encode(), hashlib.sha1).hexdigest()
        told = json.dumps({"i": int(identifier), "e": expires, "s": digest, "v": 1}, separators=(",", ":"))
        return base64.urlsafe_b64encode(told.encode()).decode().rstrip("=")

    def _media(self, call: Call, found: re.Match[str]) -> Reply:
        if not self._is_signed(call, found["id"]):
            return Reply(status=403, body=b"<h1>403 Forbidden</h1>", content_type="text/html")
        video = self._video(found)
        if video is None or not answers.labels_of(video):
            return _NOT_FOUND
        content_type = "text/html" if video.trouble == "html_file" else _TYPES[video.form.container]
        return _ranged(call, self.api.world.media(video.video_id).read_bytes(), content_type)

    def _is_signed(self, call: Call, identifier: str) -> bool:
        given = call.params.get("s", "")
        try:
            expires = int(json.loads(base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)))["e"])
        except (ValueError, KeyError, TypeError):
            return False
        return (
            hmac.compare_digest(given, self._signature(identifier, call.path, expires)) and expires > self.clock.now()
        )

    def _poster(self, call: Call, found: re.Match[str]) -> Reply:
        video = self._video(found)
        if video is None:
            return _NOT_FOUND
        scene = scene_of(video, seed=self.api.world.config.seed)
        return Reply(body=poster(scene, width=video.form.width, height=video.form.height), content_type="image/jpeg")

    def _counters(self, call: Call, found: re.Match[str]) -> Reply:
        return Reply(body=json.dumps(self.counters.snapshot()).encode(), content_type="application/json")

    def _within(self, call: Call, found: re.Match[str]) -> Reply:
        try:
            most = self.counters.most_within(call.params.get("name", ""), float(call.params.get("seconds", "")))
        except ValueError:
            return Reply(status=400, body=b"seconds is a number", content_type="text/plain")
        return Reply(body=json.dumps({"most": most}).encode(), content_type="application/json")

    def _turn_clock(self, call: Call, found: re.Match[str]) -> Reply:
        try:
            self.clock.advance(float(call.params.get("advance", "0")))
        except ValueError:
            return Reply(status=400, body=b"advance is a number of seconds", content_type="text/plain")
        return Reply(body=json.dumps({"now": self.clock.now()}).encode(), content_type="application/json")


def _ranged(call: Call, data: bytes, content_type: str) -> Reply:
    """The bytes, or the part of them that a Range header asks for."""
    headers = (("Accept-Ranges", "bytes"), ("ETag", f'"{hashlib.sha256(data).hexdigest()[:16]}"'))
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("range", ""))
    if asked is None or asked[0] == "bytes=-":
        return Reply(body=data, content_type=content_type, headers=headers)
    if asked[1]:
        start, stop = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else len(data), len(data))
    else:
        start, stop = max(len(data) - int(asked[2]), 0), len(data)
    if start >= stop:
        return Reply(status=416, headers=(("Content-Range", f"bytes */{len(data)}"),))
    told = ("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
    return Reply(status=206, body=data[start:stop], content_type=content_type, headers=(*headers, told))


_ROUTES: dict[re.Pattern[str], Callable[[Site, Call, re.Match[str]], Reply]] = {
    _PLAY: Site._play,
    _MEDIA: Site._media,
    _POSTER: Site._poster,
    re.compile(r"/__admin__/?"): Site._counters,
    re.compile(r"/__admin__/clock"): Site._turn_clock,
    re.compile(r"/__admin__/within"): Site._within,
}


def call_of(verb: str, target: str, headers: dict[str, str], body: bytes) -> Call:
    """A request taken apart.

    Raises:
        UserError: its form is not UTF-8 text.
    """
    path, _, query = target.partition("?")
    form = body if "form-urlencoded" in headers.get("content-type", "") else b""
    try:
        fields = parse_qs(query, keep_blank_values=True) | parse_qs(form.decode(), keep_blank_values=True)
    except UnicodeDecodeError as error:
        raise UserError(f"the form is not UTF-8: {error}") from error
    params = {name: ",".join(values) for name, values in fields.items()}
    oauth = re.search(r'oauth_consumer_key="([^"]*)"', headers.get("authorization", ""))
    key = params.get("api_key") or (oauth[1] if oauth else "")
    if path.startswith("/services/rest"):
        return Call(host="api", verb=verb, path=path, params=params, headers=headers, key=key)
    admin, www = path.startswith("/__admin__"), path.startswith(("/photos/", "/apps/"))
    return Call(
        host="admin" if admin else "www" if www else "live", verb=verb, path=path, params=params, headers=headers
    )
