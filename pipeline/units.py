"""A unit of work and its commit: what is done, what is left, and with which settings.

A unit writes its outputs first and its commit document `<job>/commits/<unit>.json` last, with create-if-absent.
A unit with a commit is done; nothing else is. Readers trust only what a commit lists.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NoReturn, Protocol, TypeVar

from pipeline.errors import UserError
from pipeline.limits import Permits, backoff_seconds
from pipeline.store import Store, is_no_room

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_ATTEMPTS = 3
"""Tries of a unit before it is set aside."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A deterministic, named piece of work: a query's time window, a shard's worth of records."""

    name: str
    """Unique in its job; letters, digits, `-`, `_` and `.` only, for it names the commit."""
    payload: Any = None
    """What the work needs to know; picklable and small, and JSON-able where another unit may add this one."""


@dataclass(frozen=True, slots=True)
class Output:
    """A file that a unit wrote."""

    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Commit:
    """That a unit is done: its settings, its counts by outcome, and what it wrote."""

    unit: str
    settings_hash: str
    counts: Mapping[str, int]
    outputs: tuple[Output, ...] = ()
    added: tuple[Unit, ...] = ()
    """Units that this one gave rise to."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a worker hands back for a unit that is committed."""

    unit: str
    counts: Counter[str] = field(default_factory=Counter)
    """By outcome: `ok` or a word of pipeline.errors.REASONS."""
    added: tuple[Unit, ...] = ()
    """Units that this one gave rise to."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class SetAside:
    """What is reported for a unit that failed too often; it has no commit and is tried again by the next run."""

    unit: str
    error: str
    attempts: int


def hash_settings(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings as canonical JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def output_of(key: str, data: bytes) -> Output:
    """The commit's line on `data` stored under `key`."""
    return Output(key, len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class Ledger:
    """The commits of one job on one root. Picklable: workers hold a copy each."""

    store: Store
    job: str
    settings: Mapping[str, Any]
    """JSON-able; what the outputs depend on, and nothing else (no number of workers, no paths of this machine)."""

    @property
    def settings_hash(self) -> str:
        """What each commit must carry."""
        return hash_settings(self.settings)

    def open(self) -> set[str]:
        """Claim the root for these settings and return the names of the units already done.

        Raises:
            UserError: the root holds this job's work with other settings; names the differing fields.
        """
        key = f"{self.job}/settings.json"
        mine = json.dumps(self.settings, sort_keys=True, indent=1).encode()
        if not self.store.create(key, mine):
            self._refuse_other(self._read(key, dict), key)
        return {name.rpartition("/")[2].removesuffix(".json") for name in self.store.list(f"{self.job}/commits/")}

    def _refuse_other(self, theirs: Mapping[str, Any], key: str) -> None:
        names = sorted(set(theirs) | set(self.settings))
        missing = object()
        differing = [n for n in names if theirs.get(n, missing) != self.settings.get(n, missing)]
        if differing:
            told = "; ".join(f"{n} was {theirs.get(n)!r}, now {self.settings.get(n)!r}" for n in differing)
            raise UserError(
                f"{self.store.url} was built with other settings ({told}): "
                f"use the same settings, another root, or delete {key} and what lies beside it"
            )

    def commit(
        self, unit: Unit, counts: Mapping[str, int], outputs: tuple[Output, ...], added: tuple[Unit, ...] = ()
    ) -> bool:
        """Write the unit's commit; False if another worker has committed it first."""
        commit = Commit(unit.name, self.settings_hash, dict(sorted(counts.items())), outputs, added)
        return self.store.create(self._key(unit.name), _json(commit))

    def amend(self, commit: Commit) -> None:
        """Replace the commit of a unit whose outputs were made anew."""
        self.store.write(self._key(commit.unit), _json(commit))

    def commit_of(self, unit: str) -> Commit:
        """The commit of a unit that is done."""
        return self._commit_at(self._key(unit))

    def _commit_at(self, key: str) -> Commit:
        return self._read(key, _commit)

    def _read(self, key: str, build: Callable[[Any], T]) -> T:
        """What is built of a JSON document; a disk that was full or a hand may have spoilt it."""
        data = self.store.read(key)
        try:
            return build(json.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self.store.url}/{key} is damaged ({type(error).__name__}: {error}): "
                "delete it and run the same command again, which does anew what it stood for"
            ) from error

    def _key(self, unit: str) -> str:
        return f"{self.job}/commits/{unit}.json"

    def commits(self) -> Iterator[Commit]:
        """Every commit of the job, by unit name."""
        with ThreadPoolExecutor(8) as pool:
            yield from pool.map(self._commit_at, sorted(self.store.list(f"{self.job}/commits/")))

    def left(self, units: Iterable[Unit]) -> list[Unit]:
        """The units that are not done, with those that done ones gave rise to, in order."""
        added = {commit.unit: commit.added for commit in self.commits()}
        left, queue = [], list(reversed(list(units)))
        while queue:
            unit = queue.pop()
            if unit.name in added:
                queue.extend(reversed(added[unit.name]))
            else:
                left.append(unit)
        return left


