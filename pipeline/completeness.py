"""How complete a search was: a second pass, cut otherwise, over a sample of queries; capture and recapture.

If two passes find n1 and n2 videos, m of them both, there are about (n1 + 1)(n2 + 1)/(m + 1) - 1 (Chapman 1951). Videos
that search never shows to anybody are missed by both passes and not counted.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.crawl import search_unit
from pipeline.records import from_parquet
from pipeline.store import Store
from pipeline.units import Ledger, Unit
from pipeline.vocabulary import Query
from pipeline.windows import Window

_FOLDER = "crawl/completeness/"

_CUT = 0.38
"""Where the second pass cuts a window, for the first cuts in equal pieces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What two passes say of one query."""

    query: str
    found: int
    """By the crawl."""
    found_again: int
    """By the second pass."""
    found_by_both: int

    @property
    def there_are(self) -> float:
        """Chapman's estimate of how many videos the query has."""
        return (self.found + 1) * (self.found_again + 1) / (self.found_by_both + 1) - 1

    @property
    def deviation(self) -> float:
        """Standard deviation of `there_are` (Seber 1970)."""
        n1, n2, m = self.found, self.found_again, self.found_by_both
        return math.sqrt((n1 + 1) * (n2 + 1) * (n1 - m) * (n2 - m) / ((m + 1) ** 2 * (m + 2)))

    @property
    def completeness(self) -> float | None:
        """Share of them that the crawl found; None if neither pass found any."""
        return _share(self.found, self.there_are)


def _share(found: int, there_are: float) -> float | None:
    return min(1.0, found / there_are) if there_are else None


def sample_queries(queries: Sequence[Query], count: int) -> list[Query]:
    """So many queries, always the same of the same vocabulary, whatever their order."""
    return sorted(queries, key=lambda q: hashlib.sha256(f"{q.kind} {q.text}".encode()).digest())[:count]


def recapture_units(queries: Iterable[Query], window: Window) -> list[Unit]:
    """The second pass: two windows of a query, of other lengths than the crawl's, each walked newest first."""
    edge = window.start + int(window.length * _CUT)
    parts = [Window(start=window.start, end=edge), Window(start=edge + 1, end=window.end)]
    return [search_unit(query, part) for query in queries for part in parts if part.length > 0]


def estimate(store: Store, queries: Iterable[Query], window: Window) -> list[Estimate]:
    """Compare both passes over the window, query by query."""
    wanted = {_stem(search_unit(query, window).name): query.text for query in queries}
    first, second = (_found(store, job, wanted, window) for job in ("crawl", "recapture"))
    return [
        Estimate(
            query=text,
            found=len(first[stem]),
            found_again=len(second[stem]),
            found_by_both=len(first[stem] & second[stem]),
        )
        for stem, text in wanted.items()
    ]


def _stem(unit: str) -> str:
    return unit.partition(".")[0]


def _found(store: Store, job: str, wanted: Mapping[str, str], window: Window) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    names = (key.rpartition("/")[2].removesuffix(".json") for key in store.list(f"{job}/commits/"))
    with ThreadPoolExecutor(8) as pool:
        for commit in pool.map(Ledger(store, job, {}).commit_of, [name for name in names if _stem(name) in wanted]):
            for output in commit.outputs:
                if output.key.endswith(".parquet"):
                    inside = (r for r in from_parquet(store.read(output.key)) if _lies_in(r.posted, window))
                    found[_stem(commit.unit)].update(r.video_id for r in inside)
    return found


def _lies_in(posted: int | None, window: Window) -> bool:
    return posted is None or window.start <= posted <= window.end


def write_completeness(store: Store, window: Window, estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Keep a round's estimates, of each query and of all together; returns what was kept."""
    deviation = math.sqrt(sum(e.deviation**2 for e in estimates))
    queries = [asdict(e) | _told(e.found, e.there_are) for e in estimates]
    together = _told(sum(e.found for e in estimates), sum(e.there_are for e in estimates), deviation)
    told = {"since": window.start, "until": window.end, "queries": queries, **together}
    store.write(f"{_FOLDER}{window.start}-{window.end}.json", json.dumps(told, indent=1).encode())
    return told


def _told(found: int, there_are: float, deviation: float | None = None) -> dict[str, Any]:
    share = _share(found, there_are)
    told = {
        "found": found,
        "there_are": round(there_are, 1),
        "completeness": None if share is None else round(share, 5),
    }
    return told if deviation is None else told | {"deviation": round(deviation, 1)}


def read_completeness(store: Store) -> list[dict[str, Any]]:
    """What was kept of each round, the newest last."""
    rounds = [json.loads(store.read(key)) for key in store.list(_FOLDER)]
    return sorted(rounds, key=lambda told: (told["since"], told["until"]))


def combined(rounds: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """`found`, `there_are`, `completeness` and `deviation` of all rounds together."""
    told = list(rounds)
    deviation = math.sqrt(sum(one["deviation"] ** 2 for one in told))
    return _told(sum(one["found"] for one in told), sum(one["there_are"] for one in told), deviation)
