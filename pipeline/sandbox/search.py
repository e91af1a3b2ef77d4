"""Search over a world as Flickr's behaves, with the oddities that its documentation and its users tell of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.sandbox.dice import Dice
from pipeline.sandbox.postings import Places, Postings, Query
from pipeline.sandbox.videos import SandboxVideo
from pipeline.sandbox.world import World

__all__ = ["ApiError", "Index", "Page", "Query", "SearchQuirks"]

MAX_PER_PAGE = 500
MAX_PAGE = 10_000


class ApiError(Exception):
    """An answer with stat=fail."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchQuirks:
    """In which ways search is odd."""

    cap: int = 4000
    """Results that a query gives at most, whatever its total."""
    past_cap: Literal["repeat", "error"] = "repeat"
    """Pages past the cap repeat the last one allowed, or fail with code 20."""
    past_end: Literal["repeat", "empty"] = "repeat"
    """Pages past the last one repeat it, or are empty."""
    unstable: Literal["never", "descending", "always"] = "never"
    """Which results change places from call to call: newest first and by views, or oldest first too."""
    unstable_seats: int = 30
    """By fewer than so many seats."""
    thinned: float = 0.0
    """Share of the results that are left out of their page, which then is short, though `total` and the other pages
    count them: always the same ones, so that no search shows them."""
    hidden_from: int | None = None
    """Results uploaded from here on, and up to `hidden_until`, both included, are left out of their pages too, though
    `total` counts them: as safe search does with what it counts. Unix seconds; None hides nothing."""
    hidden_until: int | None = None
    """The last second of them; None is for ever."""
    thinned_per_call: float = 0.0
    """Share left out in the same way, but others at every call."""
    fuzzy_seconds: int = 0
    """By up to how much each bound of the upload dates is off: one amount for one bound, whoever asks again."""
    fuzzy_inwards: bool = False
    """Bounds are off to both sides, so that rows within them are missing, rather than only to the outside."""
    growing: int = 0
    """The newest of the world's videos have not arrived at first; so many more are there at each call of search."""
    arriving: float = 0.1
    """Which share of the world arrives so, if it is growing."""
    under_reported: float = 0.0
    """Share of the results that `total` leaves out."""
    under_reporting: Literal["fixed", "per_call"] = "fixed"
    """It leaves out just that share, or at each call another one up to it."""
    total_type: Literal["int", "str", "mixed"] = "mixed"
    """`total` as JSON; mixed is a number on odd pages."""
    stale_safety: float = 0.0
    """Share of the moderate and restricted videos that search shows as if they were safe: always the same ones."""
    owner_needs_one_license: bool = False
    """Searches of one member's videos under several licences find nothing."""
    stemming: bool = True
    """`juggle ball` finds `juggling balls`. What Flickr itself does is not documented."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(SearchQuirks).items():
            value = getattr(self, name)
            if get_origin(kind) is Literal and value not in get_args(kind):
                raise UserError(f"{name} must be one of {', '.join(get_args(kind))}, got {value!r}")
            if kind is float and not 0 <= value < 1:
                raise UserError(f"{name} must be at least 0 and below 1, got {value}")
        if self.cap < 1 or self.unstable_seats < 1 or self.fuzzy_seconds < 0 or self.growing < 0:
            raise UserError(f"need cap, unstable_seats >= 1 and fuzzy_seconds, growing >= 0, got {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One page of results."""

    videos: Sequence[SandboxVideo]
    page: int
    pages: int
    per_page: int
    total: int | str


