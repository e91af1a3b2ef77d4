"""Rounds of a crawl: intervals of upload dates that a root covers, none overlapping.

A first round takes all there is, later ones what is new. `crawl/rounds/<since>-<until>.json` fixes a round's bounds
when it begins, so that a crawl that takes weeks, or is killed, asks the same questions to its end. Each crawl walks all
rounds: a query that came later into the vocabulary is searched in the old ones, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.answers import utc_now
from pipeline.errors import UserError
from pipeline.store import Store
from pipeline.windows import FLICKR_VIDEO_LAUNCH, Window

_FOLDER = "crawl/rounds/"
_NAME = re.compile(r"(\d+)-(\d+)\.json")
_SETTLING_SECONDS = 3600
"""Uploads of the last hour are left to the next round: search is still taking them up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Uploads from `since` to `until`, both included; Unix seconds."""

    since: int
    until: int
    finished: bool = False
    """Whether all of its windows had been walked, for the vocabulary of then."""

    @property
    def window(self) -> Window:
        """As search takes it."""
        return Window(start=self.since, end=self.until)

    @property
    def key(self) -> str:
        """Where it is kept."""
        return f"{_FOLDER}{self.since}-{self.until}.json"

    def __str__(self) -> str:
        return f"uploads from {_day(self.since)} to {_day(self.until)}"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def moment(text: str) -> int:
    """A date (`2026-01-31`, `2026-01-31T12:00`, in UTC) or Unix seconds, as Unix seconds.

    Raises:
        UserError: it is neither, or before Flickr's first video.
    """
    try:
        when = datetime.fromisoformat(text)  # `20260131` is a date, too
        seconds = int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
    except ValueError as error:
        if not re.fullmatch(r"[0-9]{10}", text):
            raise UserError(f"{text!r} is no time: write 2026-01-31, 2026-01-31T12:00 or Unix seconds") from error
        seconds = int(text)
    if seconds < FLICKR_VIDEO_LAUNCH:
        raise UserError(f"{text!r} is before Flickr took its first video, on {_day(FLICKR_VIDEO_LAUNCH)[:10]}")
    return seconds


def rounds(store: Store) -> list[Round]:
    """The rounds of a root, by their bounds."""
    found = []
    for key in store.list(_FOLDER):
        if name := _NAME.fullmatch(key.removeprefix(_FOLDER)):
            finished = bool(json.loads(store.read(key))["finished"])
            found.append(Round(since=int(name[1]), until=int(name[2]), finished=finished))
    return sorted(found, key=lambda r: (r.since, r.until))


def new_rounds(known: Sequence[Round], *, since: str | None, until: str | None) -> list[Round]:
    """What these words of the command line ask for and no round covers yet, a round for each gap.

    Without words: everything up to an hour ago, if there is no round yet, else nothing. `since` may be `last`: what
    came after the last round, but only once all rounds were finished.

    Raises:
        UserError: the bounds are no times, or the wrong way round; or there is no last round.
    """
    latest = utc_now() - _SETTLING_SECONDS
    end = latest if until is None else min(moment(until), latest)
    if since == "last":
        if not known:
            raise UserError("there is no crawl on this root to go on from: leave --since out to begin one")
        start = max(r.until for r in known) + 1
        return [Round(since=start, until=end)] if start <= end and all(r.finished for r in known) else []
    if known and since is None and until is None:
        return []
    start = FLICKR_VIDEO_LAUNCH if since is None else moment(since)
    if start > end:
        raise UserError(f"--since {_day(start)} is not before --until {_day(end)} (the last hour is left to later)")
    return _gaps(known, start, end)


def _gaps(known: Sequence[Round], start: int, end: int) -> list[Round]:
    gaps = []
    for covered in sorted(known, key=lambda r: r.since):
        if covered.until < start or covered.since > end:
            continue
        if covered.since > start:
            gaps.append(Round(since=start, until=covered.since - 1))
        start = covered.until + 1
    return [*gaps, Round(since=start, until=end)] if start <= end else gaps


def begin_rounds(store: Store, begun: Sequence[Round]) -> None:
    """Keep the bounds of rounds that begin."""
    for one in begun:
        store.create(one.key, _json(one))


def finish_round(store: Store, done: Round) -> None:
    """Note that all of its windows have been walked."""
    store.write(done.key, _json(replace(done, finished=True)))


def _json(one: Round) -> bytes:
    told: dict[str, Any] = {"finished": one.finished}
    return json.dumps(told).encode()