def _commit(raw: Mapping[str, Any]) -> Commit:
    outputs = tuple(Output(**output) for output in raw["outputs"])
    added = tuple(Unit(**unit) for unit in raw.get("added", ()))
    return Commit(raw["unit"], raw["settings_hash"], raw["counts"], outputs, added)


def _json(commit: Commit) -> bytes:
    return json.dumps(asdict(commit), indent=1).encode()


class Worker(Protocol):
    """Does one unit after another: writes its outputs and its commit."""

    def __call__(self, unit: Unit) -> Finished:
        """Do the unit; raises what went wrong."""

    def close(self) -> None:
        """Give back what it holds."""


MakeWorker = Callable[[Permits], Worker]
"""How each process makes its worker; picklable."""

Verdict = Literal["retry", "set_aside", "stop"]


def judge(error: BaseException, *, attempts: int, max_attempts: int = MAX_ATTEMPTS) -> Verdict:
    """What becomes of a unit that failed: a user's mistake or a full disk stops the job, all else is tried again.

    What is tried too often is set aside.
    """
    if isinstance(error, UserError) or is_no_room(error):
        return "stop"
    return "retry" if attempts < max_attempts else "set_aside"


def raise_stop(error: BaseException) -> NoReturn:
    """Raise what stopped a job: UserError, also for a full disk that is not the root's."""
    if isinstance(error, OSError):
        raise UserError(
            f"{error.filename or 'a disk of this job'} takes no more ({error.strerror}): make room (or, if it is the "
            "temporary folder, set TMPDIR to a larger one), then run the same command again to go on"
        ) from error
    raise error


def told(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def work_here(
    units: Iterable[Unit], make_worker: MakeWorker, *, permits: Permits, max_attempts: int = MAX_ATTEMPTS
) -> Iterator[Finished | SetAside]:
    """Run units one by one in this process, with the same verdicts on failures as cluster.pool.

    Raises:
        UserError: as soon as a unit raises it.
    """
    worker = make_worker(permits)
    queue = list(reversed(list(units)))
    try:
        while queue:
            result = _try(worker, queue.pop(), max_attempts)
            if isinstance(result, Finished):
                queue.extend(reversed(result.added))
            yield result
    finally:
        worker.close()


def _try(worker: Worker, unit: Unit, max_attempts: int) -> Finished | SetAside:
    for attempt in range(1, max_attempts + 1):
        try:
            return worker(unit)
        except Exception as error:  # the edge of the job: one unit's trouble must not end the others
            if judge(error, attempts=attempt, max_attempts=max_attempts) == "stop":
                raise_stop(error)
            logger.warning("unit %s, try %d: %s", unit.name, attempt, told(error), exc_info=error)
            failure = told(error)
        if attempt < max_attempts:
            time.sleep(backoff_seconds(attempt))
    return SetAside(unit.name, failure, max_attempts)
