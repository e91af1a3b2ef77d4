"""The burn-down of a crawl: calls made against the calls that its plan reckoned with, kept for the report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from pipeline.answers import utc_now
from pipeline.store import Store

PLAN_KEY = "crawl/plan.json"
BURNDOWN_KEY = "crawl/burndown.json"
_SAMPLES = 2000
_WRITE_SECONDS = 60.0


class Burndown:
    """Counts calls, tells how many are left, and keeps a curve of at most 2,000 points on the root."""

    def __init__(self, store: Store, *, plan: str) -> None:
        self._store = store
        kept = json.loads(store.read(BURNDOWN_KEY)) if store.size(BURNDOWN_KEY) is not None else {"curve": []}
        self._curve: list[list[int]] = kept["curve"] or [[utc_now(), 0]]
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


def planned_calls(store: Store, plan: str) -> int | None:
    """What `noisyactions plan` reckoned for this plan on this root, if it was asked."""
    if store.size(PLAN_KEY) is None:
        return None
    told = {row["plan"]: row["calls"] for row in json.loads(store.read(PLAN_KEY))["plans"]}
    return told.get(plan)