class Index:
    """Answers queries on a world, page by page, as oddly as its quirks say. Safe to use from several threads."""

    def __init__(self, world: World, quirks: SearchQuirks) -> None:
        self._quirks = quirks
        self._seed = world.config.seed
        self._calls = count()
        self._postings = found = Postings(world, stemming=quirks.stemming)
        self._hidden = self._some("thinned", quirks.thinned) | self._in_hidden_dates()
        self._served = found.is_safe | self._some("stale safety", quirks.stale_safety)
        arrived = len(found.videos)
        if quirks.growing:
            last = found.posted[max(int(arrived * (1 - quirks.arriving)), 1) - 1]
            arrived = int(np.searchsorted(found.posted, last, "right"))
        self._arrived = arrived

    def _some(self, what: str, share: float) -> npt.NDArray[np.bool_]:
        """A share of the videos by chance, the same ones in every index of this seed."""
        return self._postings.mask(lambda video: share > 0 and Dice(what, self._seed, video.number).chance(share))

    def _in_hidden_dates(self) -> npt.NDArray[np.bool_]:
        posted, since, until = self._postings.posted, self._quirks.hidden_from, self._quirks.hidden_until
        if since is None:
            return np.zeros(len(posted), np.bool_)
        return (posted >= since) & (posted <= (until if until is not None else posted[-1]))

    @property
    def present_until(self) -> int:
        """When the newest of the videos that are there from the start was uploaded; Unix seconds."""
        return int(self._postings.posted[self._arrived - 1])

    def findable(self, query: Query) -> frozenset[str]:
        """Ids of all safe videos that match, as if search had no cap, no pages and no fuzzy dates.

        Without those that `thinned` and the hidden dates leave out. With those that are found and turn out to be
        deleted or private, and with those that have yet to arrive.
        """
        found = self._postings
        places = found.filtered(query, since=query.since, until=query.until)
        kept = places[(found.is_video & found.is_safe & ~self._hidden)[places]]
        return frozenset(found.videos[place].video_id for place in kept)

    def search(self, query: Query) -> Page:
        """One page of what matches.

        Raises:
            ApiError: code 20, the page lies past the cap and the quirks say that this is an error.
        """
        call = next(self._calls)
        places = self._ordered(self._found(query, call), query, call)
        per_page = min(max(query.per_page, 1), MAX_PER_PAGE)
        total = int(len(places) * (1 - self._missing_of_total(call)))
        page = self._page(query.page, per_page, -(-len(places) // per_page))
        first = max((page - 1) * per_page - query.shift, 0)
        rows = self._thinned(places[first : first + per_page], call)
        return Page(
            videos=[self._postings.videos[place] for place in rows],
            page=query.page, pages=-(-total // per_page), per_page=per_page, total=self._typed(total, query.page),
        )  # fmt: skip

    def _found(self, query: Query, call: int) -> Places:
        if self._quirks.owner_needs_one_license and query.owner and len(query.licenses or ()) > 1:
            return np.zeros(0, np.int64)
        since, until = self._fuzzy(query.since, outwards=-1), self._fuzzy(query.until, outwards=1)
        places = self._postings.filtered(query, since=since, until=until)
        if self._quirks.growing:
            places = places[places < self._arrived + call * self._quirks.growing]
        return places[self._served[places]]

    def _fuzzy(self, bound: int | None, *, outwards: int) -> float | None:
        if bound is None or not self._quirks.fuzzy_seconds:
            return bound
        least = -1.0 if self._quirks.fuzzy_inwards else 0.0
        off = Dice("fuzzy", self._seed, bound, outwards).between(least, 1.0)
        return bound + outwards * off * self._quirks.fuzzy_seconds

    def _missing_of_total(self, call: int) -> float:
        share = self._quirks.under_reported
        return share if self._quirks.under_reporting == "fixed" else share * Dice("total", self._seed, call).uniform()

    def _page(self, asked: int, per_page: int, pages: int) -> int:
        page = min(max(asked, 1), MAX_PAGE)
        allowed = max(self._quirks.cap // per_page, 1)
        if page > allowed and pages > allowed:
            if self._quirks.past_cap == "error":
                raise ApiError(20, "Excessive photo offset in search")
            page = allowed
        return min(page, max(pages, 1)) if self._quirks.past_end == "repeat" else page

    def _thinned(self, rows: Places, call: int) -> Places:
        rows = rows[~self._hidden[rows]]
        if not self._quirks.thinned_per_call:
            return rows
        chances = Dice("thinned", self._seed, "call", call).arrays().random(len(rows))
        return rows[chances >= self._quirks.thinned_per_call]

    def _typed(self, total: int, page: int) -> int | str:
        as_text = self._quirks.total_type == "str" or (self._quirks.total_type == "mixed" and page % 2 == 0)
        return str(total) if as_text else total

    def _ordered(self, places: Places, query: Query, call: int) -> Places:
        key, _, direction = query.sort.rpartition("-")
        by: dict[str, Literal["posted", "taken", "views"]] = {"date-posted": "posted", "date-taken": "taken"}
        places = self._postings.ordered(places, by=by.get(key, "views"))
        if direction != "asc":
            places = places[::-1]
        jumbled = self._quirks.unstable == "always" or (self._quirks.unstable == "descending" and direction != "asc")
        return self._jumbled(places, call) if jumbled else places

    def _jumbled(self, places: Places, call: int) -> Places:
        """The same places, each a few seats off, otherwise at every call."""
        chances = Dice("order", self._seed, call).arrays().random(len(places)) * self._quirks.unstable_seats
        return places[np.argsort(np.arange(len(places)) + chances, kind="stable")]
