"""A unit of work and its commit: what is done, what is left, and with which settings.

A unit writes its outputs first and its commit document `<job>/commits/<unit>.json` last, with create-if-absent.
A unit with a commit is done; nothing else is. Readers trust only what a commit lists.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.store import Store


@dataclass(frozen=True, slots=True)
class Unit:
    """A deterministic, named piece of work: a query's time window, a shard's worth of records."""

    name: str
    """Unique in its job; letters, digits, `-`, `_` and `.` only, for it names the commit."""
    payload: Any = None
    """What the work needs to know; picklable and small."""


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
            self._refuse_other(json.loads(self.store.read(key)), key)
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

    def commit(self, unit: Unit, counts: Mapping[str, int], outputs: tuple[Output, ...]) -> bool:
        """Write the unit's commit; False if another worker has committed it first."""
        commit = Commit(unit.name, self.settings_hash, dict(sorted(counts.items())), outputs)
        return self.store.create(f"{self.job}/commits/{unit.name}.json", json.dumps(asdict(commit), indent=1).encode())

    def commits(self) -> Iterator[Commit]:
        """Every commit of the job, by unit name."""
        with ThreadPoolExecutor(8) as pool:
            for data in pool.map(self.store.read, sorted(self.store.list(f"{self.job}/commits/"))):
                raw = json.loads(data)
                outputs = tuple(Output(**output) for output in raw["outputs"])
                yield Commit(raw["unit"], raw["settings_hash"], raw["counts"], outputs)
