"""Faults: what goes wrong between a client and Flickr, each when and where a test wants it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from email.utils import formatdate
from fnmatch import fnmatchcase
from typing import Literal, get_args

from pipeline.errors import UserError
from pipeline.sandbox.dice import Dice
from pipeline.sandbox.formats import failure, rendered
from pipeline.sandbox.replies import Call, Host, Reply

Kind = Literal[
    "429", "429_seconds", "429_date", "403", "404", "410", "500", "502", "503", "504",
    "code_0", "code_1", "code_2", "code_10", "code_20", "code_99", "code_105", "code_201", "key_disabled",
    "trailing_comma", "truncated_json", "html", "empty", "bad_utf8", "bad_gzip",
    "reset", "close", "hang", "drip",
    "short_body", "long_body", "no_length", "wrong_type", "range_ignored", "redirect_loop", "expired",
    "duplicate_page", "page_shift",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing that goes wrong, on those calls that match `host`, `method` and `path`."""

    kind: Kind
    host: Host | None = None
    """`api` (REST), `www` (play URLs), `live` (media, posters); None is any of them."""
    method: str = "*"
    """Pattern on the API method, such as `flickr.photos.getInfo` or `*.search`."""
    path: str = "*"
    """Pattern on the URL's path, such as `*.mp4`."""
    key: str = "*"
    """Pattern on the API key; only calls of the API have one."""
    first: int = 1
    """Which of the matching calls is the first that can fail."""
    every: int = 1
    """From there on, each so many-th can."""
    times: int | None = None
    """How often it happens at most; None is without end."""
    probability: float = 1.0
    seconds: float = 1.0
    """For `hang` and `drip` how long they take, for 429 what Retry-After asks for."""
    rows: int = 5
    """For `page_shift`: how many rows slipped in before the page, so that it repeats as many of the page before; or,
    below 0, how many vanished there, so that as many are on neither page."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UserError(f"no fault of the kind {self.kind!r}: choose among {', '.join(get_args(Kind))}")
        if self.first < 1 or self.every < 1 or not 0 <= self.probability <= 1 or self.seconds < 0:
            raise UserError(f"a fault needs first, every >= 1, 0 <= probability <= 1 and seconds >= 0, got {self}")

    def matches(self, call: Call) -> bool:
        """Whether it can befall this call."""
        right_host = call.host != "admin" and self.host in (None, call.host)
        texts = ((call.method, self.method), (call.path, self.path), (call.key, self.key))
        return right_host and all(fnmatchcase(text, pattern) for text, pattern in texts)


class FaultPlan:
    """Which call meets which fault; the first that is due wins. Safe to use from several threads."""

    def __init__(self, faults: Iterable[Fault], *, seed: int) -> None:
        self._faults = tuple(faults)
        self._dice = Dice("faults", seed)
        self._seen = [0] * len(self._faults)
        self._fired = [0] * len(self._faults)
        self._lock = threading.Lock()

    def due(self, call: Call) -> Fault | None:
        """The fault that this call meets, if any."""
        with self._lock:
            chosen = None
            for place, fault in enumerate(self._faults):
                if fault.matches(call):
                    self._seen[place] += 1
                    if chosen is None and self._is_due(place, fault):
                        self._fired[place] += 1
                        chosen = fault
            return chosen

    def _is_due(self, place: int, fault: Fault) -> bool:
        since = self._seen[place] - fault.first
        if since < 0 or since % fault.every or (fault.times is not None and self._fired[place] >= fault.times):
            return False
        return fault.probability == 1 or self._dice.chance(fault.probability)


_BUSY = "Sorry, the Flickr API service is not currently available."
_MESSAGES = {
    1: "Photo not found",
    2: "Permission denied",
    20: "Excessive photo offset in search",
    99: "Insufficient permissions. Method requires read privileges; none granted.",
}
_TOO_MANY = b"<h1>429 Too Many Requests</h1>\nYou have sent too many requests in a given amount of time.\n"
_PAGE = (
    b"<!DOCTYPE html><html><head><title>Flickr</title></head><body>Hold your clicks a moment please...</body></html>"
)


def _status(reply: Reply, call: Call, fault: Fault) -> Reply:
    status = int(fault.kind[:3])
    page = _TOO_MANY if status == 429 else f"<html><body><h1>{status}</h1></body></html>".encode()
    asked = {"429_seconds": f"{fault.seconds:g}", "429_date": formatdate(time.time() + fault.seconds, usegmt=True)}.get(
        fault.kind
    )
    headers = (("Retry-After", asked),) if asked else ()
    return Reply(status=status, body=page, content_type="text/html", headers=headers)


def _code(reply: Reply, call: Call, fault: Fault) -> Reply:
    disabled = fault.kind == "key_disabled"
    code = 100 if disabled else int(fault.kind.removeprefix("code_"))
    message = "Invalid API Key (Key has expired)" if disabled else _MESSAGES.get(code, _BUSY)
    body, content_type = rendered(failure(code, message), call.params)
    return Reply(body=body, content_type=content_type)


def _trailing_comma(reply: Reply, call: Call, fault: Fault) -> Reply:
    # JSON with a comma too many, whatever format was asked for: seen in the wild.
    body = f'{{"stat":"fail","message":"{_BUSY}","code":201}},'
    return Reply(body=body.encode(), content_type="application/json")


def _bad_utf8(reply: Reply, call: Call, fault: Fault) -> Reply:
    middle = len(reply.body) // 2
    return replace(reply, body=reply.body[:middle] + b"\xff\xfe\xc3\x28" + reply.body[middle:])


def _bad_gzip(reply: Reply, call: Call, fault: Fault) -> Reply:
    middle = len(reply.body) // 2
    return replace(reply, body=reply.body[:middle] + bytes(byte ^ 0x5A for byte in reply.body[middle:]))


def _short_body(reply: Reply, call: Call, fault: Fault) -> Reply:
    return replace(reply, body=reply.body[: len(reply.body) // 2], declared_length=len(reply.body), end="close")


def _long_body(reply: Reply, call: Call, fault: Fault) -> Reply:
    return replace(reply, body=reply.body + b"\0" * 1000, declared_length=len(reply.body), end="close")


def _no_length(reply: Reply, call: Call, fault: Fault) -> Reply:
    return replace(reply, body=reply.body[: len(reply.body) // 2], without_length=True, end="close")


def _redirect_loop(reply: Reply, call: Call, fault: Fault) -> Reply:
    return Reply(status=302, headers=(("Location", call.path),))


def _html(reply: Reply, call: Call, fault: Fault) -> Reply:
    return Reply(body=_PAGE, content_type="text/html; charset=utf-8")


def _duplicate_page(call: Call, fault: Fault) -> Call:
    page = call.params.get("page", "1")
    return replace(call, params={**call.params, "page": str(max(int(page) - 1, 1)) if page.isdigit() else page})


CALL_FAULTS: dict[Kind, Callable[[Call, Fault], Call]] = {
    "range_ignored": lambda call, fault: replace(call, headers={k: v for k, v in call.headers.items() if k != "range"}),
    "duplicate_page": _duplicate_page,
    "page_shift": lambda call, fault: replace(call, shift=fault.rows),
}
"""Faults in how a call is understood."""

REPLY_FAULTS: dict[Kind, Callable[[Reply, Call, Fault], Reply]] = {
    **{kind: _status for kind in get_args(Kind) if kind[0].isdigit()},
    **{kind: _code for kind in get_args(Kind) if kind.startswith("code_")},
    "key_disabled": _code,
    "trailing_comma": _trailing_comma,
    "truncated_json": lambda reply, call, fault: replace(reply, body=reply.body[: len(reply.body) // 2]),
    "html": _html,
    "empty": lambda reply, call, fault: replace(reply, body=b""),
    "bad_utf8": _bad_utf8,
    "bad_gzip": _bad_gzip,
    "reset": lambda reply, call, fault: replace(reply, end="reset_first"),
    "close": lambda reply, call, fault: replace(reply, end="close_first"),
    "hang": lambda reply, call, fault: replace(reply, wait_seconds=fault.seconds),
    "drip": lambda reply, call, fault: replace(reply, drip_seconds=fault.seconds),
    "short_body": _short_body,
    "long_body": _long_body,
    "no_length": _no_length,
    "wrong_type": lambda reply, call, fault: replace(reply, content_type="application/octet-stream"),
    "redirect_loop": _redirect_loop,
    "expired": lambda reply, call, fault: Reply(status=403, body=b"<h1>403 Forbidden</h1>", content_type="text/html"),
}
"""Faults in what goes back."""

WIRE_FAULTS: frozenset[Kind] = frozenset({"short_body", "long_body", "no_length", "bad_gzip"})
"""Those of them that befall a body after it was compressed; the others befall what is in it."""
