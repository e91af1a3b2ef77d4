"""How often we may ask: one budget per API key and one per media host, as plain objects.

`cluster/limits.py` makes the same budgets one for a whole cluster.

Why no sliding hour sees more than N = `Rate.per_hour` calls of a key, whatever happens:

1. A permit is for now or not at all: `reserve` gives one, or says when to ask again. None outlives its bucket.
2. A bucket begins empty and counts with a ceiling of its own, apart from the pace: one permit per
   g = (3600 + L) / (N - B) seconds, of which silence saves at most B = 20. So its k-th permit comes no sooner than
   k g after its beginning, and any W seconds see at most B + W / g of them.
3. A bucket that is lost (a crash, an actor begun anew) is followed by another, never joined by one; by (2) only the
   bucket that was there before the W seconds began adds its B. So B + W / g holds across any number of restarts.
4. A call reaches the server at most L = 120 s after its permit: `wait` throws away what was 30 s on its way, and
   connecting has a deadline. So the calls of one hour had their permits within 3600 + L seconds: at most
   B + (3600 + L) / g = N.

What it does not cover: a process that is stopped between its permit and its call (one call each), machines that share
a key but no cluster, and a network split in which an old actor lives on beside its successor.
"""

from __future__ import annotations

import fcntl
import functools
import json
import logging
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

logger = logging.getLogger(__name__)

FLICKR_CALLS_PER_HOUR = 3600
"""Flickr's ceiling for one key, whatever the number of its users (Flickr developer guide)."""

KEY_PREFIX = "key:"
"""Begins the budget names of real API keys: one that is given no rate gets Flickr's, not the default."""

LATE_SECONDS = 120.0
"""From a permit to the arrival of its call, at most."""

MAX_PAUSE_SECONDS = 900.0
"""Nobody is made to wait longer at once, whatever Retry-After says."""

_PROMPT_SECONDS = 30.0
_CEILING_BURST = 20
_RECOVERY_SECONDS = 60.0
_RECOVERY_SHARE = 0.1
_LEAST_SHARE = 1 / 16
"""Of the full rate: even a host that is down is asked now and then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """What one name may do at most."""

    per_second: float
    burst: int = 1
    """Requests that may go out at once after a silence; there is none at the beginning."""
    per_hour: int | None = None
    """The ceiling of an API key in any sliding hour; such budgets are shared by all processes of a machine."""

    def __post_init__(self) -> None:
        if self.per_second <= 0 or self.burst < 1:
            raise ValueError(f"a rate needs per_second > 0 and burst >= 1, got {self}")
        if self.per_hour is not None and (self.per_hour <= _CEILING_BURST or self.burst > _CEILING_BURST):
            raise ValueError(f"a ceiling needs per_hour > {_CEILING_BURST} and burst <= {_CEILING_BURST}, got {self}")

    @property
    def ceiling_gap(self) -> float:
        """Seconds from permit to permit that keep the ceiling; 0 without one."""
        return 0.0 if self.per_hour is None else (3600 + LATE_SECONDS) / (self.per_hour - _CEILING_BURST)


_UNKNOWN_KEY = Rate(per_second=0.9, per_hour=FLICKR_CALLS_PER_HOUR)


def rate_of(name: str, rates: Mapping[str, Rate], default: Rate) -> Rate:
    """The rate of a name; a real API key that nobody spoke of (a node with a key of its own) gets Flickr's."""
    return rates.get(name) or (_UNKNOWN_KEY if name.startswith(KEY_PREFIX) else default)


class Permits(Protocol):
    """Who says when the next request may go out; most callers want `wait`."""

    def reserve(self, name: str) -> float:
        """Take a permit of `name` for use at once: 0.0, or no permit and the seconds after which to ask again."""

    def throttled(self, name: str, seconds: float, *, slower: bool = True) -> None:
        """Nobody uses `name` for `seconds`; `slower` (429 and 503) halves its rate as well."""


@dataclass(slots=True)
class _Bucket:
    """Two clocks that must both have come round: the pace, which throttling slows down, and the ceiling, which holds.

    The pace halves when throttled and creeps back by a tenth of the full rate per quiet minute (AIMD).
    """

    paced: float
    """When the pace allows the next permit."""
    capped: float
    """When the ceiling does."""
    share: float = 1.0
    """Of the full rate."""
    quiet_since: float = 0.0
    storm_ends: float = 0.0

    @classmethod
    def begin(cls, rate: Rate, now: float) -> _Bucket:
        """Empty: what its predecessor gave is not known."""
        return cls(paced=now + 1 / rate.per_second, capped=now + rate.ceiling_gap)

    def take(self, rate: Rate, now: float) -> float:
        """0.0 and a permit, or the seconds until there may be one."""
        ready = max(self.paced, self.capped)
        if ready > now:
            return ready - now
        self._recover(now)
        # What silence saved is told in time at the full rate, so that a slowed bucket bursts less, never more.
        self.paced = max(self.paced, now - (rate.burst - 1) / rate.per_second) + self.gap(rate)
        self.capped = max(self.capped, now - (_CEILING_BURST - 1) * rate.ceiling_gap) + rate.ceiling_gap
        return 0.0

    def pause(self, rate: Rate, now: float, seconds: float, *, slower: bool) -> None:
        """No permit for `seconds`."""
        self._recover(now)
        ends = max(self.paced, now + min(seconds, MAX_PAUSE_SECONDS))
        if slower and now >= self.storm_ends:  # what was granted before may still fail: one storm is one halving
            self.share = max(self.share / 2, _LEAST_SHARE)
            self.quiet_since = self.storm_ends = ends
        self.paced = ends

    def gap(self, rate: Rate) -> float:
        """Seconds from permit to permit at the present pace."""
        return 1 / (rate.per_second * self.share)

    def _recover(self, now: float) -> None:
        minutes = (now - self.quiet_since) // _RECOVERY_SECONDS
        if self.share < 1 and minutes >= 1:
            self.share = min(1.0, self.share + _RECOVERY_SHARE * minutes)
            self.quiet_since += minutes * _RECOVERY_SECONDS


