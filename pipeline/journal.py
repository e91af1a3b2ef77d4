"""Flickr's answers as they come: kept at once, so that a unit that is begun again asks only for what was in flight.

`<job>/journal/<unit>~0001.jsonl.zst`, ... hold the answers of a unit under way, a line each; the unit's commit puts
them together as its raw file, from which its records can be made again without asking. A journal is a cache: a part
that cannot be read, and what follows it, is asked for again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import pyarrow as pa

from pipeline.answers import utc_now
from pipeline.errors import REASONS, Dropped
from pipeline.store import Store

logger = logging.getLogger(__name__)

Parameters = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Line:
    """One call and what came back: an answer, or the reason why there is none."""

    method: str
    parameters: Parameters
    at: int
    """When it was answered, Unix seconds."""
    answer: dict[str, Any] | None = None
    refusal: tuple[str, str] | None = None
    """A reason (pipeline.errors.REASONS) and its detail."""

    def encode(self) -> bytes:
        """A line of JSON."""
        told = {"method": self.method, "parameters": self.parameters, "at": self.at}
        came = {"answer": self.answer} if self.refusal is None else {"refusal": list(self.refusal)}
        return json.dumps(told | came, sort_keys=True).encode() + b"\n"


def write_lines(lines: Iterable[Line]) -> bytes:
    """Lines as zstd-compressed JSON lines."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        for line in lines:
            stream.write(line.encode())
    return bytes(sink.getvalue())


def read_lines(data: bytes) -> Iterator[Line]:
    """The lines of `write_lines`.

    Raises:
        ValueError: it is damaged, or was not written by it.
    """
    try:
        with pa.CompressedInputStream(pa.py_buffer(data), "zstd") as stream:
            texts = stream.read().splitlines()
    except OSError as error:  # so pyarrow calls what is no zstd
        raise ValueError(str(error)) from error
    yield from map(_line, texts)


def _line(text: bytes) -> Line:
    raw = json.loads(text)
    if not isinstance(raw, dict):
        raise ValueError("a line that is no JSON object")
    method, parameters, at = (raw.get(name) for name in ("method", "parameters", "at"))
    answer, refusal = raw.get("answer"), raw.get("refusal")
    if not (isinstance(method, str) and isinstance(parameters, dict) and isinstance(at, int)):
        raise ValueError("a line without method, parameters or time")
    if isinstance(answer, dict) and refusal is None:
        return Line(method, parameters, at, answer)
    if answer is None and isinstance(refusal, list) and len(refusal) == 2 and refusal[0] in REASONS:
        return Line(method, parameters, at, refusal=(refusal[0], str(refusal[1])))
    raise ValueError("a line without answer or known refusal")


Ask = Callable[[str, Parameters], dict[str, Any]]
"""How Flickr is asked: the method and its parameters; raises Dropped for what is not to be had."""


class Journal:
    """Calls of one unit. What an earlier try was answered is answered again, as long as the same is asked in turn."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        ask: Ask,
        *,
        lines_per_part: int = 1,
        is_usable: Callable[[Line], bool] = lambda line: True,
    ) -> None:
        """`is_usable` tells whether a kept line can be gone by; one that cannot is asked for again."""
        self._store, self._prefix, self._ask, self._is_usable = store, prefix, ask, is_usable
        self._lines_per_part = lines_per_part
        self._kept: list[Line] = []
        self._parts = 0
        """How many there are, numbered from 1 without gaps."""
        self._load()
        self.lines: list[Line] = []
        """All calls so far, in order."""
        self.fresh = 0
        """How many of them went to Flickr in this try."""

    def _key(self, part: int) -> str:
        return f"{self._prefix}~{part:04d}.jsonl.zst"

    def _load(self) -> None:
        while True:
            key = self._key(self._parts + 1)
            try:
                lines = list(read_lines(self._store.read(key)))
                if len(lines) != self._lines_per_part:
                    raise ValueError(f"{len(lines)} lines in place of {self._lines_per_part}")
            except FileNotFoundError:
                return
            except (ValueError, RecursionError) as error:
                logger.warning("%s/%s cannot be read (%s): asked for again", self._store.url, key, error)
                self._forget(self._parts)
                return
            self._kept += lines
            self._parts += 1

    def ask(self, method: str, **parameters: str | int) -> Line:
        """The answer or refusal, from an earlier try or from Flickr; Transient trouble is raised and not kept."""
        place = len(self.lines)
        known = self._kept[place] if place < len(self._kept) else None
        if known is not None and (known.method, known.parameters) == (method, parameters) and self._is_usable(known):
            self.lines.append(known)
            return known
        if known is not None:  # it goes another way than before: what follows there answers other questions
            self._kept = self._kept[:place]
            self._forget(place // self._lines_per_part)
        line = self._answered(method, parameters)
        self.fresh += 1
        self.lines.append(line)
        if len(self.lines) % self._lines_per_part == 0:
            self._keep()
        return line

    def _answered(self, method: str, parameters: Parameters) -> Line:
        try:
            return Line(method, parameters, utc_now(), answer=self._ask(method, parameters))
        except Dropped as drop:
            return Line(method, parameters, utc_now(), refusal=(drop.reason, drop.detail))

    def _keep(self) -> None:
        part = self.lines[self._parts * self._lines_per_part :]
        self._parts += 1
        self._store.write(self._key(self._parts), write_lines(part))

    def _forget(self, parts: int) -> None:
        """Remove all but the first so many parts, the last one first: if it is killed here, no gap is left."""
        last = next(n for n in count(max(parts, self._parts)) if self._store.size(self._key(n + 1)) is None)
        for number in range(last, parts, -1):
            self._store.delete(self._key(number))
        self._parts = parts

    def clear(self) -> None:
        """Remove what was kept: the unit is committed."""
        for number in range(self._parts, 0, -1):
            self._store.delete(self._key(number))
        self._parts = 0


def sweep(store: Store, job: str, *, stale: Callable[[str], bool]) -> None:
    """Remove what is left of the units that are `stale` by their names: killed between their commit and their end."""
    folder = f"{job}/journal/"
    for key in list(store.list(folder)):
        if stale(key.removeprefix(folder).partition("~")[0]):
            store.delete(key)
