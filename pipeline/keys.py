"""API keys: where they come from, and what may be told of them.

Keys come from the environment: FLICKR_API_KEY and FLICKR_API_SECRET, and where collaborators lend theirs,
FLICKR_API_KEYS as `key:secret key:secret`. Each key has a budget of its own. That is no way around Flickr's limit:
it is meant for one application with all its users, Flickr also looks at other things than the key, and several keys of
one person are an abuse for which all of them are switched off. So keys are for different people who agreed to it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from urllib.parse import urlsplit

from pipeline.errors import UserError
from pipeline.limits import KEY_PREFIX

KEY_VARIABLE = "FLICKR_API_KEY"
SECRET_VARIABLE = "FLICKR_API_SECRET"
KEYS_VARIABLE = "FLICKR_API_KEYS"


def keys_in_environment() -> dict[str, str]:
    """Secrets by key.

    Raises:
        UserError: FLICKR_API_KEYS is not `key:secret key:secret`.
    """
    keys = {}
    if os.environ.get(KEY_VARIABLE):
        keys[os.environ[KEY_VARIABLE]] = os.environ.get(SECRET_VARIABLE, "")
    for place, pair in enumerate(os.environ.get(KEYS_VARIABLE, "").split(), 1):
        key, colon, secret = pair.partition(":")
        if not key or not colon:
            raise UserError(f"entry {place} of {KEYS_VARIABLE} is not `key:secret`: separate several with spaces")
        keys.setdefault(key, secret)
    return keys


def short_name(key: str) -> str:
    """The first 8 digits of its SHA-256: all that may be told of a key."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def budget_name(rest_url: str, key: str) -> str:
    """By server and key: two keys share no budget, nor do a sandbox and Flickr, but Flickr's hosts do."""
    try:
        url = urlsplit(rest_url)
        host, port, ours = url.hostname or "", url.port, is_loopback(rest_url)
    except ValueError:  # no address at all; sending will tell
        host, port, ours = "", None, False
    if f".{host}".endswith(".flickr.com"):
        host, port = "flickr.com", None
    place = host if port is None else f"{host}:{port}"
    return f"{'sandbox:' if ours else KEY_PREFIX}{place}:{short_name(key)}"


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