class Buckets:
    """The buckets behind permits, for the threads of a process; those of API keys for a machine's processes too.

    With a folder, a key's bucket is a small locked file in it: a name and numbers, never a key. Processes that name
    different rates for one key are each served at their own pace, under the same ceiling and the same pauses.
    """

    def __init__(self, *, folder: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock  # of the machine, not of the process: files hold its times
        self._buckets: dict[str, _Bucket] = {}
        self._turns: dict[str, float] = {}
        self._lock = threading.Lock()

    def take(self, name: str, rate: Rate) -> float:
        """See Permits.reserve."""

        def act(bucket: _Bucket, now: float) -> float:
            seconds = bucket.take(rate, now)
            if seconds:  # each that waits is told a turn of its own; a turn is advice, no permit
                turn = self._turns.get(name, 0.0) + max(bucket.gap(rate), rate.ceiling_gap)
                self._turns[name] = max(now + seconds, turn)
                seconds = self._turns[name] - now
            return seconds

        return self._with_bucket(name, rate, act)

    def pause(self, name: str, rate: Rate, seconds: float, *, slower: bool) -> None:
        """See Permits.throttled."""

        def act(bucket: _Bucket, now: float) -> float:
            bucket.pause(rate, now, seconds, slower=slower)
            return 0.0

        self._with_bucket(name, rate, act)

    def _with_bucket(self, name: str, rate: Rate, act: Callable[[_Bucket, float], float]) -> float:
        with self._lock:
            if self._folder is not None and rate.per_hour is not None:
                try:
                    return self._with_file(self._folder / f"{name.replace(':', '_')}_{_boot()[:8]}.json", rate, act)
                except OSError as error:
                    _warn(f"{self._folder}: {error}")
                    self._folder = None
            now = self._clock()
            return act(self._buckets.setdefault(name, _Bucket.begin(rate, now)), now)

    def _with_file(self, path: Path, rate: Rate, act: Callable[[_Bucket, float], float]) -> float:
        # Opened anew each time (some microseconds): a lock of an open file would be shared by forked processes.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            now = self._clock()
            bucket = _parsed(os.pread(descriptor, 4096, 0))
            if bucket is None:
                os.ftruncate(descriptor, 0)
                bucket = _Bucket.begin(rate, now)
            result = act(bucket, now)
            os.pwrite(descriptor, _written(bucket), 0)
            return result
        finally:
            os.close(descriptor)


def _written(bucket: _Bucket) -> bytes:
    # Of one length, so that no end of an older text stays; one call, so that no death leaves a half.
    return json.dumps({name: getattr(bucket, name) for name in _Bucket.__slots__}).ljust(512).encode()


def _parsed(text: bytes) -> _Bucket | None:
    try:
        return _Bucket(**{name: float(value) for name, value in json.loads(text).items()})
    except (ValueError, TypeError, AttributeError):  # no bucket: begin empty
        return None


@functools.cache
def _boot() -> str:
    """Names the files: times are told from a machine's start, and a home folder may be that of many machines."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _warn(trouble: str) -> None:
    logger.warning("request budgets are kept in this process only, other processes are not counted (%s)", trouble)


def state_folder() -> Path | None:
    """The user's folder for the budgets of API keys, made if need be; None, with a warning, where none can be written.

    `$XDG_STATE_HOME/noisyactions`, by default under `~/.local/state`, else one in the folder for temporary files.
    """
    trouble = "this system does not tell one start from the next"
    bases = (os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"), tempfile.gettempdir())
    for base, name in zip(bases, ("noisyactions", f"noisyactions-{os.getuid()}"), strict=True):
        if not _boot():
            break
        folder = Path(base) / name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            trouble = str(error)
            continue
        if os.access(folder, os.W_OK | os.X_OK) and folder.lstat().st_uid == os.getuid():
            return folder
        trouble = f"{folder} is not ours to write"
    _warn(trouble)
    return None


class LocalPermits:
    """Permits for the threads of one process, and with a folder for those of other processes on this machine."""

    def __init__(
        self,
        rates: Mapping[str, Rate],
        *,
        default: Rate,
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rates = dict(rates)
        self._default = default
        self._buckets = Buckets(folder=folder, clock=clock)

    def reserve(self, name: str) -> float:
        """See Permits."""
        return self._buckets.take(name, rate_of(name, self._rates, self._default))

    def throttled(self, name: str, seconds: float, *, slower: bool = True) -> None:
        """See Permits."""
        self._buckets.pause(name, rate_of(name, self._rates, self._default), seconds, slower=slower)


def wait(permits: Permits, name: str) -> None:
    """Come back with a permit of `name`, to be used at once."""
    while True:
        asked = time.monotonic()
        seconds = permits.reserve(name)
        if not seconds and time.monotonic() - asked < _PROMPT_SECONDS:
            return
        if seconds > _RECOVERY_SECONDS:
            logger.info("the budget of %s allows nothing for %.0f s", name, seconds)
        time.sleep(seconds)


def backoff_seconds(attempt: int, *, asked: float | None = None, base: float = 0.5, ceiling: float = 60.0) -> float:
    """The wait before try `attempt` + 1 (1-based): what the other side asked, else `base` doubling, with jitter."""
    own: float = min(ceiling, base * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
    if asked is None:
        return own
    return min(max(asked, min(own, 1.0)), MAX_PAUSE_SECONDS)  # `Retry-After: 0` is no leave to hammer
