"""Upload-date windows: how a search is cut so that all of it is shown, though Flickr shows 4,000 results at most.

Pages are walked in the order of upload, and the next call begins at the upload date that 90 % of a page have reached,
not at the next page number. So no call ever comes near the cap, totals need not be right, and rows that change places
by less than a tenth of a page between two calls, or slip in at the front, are not lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

FLICKR_VIDEO_LAUNCH = 1207008000
"""2008-04-01, a week before Flickr took its first video; Unix seconds."""

PER_PAGE = 500
SHOWN_RESULTS = 4000
SAFE_RESULTS = 3000
"""A window with a larger total is cut, so that several workers walk it."""

MIN_WINDOW_SECONDS = 600
"""No window is cut shorter: short ones brought more duplicates and fewer videos (Openverse's measurements)."""

BLUR_SECONDS = 600
"""By how much a call asks beyond each bound, for Flickr seems to blur them; what comes twice is known by its id."""

_KEPT_SHARE = 0.9
"""Of a page, in the order of upload, what lies before the next call's begin; the rest is seen twice."""

FULL_PAGE = int(_KEPT_SHARE * PER_PAGE)
"""Rows from which on a page counts as full; where fewer come, Flickr does not show all that it counts."""

_ROWS_TO_CUT = PER_PAGE // 2
"""Only where a page shows so many is its total believed to be of videos that can be seen, and several workers sent."""

_ROWS_TO_TELL_ORDER = 50

Direction = Literal["forward", "backward"]
"""Oldest first, as a crawl walks; newest first, as its check does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Upload dates from `start` to `end`, both included, as Flickr's bounds are; Unix seconds."""

    start: int
    end: int
    license: int | None = None
    """Only this licence; None is all of them."""
    blurred: bool = True
    """Whether calls ask beyond the bounds, by BLUR_SECONDS."""

    @property
    def name(self) -> str:
        """`start-end`, with the licence where there is one; bounds that are meant to the second end in `s`."""
        return (
            f"{self.start}-{self.end}"
            + ("" if self.license is None else f"-l{self.license}")
            + "s" * (not self.blurred)
        )

    @property
    def asked(self) -> tuple[int, int]:
        """The bounds that a call gives, both included."""
        margin = BLUR_SECONDS if self.blurred else 0
        return max(0, self.start - margin), self.end + margin

    @property
    def length(self) -> int:
        """Seconds."""
        return self.end - self.start + 1

    def cut(self, pieces: int) -> list[Window]:
        """Adjacent windows that cover this one, none overlapping."""
        edges = [self.start + self.length * i // pieces for i in range(pieces + 1)]
        return [replace(self, start=a, end=b - 1) for a, b in pairwise(edges) if b > a]

    def rest(self, dates: Sequence[int], direction: Direction) -> Window:
        """What is left to walk after a page with these upload dates; the window itself where the page got nowhere."""
        if not dates:
            return self
        reached = sorted(dates, reverse=direction == "backward")[int(_KEPT_SHARE * (len(dates) - 1))]
        if direction == "forward":
            return replace(self, start=min(max(self.start, reached), self.end))
        return replace(self, end=max(min(self.end, reached), self.start))

    def halves(self, direction: Direction) -> list[Window]:
        """Both halves, the one to walk first at the front; none of a window too short to be cut."""
        if self.length < 2 * MIN_WINDOW_SECONDS:
            return []
        return self.cut(2)[:: 1 if direction == "forward" else -1]

    def by_license(self, direction: Direction, licenses: Iterable[int]) -> list[Window]:
        """The first (or last) second of this window, licence by licence; itself has none."""
        second = self.start if direction == "forward" else self.end
        return [Window(start=second, end=second, license=number) for number in licenses]

    def around_crowd(self, direction: Direction, licenses: Iterable[int]) -> list[Window]:
        """How to go on where more videos have one upload date, the first (or last) of this window, than are shown.

        That second by licence, what lies so near that a blurred call would meet the crowd again, and the rest.
        """
        forward = direction == "forward"
        second = self.start if forward else self.end
        near, far = (second + 1, second + BLUR_SECONDS) if forward else (second - BLUR_SECONDS, second - 1)
        by_license = self.by_license(direction, licenses) if self.license is None else []
        shoulder = replace(self, start=max(self.start, near), end=min(self.end, far), blurred=False)
        rest = replace(self, start=far + 1) if forward else replace(self, end=near - 1)
        return [window for window in (*by_license, shoulder, rest) if window.length > 0]


def pieces_for(total: int, window: Window) -> int:
    """Into how many windows to cut one with `total` results; 1 is not at all."""
    if total <= SAFE_RESULTS or window.length < 2 * MIN_WINDOW_SECONDS:
        return 1
    return max(2, min(12, total // 2500, window.length // MIN_WINDOW_SECONDS))


def begins_before(dates: Sequence[int], left: Window, direction: Direction, *, pages: int) -> list[int]:
    """Where to begin again after so many pages of a window that did not show all, given the next page's dates.

    The best first: a tenth of a page before the first of them, for so many rows may have changed pages unseen; as far
    as that is in time among the rows of this page or, if that is more, of the pages before.
    """
    if not dates:
        return []
    ordered = sorted(dates, reverse=direction == "backward")
    first = ordered[0]
    among_these = abs(ordered[min(PER_PAGE // 10, len(ordered) - 1)] - first)
    before = max(0, first - left.start if direction == "forward" else left.end - first) // (10 * pages)
    margin = max(among_these, before)
    return [first - margin if direction == "forward" else first + margin, first]


def pieces_behind(rows: int, total: int, rest: Window) -> int:
    """Into how many windows to cut what is left after a page; 1 is not at all.

    Rows that are seen bound how often a query is cut, whatever totals say: each cut costs half a page of them.
    """
    return pieces_for(total, rest) if rows >= _ROWS_TO_CUT else 1


def patience(hits: int) -> int:
    """How many calls that show nothing new a walk over so many results may make.

    Results that are counted but never shown cost two calls for each page of them, and four for each halving of a
    window down to where 4,000 of them lie: 19 at most from Flickr's begin to MIN_WINDOW_SECONDS. Only totals that do
    not follow the window that is asked for need more.
    """
    return 80 + hits // 40


def is_last(rows: int, total: int, page: int) -> bool:
    """Whether nothing follows a page of so many rows.

    A total alone is not believed, for it under-reports; nor a short page alone, for Flickr leaves out of a page what it
    may not show.
    """
    return rows < FULL_PAGE and total <= page * PER_PAGE


def is_ordered(dates: Sequence[int], direction: Direction) -> bool:
    """Whether a page with these upload dates runs as it was asked to; rows may be some places off.

    Of few rows nothing can be told: where most of a page is not shown, even its first and last may be in each other's
    places.
    """
    if len(dates) < _ROWS_TO_TELL_ORDER:
        return True
    tenth = len(dates) // 10
    first, last = sorted(dates[:tenth])[tenth // 2], sorted(dates[-tenth:])[tenth // 2]
    return first <= last if direction == "forward" else first >= last
