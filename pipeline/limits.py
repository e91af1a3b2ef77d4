"""How often we may ask: one budget per API key and one per media host, as plain objects.

`cluster/limits.py` makes the same object one for a whole cluster.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

FLICKR_CALLS_PER_HOUR = 3600
"""Flickr's ceiling for one key, whatever the number of its users (Flickr developer guide)."""

_RECOVERY_SECONDS = 60.0
_LEAST_SHARE = 1 / 16
"""Of the full rate: even a host that is down is asked now and then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """What one name may do at most."""

    per_second: float
    burst: int = 1
    """Requests that may go out at once after a silence."""

    def __post_init__(self) -> None:
        if self.per_second <= 0 or self.burst < 1:
            raise ValueError(f"a rate needs per_second > 0 and burst >= 1, got {self}")


class Permits(Protocol):
    """Who says when the next request may go out."""

    def reserve(self, name: str) -> float:
        """Take the next permit of `name`; seconds to wait before using it."""

    def throttled(self, name: str, seconds: float) -> None:
        """The other side said 429 or 503: nobody uses `name` for `seconds`, and then at half the rate."""


class _Bucket:
    """A token bucket whose rate halves when throttled and creeps back by a tenth of its full rate per quiet minute."""

    def __init__(self, rate: Rate) -> None:
        self._full = rate
        self._per_second = rate.per_second
        self._next = 0.0  # when the bucket would be empty of debt, on the monotonic clock
        self._changed = 0.0
        self._storm_ends = 0.0

    def reserve(self, now: float) -> float:
        quiet_minutes = (now - self._changed) // _RECOVERY_SECONDS
        if self._per_second < self._full.per_second and quiet_minutes >= 1:
            raised = self._per_second + quiet_minutes * self._full.per_second / 10
            self._per_second, self._changed = min(self._full.per_second, raised), now
        spare = (self._full.burst - 1) / self._per_second
        start = max(self._next, now - spare)
        self._next = start + 1 / self._per_second
        return max(0.0, start - now)

    def throttled(self, now: float, seconds: float) -> None:
        ends = max(self._next, now + seconds)
        if now >= self._storm_ends:  # what was granted before may still fail: one storm of 429s is one throttling
            self._per_second = max(self._per_second / 2, self._full.per_second * _LEAST_SHARE)
            self._changed, self._storm_ends = now, ends
        self._next = ends


class LocalPermits:
    """Permits for the threads of one process."""

    def __init__(self, rates: Mapping[str, Rate], *, default: Rate) -> None:
        self._rates = dict(rates)
        self._default = default
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def _bucket(self, name: str) -> _Bucket:
        return self._buckets.setdefault(name, _Bucket(self._rates.get(name, self._default)))

    def reserve(self, name: str) -> float:
        """See Permits."""
        with self._lock:
            return self._bucket(name).reserve(time.monotonic())

    def throttled(self, name: str, seconds: float) -> None:
        """See Permits."""
        with self._lock:
            self._bucket(name).throttled(time.monotonic(), seconds)


def wait(permits: Permits, name: str) -> None:
    """Sleep until the next request of `name` may go out."""
    seconds = permits.reserve(name)
    if seconds > 0:
        time.sleep(seconds)


def backoff_seconds(attempt: int, *, asked: float | None = None, ceiling: float = 60.0) -> float:
    """The wait before try `attempt` + 1 (1-based): what the other side asked, else 0.5 s doubling with jitter."""
    if asked is not None:
        return min(asked, 900.0)
    return float(min(ceiling, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))
