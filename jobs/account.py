"""What the report says of a crawl: what was planned, how far it is, how complete, and what became of the videos."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from jobs import figures
from jobs.burndown import BURNDOWN_KEY, PLAN_KEY
from jobs.crawl import ROT_KEY, SUMMARY_KEY
from pipeline.catalogue import CLASSES_KEY, RECORDS_KEY
from pipeline.completeness import combined, read_completeness
from pipeline.enrich import PLANS
from pipeline.rounds import rounds
from pipeline.store import Store


def crawl_account(store: Store) -> dict[str, Any] | None:
    """All parts that the root holds by now, None for those it does not; None if it holds no records of a crawl."""
    records, asked, rot = _json(store, RECORDS_KEY), rounds(store), _json(store, ROT_KEY)
    if records is None or not (asked or rot):
        return None
    plan, burndown = _json(store, PLAN_KEY), _json(store, BURNDOWN_KEY)
    return {
        "outcomes": sorted(records["outcomes"].items(), key=lambda item: (item[0] != "ok", -item[1], item[0])),
        "videos": records["videos"],
        "rounds": asked,
        "plans": [row | {"asks": PLANS[row["plan"]]} for row in plan["plans"]] if plan else None,
        "planned_at": _day(plan["at"]) if plan else None,
        "burndown": _curve(burndown) if burndown else None,
        "calls": burndown["curve"][-1][1] if burndown else None,
        "completeness": _completeness(store),
        "summary": _json(store, SUMMARY_KEY),
        "classes": _classes(store),
        "rot": rot,
    }


def _completeness(store: Store) -> dict[str, Any] | None:
    """All rounds together, and the queries of each."""
    told = read_completeness(store)
    queries = [query for one in told for query in one["queries"]]
    return combined(told) | {"queries": queries} if queries else None


def _json(store: Store, key: str) -> Any:
    try:
        return json.loads(store.read(key))
    except FileNotFoundError:
        return None


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _curve(burndown: Mapping[str, Any]) -> Markup:
    points = [(at, calls) for at, calls in burndown["curve"]]
    return Markup(figures.burn_down(points, planned=burndown["planned_calls"]))


def _classes(store: Store) -> dict[str, int] | None:
    """How many concepts became classes, and how many found too few videos."""
    try:
        text = store.read(CLASSES_KEY).decode()
    except FileNotFoundError:
        return None
    kept = [row["kept"] == "1" for row in csv.DictReader(text.splitlines())]
    return {"kept": sum(kept), "dropped": len(kept) - sum(kept)}
