"""Search over a world as Flickr's behaves, with the oddities that its documentation and its users tell of."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

from pipeline.errors import UserError
from pipeline.sandbox.dice import Dice
from pipeline.sandbox.texts import normalised_tag, stem, words_of
from pipeline.sandbox.videos import SandboxVideo
from pipeline.sandbox.world import World

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
    unstable: bool = False
    """Newest-first results change places between calls."""
    under_reported: float = 0.0
    """Share of the results that `total` leaves out."""
    total_type: Literal["int", "str", "mixed"] = "mixed"
    """`total` as JSON; mixed is a number on odd pages."""
    stemming: bool = True
    """`juggle ball` finds `juggling balls`. What Flickr itself does is not documented."""

    def __post_init__(self) -> None:
        if self.cap < 1 or not 0 <= self.under_reported < 1:
            raise UserError(f"need cap >= 1 and 0 <= under_reported < 1, got {self.cap=} {self.under_reported=}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """What is searched for."""

    text: str = ""
    tags: tuple[str, ...] = ()
    all_tags: bool = False
    media: str = "all"
    """`all`, `photos` or `videos`."""
    since: int | None = None
    """Earliest upload, Unix seconds, included; `until` the latest, included too."""
    until: int | None = None
    licenses: frozenset[int] | None = None
    owner: str | None = None
    has_geo: bool = False
    sort: str = "date-posted-desc"
    page: int = 1
    per_page: int = 100
    shift: int = 0
    """Rows that slipped in at the top since the last call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One page of results."""

    videos: Sequence[SandboxVideo]
    page: int
    pages: int
    per_page: int
    total: int | str


class Index:
    """Words and tags of a world's videos. Built once; a query costs as much as the words' own postings."""

    def __init__(self, world: World, quirks: SearchQuirks) -> None:
        self._quirks = quirks
        self._videos = sorted(world, key=lambda video: (video.posted, video.number))
        self._posted = [video.posted for video in self._videos]
        self._postings: dict[str, set[int]] = defaultdict(set)
        self._matches: dict[str, list[int]] = {}
        self._calls = count()
        self._seed = world.config.seed
        for place, video in enumerate(self._videos):
            for word in self._words(video):
                self._postings[word].add(place)

    def _root(self, word: str) -> str:
        return stem(word) if self._quirks.stemming else word

    def _words(self, video: SandboxVideo) -> set[str]:
        texts = video.texts
        words = words_of(" ".join((texts.title, texts.description, *texts.tags)))
        return {self._root(word) for word in (*words, *map(normalised_tag, texts.tags))}

    def _matching(self, text: str) -> list[int]:
        """Places, in upload order, of videos with all the words of `text` or with all of it as one tag."""
        if text not in self._matches:
            wanted = [term for term in text.lower().split() if not term.startswith("-")]
            words = [self._root(word) for term in wanted for word in words_of(term)]
            sets = sorted((self._postings.get(word, set()) for word in words), key=len)
            found = set.intersection(*sets) if sets else set(range(len(self._videos))) if not wanted else set()
            if words:
                found = found | self._postings.get(self._root(normalised_tag("".join(wanted))), set())
            for term in set(text.lower().split()) - set(wanted):
                for word in words_of(term):
                    found = found - self._postings.get(self._root(word), set())
            self._matches[text] = sorted(found)
        return self._matches[text]

    def search(self, query: Query) -> Page:
        """One page of what matches.

        Raises:
            ApiError: code 20, the page lies past the cap and the quirks say that this is an error.
        """
        places = self._filtered(query)
        per_page = min(max(query.per_page, 1), MAX_PER_PAGE)
        total = int(len(places) * (1 - self._quirks.under_reported))
        pages = -(-total // per_page)
        page = self._page(query.page, per_page, -(-len(places) // per_page))
        first = max((page - 1) * per_page - query.shift, 0)
        return Page(
            videos=[self._videos[place] for place in places[first : first + per_page]],
            page=query.page, pages=pages, per_page=per_page, total=self._typed(total, query.page),
        )  # fmt: skip

    def _page(self, asked: int, per_page: int, pages: int) -> int:
        page = min(max(asked, 1), MAX_PAGE)
        allowed = max(self._quirks.cap // per_page, 1)
        if page > allowed and pages > allowed:
            if self._quirks.past_cap == "error":
                raise ApiError(20, "Excessive photo offset in search")
            page = allowed
        return min(page, max(pages, 1)) if self._quirks.past_end == "repeat" else page

    def _typed(self, total: int, page: int) -> int | str:
        as_text = self._quirks.total_type == "str" or (self._quirks.total_type == "mixed" and page % 2 == 0)
        return str(total) if as_text else total

    def _filtered(self, query: Query) -> list[int]:
        places = self._matching(query.text)
        start = 0 if query.since is None else bisect_left(places, bisect_left(self._posted, query.since))
        stop = len(places) if query.until is None else bisect_left(places, bisect_right(self._posted, query.until))
        return self._ordered([place for place in places[start:stop] if self._passes(self._videos[place], query)], query)

    def _passes(self, video: SandboxVideo, query: Query) -> bool:
        # A photo slips through the filter on videos, as it does in the world.
        if query.media == "photos" and video.media == "video":
            return False
        if query.licenses is not None and video.license not in query.licenses:
            return False
        if query.owner is not None and video.owner.nsid != query.owner:
            return False
        if query.has_geo and video.place is None:
            return False
        if query.tags:
            have = set(map(normalised_tag, video.texts.tags))
            hits = [tag in have for tag in map(normalised_tag, query.tags)]
            return all(hits) if query.all_tags else any(hits)
        return True

    def _ordered(self, places: list[int], query: Query) -> list[int]:
        key, _, direction = query.sort.rpartition("-")
        if key == "date-taken":
            places = sorted(places, key=lambda place: self._videos[place].taken or "")
        elif key != "date-posted":
            places = sorted(places, key=lambda place: self._videos[place].views)
        if direction != "asc":
            places = places[::-1]
        return list(self._jumbled(places)) if self._quirks.unstable and direction != "asc" else places

    def _jumbled(self, places: list[int]) -> Iterable[int]:
        """The same places, each a few seats off, otherwise at every call."""
        chance = Dice("order", self._seed, next(self._calls)).arrays().random(len(places)) * 30
        return [places[seat] for seat in sorted(range(len(places)), key=lambda seat: seat + chance[seat])]
