"""What Flickr means by `stat=fail`: its codes, which overlap from method to method, as our errors."""

from __future__ import annotations

from typing import Any

from pipeline.errors import Dropped, Transient, UserError

_BUSY = frozenset({0, 10, 105, 201})
"""Codes of a failure of the moment, in answers with HTTP 200."""
_BAD_KEY = frozenset({96, 97, 98, 100})
"""Codes of a key that is not valid, or whose secret does not sign for it."""
_OUR_MISTAKE = frozenset({95, 111, 112, 114, 115, 116})
"""Codes that every later call would get too: no TLS, a format, method or address that Flickr does not know."""
_COMMON_CODES = 95
"""From here on codes speak of the service, below of one method's arguments."""


class RefusedKey(Exception):
    """This key is not accepted; others may be."""


def refusal_of(method: str, answer: dict[str, Any], *, about_video: bool) -> Exception:
    """What a `stat=fail` means: one odd answer must not end the job, unless all others would be alike."""
    message = str(answer.get("message", ""))
    try:
        code = int(str(answer["code"]))
    except (KeyError, ValueError):
        return Transient(f"{method}: refused without a code: {message}", "http_5xx")
    told = f"{method}: error {code}: {message}"
    if code in _BAD_KEY:
        return RefusedKey(message)
    if code in _OUR_MISTAKE or "parameter missing" in message.lower():
        return UserError(told)
    if code in _BUSY or (code >= _COMMON_CODES and code != 99):
        return Transient(told, "http_5xx")
    if about_video and (code == 5 or (code == 1 and "not found" in message.lower())):
        return Dropped("gone", told)
    if about_video and code in (2, 99):
        return Dropped("private", told)
    return UserError(told) if code == 99 else Dropped("http_4xx", told)
