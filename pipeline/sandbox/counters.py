"""Counters: what the server has seen, so that tests can hold a client to its manners; and the server's clock."""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.sandbox.replies import Call, Host

_WINDOWS = (1, 60, 3600)
"""Seconds over which the snapshot tells the most calls."""


class Clock:
    """The time that signatures and hourly limits go by; tests turn it forward."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        """Unix seconds."""
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Turn the clock forward."""
        self._ahead += seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One call as it was noted when it came in."""

    host: Host
    method: str
    """The API method, or the verb elsewhere."""
    path: str
    key: str
    at: float
    """Seconds of a monotonic clock."""


class Counters:
    """Calls by method, key and host. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by: dict[str, Counter[str]] = {
            name: Counter() for name in ("hosts", "methods", "keys", "statuses", "faults")
        }
        self._running: Counter[str] = Counter()
        self._most: Counter[str] = Counter()
        self._last: dict[str, float] = {}
        self._closest: dict[str, float] = {}
        self.log: deque[Seen] = deque(maxlen=100_000)
        """The latest calls, oldest first; the counts know of all of them."""
        self._times: dict[str, array[float]] = {}
        self.errors: list[BaseException] = []
        """What went wrong in the server itself; stays empty."""

    def enter(self, call: Call) -> None:
        """Note a call that begins."""
        with self._lock:
            now = time.monotonic()
            self.log.append(Seen(host=call.host, method=call.method or call.verb, path=call.path, key=call.key, at=now))
            self._by["hosts"][call.host] += 1
            for name in {call.host, call.key, call.method} - {""}:
                self._times.setdefault(name, array("d")).append(now)
            if call.host == "api":
                self._by["methods"][call.method] += 1
                self._by["keys"][call.key] += 1
            self._running[call.host] += 1
            self._most[call.host] = max(self._most[call.host], self._running[call.host])
            if call.host in self._last:
                self._closest[call.host] = min(self._closest.get(call.host, now), now - self._last[call.host])
            self._last[call.host] = now

    def leave(self, call: Call, status: str, fault: str | None) -> None:
        """Note how it ended."""
        with self._lock:
            self._running[call.host] -= 1
            self._by["statuses"][status] += 1
            if fault:
                self._by["faults"][fault] += 1

    def count(self, name: str) -> int:
        """Calls of that API method, host or key, or faults of that kind."""
        with self._lock:
            return sum(self._by[group][name] for group in ("hosts", "methods", "keys", "faults"))

    def most_at_once(self, host: Host) -> int:
        """The most calls that ran at the same time."""
        return self._most[host]

    def closest(self, host: Host) -> float | None:
        """The shortest time between two calls that came in, in seconds; None before the second."""
        return self._closest.get(host)

    def most_within(self, name: str, seconds: float) -> int:
        """The most calls of that API key, method or host that came in within any `seconds` on end."""
        with self._lock:
            times = np.array(self._times.get(name, ()), np.float64)
        if not len(times):
            return 0
        return int((np.searchsorted(times, times + seconds) - np.arange(len(times))).max())

    def snapshot(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        most = {name: {str(s): self.most_within(name, s) for s in _WINDOWS} for name in sorted(self._times)}
        with self._lock:
            groups = {group: dict(sorted(counter.items())) for group, counter in self._by.items()}
            return groups | {
                "most_at_once": dict(self._most),
                "most_within": most,
                "closest_seconds": dict(self._closest),
                "errors": len(self.errors),
            }
