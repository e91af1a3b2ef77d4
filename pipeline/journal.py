"""Flickr's answers as they come: kept at once, so that a unit that is begun again asks only for what was in flight.

`<job>/journal/<unit>~0001.jsonl.zst`, ... hold the answers of a unit under way, a line each; the unit's commit puts
them together as its raw file, from which its records can be made again without asking.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.answers import utc_now
from pipeline.errors import Dropped
from pipeline.store import Store

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
    """The lines of `write_lines`."""
    with pa.CompressedInputStream(pa.py_buffer(data), "zstd") as stream:
        for text in stream.read().splitlines():
            raw = json.loads(text)
            refusal = raw.get("refusal")
            yield Line(
                raw["method"], raw["parameters"], raw["at"], raw.get("answer"), tuple(refusal) if refusal else None
            )


Ask = Callable[[str, Parameters], dict[str, Any]]
"""How Flickr is asked: the method and its parameters; raises Dropped for what is not to be had."""


class Journal:
    """Calls of one unit. What an earlier try was answered is answered again, as long as the same is asked in turn."""

    def __init__(self, store: Store, prefix: str, ask: Ask, *, lines_per_part: int = 1) -> None:
        self._store, self._prefix, self._ask = store, f"{prefix}~", ask
        self._lines_per_part = lines_per_part
        self._kept = [line for key in store.list(self._prefix) for line in read_lines(store.read(key))]
        self._parts = -(-len(self._kept) // lines_per_part)
        self.lines: list[Line] = []
        """All calls so far, in order."""
        self.fresh = 0
        """How many of them went to Flickr in this try."""

    def ask(self, method: str, **parameters: str | int) -> Line:
        """The answer or refusal, from an earlier try or from Flickr; Transient trouble is raised and not kept."""
        place = len(self.lines)
        known = self._kept[place] if place < len(self._kept) else None
        if known is not None and (known.method, known.parameters) == (method, parameters):
            self.lines.append(known)
            return known
        if known is not None:  # it goes another way than before: what follows there answers other questions
            self._forget(place)
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
        self._store.write(f"{self._prefix}{self._parts:04d}.jsonl.zst", write_lines(part))

    def _forget(self, place: int) -> None:
        self._parts = place // self._lines_per_part
        self._kept = self._kept[:place]
        for number, key in enumerate(list(self._store.list(self._prefix))):
            if number >= self._parts:
                self._store.delete(key)

    def clear(self) -> None:
        """Remove what was kept: the unit is committed."""
        for key in list(self._store.list(self._prefix)):
            self._store.delete(key)


def sweep(store: Store, job: str, *, stale: Callable[[str], bool]) -> None:
    """Remove what is left of the units that are `stale` by their names: killed between their commit and their end."""
    folder = f"{job}/journal/"
    for key in list(store.list(folder)):
        if stale(key.removeprefix(folder).partition("~")[0]):
            store.delete(key)
