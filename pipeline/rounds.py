"""Rounds of a crawl: which uploads each asks for. A first round takes all there is, later ones what is new.

`crawl/rounds/<since>-<until>.json` says whether the round is finished; both bounds are fixed when it begins, so that a
crawl that takes weeks, or is killed, asks the same questions to its end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from pipeline.answers import utc_now
from pipeline.errors import UserError
from pipeline.store import Store
from pipeline.windows import FLICKR_VIDEO_LAUNCH, Window

_FOLDER = "crawl/rounds/"
_SETTLING_SECONDS = 3600
"""Uploads of the last hour are left to the next round: search is still taking them up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Uploads from `since` to `until`, both included; Unix seconds."""

    since: int
    until: int
    finished: bool = False

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
        UserError: it is neither.
    """
    if text.isdecimal():
        return int(text)
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"{text!r} is no time: write 2026-01-31, 2026-01-31T12:00 or Unix seconds") from error
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


def rounds(store: Store) -> list[Round]:
    """The rounds of a root, by their bounds."""
    found = []
    for key in store.list(_FOLDER):
        since, _, until = key.removeprefix(_FOLDER).removesuffix(".json").partition("-")
        found.append(Round(since=int(since), until=int(until), finished=json.loads(store.read(key))["finished"]))
    return sorted(found, key=lambda r: (r.since, r.until))


def begin_round(store: Store, *, since: int | Literal["last"] | None, until: int | None) -> Round:
    """The round that these bounds mean: one that was begun with them, else a new one.

    `since` None is Flickr's first video; `last` goes on with a round that is not finished, else after the last one.
    `until` None is an hour ago, or what the round was begun with.

    Raises:
        UserError: the bounds are the wrong way round, or there is no last round.
    """
    known = rounds(store)
    if since == "last":
        if not known:
            raise UserError(f"{store.url} has no crawl to go on from: leave --since out to begin one")
        unfinished = [r for r in known if not r.finished]
        if unfinished:
            return unfinished[0]
        since = max(r.until for r in known) + 1
    since = FLICKR_VIDEO_LAUNCH if since is None else since
    same = [r for r in known if r.since == since and until in (None, r.until)]
    if same:
        return same[0]
    begun = Round(since=since, until=utc_now() - _SETTLING_SECONDS if until is None else until)
    if begun.until < begun.since:
        raise UserError(f"no upload lies in {begun}: --since must come before --until")
    store.create(begun.key, _json(begun))
    return begun


def finish_round(store: Store, done: Round) -> None:
    """Note that all of its windows have been walked."""
    store.write(done.key, _json(replace(done, finished=True)))


def _json(one: Round) -> bytes:
    return json.dumps({"finished": one.finished}).encode()
