"""The burn-down of a crawl: calls made against the calls that its plan reckoned with, kept for the report."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from pipeline.answers import utc_now
from pipeline.rounds import Round
from pipeline.store import Store

logger = logging.getLogger(__name__)

PLAN_KEY = "crawl/plan.json"
BURNDOWN_KEY = "crawl/burndown.json"
_SAMPLES = 2000
_WRITE_SECONDS = 60.0
_PLAN_SECONDS = 30 * 86400
"""An older plan says nothing of the present."""


class Burndown:
    """Counts calls, tells how many are left, and keeps a curve of at most 2,000 points on the root."""

    def __init__(self, store: Store, *, plan: str) -> None:
        self._store = store
        self._curve = _kept_curve(store) or [[utc_now(), 0]]
        self.calls = self._curve[-1][1]
        """Of all runs on this root."""
        self._planned = planned_calls(store, plan)
        self._written = time.monotonic()

    def note(self, counts: Mapping[str, int]) -> str:
        """Add a unit's calls; how it stands, in words."""
        self.calls += counts.get("calls", 0)
        if time.monotonic() - self._written > _WRITE_SECONDS:
            self.write()
        if self._planned is None:
            return f"{self.calls:,} calls"
        return f"{self.calls:,} of about {self._planned:,} calls"

    def write(self) -> None:
        """Keep the curve: [Unix seconds, calls so far]."""
        self._written = time.monotonic()
        self._curve.append([utc_now(), self.calls])
        if len(self._curve) > _SAMPLES:
            self._curve = self._curve[::2]
        told: dict[str, Any] = {"planned_calls": self._planned, "curve": self._curve}
        self._store.write(BURNDOWN_KEY, json.dumps(told).encode())


def _kept_curve(store: Store) -> list[list[int]]:
    try:
        return [[int(at), int(calls)] for at, calls in json.loads(store.read(BURNDOWN_KEY))["curve"]]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError) as error:  # a picture for people: no crawl stops for its sake
        logger.warning("%s/%s is broken and begun anew: %s", store.url, BURNDOWN_KEY, error)
        return []


def planned_calls(store: Store, plan: str) -> int | None:
    """How many calls there will have been when the crawl is done as `noisyactions plan` reckoned, if it was asked."""
    if store.size(PLAN_KEY) is None:
        return None
    told = json.loads(store.read(PLAN_KEY))
    calls: dict[str, int] = {row["plan"]: row["calls"] for row in told["plans"]}
    return int(told["calls_before"]) + calls[plan]


def planned_rounds(store: Store, *, since: str | None, until: str | None) -> list[Round]:
    """The rounds that a plan in these words reckoned with, so that the crawl asks what was planned."""
    if store.size(PLAN_KEY) is None:
        return []
    told = json.loads(store.read(PLAN_KEY))
    if told["asked"] != [since, until] or told["at"] < utc_now() - _PLAN_SECONDS:
        return []
    return [Round(since=start, until=end) for start, end in told["rounds"]]
