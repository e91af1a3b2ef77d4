"""Call and Reply: what a client asked, and what goes back on the wire, ill-formed replies included."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Host = Literal["api", "www", "live", "admin"]
"""Which of the real hosts a path belongs to: REST, play URLs, media and posters, or the sandbox's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One request, taken apart."""

    host: Host
    verb: str
    """The HTTP method."""
    path: str
    """Without the query."""
    params: Mapping[str, str] = field(default_factory=dict)
    """Of the query and of the form in the body; lists are joined by commas."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """With lower-case names."""
    key: str = ""
    """The API key, from `api_key` or from the OAuth header."""
    shift: int = 0
    """Rows that slipped in before this page of a search."""

    @property
    def method(self) -> str:
        """The API method, empty elsewhere."""
        return self.params.get("method", "") if self.host == "api" else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One response; the fields after `headers` are for those that go wrong."""

    status: int = 200
    body: bytes = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    declared_length: int | None = None
    """What Content-Length says; None is the truth."""
    without_length: bool = False
    """No Content-Length at all: the body ends where the connection does."""
    wait_seconds: float = 0.0
    """Silence before the first byte."""
    drip_seconds: float = 0.0
    """Time over which the body trickles."""
    end: Literal["keep", "close", "close_first", "reset_first"] = "keep"
    """What becomes of the connection; `first` is before any byte of the response."""


_WORDS = {
    200: "OK", 206: "Partial Content", 302: "Found", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 410: "Gone",
    416: "Range Not Satisfiable", 429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip


def packed(reply: Reply, call: Call) -> Reply:
    """As Flickr's API sends it to all who accept that: compressed."""
    if call.host != "api" or not reply.body or "gzip" not in call.headers.get("accept-encoding", ""):
        return reply
    headers = (*reply.headers, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))
    return replace(reply, body=gzip.compress(reply.body, 1, mtime=0), headers=headers)


def head_of(reply: Reply) -> bytes:
    """Status line and headers as they go on the wire."""
    lines = [f"HTTP/1.1 {reply.status} {_WORDS.get(reply.status, '')}", "Server: openresty"]
    if reply.content_type:
        lines.append(f"Content-Type: {reply.content_type}")
    if not reply.without_length:
        lines.append(f"Content-Length: {len(reply.body) if reply.declared_length is None else reply.declared_length}")
    lines += [f"{name}: {value}" for name, value in reply.headers]
    if reply.end != "keep":
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
